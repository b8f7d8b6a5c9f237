"""A run: its folder is opened or resumed, and its stages are computed up to one of them."""

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from threadpoolctl import threadpool_limits

from ..engine.platforms import PlatformChoice, resolved_platform
from ..engine.tasks import Workers, available_workers
from ..engine.threads import torch_threads
from ..engine.versions import package_versions
from ..errors import InputError
from ..free_energy.surface import surface_name
from ..lifting.loop import FIRST, Loop, windows_of
from ..lifting.loop_coordinates import LoopCoordinates
from ..lifting.requirements import why_not_exact
from ..reference.chart import chart_for
from ..sampling.stability import check_dynamics
from ..system.library import load_system
from ..system.molecular_system import MolecularSystem
from ..system.simulation_card import CARD, SimulationCard
from ..units import FloatArray
from .budget import least_evaluations
from .context import Reporter, Run, Stage
from .folder import BESIDES, RunFolder, is_run_folder, is_writable, locked, prepared_folder
from .labelling import labelling_of
from .manifest import MANIFEST
from .options import (
    MAY_BE_ZERO,
    N_THREADS,
    UNLIMITED,
    LoopSettings,
    RunOptions,
    Settings,
    check_same_options,
    check_values,
    effective,
    loop_settings_of,
    settings_of,
)
from .stages.lift import lift_stage
from .stages.rounds import loop_options, loop_stages, own_frames_stage
from .stages.sample import sample_stage
from .stages.slow import OF_LABELS, requested_features, slow_stage
from .stages.surface import surface_stage
from .stages.train import train_stage
from .summary import Summary, load_summary

RELAXED_STAGES: dict[str, Callable[[Run, Path], None]] = {
    "sample": sample_stage,
    "slow": slow_stage,
    "train": train_stage,
    "lift": lift_stage,
    "surface": surface_stage,
}
RESULTS = {
    "sample": ("top.pdb",),
    "slow": OF_LABELS,
    "train": ("model.safetensors",),
    "lift": ("lifts.npz", "reverse.npz", "lifts.dcd"),
    "surface": ("fes.npz", "fes.dat", "fes.png"),
}
"""Files of each stage that are copied to the top of the run folder, except for the surface over the card's labels."""

LAST_OF = {"sample": FIRST, "slow": "slow", "train": "rounds/00/model", "lift": "surface", "surface": "surface"}
"""Stages of the closed loop that the commands of single stages end with."""

OWN_SYSTEM = "system"
"""Folder in the run folder, of the card of a run that was begun with a Simulation."""


@dataclass(frozen=True)
class HalfTimeStep:
    """A system's name or card, at half the time step that it names."""

    source: str


Target = str | SimulationCard | HalfTimeStep
"""A system's name or card; or a Simulation's, which a run keeps in its folder."""


@dataclass(frozen=True)
class Outcome:
    """The state of a run.

    Attributes:
        folder: the run folder.
        done: its finished stages.
        seconds: wall time of each, repeated attempts included.
        evaluations_spent: force evaluations of all attempts.
        summary: of the surface stage, if that is finished.
    """

    folder: Path
    done: tuple[str, ...]
    seconds: dict[str, float]
    evaluations_spent: int
    summary: Summary | None


def _relaxed_stages(run: Run) -> Iterator[Stage]:
    """Of lifts that are relaxed; labels of the card need not be learned."""
    for name, work in RELAXED_STAGES.items():
        if name == "slow" and run.options.slow == "torsions":
            continue
        extra: tuple[str, ...] = ()
        if name == "surface" and labelling_of(run).learned is not None:
            extra = tuple(f"{run.card_surface}.{suffix}" for suffix in ("npz", "dat", "png"))
        yield Stage(name, partial(work, run), RESULTS[name] + extra)


