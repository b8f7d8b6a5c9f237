"""All-atom structures at given labels: exact lifts where there are any, else steered into place and equilibrated."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.special import logsumexp

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import SlowCoordinates, Torsions, checked_labels
from ..engine.platform_rng import preserve_platform_rng
from ..engine.platforms import PotentialEnergy
from ..engine.random_numbers import named_rng, named_seed
from ..engine.tasks import RunTasks, Workers, run_tasks
from ..errors import InputError, checked
from ..generator.invertible import InvertibleGenerator
from ..generator.model import LiftingModel
from ..generator.trained_for import atom_names
from ..reference.chart import InternalCoordinates
from ..reference.potential import ReferenceParameters
from ..sampling.frames import Walkers, join_walkers
from ..sampling.langevin import RestrainedDynamics, sample_task, window_tasks
from ..sampling.steering import WALKERS_PER_TASK, minimised, steer
from ..system.bonds import count_molecules, molecule_numbers
from ..system.molecular_system import MolecularSystem
from ..system.one_molecule import AmongOthers
from ..system.simulation import as_system
from ..trajectories.blocks import equilibration
from ..units import FloatArray, IntArray, numbers, thermal_energy, whole_number
from .lifter import Lifter
from .lifts import Lifts
from .requirements import fitted_to, molecule_of_model, system_of_simulation, why_not_exact

N_OBSERVATIONS = 40
"""Frames of an equilibration from which its length is estimated."""

DEFAULT_FORCE_CONSTANT = 200.0
"""kJ/mol, where neither the system nor the user says."""

DRAWS_EACH, MIN_DRAWS = 8, 64
"""Draws of an invertible generator for each structure, and at each label at least; some are kept by their weights."""

FEWEST_DIFFERENT = 0.8
"""Of the structures of a label, below which it is said that some are copies."""

MAX_WIDTHS, SAME_LABEL = 4.0, 1e-6
"""Widths of the restraint by which labels of exact lifts may deviate; nm or radians, of lifts that have none."""

UNRESTRAINED_WIDTH = 1e6
"""Width, nm or radians, of a reference that exerts no force."""


@dataclass(frozen=True)
class Structures:
    """Structures at labels.

    Attributes:
        positions: shape=(n, n_atoms, 3), nm.
        labels: shape=(n, d), requested.
        cv_values: shape=(n, d).
        energies: shape=(n,), kJ/mol, without restraint; NaN where one is lost, or has no weight.
        log_weights: shape=(n,), of exact lifts; None where structures have no weight.
        guarantee: how exact they are, in a sentence.
        walkers: to go on from, for `openmm_gancl.sample_windows`; NaN where one is lost.
        equilibrated: shape=(n,), steps after which label and energy are stationary, -1 where one is lost; None of
            exact lifts.
        force_evaluations: what they cost.
    """

    positions: FloatArray
    labels: FloatArray
    cv_values: FloatArray
    energies: FloatArray
    log_weights: FloatArray | None
    guarantee: str
    walkers: Walkers
    equilibrated: IntArray | None
    force_evaluations: int

    def __len__(self) -> int:
        return len(self.positions)

    def label_errors(self, slow: SlowCoordinates) -> FloatArray:
        """Obtained less requested, the short way around, shape=(n, d)."""
        return wrap(self.cv_values - self.labels, slow.periods)

    def describe(self, slow: SlowCoordinates) -> str:
        """A few lines for people."""
        found = np.isfinite(self.energies)
        if not found.any():
            return f"{len(self)} structures, all lost"
        errors = np.sqrt((self.label_errors(slow)[found] ** 2).mean(axis=0))
        deviations = ", ".join(f"{name} {error:.3f}" for name, error in zip(slow.names, errors, strict=True))
        lost = f" ({len(self) - found.sum()} lost)" if not found.all() else ""
        lines = [
            f"{len(self)} structures{lost}; {self.guarantee}",
            f"root mean square label error: {deviations}; median energy {np.median(self.energies[found]):.0f} kJ/mol",
        ]
        if self.equilibrated is not None:
            lines.append(f"steps to equilibrate: median {np.median(self.equilibrated[found]):.0f}")
        return "\n".join(lines)


def _solute_of(topology: Any, model: LiftingModel | InvertibleGenerator, molecule: int | None) -> IntArray:
    """Where the model's atoms are in a larger System, by residue and atom names, all in one molecule."""
    if (atoms := molecule_of_model(topology, model, molecule)) is not None:
        return atoms
    places = {name: i for i, name in reversed(list(enumerate(atom_names(topology))))}
    wanted = model.metadata["atom_names"]
    if missing := [name for name in wanted if name not in places]:
        raise InputError(f"the System has no atom {missing[0]} of the model: give the model of its solute")
    solute = np.array([places[name] for name in wanted])
    if count_molecules(topology) < topology.getNumAtoms() and len(set(molecule_numbers(topology)[solute].tolist())) > 1:
        raise InputError(
            "the model's atoms, by their names, are in several molecules of the System: name its residues anew"
        )
    return solute


