"""Error of a surface over two torsions against force evaluations, of the usual methods and of any other.

    python tests/benchmarks/efficiency.py [--system SYSTEM] [--methods plain umbrella ...] [--seeds 1 2 3 4 5 6 7 8]

runs each method that has no result yet with each seed, and writes one file for each to
tests/benchmarks/results/efficiency/SYSTEM: the error at each budget, the settings and the versions. A killed command
goes on with the file that it was at. With one of these options it does something else:

    --table         prints medians and quartiles over the seeds of all files there, whoever made them
    --plot FILE     draws them: error against evaluations
    --count         prints a method's own count of evaluations, and that of a force that does nothing but count
    --pilot         runs the settings that the methods' own were chosen from, on other seeds; with --table shows them
    --add FES       adds a surface of `gancl run` to the file of one method and seed: --methods NAME --seeds SEED
                    --budget N

Every method starts at the card's structure, with the card's time step, masses and friction, on the Reference platform,
and all that it evaluates counts: equilibration, windows, the way to them. Plain dynamics, metadynamics and OPES are
read at every budget of one run; umbrella sampling and this package's loop run for each budget by themselves.

The error is the RMS deviation (kT) from the reference where the reference is below 8.4 kT (5 kcal/mol), means aligned.
No bin is left out: what a surface lacks, or puts higher than 10 kT above its minimum, counts as 10 kT. Metadynamics has
a number everywhere, and is taken at its word. The finite fraction is that of the bins where the method has data:
frames, a hundredth of a hill (metadynamics), a density that is not below exp(-10) of its highest (OPES).
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import openmm
from openmm import app
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.special import logsumexp

from openmm_gancl.errors import InputError
from openmm_gancl.files import write_atomically
from openmm_gancl.free_energy.mbar import solve_mbar, sparse_biases
from openmm_gancl.lifting.loop import learn
from openmm_gancl.system.library import load_system

REFERENCES = Path(__file__).parent.parent / "data"
RESULTS = Path(__file__).parent / "results" / "efficiency"
BUDGETS = (12_000, 18_000, 30_000, 50_000, 100_000, 300_000, 1_000_000, 2_500_000)
CEILING, HIGHEST = 8.4, 10.0
"""kT: the reference's highest bin that is compared, and what a bin without a value counts as."""

SEEDS, PILOT_SEEDS, PILOT_BUDGETS = tuple(range(1, 9)), (101, 102), BUDGETS[:-1]
COUNTED = 3
"""Budgets, the smallest first, over which evaluations are counted twice."""

NODES = 101
"""Of the tables of metadynamics and OPES, along each torsion; the last is the first."""

FINE = 4
"""Points along a bin at which a table is read."""

FRAMES_AT_ONCE = 10_000


@dataclass(frozen=True)
class Estimate:
    """A surface and what it cost.

    Attributes:
        budget: one of `BUDGETS`.
        energy: shape=(n_bins, n_bins), kT, infinite where there is none.
        known: shape=(n_bins, n_bins), whether the method has data there.
        evaluations: of energy and forces, by the method's own count.
    """

    budget: int
    energy: np.ndarray
    known: np.ndarray
    evaluations: int


@dataclass(frozen=True)
class Plain:
    """Settings of plain dynamics; both in steps."""

    equilibration: int = 1000
    stride: int = 10


@dataclass(frozen=True)
class Hills:
    """Settings of metadynamics: kJ/mol, radians, steps."""

    bias_factor: float
    height: float
    width: float
    stride: int


@dataclass(frozen=True)
class Opes:
    """Settings of OPES, those of openmm-opes' own example, with a kernel more often: kJ/mol, radians, steps."""

    barrier: float = 50.0
    bias_factor: float = 10.0
    width: float = 0.15
    stride: int = 100