def _system_record(system: MolecularSystem, source: str) -> dict[str, Any]:
    path = Path(source)
    return {
        "name": system.name,
        "source": str(path.resolve()) if path.exists() else source,
        "card": system.card,
        "force_field_hash": system.force_field_hash,
        "positions": [[round(float(x), 6) for x in row] for row in system.positions],
    }


def _names(labels: Any) -> str:
    """Of the labels of a card; whatever there is in place of them."""
    try:
        return ", ".join(label["name"] for label in labels)
    except (TypeError, KeyError):
        return str(labels)


def _check_same_system(now: dict[str, Any], was: dict[str, Any], folder: Path) -> None:
    remedy = "put back the system it was begun with, or name a new folder"
    if was["name"] != now["name"]:
        raise InputError(f"{folder} was begun with {was['name']}, now it is {now['name']}: {remedy}")
    for key in sorted({*was["card"], *now["card"]}, key=lambda key: (key != "labels", key)):  # others follow from them
        old, new = was["card"].get(key), now["card"].get(key)
        if old != new:
            if key == "labels" and _names(old) != _names(new):
                old, new = _names(old), _names(new)
            raise InputError(f"{folder} was begun with a card whose {key} is {old}, now it is {new}: {remedy}")
    for key, kind in (("force_field_hash", "force field"), ("positions", "structure")):
        if was[key] != now[key]:
            raise InputError(f"{folder} was begun with another {kind} of {was['name']}: {remedy}")


def _chosen_platform(system: MolecularSystem, platform: str) -> str:
    if platform != "auto":
        PlatformChoice.read(platform).check_here()
    return resolved_platform(platform, system.system, system.positions)


def _check_budget(options: RunOptions, settings: Settings) -> None:
    least = least_evaluations(options, settings)
    if options.max_evaluations is not None and options.max_evaluations < least:
        raise InputError(
            f"`max_evaluations` of {options.max_evaluations} is less than sampling, training, check and a few lifts "
            f"cost ({least}): give at least that many" + ("" if options.preset == "quick" else ", or `preset='quick'`")
        )


def _numbers_of(options: RunOptions, time_step: float | None = None) -> Settings | LoopSettings:
    return settings_of(options, time_step) if options.relaxes else loop_settings_of(options)


def _check_numbers(system: MolecularSystem, options: RunOptions, numbers: Settings | LoopSettings) -> None:
    """See that a run can be begun before anything is sampled.

    Raises:
        InputError: dynamics that cannot be stable, too few evaluations, or a system without a chart.
    """
    check_dynamics(system)
    if options.slow != "torsions":
        requested_features(system, options)
    names = system.slow.names
    if len({surface_name(pair) for pair in combinations(names, 2)}) < math.comb(len(names), 2):
        raise InputError(f"surfaces over two of {', '.join(names)} would have files of one name: rename a label")
    if isinstance(numbers, LoopSettings):
        Loop(system, seed=0, max_evaluations=numbers.max_evaluations, options=loop_options(numbers))
        return
    _check_budget(options, numbers)
    chart_for(system.topology, system.slow, system.positions, system.constraints)


def _with_more_windows(system: MolecularSystem, options: RunOptions, numbers: LoopSettings) -> LoopSettings:
    """A preset's evaluations are for two coordinates to scatter windows over; the windows of more come on top."""
    if options.max_evaluations is not None or numbers.max_evaluations == UNLIMITED:
        return numbers
    how = loop_options(numbers)
    windows = windows_of(LoopCoordinates.of(system, how.wide), how)
    more = windows.evaluations_each * (windows.n - numbers.n_windows)
    return replace(numbers, max_evaluations=numbers.max_evaluations + more)


