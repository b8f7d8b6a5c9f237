"""Umbrella windows on any System: sampled, and exchanged with their neighbours.

Guarantee: none of an exact lift is needed and none is given. What windows sample is right once they are equilibrated,
and their surface once they overlap; `openmm_gancl.free_energy.from_windows` reports both, and names the window that
does not.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from ..coordinates.restraint_energies import restraint_energies
from ..coordinates.slow_coordinates import SlowCoordinates, Torsions, checked_labels
from ..engine.platform_rng import preserve_platform_rng
from ..engine.platforms import PotentialEnergy
from ..engine.random_numbers import named_rng, named_seed
from ..engine.tasks import RunTasks, Workers, run_tasks
from ..errors import InputError, checked
from ..reference.chart import chart_for
from ..system.bonds import check_in_one_piece, check_lengths, count_molecules
from ..system.molecular_system import MolecularSystem
from ..system.simulation import as_system
from ..units import FloatArray, IntArray, numbers, whole_number
from .frames import Frames, Walkers, check_frames_of, join_frames, join_walkers
from .labels import scattered_labels
from .langevin import RestrainedDynamics, WindowTask, collect_frames, sample_task, window_tasks
from .steering import label_distances, nearest_starts, pulled_starts

WINDOWS_PER_TASK, DEFAULT_WINDOWS = 8, 144

FROZEN_TOLERANCE = 1e-4
"""nm by which a particle without a mass may be elsewhere."""

PULL_STEPS = 500
"""Of each step of the pulling, from window to window."""

NEIGHBOUR_DISTANCE = 1.6
"""Times the distance to the nearest window: within it windows exchange."""

Starts = Literal["structure", "pulling"]


def starting_positions(system: MolecularSystem, labels: FloatArray) -> FloatArray:
    """The system's structure turned to each label in its chart, shape=(n, n_atoms, 3); not minimised."""
    try:
        chart = chart_for(system.topology, system.slow, system.positions)
    except InputError as error:
        raise InputError(f"{error}; or give starts='pulling'") from None
    if not len(chart.label_indices):
        raise InputError("learned labels are no coordinates of a chart: give one start a label")
    coordinates = np.repeat(chart.to_internal(system.positions[None]), len(labels), axis=0)
    coordinates[:, chart.label_indices] = labels
    return chart.to_cartesian(coordinates)


def neighbouring_windows(slow: SlowCoordinates, labels: FloatArray) -> IntArray:
    """Pairs of windows that exchange, shape=(n_pairs, 2)."""
    distances = label_distances(slow, labels, labels)
    np.fill_diagonal(distances, np.inf)
    # windows of equal labels exchange too, but also with other neighbours
    reach = NEIGHBOUR_DISTANCE * np.where(distances > 0, distances, np.inf).min(axis=1)
    near = distances <= np.maximum(reach[:, None], reach[None, :])
    return np.argwhere(np.triu(near, 1))


def exchanges(
    slow: SlowCoordinates,
    force_constants: FloatArray,
    labels: FloatArray,
    cv_values: FloatArray,
    pairs: IntArray,
    kT: float,
    rng: np.random.Generator,
) -> tuple[IntArray, int, int]:
    """Hamiltonian exchange of disjoint random pairs of neighbours (Fukunishi et al. 2002, doi 10.1063/1.1472510).

    Returns:
        which walker each window goes on with, shape=(n,), and how many pairs were tried and accepted.
    """
    energies = restraint_energies(slow, force_constants, cv_values[None], labels[:, None])  # of window i at walker j
    order, taken = np.arange(len(labels)), np.zeros(len(labels), dtype=bool)
    tried = accepted = 0
    for i, j in rng.permutation(pairs):
        if taken[i] or taken[j]:
            continue
        taken[[i, j]] = True
        rise = energies[i, j] + energies[j, i] - energies[i, i] - energies[j, j]
        tried += 1
        if np.log(rng.random()) < -rise / kT:  # False for NaN
            order[[i, j]] = j, i
            accepted += 1
    return order, tried, accepted


def _frozen(system: MolecularSystem) -> IntArray:
    """Particles that dynamics leaves where they are."""
    massless = np.flatnonzero(system.masses == 0)
    return np.array([i for i in massless.tolist() if not system.system.isVirtualSite(i)], dtype=np.int64)