@dataclass(frozen=True)
class Umbrella:
    """Settings of umbrella sampling with MBAR.

    Attributes:
        per_axis: windows along each torsion, for each of `BUDGETS`; none where it is not run.
        width: standard deviation of a window's restraint, radians.
        highest_bias: kT, mean over a window's frames, above which the window is left out of MBAR, since it has slid
            off its place; none is left out where the others would not hang together.
        equilibration: fraction of a window's steps.
        smoothing: of the histogram of all frames, in bins.
    """

    per_axis: tuple[int, ...]
    width: float
    highest_bias: float = 5.0
    equilibration: float = 0.2
    smoothing: float = 1.5


@dataclass(frozen=True)
class Triangular:
    """Settings of this package's own loop (`openmm_gancl.lifting.learn`): its defaults, up to a budget."""

    highest: int = 50_000


CALLS = [0]
"""Of the force that counts; of the module, since a System is copied with its forces."""


def count_a_call(state):
    CALLS[0] += 1
    return 0.0, np.zeros((len(state.getPositions(asNumpy=True)), 3))


def make_simulation(target, system, seed):
    """A Simulation on its way from the card's structure."""
    integrator = openmm.LangevinMiddleIntegrator(target.temperature, target.friction, target.time_step)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(target.topology, system, integrator, platform)
    simulation.context.setPositions(target.positions)
    simulation.context.setVelocitiesToTemperature(target.temperature, seed)
    return simulation


def sampled_labels(simulation, slow, n_frames, stride):
    """Labels every so many steps, shape=(n_frames, 2)."""
    parts = []
    for begun in range(0, n_frames, FRAMES_AT_ONCE):
        frames = []
        for _ in range(min(FRAMES_AT_ONCE, n_frames - begun)):
            simulation.integrator.step(stride)
            frames.append(simulation.context.getState(positions=True).getPositions(asNumpy=True)._value)
        parts.append(slow.transform(np.array(frames)))
    return np.concatenate(parts)


def histogram(labels, edges):
    return np.histogram2d(*labels.T, bins=(edges, edges))[0]


def plain_estimates(target, system, seed, budgets, settings, edges):
    """Histograms of plain dynamics."""
    simulation = make_simulation(target, system, seed)
    simulation.integrator.step(settings.equilibration)
    counts = np.zeros((len(edges) - 1, len(edges) - 1))
    for budget in budgets:
        n_frames = (budget - simulation.currentStep) // settings.stride
        counts += histogram(sampled_labels(simulation, target.slow, n_frames, settings.stride), edges)
        with np.errstate(divide="ignore"):
            yield Estimate(budget, -np.log(counts), counts > 0, simulation.currentStep)


def bin_energies(table, n_bins):
    """-log of the mean density of each bin, from a surface (kT) at nodes of which the last is the first."""
    places = (np.arange(n_bins * FINE) + 0.5) / (n_bins * FINE) * (len(table) - 1)
    grid = np.stack(np.meshgrid(places, places, indexing="ij"))
    fine = map_coordinates(table[:-1, :-1], grid, order=3, mode="grid-wrap")
    return -logsumexp(-fine.reshape(n_bins, FINE, n_bins, FINE), axis=(1, 3)) + 2 * np.log(FINE)


def bias_variables(slow, width):
    """Both torsions, as metadynamics and OPES take them."""
    variables = []
    for atoms in slow.atoms.tolist():
        force = openmm.CustomTorsionForce("theta")
        force.addTorsion(*atoms, [])
        variables.append(app.BiasVariable(force, -np.pi, np.pi, width, True, NODES))
    return variables


def metadynamics_estimates(target, system, seed, budgets, settings, edges):
    """Surfaces of OpenMM's well-tempered metadynamics, as it gives them."""
    variables = bias_variables(target.slow, settings.width)
    sampler = app.Metadynamics(
        system, variables, target.temperature, settings.bias_factor, settings.height, settings.stride
    )
    simulation = make_simulation(target, system, seed)
    for budget in budgets:
        sampler.step(simulation, budget - simulation.currentStep)
        energy = bin_energies(sampler.getFreeEnergy()._value.T / target.kT, len(edges) - 1)
        bias = -energy * target.kT * (settings.bias_factor - 1) / settings.bias_factor
        yield Estimate(budget, energy, bias > 0.01 * settings.height, simulation.currentStep)