def _begin(path: Path, system: MolecularSystem, source: str, options: RunOptions) -> RunFolder:
    numbers = _numbers_of(options, system.time_step)
    if reason := why_not_exact(system.system, system.topology):
        raise InputError(reason)
    if isinstance(numbers, LoopSettings):
        numbers = _with_more_windows(system, options, numbers)
    _check_numbers(system, options, numbers)
    return RunFolder.create(
        path,
        {
            "system": _system_record(system, source),
            "options": effective(options),
            "settings": asdict(numbers),
            "seed": options.seed,
            "versions": package_versions(),
            "platform": _chosen_platform(system, options.platform),
            "threads": N_THREADS,
        },
    )


def _note_versions(folder: RunFolder, note: Callable[[str], None]) -> None:
    was, now = folder.manifest["versions"], package_versions()
    changed = [f"{name} {was.get(name)} -> {value}" for name, value in now.items() if was.get(name) != value]
    if changed:
        note(f"versions have changed since this run was begun ({', '.join(changed)})")


def target_of(folder: RunFolder) -> str:
    """The system or card that a run was begun with; its own wherever the folder is now.

    Raises:
        InputError: the card is not there any more.
    """
    own = folder.path / OWN_SYSTEM
    source = str(own) if (own / CARD).is_file() else str(folder.manifest["system"]["source"])
    if Path(source).is_absolute() and not Path(source).exists():
        raise InputError(
            f"{folder.path} was begun with the card {source}, which is not there any more: put it back, or say where "
            f"it is now (gancl run CARD -o {folder.path}, with the options that the run was begun with)"
        )
    return source


def _numbers_as_stored(folder: RunFolder, relaxes: bool) -> Settings | LoopSettings:
    """The settings of a run.

    Raises:
        InputError: the manifest has others than a run can have.
    """
    found = _as_stored(Settings if relaxes else LoopSettings, folder, "settings")
    for name, value in asdict(found).items():
        if value is not None and not (value > 0 or (value == 0 and name in MAY_BE_ZERO)):
            raise InputError(
                f"{folder.path / MANIFEST}: settings.{name} is {value}: restore it, or start a new run folder"
            )
    return found


def options_of(folder: RunFolder) -> RunOptions:
    """Those that a run was begun with.

    Raises:
        InputError: the manifest has others than a run can have.
    """
    found: RunOptions = _as_stored(RunOptions, folder, "options")
    check_values(found)
    return found


def _source(path: Path, target: Target) -> str:
    """What the manifest of a run that begins is to name."""
    if isinstance(target, SimulationCard):
        return str(path / OWN_SYSTEM)
    return target.source if isinstance(target, HalfTimeStep) else target


def _system_now(path: Path, target: Target | None, trust_force_field: bool) -> MolecularSystem:
    """The system that a run is to be of: with positions that it was begun with, where it has begun."""
    if isinstance(target, SimulationCard):
        own = path / OWN_SYSTEM
        return target.begun_in(own).system if (own / CARD).is_file() else target.system
    if isinstance(target, HalfTimeStep):
        system = load_system(target.source, trust_force_field=trust_force_field)
        half = 0.5 * system.time_step
        return replace(system, time_step=half, card={**system.card, "time_step": half})
    name = target_of(RunFolder.load(path)) if target is None else target
    return load_system(name, trust_force_field=trust_force_field)