def _labels_in(model: LiftingModel | InvertibleGenerator, solute: IntArray) -> Torsions:
    if not isinstance(model.slow, Torsions):
        raise InputError("in solvent the labels must be torsions: give a model over torsions")
    return replace(model.slow, atoms=solute[model.slow.atoms])


def _relabelled(system: MolecularSystem, slow: Torsions) -> MolecularSystem:
    """A system with the labels of a model; its restraint and basins are of its own labels."""
    if system.slow.describe() == slow.describe():
        return system
    return replace(system, slow=slow, force_constants=np.full(len(slow.names), DEFAULT_FORCE_CONSTANT), basins=())


def _reached(lifts: Lifts) -> str | None:
    """That lifts are not at the labels that were asked for, or have no weight; None where they are.

    Under a restraint labels deviate by its width, and by the slope of the surface over its constant.
    """
    slow, lost, off = lifts.slow, 0, 0
    with np.errstate(divide="ignore"):
        widths = np.sqrt(thermal_energy(lifts.temperature) / lifts.force_constants)
    widths = np.where(lifts.force_constants > 0, widths, SAME_LABEL if lifts.mode == "fixed" else np.inf)
    _, groups = np.unique(lifts.labels, axis=0, return_inverse=True)
    for group in range(groups.max(initial=-1) + 1):
        some = lifts.select((groups.ravel() == group) & lifts.ok)
        if not len(some):
            lost += 1
            continue
        weights = np.exp(some.log_weights - logsumexp(some.log_weights))
        errors = np.sqrt(weights @ np.square(wrap(some.cv_values - some.labels, slow.periods)))
        off += bool((errors > MAX_WIDTHS * widths).any())
    if not lost + off:
        return None
    return (
        f"not exact: of {groups.max() + 1} labels {off} were missed by more than {MAX_WIDTHS:g} widths of the "
        f"restraint (root mean square by weight) and {lost} have no lift with a weight; raise force_constants or n, or "
        "ask for labels nearer to those of the frames that the model learned from"
    )


def _exact(lifter: Lifter, labels: FloatArray, seed: int) -> Structures:
    lifts = lifter.lift(labels, seed=named_seed(seed, "structures", "lifts"))
    energy, energies = PotentialEnergy(lifter.system.system, lifter.platform), np.full(len(lifts), np.nan)
    weighted = np.flatnonzero(np.isfinite(lifts.log_weights))
    for i in weighted:
        energies[i] = energy(lifts.positions[i])
    return Structures(
        positions=lifts.positions,
        labels=lifts.labels,
        cv_values=lifts.cv_values,
        energies=energies,
        log_weights=lifts.log_weights,
        guarantee=_reached(lifts) or "exact: with their weights they are the restrained ensemble at each label",
        walkers=Walkers(lifts.positions),
        equilibrated=None,
        force_evaluations=lifts.force_evaluations + len(weighted),
    )


