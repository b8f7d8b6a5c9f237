"""The options of a run, the presets, and the settings that follow from both."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from ..errors import InputError

UNLIMITED = 2**31
"""Lifts of a run that only its target error or its evaluations end."""

Preset = Literal["default", "quick"]
Acceptance = Literal["weights", "metropolis"]
Slow = Literal["torsions", "diffusion-map"]
Restrain = Literal["labels", "torsions", "none"]
Generator = Literal["gan", "triangular", "product"]
Relax = Literal["none", "latent", "context", "auto"]
N_THREADS = 1
"""Of torch and the linear algebra: the networks are small, and more threads than free cores cost a factor."""

RELAX_CHOICES = (100, 200, 400, 800)
"""Step counts that ``auto`` chooses from."""

PILOT_LABELS, PILOT_LIFTS = 5, 32
"""Labels, and lifts at each, that ``auto`` compares step counts by."""


@dataclass(frozen=True)
class RunOptions:
    """The options of a run; ``None`` takes the preset's number.

    Attributes:
        preset: default (minutes) or quick (under one minute, for trials and tests).
        generator: triangular (correlated coordinates of known density: a lift costs one evaluation), gan (with a
            trained invertible network on top of the last one), or product (independent terms, relaxed). By default
            gan, and triangular with the quick preset.
        relax: how lifts are relaxed: none, latent (moves of base numbers), auto (latent where a pilot finds that
            clearly better an evaluation), or context (in an OpenMM Context: product alone, and its only way). None by
            default, of product context.
        relax_steps: steps of each relaxation in a Context, or ``auto`` to measure the best count; or moves of latent
            relaxation.
        windows: training windows; of the closed loop as many again for each label or wide coordinate from the third on.
        window_length: ps, of each training window.
        lifts: lifts that the surface is made of, without those of the reverse check.
        max_evaluations: force evaluations that the run may not exceed.
        target_error: median error of the surface below 10 kT, in kT, at which the lifting stops.
        acceptance: weights, or metropolis (unrestrained lifts and one chain over all of them).
        latent: dimension of the generator's latent; 0 is the conditional-Gaussian baseline.
        slow: torsions (the card's labels), or diffusion-map (labels learned from the sampled frames or the first
            rounds' lifts, which the product generator lifts at and all others are projected on).
        features: of the diffusion map, comma-separated.
        keep: the card's torsions that are labels together with the learned ones, comma-separated.
        coordinates: learned labels at most.
        restrain: what is restrained during relaxations: labels (each label a window), torsions (learned labels are
            drawn, and the wide torsions restrained to what the generator predicts), or none (labels are drawn too).
        seed: of every random number.
        platform: an OpenMM platform, or ``auto`` to measure once.
    """

    preset: Preset = "default"
    generator: Generator | None = None
    relax: Relax | None = None
    relax_steps: int | Literal["auto"] | None = None
    windows: int | None = None
    window_length: float | None = None
    lifts: int | None = None
    max_evaluations: int | None = None
    target_error: float | None = None
    acceptance: Acceptance = "weights"
    latent: int | None = None
    slow: Slow = "torsions"
    features: str = "distances"
    keep: str = ""
    coordinates: int | None = None
    restrain: Restrain | None = None
    seed: int = 0
    platform: str = "auto"

    @property
    def draws_from(self) -> Generator:
        """The generator, the preset's where none is named."""
        if self.generator is not None:
            return self.generator
        return "triangular" if self.preset == "quick" else "gan"

    @property
    def relaxes(self) -> bool:
        """Whether lifts are relaxed in a Context."""
        return self.draws_from == "product"

    @property
    def relaxed_by(self) -> Relax:
        """How lifts are relaxed, where nothing is said, too."""
        return "context" if self.relaxes else self.relax or "none"

    @property
    def chain(self) -> bool:
        """Whether the lifts make one Metropolis chain."""
        return self.acceptance == "metropolis"

    @property
    def restrained(self) -> Restrain:
        """What is restrained during relaxations."""
        if self.restrain is not None:
            return self.restrain
        return "none" if self.chain else "labels" if self.slow == "torsions" else "torsions"

    @property
    def unrestrained(self) -> bool:
        """Whether the lifts' target is unrestrained."""
        return self.restrained == "none"


@dataclass(frozen=True)
class Settings:
    """Every number of a run, as stored in its manifest.

    Attributes:
        n_windows: restrained windows for training.
        steps_per_window: Langevin steps sampled in each.
        frames_per_window: frames kept of each.
        n_held_out: further windows for the reverse check.
        held_out_steps: Langevin steps sampled in each of those.
        generator_steps: adversarial training steps at most.
        latent: dimension of the latent.
        n_pilot: pilot lifts for the encoder.
        n_encoder_reverse: reverse relaxations that decide whether the encoder is kept.
        relax_steps: steps of each relaxation; 0 is ``auto``.
        n_first: lifts of the first round, over the whole domain.
        n_lifts: lifts at most, without those of the reverse check.
        n_check_labels: labels of the reverse check at most.
        n_check_frames: reverse relaxations at each of them.
        n_check_lifts: lifts at each of them; more, for log mean(w) of few lifts is biased.
    """

    n_windows: int
    steps_per_window: int
    frames_per_window: int
    n_held_out: int
    held_out_steps: int
    generator_steps: int
    latent: int
    n_pilot: int
    n_encoder_reverse: int
    relax_steps: int
    n_first: int
    n_lifts: int
    n_check_labels: int
    n_check_frames: int
    n_check_lifts: int


@dataclass(frozen=True)
class LoopSettings:
    """Every number of a run of the closed loop, as stored in its manifest.

    Attributes:
        n_windows: short restrained windows, the first frames.
        steering_steps: Langevin steps on the way to each.
        frames_per_window: frames kept of each.
        stride: steps from frame to frame.
        n_first: draws of the first round.
        ceiling: kT, up to which labels are placed.
        max_evaluations: of the real potential, without the check's.
        check_evaluations: that the check may cost.
        network_steps: of the network's training; none without a network.
        moves: of latent relaxation, where it is chosen.
        window_length: ps, of each window, in place of its steps.
        lifts: draws at most.
    """

    n_windows: int
    steering_steps: int
    frames_per_window: int
    stride: int
    n_first: int
    ceiling: float
    max_evaluations: int
    check_evaluations: int
    network_steps: int
    moves: int = 10
    window_length: float | None = None
    lifts: int | None = None


MAY_BE_ZERO = {"network_steps", "relax_steps", "latent", "generator_steps", "check_evaluations"}
"""Settings that are numbers of zero or more; all others are positive."""

LOOP_PRESETS: dict[str, LoopSettings] = {
    "default": LoopSettings(30, 100, 25, 4, 2000, 10.0, 35_000, 14_000, 600),
    "quick": LoopSettings(30, 100, 25, 4, 2000, 10.0, 14_000, 2_800, 200),
}

PRESETS: dict[str, Settings] = {
    "default": Settings(
        n_windows=192,
        steps_per_window=3000,
        frames_per_window=20,
        n_held_out=48,
        held_out_steps=6400,
        generator_steps=1000,
        latent=4,
        n_pilot=1024,
        n_encoder_reverse=384,
        relax_steps=300,
        n_first=1024,
        n_lifts=7168,
        n_check_labels=10,
        n_check_frames=32,
        n_check_lifts=192,
    ),
    "quick": Settings(
        n_windows=72,
        steps_per_window=1000,
        frames_per_window=20,
        n_held_out=16,
        held_out_steps=1600,
        generator_steps=60,
        latent=2,
        n_pilot=192,
        n_encoder_reverse=96,
        relax_steps=150,
        n_first=192,
        n_lifts=512,
        n_check_labels=6,
        n_check_frames=32,
        n_check_lifts=96,
    ),
}

LEARNED_LABEL_SETTINGS: dict[str, dict[str, int]] = {
    "default": {"latent": 0, "n_first": 4096, "n_lifts": 40960},
    "quick": {"latent": 0, "n_check_labels": 3, "n_check_frames": 16, "n_check_lifts": 32},
}
"""What differs from the presets where labels are learned."""


OF_CONTEXTS = ("latent", "acceptance", "restrain")
"""Options that only lifts that are relaxed in a Context have."""


def _check(options: RunOptions) -> None:
    choices_of = {
        "preset": get_args(Preset),
        "generator": (*get_args(Generator), None),
        "relax": (*get_args(Relax), None),
        "acceptance": get_args(Acceptance),
        "slow": get_args(Slow),
        "restrain": (*get_args(Restrain), None),
    }
    for name, choices in choices_of.items():
        if getattr(options, name) not in choices:
            allowed = " or ".join(choice for choice in choices if choice)
            raise InputError(f"`{name}` is {getattr(options, name)!r}: choose {allowed}")
    for name in ("features", "keep", "coordinates") if options.slow == "torsions" else ():
        if getattr(options, name) != getattr(RunOptions, name):
            raise InputError(f"`{name}` is of learned labels: add `slow='diffusion-map'`, or leave it out")
    if options.chain and options.restrained != "none":
        raise InputError("a Metropolis chain over all lifts needs unrestrained ones: leave `restrain` out, or say none")
    if options.slow == "torsions" and options.restrain == "torsions":
        raise InputError("`restrain='torsions'` is of learned labels: add `slow='diffusion-map'`, or say labels")
    _check_relaxation(options)
    check_values(options)


def check_values(options: RunOptions) -> None:
    """See that the numbers among options are in their ranges.

    Raises:
        InputError: naming the first that is not.
    """
    smallest = {
        "relax_steps": 1,
        "windows": 1,
        "lifts": 64,
        "max_evaluations": 1,
        "latent": 0,
        "coordinates": 1,
        "seed": 0,
    }
    for name, least in smallest.items():
        value = getattr(options, name)
        if isinstance(value, int) and value < least:
            raise InputError(f"`{name}` is {value}: give at least {least}")
    for name, unit in (("target_error", "kT"), ("window_length", "ps")):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"`{name}` is {value:g}: give a positive number of {unit}")