def _as_stored(kind: Any, folder: RunFolder, key: str) -> Any:
    """What a manifest says of options or settings.

    Raises:
        InputError: it says something else.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(folder.manifest[key]), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, (key, *first["loc"])))
        raise InputError(
            f"{folder.path / MANIFEST}: {place}: {first['msg'].lower()}: restore it, or start a new run folder"
        ) from None


@contextmanager
def _limited_threads(threads: int) -> Iterator[None]:
    """So many for torch and the linear algebra, whose last digits depend on it; afterwards as before."""
    with torch_threads(threads), threadpool_limits(threads):
        yield


@contextmanager
def open_run(
    path: Path,
    target: Target | None,
    options: RunOptions | None,
    reporter: Reporter,
    workers: Workers | None,
    trust_force_field: bool = False,
) -> Iterator[Run]:
    """Lock a run folder, begin it or check that it is the run requested, and yield the run.

    Args:
        path: the folder.
        target: a system's name or card, or a Simulation's; None takes the folder's own.
        options: None takes the folder's own.
        reporter: of progress and notes.
        workers: local processes; by default all cores where lifts are relaxed, else this process alone.
        trust_force_field: see `load_system`.
    """
    if target is None and not is_run_folder(path):
        raise InputError(f"{path} is not a run folder (it has no manifest.json): make one with `gancl run`")
    system = _system_now(path, target, trust_force_field)
    requested = options or RunOptions()
    _numbers_of(requested)
    with ExitStack() as until_closed:
        until_closed.enter_context(prepared_folder(path))
        read_only = is_run_folder(path) and not is_writable(path)
        if not read_only:
            until_closed.enter_context(locked(path, reporter.note))
        if is_run_folder(path):
            folder = RunFolder.load(path, read_only)
            _check_same_system(_system_record(system, ""), folder.manifest["system"], path)
            if options is not None:
                check_same_options(options, folder.manifest["options"], folder.manifest["platform"])
            _note_versions(folder, reporter.note)
        else:
            assert target is not None
            folder = _begin(path, system, _source(path, target), requested)
            until_closed.enter_context(folder.begun(OWN_SYSTEM))
        if isinstance(target, SimulationCard) and not (path / OWN_SYSTEM / CARD).is_file():
            target.write(path / OWN_SYSTEM)
        begun = options_of(folder)
        opened = Run(
            system=system,
            folder=folder,
            options=begun,
            numbers=_numbers_as_stored(folder, begun.relaxes),
            platform=folder.manifest["platform"],
            # single evaluations of a molecule are too short for other processes to be worth their start
            workers=workers or (available_workers() if begun.relaxes else 1),
            reporter=reporter,
        )
        until_closed.enter_context(_limited_threads(folder.manifest["threads"]))
        yield opened


def _last_stage(options: RunOptions, until: str, folder: Path) -> str:
    """The stage that a command ends with."""
    if until == "slow" and options.slow == "torsions":
        raise InputError(f"the slow coordinates of {folder} are torsions: begin a run with `slow='diffusion-map'`")
    return until if options.relaxes else LAST_OF[until]


@contextmanager
def _loop_run(path: Path, target: str | None, options: RunOptions | None, **how: Any) -> Iterator[Run]:
    """Open a run of the closed loop.

    Raises:
        InputError: it is a run whose lifts are relaxed.
    """
    with open_run(path, target, options, **how) as opened:
        if opened.options.relaxes:
            raise InputError(
                f"{path} is a run of the product generator, which learns from frames of restrained windows"
            )
        yield opened


def use_own_frames(
    path: str | os.PathLike[str],
    target: str | None,
    options: RunOptions | None,
    frames: Callable[[MolecularSystem], tuple[FloatArray, FloatArray]],
    *,
    reporter: Reporter,
    workers: Workers | None = None,
    trust_force_field: bool = False,
) -> Outcome:
    """Put frames of the user's own in place of a run's first windows, and fit the first model to them.

    Args:
        path: the run folder, begun or not; what it has of later stages is forgotten.
        target: a system's name or card; None for the one that the folder was begun with.
        options: None for those that the folder was begun with.
        frames: gives positions, shape=(n, n_atoms, 3), nm, and log-weights, shape=(n,), of a system.
        reporter: of progress and notes.
        workers: local processes, or an executor.
        trust_force_field: see `load_system`.

    Raises:
        InputError: bad input, or a folder that does not fit it.
    """
    how: dict[str, Any] = {"reporter": reporter, "workers": workers, "trust_force_field": trust_force_field}
    with _loop_run(Path(path), target, options, **how) as opened:
        positions, log_weights = frames(opened.system)
        later = tuple(name for name in opened.folder.manifest["stages"] if name != FIRST)
        opened.folder.run_stage(FIRST, partial(own_frames_stage, opened, positions, log_weights), later)
        _advance(opened, "train")
        return _outcome(opened)


def lift_more(
    path: str | os.PathLike[str],
    n: int,
    *,
    reporter: Reporter,
    workers: Workers | None = None,
    trust_force_field: bool = False,
) -> Outcome:
    """Draw more lifts from the last model of a finished run, and make its surface of all of them.

    Args:
        path: the run folder.
        n: lifts.
        reporter: of progress and notes.
        workers: local processes, or an executor.
        trust_force_field: see `load_system`.

    Raises:
        InputError: it is not finished, or a run whose lifts are relaxed.
    """
    how: dict[str, Any] = {"reporter": reporter, "workers": workers, "trust_force_field": trust_force_field}
    with _loop_run(Path(path), None, None, **how) as opened:
        folder = opened.folder
        if not folder.is_done("surface"):
            raise InputError(f"{path} is not finished: go on with `gancl lift {path}` first")
        folder.manifest.setdefault("more_lifts", []).append(n)
        folder.forget("surface")
        _advance(opened, "surface")
        if old := [name for name in ("closures.json", "report.html") if (folder.path / name).is_file()]:
            verb = "is" if len(old) == 1 else "are"
            reporter.note(f"{' and '.join(old)} {verb} of the lifts before: make what you need of them again")
        return _outcome(opened)


def _verify_finished(folder: RunFolder, note: Callable[[str], None]) -> None:
    """Compare the files of all stages up to the first one that is missing."""
    for name in folder.manifest["stages"]:
        if folder.is_lost(name):
            note(f"{name} was finished and is not there any more: it and what follows from it are computed again")
        if not folder.is_done(name):
            return
        folder.verify(name)


def _advance(run: Run, until: str) -> None:
    """Verify the finished stages, compute the others up to and including ``until``, publish their results."""
    folder, last, passed = run.folder, _last_stage(run.options, until, run.folder.path), set()
    _verify_finished(folder, run.reporter.note)
    for stage in _relaxed_stages(run) if run.options.relaxes else loop_stages(run):
        passed.add(stage.name)
        if not folder.is_done(stage.name):
            folder.check_writable()
            later = tuple(name for name in folder.manifest["stages"] if name not in passed)
            folder.run_stage(stage.name, stage.work, later)
        folder.publish(stage.name, stage.results)
        if stage.name == last:
            break
        stage.accept(folder.path / stage.name)


def run(
    path: str | os.PathLike[str],
    target: Target | None,
    options: RunOptions | None,
    *,
    reporter: Reporter,
    workers: Workers | None = None,
    until: str = "surface",
    trust_force_field: bool = False,
) -> Outcome:
    """Begin a run or go on with it, and compute its stages up to one of them.

    Killed at any moment and called again it gives the same bytes on the Reference platform.

    Args:
        path: the run folder.
        target: a system's name or card, or a Simulation's; None for the one that the folder was begun with.
        options: None for those that the folder was begun with.
        reporter: of progress and notes.
        workers: local processes; by default all cores where lifts are relaxed, else this process alone. Results do not
            depend on it.
        until: the last stage wanted.
        trust_force_field: see `load_system`.

    Raises:
        InputError: bad input, or a folder that does not fit it.
    """
    with open_run(Path(path), target, options, reporter, workers, trust_force_field) as opened:
        _advance(opened, until)
        return _outcome(opened)


def _outcome(opened: Run) -> Outcome:
    folder = opened.folder
    done = tuple(name for name in folder.manifest["stages"] if folder.is_done(name))
    return Outcome(
        folder=folder.path,
        done=done,
        seconds=folder.seconds(),
        evaluations_spent=folder.evaluations_spent(BESIDES),
        summary=load_summary(folder.file("surface", "summary.json")) if "surface" in done else None,
    )
