"""Closures of a finished run: averages, mean force, drift and diffusion, the reduced model, consistency."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from ..closures.averages import conditional_average, ensemble_average
from ..closures.backward_equation import Region, Relaxations, committor, core_of, mean_passage_times, relaxations
from ..closures.consistency import Consistency, check_consistency
from ..closures.drift_diffusion import GRID, EffectiveDynamics, effective_dynamics
from ..closures.ensemble import Ensemble
from ..closures.inertial_model import InertialFit, fit_inertial_model
from ..closures.inertial_passages import inertial_passage_times
from ..closures.mean_force import closure_test
from ..closures.observables import potential_energy
from ..closures.plots import plot_closures
from ..closures.reduced_model import ReducedModel
from ..closures.swarm_slopes import FEWEST_RUNS
from ..coordinates.basin import Basin
from ..coordinates.slow_coordinates import in_domain
from ..engine.random_numbers import named_rng
from ..engine.tasks import Workers
from ..errors import InputError
from ..files import finite, load_json
from ..generator.invertible import InvertibleGenerator
from ..generator.model import LiftingModel, load_model
from ..generator.training import train_model
from ..generator.wgan_gp import TrainingOptions
from ..lifting.draws import join_draws
from ..lifting.label_regression import LabelRegression
from ..lifting.rounds import load_round
from ..lifting.structures import structures_at
from ..sampling.labels import grid_labels, spread
from ..sampling.swarms import Dynamics, sample_swarm
from ..units import FloatArray, whole_number
from .context import Reporter, Run
from .folder import RunFolder
from .run import open_run

STAGE = "closures"
RESULTS = ("closures.json", "closures.npz", "closures.png")
REDUCED_MODEL, INERTIAL_MODEL = "reduced_model.npz", "inertial_model.npz"

ModelKind = Literal["auto", "overdamped", "inertial"]

CEILING = 6.0
"""kT, up to which runs begin and lifts are compared."""

CANDIDATES = {1: 60, 2: 30}
"""Labels a coordinate, from which those of runs are chosen."""

N_LABELS, N_RUNS = {1: 15, 2: 20}, {1: 100, 2: 50}
"""At which runs begin, and how many from each."""

SHORTEST, LONGEST = 0.4, 1.0
"""ps, of runs whose length is not given."""

FEWEST_STARTS = 10.0
"""Effective structures of a label, at which its runs begin: with fewer what is fast is not in equilibrium."""

N_COMPARED = 4
"""Labels of the table of consistency."""

N_OF_PRODUCT = 4000
"""Lifts, kept by their weights, that the product generator of the table is fitted to."""

N_FRAMES = 40
"""Of each run."""


@dataclass(frozen=True)
class ClosureOptions:
    """Options of `gancl closures`.

    Args:
        n_labels: at which runs begin; 15 over one label, 20 over two, by default.
        n_runs: from each; 100 over one label, 50 over two, by default.
        length: ps, of each run; by default twice the memory of velocities, but from 0.4 to 1.
        lag: ps, the first lag, in place of the plateau's beginning.
        dynamics: of the runs, langevin or brownian.
        time_step: ps, of the runs; the system's own by default, but of brownian ones.
        model: overdamped, inertial (effective Langevin dynamics), or auto: overdamped where the runs have a plateau,
            and inertial where they have none.
    """

    n_labels: int | None = None
    n_runs: int | None = None
    length: float | None = None
    lag: float | None = None
    dynamics: Dynamics = "langevin"
    time_step: float | None = None
    model: ModelKind = "auto"

    def checked(self) -> "ClosureOptions":
        """The same, if it can be done.

        Raises:
            InputError: a number that cannot be.
        """
        if self.n_runs is not None:
            whole_number("`runs`", self.n_runs, FEWEST_RUNS)
        if self.n_labels is not None:
            whole_number("`labels`", self.n_labels, 3)
        if self.length is not None and not (math.isfinite(self.length) and self.length > 0):
            raise InputError(f"`length` is {self.length}: give a positive number of ps")
        if self.dynamics not in get_args(Dynamics):
            raise InputError(f"`dynamics` is {self.dynamics!r}: choose {' or '.join(get_args(Dynamics))}")
        if self.model not in get_args(ModelKind):
            raise InputError(f"`model` is {self.model!r}: choose {', '.join(get_args(ModelKind))}")
        if self.dynamics == "brownian" and self.model == "inertial":
            raise InputError("`model='inertial'` is of runs with velocities, which `dynamics='brownian'` have not")
        if self.dynamics == "brownian" and self.time_step is None:
            raise InputError("`dynamics='brownian'` needs a time step of its own: give `time_step`, shorter than usual")
        return self


@dataclass(frozen=True)
class Closures:
    """What was found.

    Attributes:
        folder: of the run.
        record: as in ``closures.json``.
        trial: whether it is of a quick preset.
    """

    folder: Path
    record: dict[str, Any]
    trial: bool

    @property
    def doubts(self) -> list[str]:
        """Sentences, why they are not to be trusted."""
        return list(self.record["doubts"])

    def text(self) -> str:
        """For people, doubts first."""
        record, trial = self.record, "a trial, " if self.trial else ""
        lines = [f"{trial}not to be trusted: {doubt}" for doubt in self.doubts]
        test, energy = record["mean_force"], record["potential_energy"]
        if energy["mean"] is not None:
            lines.append(f"mean potential energy      {energy['mean']:.2f} +- {energy['error']:.2f} kJ/mol")
        if test is not None:
            lines.append(
                f"mean force against weights {test['rms']:.3f} kT (z = {test['z']:+.1f}, beyond 4: not to be trusted)"
            )
        if record["dynamics"] is not None:
            found = record["dynamics"]
            lines.append(f"model                      {found['model']}: {found['why']}")
            lines.append(f"lag                        {found['lag']:.3g} to {found['last']:.3g} ps")
            scales = ", ".join(f"{scale:.3g}" for scale in found["time_scales"]) or "no"
            limit = " (in the limit of high friction)" if found["inertial"] else ""
            lines.append(f"time scales                {scales} ps{limit}")
            for row in found["passages"]:
                lines.append(
                    f"core of {row['first']} to {row['second']}: {row['there']:.4g} ps, back {row['back']:.4g} ps"
                )
        lines += ["", *record["consistency"]["table"]] if record["consistency"] is not None else []
        return "\n".join([*lines, "", f"picture: {self.folder / 'closures.png'}"])


T = TypeVar("T")


def _or_doubt(compute: Callable[[], T], doubts: list[str]) -> T | None:
    """What can be computed; a part that cannot be leaves a sentence, and the others as they are."""
    try:
        return compute()
    except InputError as error:
        doubts.append(str(error))
        return None


def _lifts_of(run: Run) -> tuple[Ensemble, LabelRegression, InvertibleGenerator]:
    """All lifts of a finished run, the regression of all of them, and the last model."""
    folder, rounds = run.folder, []
    for name, stage in folder.manifest["stages"].items():
        if stage["done"] and (name.endswith("/lifts") or name.startswith("lifts/")):
            rounds.append(load_round(folder.path / name, run.system.slow))
    model = load_model(folder.file("model", "model.safetensors"))
    assert isinstance(model, InvertibleGenerator)
    draws = join_draws([one.draws for one in rounds])
    return Ensemble.of_draws(draws, model, run.system), rounds[-1].regression, model


def _low_labels(run: Run, regression: LabelRegression, n: int) -> FloatArray:
    """Labels below the ceiling, far from one another and from open ends, shape=(n, d)."""
    slow = run.system.slow
    candidates = grid_labels(slow, CANDIDATES[len(slow.names)])
    log_density = regression.log_density(candidates)
    low = candidates[(log_density > log_density.max() - CEILING) & in_domain(candidates, slow)]
    return low[spread(low, slow.periods, np.ptp(slow.domain, axis=1), n)]


@dataclass(frozen=True)
class Models:
    """What was made of the runs.

    Attributes:
        overdamped: with the evidence of a plateau.
        inertial: None where the other serves.
        starts: effective number of structures that the runs of a label began at, the fewest.
    """

    overdamped: EffectiveDynamics
    inertial: InertialFit | None
    starts: float

    @property
    def why(self) -> str:
        """This one, in a sentence."""
        if self.inertial is None:
            return self.overdamped.evidence
        found = self.inertial
        return (
            f"{self.overdamped.evidence}; with inertia moments of the runs up to {found.lags[-1]:.3g} ps differ "
            f"by {found.misfit:.1f} standard errors, variances by {found.deviation:.0%}"
        )

    def doubts(self) -> list[str]:
        """Sentences, why the model in use is not to be trusted."""
        doubts = self.overdamped.doubts() if self.inertial is None else self.inertial.doubts()
        if self.starts < FEWEST_STARTS:
            doubts.append(
                f"runs of a label began at {self.starts:.1f} effective structures alone, so few have weight there: "
                "raise `max_evaluations`"
            )
        return doubts


def effective_starts(positions: FloatArray, labels: FloatArray) -> float:
    """How many structures the runs of a label began at, the fewest: of those kept by weight some may be the same.

    Args:
        positions: shape=(n, n_atoms, 3), nm.
        labels: shape=(n, d), requested.
    """
    found = np.inf
    for label in np.unique(labels, axis=0):
        mine = positions[(labels == label).all(axis=1)]
        counts = np.unique(mine.reshape(len(mine), -1), axis=0, return_counts=True)[1]
        found = min(found, float(counts.sum() ** 2 / (counts**2).sum()))
    return found


def _dynamics(run: Run, regression: LabelRegression, model: InvertibleGenerator, options: ClosureOptions) -> Models:
    """Of runs from accepted lifts."""
    system, d = run.system, len(run.system.slow.names)
    labels = _low_labels(run, regression, options.n_labels or N_LABELS[d])
    n_runs = options.n_runs or N_RUNS[d]
    lifts = structures_at(system, model, labels, n_runs, seed=run.seed(STAGE, "starts"), platform=run.platform)
    run.folder.spend(lifts.force_evaluations)
    kept = np.isfinite(lifts.energies)
    memory = 2.0 / system.friction if options.dynamics == "langevin" and system.friction > 0 else 0.0
    length = options.length or min(max(memory, SHORTEST), LONGEST)
    time_step = options.time_step or system.time_step
    stride = max(1, round(length / time_step / N_FRAMES))
    swarm = sample_swarm(
        system,
        lifts.positions[kept],
        stride * N_FRAMES,
        n_frames=N_FRAMES,
        time_step=time_step,
        seed=run.seed(STAGE, "runs"),
        platform=run.platform,
        dynamics=options.dynamics,
    )
    run.folder.spend(stride * N_FRAMES * len(swarm))
    surface = regression.surface(system.slow, system.temperature, 0, GRID[d])
    of_runs = (swarm, system.slow, lifts.labels[kept], surface)
    found = effective_dynamics(*of_runs, system.temperature, lag=options.lag)
    inertia = options.model == "inertial" or (
        options.model == "auto" and options.dynamics == "langevin" and not found.scan.has_plateau
    )
    fitted = fit_inertial_model(*of_runs, seed=run.seed(STAGE, "inertia")) if inertia else None
    return Models(found, fitted, effective_starts(lifts.positions[kept], lifts.labels[kept]))


def _passages(run: Run, found: Models, first: Basin, second: Basin, doubts: list[str]) -> FloatArray:
    """Between cores, there and back, ps."""
    if found.inertial is None:
        return _between_cores(mean_passage_times, found.overdamped.model, first, second)
    model = found.inertial.model
    cores = [core_of(model.overdamped, basin) for basin in (first, second)]
    times = inertial_passage_times(model, *cores, seed=run.seed(STAGE, "passages", first.name, second.name))
    doubts += [f"{first.name} and {second.name}: {doubt}" for doubt in times.doubts()]
    return times.mean


def _between_cores(
    function: Callable[[ReducedModel, Region, Region], FloatArray], model: ReducedModel, first: Basin, second: Basin
) -> FloatArray:
    """A function of two regions, which are the cores of basins."""
    return function(model, core_of(model, first), core_of(model, second))


def _dynamics_record(run: Run, models: Models, slowest: Relaxations, doubts: list[str]) -> dict[str, Any]:
    """JSON-ready."""
    passages, found, inertial = [], models.overdamped, models.inertial
    for first, second in combinations(run.system.basins, 2):
        times = _or_doubt(partial(_passages, run, models, first, second, doubts), doubts)
        if times is not None:
            passages.append({"first": first.name, "second": second.name, "there": times[0], "back": times[1]})
    with_inertia = (
        None
        if inertial is None
        else {
            "velocity_covariance": inertial.model.velocity_covariance.tolist(),
            "friction": inertial.model.friction.tolist(),
            "misfit": inertial.misfit,
            "deviation": inertial.deviation,
        }
    )
    return {
        "model": "overdamped" if inertial is None else "inertial",
        "why": models.why,
        "inertial": with_inertia,
        "lag": float(found.scan.lags[found.scan.chosen]),
        "last": found.scan.last,
        "has_plateau": found.scan.has_plateau,
        "lags": found.scan.lags.tolist(),
        "p_values": found.scan.p_values.tolist(),
        "p_of_drift": found.p_value,
        "labels": len(found.labels),
        "runs": int(found.counts.sum()),
        "left": found.left,
        "time_scales": slowest.time_scales.tolist(),
        "passages": passages,
    }


def _consistency_record(found: Consistency) -> dict[str, Any]:
    return {
        "labels": found.labels.tolist(),
        "rows": [asdict(row) for row in found.rows],
        "free_time": found.free_time,
        "free_label_change": found.free_label_change,
        "table": found.table(),
    }


def closures_stage(run: Run, options: ClosureOptions, out: Path) -> None:
    """Compute everything, write JSON, arrays and a picture."""
    doubts, arrays = list[str](), dict[str, Any]()
    with run.reporter.step("closures", 4) as done:
        ensemble, regression, model = _lifts_of(run)
        energies = _energies(run, ensemble)
        average = conditional_average(ensemble, energies)
        edges, values, errors = average.on_grid()
        unknown = np.full((2, 1), np.nan)
        mean, error = _or_doubt(lambda: ensemble_average(ensemble, energies), doubts) or unknown
        done(1)
        test = _or_doubt(lambda: closure_test(ensemble), doubts)
        done(2)
        found = _or_doubt(lambda: _dynamics(run, regression, model, options), doubts)
        done(3)
        compared = _or_doubt(lambda: _compared(run, ensemble, regression, model), doubts)
        done(4)
    for result in (test, found, compared):
        doubts += result.doubts() if result is not None else []
    arrays |= {f"edges_{i}": axis for i, axis in enumerate(edges)}
    arrays |= {"potential_energy": values[..., 0], "potential_energy_error": errors[..., 0]}
    if test is not None:
        arrays |= {"mean_force_energy": test.surface.energy, "mean_force_error": test.surface.error}
        arrays |= {"weights_energy": test.surface_of_weights.energy, "weights_error": test.surface_of_weights.error}
        plot_closures(test, None if found is None else found.overdamped, values[..., 0], errors[..., 0]).savefig(
            out / "closures.png", dpi=150
        )
    if found is not None:
        in_use = found.overdamped.model if found.inertial is None else found.inertial.model.overdamped
        slowest = _or_doubt(partial(relaxations, in_use, 3), doubts) or Relaxations.none(in_use)
        arrays |= _dynamics_arrays(run, found.overdamped, in_use, slowest)
        found.overdamped.model.save(out / REDUCED_MODEL)
        if found.inertial is not None:
            found.inertial.model.save(out / INERTIAL_MODEL)
    np.savez_compressed(out / "closures.npz", names=np.array(run.system.slow.names), **arrays)
    record = {
        "doubts": doubts,
        "options": asdict(options),
        "potential_energy": {"mean": float(mean[0]), "error": float(error[0])},
        "mean_force": None if test is None else {"rms": test.rms, "z": test.z, "labels": len(test.labels)},
        "dynamics": None if found is None else _dynamics_record(run, found, slowest, doubts),
        "consistency": None if compared is None else _consistency_record(compared),
    }
    (out / "closures.json").write_text(json.dumps(finite(record), indent=1) + "\n")


def _energies(run: Run, ensemble: Ensemble) -> Callable[[FloatArray], FloatArray]:
    """The potential energies of lifts with a weight, as an observable of this ensemble alone; one evaluation each."""
    energies = potential_energy(ensemble.system)(ensemble.positions[ensemble.ok])
    run.folder.spend(len(energies))
    return lambda positions: energies


def _product(run: Run, ensemble: Ensemble, regression: LabelRegression) -> LiftingModel:
    """Independent terms of each coordinate given the label, fitted to lifts: about as many anywhere as were drawn."""
    log_weights = np.where(ensemble.ok, ensemble.log_weights - regression.log_density(ensemble.labels), -np.inf)
    chances = np.exp(log_weights - log_weights.max())
    rows = named_rng(run.options.seed, STAGE, "product").choice(len(chances), N_OF_PRODUCT, p=chances / chances.sum())
    of_lifts, seed = (ensemble.positions[rows], ensemble.labels[rows]), run.seed(STAGE, "product")
    return train_model(run.system, *of_lifts, seed=seed, options=TrainingOptions(latent_size=0))


def _compared(run: Run, ensemble: Ensemble, regression: LabelRegression, model: InvertibleGenerator) -> Consistency:
    labels = _low_labels(run, regression, N_COMPARED)
    product = _product(run, ensemble, regression)
    on: dict[str, Any] = {"seed": run.seed(STAGE, "consistency"), "platform": run.platform, "workers": run.workers}
    found = check_consistency(run.system, model, labels, product=product, **on)
    run.folder.spend(found.force_evaluations)
    return found


def _dynamics_arrays(run: Run, found: EffectiveDynamics, in_use: ReducedModel, slowest: Relaxations) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "labels": found.labels,
        "drift": found.drift,
        "drift_error": found.drift_error,
        "diffusion": found.diffusion,
        "diffusion_error": found.diffusion_error,
        "lags": found.scan.lags,
        "diffusion_by_lag": found.scan.diffusion,
        "drift_by_lag": found.scan.drift,
        "time_scales": slowest.time_scales,
        "eigenfunctions": slowest.functions,
    }
    if len(run.system.basins) > 1:
        first, second = run.system.basins[:2]
        committed = _or_doubt(partial(_between_cores, committor, in_use, first, second), [])
        arrays |= {} if committed is None else {"committor": committed}
    return arrays


def _stored_record(folder: RunFolder) -> dict[str, Any]:
    return dict(load_json(folder.file(STAGE, "closures.json")))


def run_closures(
    path: str | os.PathLike[str],
    options: ClosureOptions = ClosureOptions(),
    *,
    reporter: Reporter,
    workers: Workers | None = None,
    trust_force_field: bool = False,
) -> Closures:
    """Closures of a finished run, into its folder ``closures``, and to the top of it.

    Args:
        path: the run folder.
        options: of the runs.
        reporter: of progress and notes.
        workers: local processes, or an executor.
        trust_force_field: see `load_system`.

    Raises:
        InputError: the run is not finished, relaxes its lifts, has learned labels, or more than two, or holds others.
    """
    options = options.checked()
    with open_run(Path(path), None, None, reporter, workers, trust_force_field) as opened:
        if opened.options.relaxes or opened.options.slow != "torsions":
            raise InputError(
                f"{path} has relaxed lifts or learned labels, whose closures are not written yet: begin a run with the "
                "default generator and the card's labels"
            )
        if opened.system.card.get("molecule") is not None:
            raise InputError(
                f"{path} is of a molecule beside others that are held, whose motion is not that of its dynamics: "
                "closures are of a molecule alone"
            )
        if not opened.folder.is_done("surface"):
            raise InputError(f"{path} is not finished: go on with `gancl lift {path}` first")
        if len(opened.system.slow.names) not in GRID:
            raise InputError(f"closures over {len(opened.system.slow.names)} labels are not supported: use one or two")
        folder = opened.folder
        if folder.read_only and folder.is_done(STAGE) and _stored_record(folder)["options"] == asdict(options):
            folder.verify(STAGE)
        else:
            folder.run_stage(STAGE, partial(closures_stage, opened, options))
        # of two models the one in use, and none that an earlier call left
        has_inertia = folder.file(STAGE, INERTIAL_MODEL).is_file()
        model, other = (INERTIAL_MODEL, REDUCED_MODEL) if has_inertia else (REDUCED_MODEL, INERTIAL_MODEL)
        if not folder.read_only:
            (folder.path / other).unlink(missing_ok=True)
        folder.publish(STAGE, [name for name in (*RESULTS, model) if folder.file(STAGE, name).is_file()])
        return Closures(folder.path, _stored_record(folder), opened.options.preset == "quick")