def opes_estimates(target, system, seed, budgets, settings, edges):
    """Surfaces of openmm-opes with its correction of the smoothing; above the barrier it was given it knows nothing."""
    from openmm_opes import OPES

    sampler = OPES(
        system,
        bias_variables(target.slow, settings.width),
        temperature=target.temperature,
        barrier=settings.barrier,
        frequency=settings.stride,
        varianceFrequency=None,
        biasFactor=settings.bias_factor,
    )
    simulation = make_simulation(target, system, seed)
    for budget in budgets:
        sampler.step(simulation, budget - simulation.currentStep)
        table = sampler.getFreeEnergy(correctSmoothing=True)._value.T / target.kT
        barrier = settings.barrier / target.kT
        energy = bin_energies(np.minimum(table - table.min(), barrier), len(edges) - 1)
        yield Estimate(budget, energy, energy < HIGHEST, simulation.currentStep)


def walk(centres, start):
    """Pairs of a window and the one it starts from, -1 for the structure: always the window nearest to any before."""
    distances, sources, left = _distances(centres, start), np.full(len(centres), -1), np.full(len(centres), True)
    for _ in centres:
        window = int(np.where(left, distances, np.inf).argmin())
        left[window] = False
        yield window, int(sources[window])
        from_here = _distances(centres, centres[window])
        nearer = left & (from_here < distances)
        distances[nearer], sources[nearer] = from_here[nearer], window


def _distances(labels, label):
    return (1.0 - np.cos(labels - label)).sum(axis=1)


def add_restraints(system, slow, stiffness):
    """A cosine well for each torsion, at the global parameters centre0 and centre1."""
    for i, atoms in enumerate(slow.atoms.tolist()):
        force = openmm.CustomTorsionForce(f"stiffness*(1-cos(theta-centre{i}))")
        force.addGlobalParameter("stiffness", stiffness)
        force.addGlobalParameter(f"centre{i}", 0.0)
        force.addTorsion(*atoms, [])
        system.addForce(force)