def _kept_by_weight(lifts: Lifts, n: int, rng: np.random.Generator) -> tuple[IntArray, float]:
    """Which n lifts of one label are kept, a lift as often as its weight says, and the log-weight that each then has.

    Of the mean of all weights: so the mean of any property times this weight is what it was over all lifts.
    """
    log_sum = float(logsumexp(lifts.log_weights))
    if not np.isfinite(log_sum):
        return np.zeros(n, dtype=np.int64), -np.inf
    cumulative = np.cumsum(np.exp(lifts.log_weights - log_sum))
    rows = np.searchsorted(cumulative, (rng.random() + np.arange(n)) / n * cumulative[-1], side="right")
    # neighbours may be the same lift
    return rng.permutation(rows.clip(max=len(lifts) - 1)), log_sum - float(np.log(len(lifts)))


def _drawn(lifter: Lifter, labels: FloatArray, n: int, seed: int) -> Structures:
    """Draws of an invertible generator at each of k labels, n of them kept by weight."""
    n_draws = max(DRAWS_EACH * n, MIN_DRAWS)
    lifts = lifter.lift(np.repeat(labels, n_draws, axis=0), seed=named_seed(seed, "structures", "lifts"))
    rows, log_weights = [], []
    for i in range(len(labels)):
        of_label = np.arange(i * n_draws, (i + 1) * n_draws)
        kept, log_weight = _kept_by_weight(lifts.select(of_label), n, named_rng(seed, "structures", "kept", i))
        rows.append(of_label[kept])
        log_weights.append(np.full(n, log_weight))
    found = replace(lifts.select(np.concatenate(rows)), log_weights=np.concatenate(log_weights))
    lost = ~np.isfinite(found.log_weights)
    positions = np.where(lost[:, None, None], np.nan, found.positions)
    fewest = min(len(np.unique(chosen)) for chosen in rows)
    exact = f"exact: kept by weight of {n_draws} draws a label, with their weights they are the ensemble there"
    if fewest < FEWEST_DIFFERENT * n:
        exact += (
            f", but of the {n} of a label as few as {fewest} are different, which errors must count: train with more "
            "evaluations"
        )
    return Structures(
        positions=positions,
        labels=found.labels,
        cv_values=np.where(lost[:, None], np.nan, found.cv_values),
        energies=np.where(lost, np.nan, found.energies),
        log_weights=found.log_weights,
        guarantee=_reached(found) or exact,
        walkers=Walkers(positions),
        equilibrated=None,
        force_evaluations=lifts.force_evaluations,
    )


def _of_isomer(found: Structures, target: MolecularSystem) -> Structures:
    """The same, which say so where they are another isomer than the system's structure; of exact lifts, where all are.

    The model is of that isomer then, and no other is drawn.
    """
    there = found.positions[np.isfinite(found.energies)]
    for what, others in target.other_isomers(there).items():
        if found.log_weights is None or others.all():
            reason = f"{others.sum()} of {len(found)} structures are another isomer than the system's"
            return replace(found, guarantee=f"{reason} ({what} is the other way around): give a model of this isomer")
    return found


def _lifted(
    target: MolecularSystem,
    model: LiftingModel | InvertibleGenerator,
    labels: FloatArray,
    n: int,
    seed: int,
    **options: Any,
) -> Structures:
    lifter = Lifter(target, model, **options)
    if isinstance(model, InvertibleGenerator):
        return _of_isomer(_drawn(lifter, labels, n, seed), target)
    return _of_isomer(_exact(lifter, np.repeat(labels, n, axis=0), seed), target)