def _check_walkers(walkers: Walkers, system: MolecularSystem) -> None:
    """See that walkers are of a system, and have its frozen particles where it has them."""
    if walkers.positions.shape[1:] != system.positions.shape:
        raise InputError(
            f"positions are of {walkers.positions.shape[1]} atoms, and {system.name} has {system.n_atoms}: give all"
        )
    check_lengths(system.topology, system.system, walkers.positions)
    if isinstance(system.slow, Torsions) and system.system.usesPeriodicBoundaryConditions():
        near = system.slow.atoms.ravel()
        check_in_one_piece(system.topology, walkers.positions, system.positions, near)
    frozen = _frozen(system)
    moved = np.abs(walkers.positions[:, frozen] - system.positions[frozen]).max(axis=2) > FROZEN_TOLERANCE
    if moved.any():
        window, i = np.argwhere(moved)[0]
        raise InputError(
            f"atom {frozen[i]} has no mass, and is elsewhere where window {window} starts, so that windows would be of "
            "different systems: take starts='pulling'"
        )


@dataclass(frozen=True)
class _Lengths:
    """How long each window is sampled, in steps, and how many frames of it are kept."""

    steps_per_window: int
    frames_per_window: int
    equilibration_steps: int
    exchange_steps: int
    pull_steps: int

    def __post_init__(self) -> None:
        for name, least in (
            ("steps_per_window", 1),
            ("frames_per_window", 1),
            ("equilibration_steps", 0),
            ("exchange_steps", 0),
            ("pull_steps", 1),
        ):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        if self.steps_per_window < self.frames_per_window:
            raise InputError(
                f"steps_per_window = {self.steps_per_window} is less than frames_per_window = "
                f"{self.frames_per_window}: raise it"
            )

    @property
    def stride(self) -> int:
        """Steps from frame to frame."""
        return self.steps_per_window // self.frames_per_window

    def stretches(self) -> list[int]:
        """Frames between one exchange and the next, all of them where there is none."""
        most = self.frames_per_window
        if self.exchange_steps:
            most = max(self.exchange_steps * self.frames_per_window // self.steps_per_window, 1)
        begins = range(0, self.frames_per_window, most)
        return [min(most, self.frames_per_window - begin) for begin in begins]


@dataclass(frozen=True, eq=False)
class _Windows:
    """Windows to be sampled."""

    system: MolecularSystem
    dynamics: RestrainedDynamics
    labels: FloatArray
    lengths: _Lengths
    seed: int
    run: RunTasks

    def started(self, starts: Starts | FloatArray | Walkers | None) -> tuple[Walkers, int]:
        """A walker at each label, and what it cost."""
        if starts is None:
            # turned in a chart, one molecule would be driven into another, and particles without a mass moved
            several = count_molecules(self.system.topology) > 1
            starts = "pulling" if several or len(_frozen(self.system)) else "structure"
        if isinstance(starts, str) and starts == "pulling":
            seed = named_seed(self.seed, "windows", "starts")
            walkers, cost = pulled_starts(
                self.system, self.dynamics, self.labels, self.lengths.pull_steps, seed=seed, run=self.run
            )
        else:
            walkers, cost = self._given(starts), 0
        if len(walkers) != len(self.labels):
            raise InputError(f"{len(walkers)} starts for {len(self.labels)} windows: give one each")
        if len(lost := np.flatnonzero(~np.isfinite(walkers.positions).all(axis=(1, 2)))):
            raise InputError(
                f"window {lost[0]} has no start (it blew up on its way): give starts, or take a shorter time step"
            )
        return walkers, cost

    def _given(self, starts: Any) -> Walkers:
        if isinstance(starts, Walkers):
            return starts
        if isinstance(starts, str):
            if starts != "structure":
                raise InputError(f"starts is {starts!r}: choose structure or pulling, or give positions")
            return Walkers(starting_positions(self.system, self.labels))
        positions = numbers(starts)
        if positions.ndim != 3 or positions.shape[1:] != self.system.positions.shape:
            raise InputError(f"starts has shape {positions.shape}: give (n, {self.system.n_atoms}, 3)")
        if len(positions) != len(self.labels):
            positions = nearest_starts(self.system.slow, self.labels, positions)
        return Walkers(positions)

    def begun(self, starts: Starts | FloatArray | Walkers | None, progress: Callable[[], None] | None) -> Frames:
        """Frames of new windows."""
        return self.sampled(*self.started(starts), progress)

    def continued(self, frames: Frames, progress: Callable[[], None] | None) -> Frames:
        """More of windows that can be continued."""
        assert frames.walkers is not None
        check_frames_of(frames, self.system)
        _check_walkers(Walkers(frames.positions), self.system)
        self._check_energies(frames)
        return join_frames(frames, self.sampled(frames.walkers, 0, progress, frames.n_stretches))

    def _check_energies(self, frames: Frames) -> None:
        """See that frames have the energies of the system, which no result counts, like the choice of a platform."""
        from ..system.context_check import SINGLE, TOLERANCE

        energy = PotentialEnergy(self.system.system, self.dynamics.platform)
        for i in np.unique(frames.window, return_index=True)[1]:
            before = frames.energies[i]
            now = energy(frames.positions[i], None if frames.boxes is None else frames.boxes[i])
            if not abs(now - before) <= TOLERANCE + SINGLE * abs(before):
                raise InputError(
                    f"a frame to be continued had {before:.2f} kJ/mol, and has {now:.2f} now (another force field, or "
                    "a bias that has changed?): sample the windows anew"
                )

    def sampled(self, walkers: Walkers, cost: int, progress: Callable[[], None] | None, earlier: int = 0) -> Frames:
        """Frames of all stretches, walkers exchanged in between; of windows that go on after earlier stretches."""
        _check_walkers(walkers, self.system)
        stretches: list[list[WindowTask]] = []
        results: list[Any] = []
        slow, kT, kappa = self.system.slow, self.system.kT, self.dynamics.force_constants
        pairs, tried, accepted = neighbouring_windows(slow, self.labels), 0, 0
        for number, n_frames in enumerate(self.lengths.stretches(), start=earlier):
            if number and self.lengths.exchange_steps:
                with np.errstate(invalid="ignore"):
                    cv_values = slow.transform(walkers.positions)
                rng = named_rng(self.seed, "windows", "exchange", number)
                order, *more = exchanges(slow, kappa, self.labels, cv_values, pairs, kT, rng)
                walkers, tried, accepted = walkers.select(order), tried + more[0], accepted + more[1]
            tasks = window_tasks(
                self.dynamics,
                self.labels,
                walkers,
                WINDOWS_PER_TASK,
                equilibration_steps=0 if number else self.lengths.equilibration_steps,
                n_frames=n_frames,
                stride=self.lengths.stride,
                seed=named_seed(self.seed, "windows", "stretch", number),
            )
            stretches.append(tasks)
            results.append(self.run(sample_task, tasks, progress=progress))
            walkers = join_walkers([part[2] for part in results[-1]])
        frames = collect_frames(self.system, stretches, results)
        rate = accepted / tried if tried else float("nan")
        return replace(frames, force_evaluations=frames.force_evaluations + cost, exchange_rate=rate)


def _restrained(
    system: Any,
    slow: SlowCoordinates | None,
    temperature: Any,
    force_constants: Any,
    time_step: float | None,
    platform: str,
) -> tuple[MolecularSystem, RestrainedDynamics]:
    """What is sampled, and its dynamics."""
    constants = {} if force_constants is None else {"force_constants": force_constants}
    target = as_system(system, slow, temperature=temperature, **constants)
    return target, RestrainedDynamics.of(
        target, force_constants=force_constants, time_step=time_step, platform=platform
    )


def _same(given: FloatArray, found: FloatArray) -> bool:
    """Whether numbers are those that were found, one for all of them where only one is given."""
    try:
        return np.allclose(np.broadcast_to(given, found.shape), found)
    except ValueError:
        return False


def check_continued(continued: Frames, labels: Any = None, starts: Any = None, force_constants: Any = None) -> Frames:
    """Windows to be continued, which are given nothing that they have already and that differs.

    Args:
        continued: frames of the windows.
        labels: shape=(n, d), or none.
        starts: none.
        force_constants: shape=(d,), or one for all, or none.

    Raises:
        InputError: starts, or other labels or force constants than those of the windows.
    """
    if starts is not None:
        raise InputError("windows are continued from their last walkers: leave `starts` out, or `continued`")
    given = {"force_constants": (force_constants, continued.force_constants)}
    if labels is not None:
        given["labels"] = (labels, continued.window_labels())
    for name, (theirs, ours) in given.items():
        if theirs is not None and not _same(numbers(theirs), ours):
            raise InputError(f"`{name}` are others than those of the windows to be continued: leave them out")
    return continued


def _to_continue(
    continued: Frames, labels: Any, starts: Any, force_constants: Any
) -> tuple[FloatArray, FloatArray, int]:
    """Labels and force constants of windows that can go on, and that they are not equilibrated anew.

    Raises:
        InputError: they cannot, or are given labels, starts or constants of their own.
    """
    if continued.walkers is None:
        raise InputError("the frames do not say where their windows ended (an older file?): sample them anew")
    lost = set(range(continued.n_windows)) - set(continued.window.tolist())
    lost |= set(np.flatnonzero(~np.isfinite(continued.walkers.positions).all(axis=(1, 2))).tolist())
    if lost:
        raise InputError(
            f"window {min(lost)} blew up or left the state, and cannot be continued: sample the windows anew, with "
            "other starts or a shorter time step"
        )
    check_continued(continued, labels, starts, force_constants)
    return continued.window_labels(), continued.force_constants, 0


def _labels_of(slow: SlowCoordinates, labels: FloatArray | None, n_windows: int | None, seed: int) -> FloatArray:
    """Those that are given, or scattered ones, shape=(n_windows, d)."""
    if labels is None:
        n = whole_number("n_windows", DEFAULT_WINDOWS if n_windows is None else n_windows)
        labels = scattered_labels(slow, n, named_rng(seed, "windows", "labels"))
    labels = checked_labels(labels, slow)
    if n_windows not in (None, len(labels)):
        raise InputError(f"`n_windows` is {n_windows}, and there are labels of {len(labels)} windows: leave it out")
    return labels


@checked
def sample_windows(
    system: Any,
    labels: FloatArray | None = None,
    *,
    slow: SlowCoordinates | None = None,
    starts: Starts | FloatArray | Walkers | None = None,
    n_windows: int | None = None,
    steps_per_window: int = 2000,
    frames_per_window: int = 20,
    equilibration_steps: int = 1000,
    exchange_steps: int = 0,
    pull_steps: int = PULL_STEPS,
    force_constants: FloatArray | float | None = None,
    time_step: float | None = None,
    temperature: Any = None,
    seed: int = 0,
    platform: str = "auto",
    workers: Workers = 1,
    progress: Callable[[], None] | None = None,
    continued: Frames | None = None,
) -> Frames:
    """Sample restrained ensembles at given labels, or at labels scattered evenly over the domain.

    Any System will do, solvent, constraints and barostat included. Windows are minimised (unless walkers move already)
    and equilibrated. Frames outside the declared state are counted in ``dropped`` and left out.

    Args:
        system: a system, or an ``openmm.app.Simulation``, which is left as it is; its barostat, if any, stays.
        labels: shape=(n, d), radians or nm; by default scattered ones.
        slow: the labels' coordinates, of a Simulation.
        starts: ``structure`` (turned to each label; the default of one molecule), ``pulling`` (from window to window;
            of several), walkers (`structures_at`), or positions, shape=(n, n_atoms, 3), nm: one each, else the nearest.
        n_windows: how many scattered labels, 144 by default.
        steps_per_window: Langevin steps sampled in each.
        frames_per_window: frames kept of each.
        equilibration_steps: Langevin steps before sampling.
        exchange_steps: between exchanges of configurations with a neighbouring window, in whole frames; 0 for none.
        pull_steps: from window to window of ``pulling``.
        force_constants: shape=(d,), kJ/mol (torsions) or kJ/mol/nm^2; the system's own by default.
        time_step: ps; the system's own by default.
        temperature: K, of a Simulation whose integrator says none.
        seed: the same gives the same frames (Reference platform), whatever the workers; independent ones need another.
        platform: an OpenMM platform, or ``auto`` to measure.
        workers: local processes, or an executor.
        progress: called once for each finished task.
        continued: frames whose windows go on from their last walkers, not equilibrated anew; the result has both.
    """
    if continued is not None:
        labels, force_constants, equilibration_steps = _to_continue(continued, labels, starts, force_constants)
    lengths = _Lengths(steps_per_window, frames_per_window, equilibration_steps, exchange_steps, pull_steps)
    with preserve_platform_rng():
        target, dynamics = _restrained(system, slow, temperature, force_constants, time_step, platform)
        labels, run = _labels_of(target.slow, labels, n_windows, seed), partial(run_tasks, workers=workers)
        windows = _Windows(target, dynamics, labels, lengths, seed, run)
        return windows.continued(continued, progress) if continued else windows.begun(starts, progress)
