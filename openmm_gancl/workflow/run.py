"""A run: its folder is opened or resumed, and its stages are computed up to one of them."""

import os
import platform as host_platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..engine.platforms import PlatformChoice, resolved_platform
from ..engine.tasks import available_workers
from ..errors import InputError
from ..lifting.requirements import why_not_exact
from ..reference.chart import chart_for
from ..system.library import load_system
from ..system.molecular_system import MolecularSystem
from .budget import least_evaluations
from .context import Reporter, Run
from .folder import RunFolder, is_run_folder, locked, prepare_folder
from .labelling import labelling_of
from .options import N_THREADS, RunOptions, Settings, check_same_options, effective, settings_of
from .process import limited_threads, remembered_interrupts, start_workers
from .stages.lift import lift_stage
from .stages.sample import sample_stage
from .stages.slow import requested_features, slow_stage
from .stages.surface import surface_stage
from .stages.train import train_stage
from .summary import Summary, load_summary

STAGES: dict[str, Callable[[Run, Path], None]] = {
    "sample": sample_stage,
    "slow": slow_stage,
    "train": train_stage,
    "lift": lift_stage,
    "surface": surface_stage,
}
RESULTS = {
    "sample": ["top.pdb"],
    "slow": ["slow.pt", "slow.png"],
    "train": ["model.safetensors"],
    "lift": ["lifts.npz", "reverse.npz", "lifts.dcd"],
    "surface": ["fes.npz", "fes.dat", "fes.png"],
}
"""Files of each stage that are copied to the top of the run folder, except for the surface over the card's labels."""

PACKAGES = ("openmm-gancl", "openmm", "torch", "numpy", "scipy", "mdtraj")


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


def stages_of(options: RunOptions) -> list[str]:
    """The stages of a run, in order; labels of the card need not be learned."""
    return [name for name in STAGES if name != "slow" or options.slow != "torsions"]


def _results(run: Run, stage: str) -> list[str]:
    extra = []
    if stage == "surface" and labelling_of(run).learned is not None:
        extra = [f"{run.card_surface}.{suffix}" for suffix in ("npz", "dat", "png")]
    return RESULTS[stage] + extra


def _versions() -> dict[str, str]:
    versions = {"python": host_platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return versions


def _system_record(system: MolecularSystem, source: str) -> dict[str, Any]:
    path = Path(source)
    return {
        "name": system.name,
        "source": str(path.resolve()) if path.exists() else source,
        "card": system.card,
        "force_field_hash": system.force_field_hash,
        "positions": [[round(float(x), 6) for x in row] for row in system.positions],
    }


def _check_same_system(now: dict[str, Any], was: dict[str, Any], folder: Path) -> None:
    remedy = "put back the system it was begun with, or name a new folder"
    if was["name"] != now["name"]:
        raise InputError(f"{folder} was begun with {was['name']}, now it is {now['name']}: {remedy}")
    for key in sorted({*was["card"], *now["card"]}):
        old, new = was["card"].get(key), now["card"].get(key)
        if old != new:
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


def _begin(path: Path, system: MolecularSystem, source: str, options: RunOptions) -> RunFolder:
    settings = settings_of(options)
    _check_budget(options, settings)
    if reason := why_not_exact(system.system, system.topology):
        raise InputError(reason)
    # a system without a chart is refused before anything is sampled
    chart_for(system.topology, system.slow, system.positions, system.constraints)
    if options.slow != "torsions":
        requested_features(system, options)
    return RunFolder.create(
        path,
        {
            "system": _system_record(system, source),
            "options": effective(options),
            "settings": asdict(settings),
            "seed": options.seed,
            "versions": _versions(),
            "platform": _chosen_platform(system, options.platform),
            "threads": N_THREADS,
        },
    )


def _note_versions(folder: RunFolder, note: Callable[[str], None]) -> None:
    was, now = folder.manifest["versions"], _versions()
    changed = [f"{name} {was.get(name)} -> {value}" for name, value in now.items() if was.get(name) != value]
    if changed:
        note(f"versions have changed since this run was begun ({', '.join(changed)})")


@contextmanager
def open_run(
    path: Path, target: str | None, options: RunOptions | None, reporter: Reporter, workers: int | None
) -> Iterator[Run]:
    """Lock a run folder, begin it or check that it is the run requested, and yield the run.

    Args:
        path: the folder.
        target: a system's name or card; None takes the folder's own.
        options: None takes the folder's own.
        reporter: of progress and notes.
        workers: local processes; all cores by default.
    """
    if target is None and not is_run_folder(path):
        raise InputError(f"{path} is not a run folder (it has no manifest.json): make one with `gancl run`")
    system = None if target is None else load_system(target)
    requested = options or RunOptions()
    settings_of(requested)
    prepare_folder(path)
    with locked(path, reporter.note):
        if is_run_folder(path):
            folder = RunFolder.load(path)
            if system is None:
                system = load_system(folder.manifest["system"]["source"])
            _check_same_system(_system_record(system, ""), folder.manifest["system"], path)
            if options is not None:
                check_same_options(options, folder.manifest["options"], folder.manifest["platform"])
            _note_versions(folder, reporter.note)
        else:
            assert system is not None and target is not None
            folder = _begin(path, system, target, requested)
        stored = folder.manifest["options"]
        opened = Run(
            system=system,
            folder=folder,
            options=RunOptions(**{field.name: stored.get(field.name, field.default) for field in fields(RunOptions)}),
            settings=Settings(**folder.manifest["settings"]),
            platform=folder.manifest["platform"],
            workers=workers or available_workers(),
            reporter=reporter,
        )
        with limited_threads(folder.manifest["threads"]):
            yield opened


def _advance(run: Run, until: str) -> None:
    """Verify the finished stages, compute the others up to and including ``until``, publish their results."""
    names, folder = stages_of(run.options), run.folder
    if until not in names:
        raise InputError(f"the slow coordinates of {folder.path} are torsions: begin a run with `slow='diffusion-map'`")
    wanted = names[: names.index(until) + 1]
    first = next((name for name in names if not folder.is_done(name)), "")
    for name in names[: names.index(first)] if first else names:
        folder.verify(name)
    if not all(folder.is_done(name) for name in wanted):
        start_workers(run.workers)
    with remembered_interrupts() as check:
        for i, name in enumerate(wanted):
            check()
            if not folder.is_done(name):
                work = STAGES[name]
                folder.run_stage(name, lambda out, work=work: work(run, out), tuple(names[i + 1 :]))  # type: ignore[misc]
            folder.publish(name, _results(run, name))


def run(
    path: str | os.PathLike[str],
    target: str | None,
    options: RunOptions | None,
    *,
    reporter: Reporter,
    workers: int | None = None,
    until: str = "surface",
) -> Outcome:
    """Begin a run or go on with it, and compute its stages up to one of them.

    Killed at any moment and called again it gives the same bytes on the Reference platform.

    Args:
        path: the run folder.
        target: a system's name or card; None for the one that the folder was begun with.
        options: None for those that the folder was begun with.
        reporter: of progress and notes.
        workers: local processes; all cores by default. Results do not depend on it.
        until: the last stage wanted.

    Raises:
        InputError: bad input, or a folder that does not fit it.
    """
    with open_run(Path(path), target, options, reporter, workers) as opened:
        _advance(opened, until)
        folder = opened.folder
        done = tuple(name for name in STAGES if folder.is_done(name))
        return Outcome(
            folder=folder.path,
            done=done,
            seconds=folder.seconds(),
            evaluations_spent=folder.evaluations_spent(),
            summary=load_summary(folder.file("surface", "summary.json")) if "surface" in done else None,
        )