def window_labels(simulation, target, centres, budget, equilibration):
    """Labels of each window's frames; every window starts where a neighbour ended."""
    steps, stride = budget // len(centres), max(5, budget // 50_000)
    waited = int(steps * equilibration)
    ends, labels = {-1: target.positions}, {}
    start = target.slow.transform(target.positions[None])[0]
    for window, source in walk(centres, start):
        for i, centre in enumerate(centres[window]):
            simulation.context.setParameter(f"centre{i}", centre)
        simulation.context.setPositions(ends[source])
        simulation.integrator.step(waited)
        labels[window] = sampled_labels(simulation, target.slow, (steps - waited) // stride, stride)
        ends[window] = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    return [labels[window] for window in range(len(centres))]


def window_biases(labels, centres, stiffness):
    """Of every window at every frame, kT, shape=(n_frames, n_windows)."""
    return stiffness * sum(1.0 - np.cos(labels[:, i, None] - centres[:, i]) for i in range(2))


def mbar_surface(windows, centres, stiffness, edges, smoothing):
    """Surface (kT) of windows with cosine wells of a stiffness in kT.

    The bias depends on the labels alone, and so does MBAR's weight of a frame: that of a bin is taken at its middle,
    and the histogram is smoothed before it is weighed, where it is flattest.
    """
    frames, counts = np.concatenate(windows), np.array([len(window) for window in windows])
    parts = np.array_split(frames, len(frames) // 2000 + 1)
    solution = solve_mbar(sparse_biases(window_biases(part, centres, stiffness) for part in parts), counts)
    middle = (edges[:-1] + edges[1:]) / 2
    bins = np.stack(np.meshgrid(middle, middle, indexing="ij"), axis=-1).reshape(-1, 2)
    log_mixture = logsumexp(np.log(counts) + solution.free_energies - window_biases(bins, centres, stiffness), axis=1)
    smooth = gaussian_filter(histogram(frames, edges), smoothing, mode="wrap", truncate=3.0)
    with np.errstate(divide="ignore"):
        return log_mixture.reshape(smooth.shape) - np.log(smooth)


def surface_of_kept(windows, centres, stiffness, edges, settings):
    """Surface (kT) of the windows that stayed in their places, or of all where those do not suffice for MBAR."""
    pairs = list(zip(windows, centres, strict=True))
    kept = [pair for pair in pairs if stiffness * _distances(*pair).mean() < settings.highest_bias]
    try:
        windows, centres = zip(*kept, strict=True)
        return mbar_surface(windows, np.array(centres), stiffness, edges, settings.smoothing)
    except InputError:
        windows, centres = zip(*pairs, strict=True)
        return mbar_surface(windows, np.array(centres), stiffness, edges, settings.smoothing)


def umbrella_estimates(target, system, seed, budgets, settings, edges):
    """Surfaces of umbrella sampling with MBAR, windows anew for each budget."""
    add_restraints(system, target.slow, 0.0)
    simulation = make_simulation(target, system, seed)
    for budget, per_axis in zip(budgets, settings.per_axis, strict=False):
        if not per_axis:
            continue
        axis = (np.arange(per_axis) + 0.5) * 2 * np.pi / per_axis - np.pi
        centres = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
        stiffness = settings.width**-2
        simulation.context.setParameter("stiffness", stiffness * target.kT)
        simulation.context.setVelocitiesToTemperature(target.temperature, seed)
        begun = simulation.currentStep
        windows = window_labels(simulation, target, centres, budget, settings.equilibration)
        energy = surface_of_kept(windows, centres, stiffness, edges, settings)
        yield Estimate(budget, energy, np.isfinite(energy), simulation.currentStep - begun)


def triangular_estimates(target, system, seed, budgets, settings, edges):
    """Surfaces of the loop with the triangular generator, begun anew for each budget."""
    for budget in budgets:
        if budget <= settings.highest:
            surface = learn(replace(target, system=system), seed=seed, max_evaluations=budget).surface
            energy = surface.energy / target.kT
            yield Estimate(budget, energy, np.isfinite(energy), surface.force_evaluations)


@dataclass(frozen=True)
class Method:
    """How it estimates, its settings, and those that the pilot chose from."""

    estimates: Callable
    settings: object
    candidates: tuple = ()


HILLS = (
    Hills(6.0, 1.2, 0.35, 500),
    Hills(6.0, 1.2, 0.2, 250),
    Hills(10.0, 1.2, 0.2, 250),
    Hills(10.0, 1.0, 0.15, 100),
    Hills(5.0, 0.5, 0.15, 100),
    Hills(15.0, 1.2, 0.25, 250),
)
WINDOWS = (
    Umbrella((8, 8, 8, 8, 8, 8, 0, 0), 0.4, smoothing=1.0),
    Umbrella((16, 16, 16, 16, 16, 16, 16, 0), 0.11, smoothing=1.0),
    Umbrella((0, 0, 24, 24, 24, 24, 24, 0), 0.11, smoothing=1.0),
    Umbrella((0, 0, 0, 0, 0, 32, 32, 0), 0.11, smoothing=1.0),
)
# The pilot (--pilot, seed 101; kT at 100,000, 300,000 and 1,000,000). Umbrella sampling: 16 windows a torsion 0.85,
# 0.56, 0.40, and best below; 24 windows 1.63, 0.32, 0.23; 32 windows -, 0.48, 0.24; 8 broad ones stay above 1.9, since
# windows on a barrier stay on one side; smoothing by 1.5 bins, not 1, takes 5 to 7 % off (seed 102). Metadynamics: 0.29
# (third) to 0.39 (sixth) at 1,000,000; at less they differ by when the run first crosses to positive phi, not by their
# settings. OPES: 1.41, 0.63, 0.33 with a kernel every 500 steps, 1.13, 0.60, 0.29 every 250; 0.45 and 0.33 at 500,000
# every 250 and 100 (seed 102).
METHODS = {
    "plain": Method(plain_estimates, Plain()),
    "umbrella": Method(umbrella_estimates, Umbrella((16, 16, 16, 16, 16, 24, 24, 24), 0.11), WINDOWS),
    "metadynamics": Method(metadynamics_estimates, HILLS[2], HILLS),
    "opes": Method(opes_estimates, Opes(), (Opes(stride=500), Opes(stride=250), Opes())),
    "triangular": Method(triangular_estimates, Triangular()),
}
LABELS = {"triangular": "openmm-gancl", "plain": "plain MD", "umbrella": "umbrella + MBAR", "opes": "OPES"}


def accuracy(energy, known, reference):
    """RMS deviation and the fraction of bins with data, below the ceiling."""
    low = reference < CEILING
    energy = np.where(np.isfinite(energy), energy, np.inf)
    deviation = (np.minimum(energy - energy.min(), HIGHEST) - reference)[low]
    return {"rms_kT": round(float(deviation.std()), 4), "finite_fraction": round(float(known[low].mean()), 4)}


def load_reference(name):
    """Edges, and the surface with its standard errors, kT."""
    with np.load(REFERENCES / f"{name}.npz") as stored:
        return stored["edges"], stored["free_energy_kT"], stored["standard_error_kT"]


def write_result(path, result):
    """One file, whole at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(result, indent=1) + "\n")


def run_method(name, settings, seed, system_name, path, wanted=BUDGETS):
    """All budgets of one method and seed, into one file."""
    target, (edges, reference, _) = load_system(system_name), load_reference(system_name)
    base = name.partition("_")[0]
    system = openmm.XmlSerializer.clone(target.system)
    estimates = METHODS[base].estimates(target, system, seed, wanted, settings, edges)
    budgets = {
        str(one.budget): accuracy(one.energy, one.known, reference) | {"evaluations": one.evaluations}
        for one in estimates
    }
    packages = ("openmm", "numpy", *(("openmm-opes",) if base == "opes" else ()))
    result = {
        "system": system_name,
        "method": name,
        "seed": seed,
        "settings": asdict(settings),
        "versions": {package: version(package) for package in packages},
        "budgets": budgets,
    }
    write_result(path, result)


def run_missing(names, seeds, system_name, folder, pilot):
    """Seed after seed, each method without a file; names are printed as they are finished."""
    chosen = {name: METHODS[name].settings for name in names}
    if pilot:
        chosen = {f"{name}_{i}": one for name in names for i, one in enumerate(METHODS[name].candidates)}
    for seed in seeds:
        for name, settings in chosen.items():
            path = folder / f"{name}-{seed}.json"
            if not path.is_file():
                run_method(name, settings, seed, system_name, path, PILOT_BUDGETS if pilot else BUDGETS)
                print(path.stem, flush=True)


def count_evaluations(name, system_name, seed=201):
    """One method's own count, and that of a force without an effect, over the smallest budgets."""
    target, (edges, _, _) = load_system(system_name), load_reference(system_name)
    system = openmm.XmlSerializer.clone(target.system)
    system.addForce(openmm.PythonForce(count_a_call))
    CALLS[0] = 0
    method, budgets = METHODS[name], BUDGETS[:COUNTED]
    found = [one.evaluations for one in method.estimates(target, system, seed, budgets, method.settings, edges)]
    own = sum(found) if name in {"umbrella", "triangular"} else found[-1]
    return {"method": name, "evaluations": own, "counted": CALLS[0], "ratio": round(CALLS[0] / own, 5)}


def add_surface(path, name, seed, budget, system_name, folder):
    """The surface of a finished run, into the file of a method and seed."""
    edges, reference, _ = load_reference(system_name)
    with np.load(path) as fes:
        if not all(fes[f"edges_{i}"].shape == edges.shape for i in range(2)):
            sys.exit(f"error: {path} has other bins than the reference: run it with {len(edges) - 1} bins a torsion")
        energy, evaluations = fes["energy"] / load_system(system_name).kT, int(fes["force_evaluations"])
    found = accuracy(energy, np.isfinite(energy), reference) | {"evaluations": evaluations}
    file = folder / f"{name}-{seed}.json"
    result = {"system": system_name, "method": name, "seed": seed, "settings": {}}
    if file.is_file():
        result = json.loads(file.read_text())
    result["versions"] = {package: version(package) for package in ("openmm", "numpy", "openmm-gancl")}
    result["budgets"] = result.get("budgets", {}) | {str(budget): found}
    write_result(file, result)


def load_results(folder):
    """Of each method and budget, the values of all its seeds: {method: {budget: [values]}}."""
    results = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        budgets = results.setdefault(result["method"], {})
        for budget, values in result["budgets"].items():
            budgets.setdefault(int(budget), []).append(values)
    return results


def quartiles(values, key):
    """First quartile, median, third quartile."""
    return np.percentile([one[key] for one in values], (25, 50, 75))


def table(results):
    """Lines of Markdown: errors, then the fraction of bins with data where that is not one."""
    methods = list(results)
    budgets = sorted({budget for rows in results.values() for budget in rows})
    lines = ["| evaluations | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for budget in budgets:
        cells = []
        for method in methods:
            if budget not in results[method]:
                cells.append("")
                continue
            values = results[method][budget]
            low, median, high = quartiles(values, "rms_kT")
            cell = f"{median:.3f} ({low:.3f}-{high:.3f}; {len(values)})"
            fraction = quartiles(values, "finite_fraction")[1]
            cells.append(cell + (f" {fraction:.0%}" if fraction < 0.9995 else ""))
        lines.append(f"| {budget:,} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "median in kT (first to third quartile; seeds), and bins with data if not all"])


def draw(results, reference_error, ax):
    """Median lines and quartile bands on logarithmic axes, and the reference's own error."""
    for method, budgets in results.items():
        at = sorted(budgets)
        evaluations = [quartiles(budgets[budget], "evaluations")[1] for budget in at]
        low, median, high = np.array([quartiles(budgets[budget], "rms_kT") for budget in at]).T
        (line,) = ax.plot(evaluations, median, marker="o", markersize=4, label=LABELS.get(method, method))
        ax.fill_between(evaluations, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    ax.axhline(reference_error, color="black", linestyle=":", label="error of the reference")
    ax.set(xscale="log", yscale="log", xlabel="energy and force evaluations")
    ax.set_ylabel(f"RMS error of the surface below {CEILING} kT (kT)")
    ax.set_yticks([0.05, 0.1, 0.2, 0.5, 1, 2, 5], ["0.05", "0.1", "0.2", "0.5", "1", "2", "5"])
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize="small")


def plot(results, system_name, path):
    """The picture, as a file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    _, reference, error = load_reference(system_name)
    figure, ax = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    draw(results, float(np.sqrt((error[reference < CEILING] ** 2).mean())), ax)
    figure.savefig(path, dpi=150)


def main():
    """Parse the arguments and do the one thing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", default="alanine_dipeptide_vacuum")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--pilot", action="store_true")
    parser.add_argument("--budget", type=int)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--table", action="store_true")
    action.add_argument("--plot", type=Path)
    action.add_argument("--count", action="store_true")
    action.add_argument("--add", type=Path)
    arguments = parser.parse_args()
    folder = RESULTS / arguments.system / ("pilot" if arguments.pilot else "")
    unknown = set(arguments.methods) - set(METHODS)
    if unknown and not arguments.add:
        parser.error(f"no method {', '.join(sorted(unknown))}: there are {', '.join(METHODS)}")
    if arguments.table:
        print(table(load_results(folder)))
    elif arguments.plot:
        plot(load_results(folder), arguments.system, arguments.plot)
    elif arguments.count:
        for name in arguments.methods:
            print(json.dumps(count_evaluations(name, arguments.system)), flush=True)
    elif arguments.add:
        if len(arguments.methods) != 1 or len(arguments.seeds or ()) != 1 or not arguments.budget:
            parser.error("--add goes with --methods NAME --seeds SEED --budget N")
        (name,), (seed,) = arguments.methods, arguments.seeds
        add_surface(arguments.add, name, seed, arguments.budget, arguments.system, folder)
    else:
        seeds = arguments.seeds or (PILOT_SEEDS if arguments.pilot else SEEDS)
        run_missing(arguments.methods, seeds, arguments.system, folder, arguments.pilot)


if __name__ == "__main__":
    main()