@dataclass(frozen=True, eq=False)
class _Unweighted:
    """Walkers that are brought to labels, and equilibrated there.

    Attributes:
        system: in which no lift is exact.
        model: of its solute.
        solute: where the model's atoms are in the system.
        dynamics: restrained.
        labels: shape=(n, d), one a walker.
        seed: of every random number.
        run: runs the tasks.
    """

    system: MolecularSystem
    model: LiftingModel | InvertibleGenerator
    solute: IntArray
    dynamics: RestrainedDynamics
    labels: FloatArray
    seed: int
    run: RunTasks

    def brought(self, n_steps: int) -> tuple[Walkers, int]:
        """Put there by an invertible generator, or steered there by the forces of another; and the cost."""
        if isinstance(self.model, InvertibleGenerator):
            return self._placed(self.model), 0
        return self._steered(self.model, n_steps)

    def _steered(self, model: LiftingModel, n_steps: int) -> tuple[Walkers, int]:
        """From the system's positions to each label, the generator's reference forces upon the solute."""
        chart = model.chart
        assert isinstance(chart, InternalCoordinates)
        latents = model.sample_latents(self.labels, named_rng(self.seed, "structures", "latents"))
        parameters = model.reference_parameters(self.labels, latents)
        # the restraint moves the labels themselves; stiffer bonds would only need a shorter time step
        widths = parameters.widths.copy()
        widths[:, chart.label_indices] = UNRESTRAINED_WIDTH
        widths[:, : chart.n_bonds] = UNRESTRAINED_WIDTH
        start, minimisation = minimised(self.system, self.dynamics.platform)
        walkers, steered = steer(
            self.dynamics,
            start.select([0] * len(self.labels)),
            self.labels,
            n_steps,
            seed=named_seed(self.seed, "structures"),
            chart=replace(chart, z_matrix=np.where(chart.z_matrix < 0, -1, self.solute[chart.z_matrix])),
            parameters=ReferenceParameters(parameters.centres, widths),
            run=self.run,
        )
        return walkers, minimisation + steered

    def _placed(self, model: InvertibleGenerator) -> Walkers:
        """Draws at each label in the solute's place, the solvent as it is: clashes are to be relaxed."""
        rng = named_rng(self.seed, "structures", "draws")
        coordinates, _ = model.transform(model.sample_base(len(self.labels), rng), self.labels)
        drawn = model.chart.to_cartesian(coordinates)
        outside = ~(model.inside(coordinates) & np.isfinite(drawn).all(axis=(1, 2)))
        drawn[outside] = model.typical_positions(self.labels[outside])
        among = AmongOthers(self.solute, self.system.masses[self.solute])
        return Walkers(np.stack([among.placed(one, self.system.positions) for one in drawn]))

    def equilibrated(self, walkers: Walkers, n_steps: int, cost: int, reason: str) -> Structures:
        """Restrained dynamics of walkers, with their labels and energies over time.

        Args:
            walkers: at the labels.
            n_steps: of each.
            cost: force evaluations of bringing them there.
            reason: why no lift is exact.
        """
        n, stride = len(self.labels), max(n_steps // N_OBSERVATIONS, 1)
        tasks = window_tasks(
            self.dynamics,
            self.labels,
            walkers,
            WALKERS_PER_TASK,
            equilibration_steps=0,
            n_frames=N_OBSERVATIONS,
            stride=stride,
            seed=named_seed(self.seed, "structures", "equilibration"),
        )
        parts = self.run(sample_task, tasks)
        positions, energies = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        ends = join_walkers([part[2] for part in parts])
        slow = self.system.slow
        cv_values = slow.transform(positions.reshape(-1, self.system.n_atoms, 3)).reshape(n, N_OBSERVATIONS, -1)
        series = np.concatenate([energies[:, :, None], cv_values], axis=2)
        periods = np.append(np.inf, slow.periods)
        return Structures(
            positions=ends.positions,
            labels=self.labels,
            cv_values=cv_values[:, -1],
            energies=energies[:, -1],
            log_weights=None,
            guarantee=f"no weights ({reason.split(':')[0]}): starts for windows, which are right once equilibrated",
            walkers=ends,
            equilibrated=np.array(
                [stride * equilibration(one, periods)[0] if np.isfinite(one).all() else -1 for one in series]
            ),
            force_evaluations=cost + sum(task.cost for task in tasks),
        )


def _target_of(
    system: Any,
    model: LiftingModel | InvertibleGenerator,
    time_step: float | None,
    temperature: Any,
    may_differ: Collection[str],
    molecule: int | None,
) -> tuple[MolecularSystem, IntArray | None, str | None]:
    """What structures are made of; where no lift is exact, also where the model's atoms are in it, and why none is."""
    if not isinstance(model, LiftingModel | InvertibleGenerator) or not hasattr(system, "topology"):
        given = f"{type(system).__name__} and {type(model).__name__}"
        raise InputError(f"given are {given}: give a Simulation or a system, and a model (gancl.load_model reads one)")
    if temperature is not None and isinstance(system, MolecularSystem):
        raise InputError("a system has a temperature of its own: leave temperature out, or give a Simulation")
    is_system, reason = isinstance(system, MolecularSystem), why_not_exact(system.system, system.topology)
    if reason is None:
        if not is_system:
            system = system_of_simulation(
                system, model, DEFAULT_FORCE_CONSTANT, time_step, 1.0, temperature, may_differ
            )
        return system, None, None
    solute = _solute_of(system.topology, model, molecule)
    slow = _labels_in(model, solute)
    found = _relabelled(system, slow) if is_system else as_system(system, slow, temperature=temperature)
    return found, solute, reason


@checked
def structures_at(
    system: Any,
    model: LiftingModel | InvertibleGenerator,
    labels: FloatArray | Sequence[float] | Sequence[Sequence[float]],
    n: int = 1,
    *,
    relax_steps: int | None = None,
    steer_steps: int = 2000,
    equilibration_steps: int = 2000,
    force_constants: float | FloatArray | None = None,
    time_step: float | None = None,
    temperature: Any = None,
    may_differ: Collection[str] = (),
    molecule: int | None = None,
    seed: int = 0,
    platform: str = "auto",
    workers: Workers = 1,
) -> Structures:
    """All-atom structures at labels.

    Guarantee: of one molecule in vacuum or implicit solvent they are lifts with exact weights: of an invertible
    generator draws at the labels, of which n are kept by their weights, all n with the same weight then; of a product
    generator relaxed lifts, restrained to the labels. Otherwise the solute is drawn at the label by an invertible
    generator and put in its own place, where clashes are relaxed, or steered from the present state by the reference
    forces that a product generator writes there, while the solvent relaxes, and equilibrated under a restraint of the
    label: good starts, without weights. `Structures` says which.

    Args:
        system: an ``openmm.app.Simulation``, which is left as it is, or a system.
        model: of the molecule, or of the solute.
        labels: shape=(d,) or (k, d), radians or nm.
        n: structures at each.
        relax_steps: of relaxed lifts, 500 by default.
        steer_steps: of the way to the label, where the solute is steered.
        equilibration_steps: under the restraint.
        force_constants: shape=(d,), kJ/mol (torsions) or kJ/mol/nm^2; 200, or the system's own, by default.
        time_step: ps.
        temperature: K, of a Simulation whose integrator does not say.
        may_differ: see `openmm_gancl.LiftMove`.
        molecule: an atom of the solute, where several molecules have its residue and atom names.
        seed: of every random number; others need another seed.
        platform: an OpenMM platform, or ``auto`` to measure.
        workers: local processes, or an executor.

    Raises:
        InputError: the model does not fit, or labels that cannot be steered.
    """
    with preserve_platform_rng():
        target, solute, reason = _target_of(system, model, time_step, temperature, may_differ, molecule)
        at, n = checked_labels(np.atleast_2d(numbers(labels)), target.slow), whole_number("n", n)
        how: dict[str, Any] = {"force_constants": force_constants, "time_step": time_step, "platform": platform}
        if solute is None or reason is None:
            model = fitted_to(model, target, may_differ)
            return _lifted(target, model, at, n, seed, relax_steps=relax_steps, workers=workers, **how)
        dynamics = RestrainedDynamics.of(target, **how)
        run, each = partial(run_tasks, workers=workers), np.repeat(at, n, axis=0)
        unweighted = _Unweighted(target, model, solute, dynamics, each, seed, run)
        walkers, cost = unweighted.brought(whole_number("steer_steps", steer_steps))
        n_steps = whole_number("equilibration_steps", equilibration_steps, 0)
        return _of_isomer(unweighted.equilibrated(walkers, n_steps, cost, reason), target)