def _check_relaxation(options: RunOptions) -> None:
    generator = options.draws_from
    if options.relaxes:
        if options.relax not in (None, "context", "auto"):
            raise InputError(
                f"`relax='{options.relax}'` needs a generator with a density: leave it out, or say "
                "`generator='triangular'`"
            )
        return
    if options.relax == "context":
        raise InputError(
            f"a run of the {generator} generator keeps its labels fixed, which a Context does not: say "
            "`relax='latent'`, add `generator='product'`, or use Lifter in a script"
        )
    for name in OF_CONTEXTS:
        if getattr(options, name) != getattr(RunOptions, name):
            raise InputError(
                f"`{name}` is of lifts that are relaxed in a Context, and those of the {generator} generator are not: "
                "add `generator='product'`, or leave it out"
            )
    if options.relax_steps is not None and (options.relaxed_by != "latent" or options.relax_steps == "auto"):
        raise InputError(
            f"`relax_steps` is of lifts that are relaxed, and those of the {generator} generator are not: add "
            "`relax='latent'` and a number of moves, or `generator='product'`, or leave it out"
        )
    if options.lifts is not None and options.relaxed_by != "none":
        raise InputError("how many lifts are relaxed follows from their price: give `max_evaluations`, not `lifts`")


def loop_settings_of(options: RunOptions) -> LoopSettings:
    """The numbers of a run of the closed loop that follow from options and preset.

    Raises:
        InputError: an option has a value that no run can have.
    """
    _check(options)
    base = LOOP_PRESETS[options.preset]
    most, lifts = options.max_evaluations, options.lifts
    if most is None:
        most = UNLIMITED if options.target_error is not None or lifts is not None else base.max_evaluations
    return replace(
        base,
        n_windows=options.windows or base.n_windows,
        window_length=options.window_length,
        max_evaluations=most,
        lifts=lifts,
        n_first=base.n_first if lifts is None else min(base.n_first, max(lifts // 4, 32)),
        check_evaluations=min(base.check_evaluations, (most if lifts is None else min(most, lifts)) // 5),
        network_steps=base.network_steps if options.draws_from == "gan" else 0,
        moves=options.relax_steps if isinstance(options.relax_steps, int) else base.moves,
    )


def settings_of(options: RunOptions, time_step: float | None = None) -> Settings:
    """The numbers of a run whose lifts are relaxed that follow from options and preset.

    Args:
        options: of the run.
        time_step: ps, of the system, by which a window's length becomes steps.

    Raises:
        InputError: an option has a value that no run can have.
    """
    _check(options)
    base = PRESETS[options.preset]
    if options.slow == "diffusion-map":
        base = replace(base, **LEARNED_LABEL_SETTINGS[options.preset])
    changes: dict[str, int] = {}
    if options.relax_steps is not None:
        changes["relax_steps"] = 0 if options.relax_steps == "auto" else options.relax_steps
    if options.latent is not None:
        changes["latent"] = options.latent
    if options.windows is not None:
        changes["n_windows"] = options.windows
    if options.window_length is not None and time_step is not None:
        changes["steps_per_window"] = steps = round(options.window_length / time_step)
        if steps < base.frames_per_window:
            raise InputError(
                f"`window_length` of {options.window_length:g} ps is {steps} steps of {time_step:g} ps: give at least "
                f"{base.frames_per_window * time_step:g}"
            )
    if options.lifts is not None:
        n = options.lifts
        changes |= {"n_lifts": n, "n_first": min(base.n_first, max(n // 4, 32))}
    elif options.target_error is not None:
        changes["n_lifts"] = UNLIMITED
    return replace(base, **changes)


def effective(options: RunOptions) -> dict[str, Any]:
    """Options with the preset's numbers filled in, JSON-ready: what two runs are compared by."""
    filled: dict[str, Any] = {"generator": options.draws_from, "relax": options.relaxed_by}
    if not options.relaxes:
        return {**asdict(options), **filled}
    settings = settings_of(options)
    filled |= {
        "relax_steps": settings.relax_steps or "auto",
        "lifts": settings.n_lifts if settings.n_lifts < UNLIMITED else None,
        "latent": settings.latent,
        "restrain": options.restrained,
    }
    return {**asdict(options), **filled}


def check_same_options(given: RunOptions, stored: Mapping[str, Any], resolved_platform: str) -> None:
    """Check that the options are those that a run folder was begun with.

    Raises:
        InputError: naming the first option that differs, both values and the remedy.
    """
    ours = effective(given)
    if ours["platform"] in ("auto", resolved_platform):
        ours["platform"] = stored["platform"]
    # what others follow from comes first
    for field in sorted(
        fields(RunOptions), key=lambda field: field.name not in ("slow", "generator", "preset", "acceptance")
    ):
        was, now = stored.get(field.name, field.default), ours[field.name]
        if was != now:
            begun, requested = (
                f"`{field.name}={v!r}`" if v not in (None, "") else f"no `{field.name}`" for v in (was, now)
            )
            raise InputError(
                f"this run folder was begun with {begun}, now {requested} is requested: repeat the command "
                f"with {begun}, or name a new folder"
            )
