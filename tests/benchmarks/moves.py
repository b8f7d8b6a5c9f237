"""Crossings of alanine dipeptide by `LiftMove`, an invertible generator, and by plain dynamics of as many evaluations.

    python -m tests.benchmarks.moves RUNS [--rows ROW ...] [--chains 2] [--table]

takes RUNS/SYSTEM/model.safetensors and fes.npz of finished runs (`gancl run SYSTEM -o RUNS/SYSTEM`), and learns those
that are not there (``hbonds``: the vacuum's force field with HBonds constrained, hydrogens of 3 amu and 4 fs). Each
chain begins in C7eq; a row is so many chains, one file each under tests/benchmarks/results/moves, and a killed command
goes on where it was.

``per_million``: one-way crossings between C7eq and C7ax for a million evaluations, those of the dynamics, of the
attempts and of the pilot. A chain is on the side of C7ax from 0.3 < phi < 2.2 rad on until phi < -0.3 or phi > 2.8.
``c7ax``: share of attempts after which 0 < phi < 2.5, in ten blocks. ``plain``: the same of dynamics alone.
``overhead_ms``: CPU time of an attempt outside its two evaluations, the least of 10 stretches of 256.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from openmm_gancl import LiftMove, learn, load_model, load_system
from openmm_gancl.files import write_atomically
from openmm_gancl.moves.inverted import N_AHEAD
from openmm_gancl.system.molecular_system import system_from_objects

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "moves"
START = HERE.parents[1] / "examples" / "alanine_dipeptide_c7eq.pdb"
VACUUM, GBSA, HBONDS = "alanine_dipeptide_vacuum", "alanine_dipeptide_gbsa", "hbonds"
TIME_STEPS = {VACUUM: 0.002, GBSA: 0.002, HBONDS: 0.004}
ROWS = {
    f"{system}_{md_steps}": (system, md_steps)
    for system, md_steps in ((VACUUM, 100), (VACUUM, 10), (GBSA, 100), (GBSA, 10), (HBONDS, 100), (HBONDS, 10))
}
C7AX = {VACUUM: 0.0297, GBSA: 0.0215}
"""Its population in the references."""

EVALUATIONS, N_BLOCKS = 250_000, 10
"""Of each chain, and blocks of it for the error of the population."""


def system_of(name):
    """A shipped system, or the one with constraints."""
    if name != HBONDS:
        return load_system(name)
    vacuum = load_system(VACUUM)
    force_field = app.ForceField("amber14/protein.ff14SB.xml")
    rigid = force_field.createSystem(
        vacuum.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds, hydrogenMass=3 * unit.amu
    )
    options = {"temperature": 300.0, "slow": vacuum.slow, "force_constants": 200.0, "time_step": TIME_STEPS[HBONDS]}
    return system_from_objects(vacuum.topology, rigid, vacuum.positions, **options)


def problem(runs, name):
    """A system, its generator and the file of its surface."""
    system, folder = system_of(name), runs / name
    if not (folder / "fes.npz").exists():
        folder.mkdir(parents=True, exist_ok=True)
        learned = learn(system, seed=1)
        learned.model.save(folder / "model.safetensors")
        learned.surface.save(folder / "fes.npz")
    return system, load_model(folder / "model.safetensors"), folder / "fes.npz"


def simulation_of(system, name, seed):
    """A Simulation in C7eq on the Reference platform."""
    integrator = openmm.LangevinMiddleIntegrator(300, 1, TIME_STEPS[name])
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(system.topology, system.system, integrator, platform)
    simulation.context.setPositions(app.PDBFile(str(START)).positions)
    simulation.context.applyConstraints(1e-6)
    openmm.LocalEnergyMinimizer.minimize(simulation.context, maxIterations=20)
    simulation.context.setVelocitiesToTemperature(300, seed)
    simulation.step(500)
    return simulation


def summary(phi, evaluations):
    """Crossings and the population of C7ax of a series of phi."""
    side = np.where((phi > 0.3) & (phi < 2.2), 1, np.where((phi < -0.3) | (phi > 2.8), 0, -1))
    side = side[side >= 0]
    crossings = int(np.abs(np.diff(side)).sum())
    return {
        "crossings": crossings,
        "per_million": round(1e6 * crossings / evaluations, 1),
        "c7ax": [round(float(part.mean()), 5) for part in np.array_split((phi > 0) & (phi < 2.5), N_BLOCKS)],
    }


def least_seconds(action, n, times):
    """CPU time of one of n actions, the least of so many times."""
    found = []
    for _ in range(times):
        begun = time.process_time()
        for _ in range(n):
            action()
        found.append((time.process_time() - begun) / n)
    return min(found)


def plain_phi(system, name, seed, evaluations, md_steps):
    simulation, phi = simulation_of(system, name, seed), []
    for _ in range(evaluations // md_steps):
        simulation.step(md_steps)
        positions = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
        phi.append(system.slow.transform(positions[None])[0, 0])
    return np.array(phi)


def run(runs, row, seed):
    """One chain, as a record."""
    name, md_steps = ROWS[row]
    system, model, surface = problem(runs, name)
    simulation = simulation_of(system, name, seed)
    move = LiftMove(simulation, model, surface=surface, seed=seed)
    phi, evaluations = [], move.pilot_evaluations
    while evaluations < EVALUATIONS:
        records = move.run(500, md_steps)
        phi += [record.after[0] for record in records]
        evaluations += sum(record.force_evaluations for record in records) + 500 * md_steps
    attempts, accepted, measured = len(phi), round(move.acceptance_rate, 3), repr(move)
    place = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    evaluation = least_seconds(lambda: move._here(place), 64, 40)
    attempt = least_seconds(move.attempt, N_AHEAD, 10)
    return {
        "row": row,
        "seed": seed,
        "evaluations": evaluations,
        "attempts": attempts,
        "accepted": accepted,
        **summary(np.array(phi), evaluations),
        "plain": summary(plain_phi(system, name, seed, evaluations, max(md_steps, 50)), evaluations),
        "overhead_ms": round(1e3 * (attempt - 2 * evaluation), 3),
        "evaluation_us": round(1e6 * evaluation, 1),
        "moves": measured,
    }


def table():
    """Every row's crossings, with a sigma of the population from its chains."""
    for row in ROWS:
        found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"{row}_*.json"))]
        found = [one for one in found if one["row"] == row]
        if not found:
            continue
        total = sum(one["evaluations"] for one in found)
        crossings, plain = (sum(part["crossings"] for part in parts) for parts in (found, [f["plain"] for f in found]))
        share = np.concatenate([one["c7ax"] for one in found])
        error = share.std(ddof=1) / len(share) ** 0.5
        name, md_steps = ROWS[row]
        known = C7AX.get(name, float("nan"))
        # where every attempt, of two evaluations, gives an independent sample
        perfect = 2e6 * known * (1 - known) / (md_steps + 2)
        print(
            f"{row:30} {1e6 * crossings / total:7.0f} of {perfect:.0f}, plain {1e6 * plain / total:5.1f}; "
            f"C7ax {share.mean():.4f} +- {error:.4f} ({total:,} evaluations); accepted "
            f"{np.mean([one['accepted'] for one in found]):.2f}; overhead {min(one['overhead_ms'] for one in found)} ms"
        )


def main():
    """Parse the arguments, measure what is not yet there, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print what is there, and measure nothing")
    arguments = parser.parse_args()
    if not arguments.table and arguments.runs is None:
        sys.exit("error: give the folder of the runs")
    RESULTS.mkdir(parents=True, exist_ok=True)
    for row in () if arguments.table else arguments.rows:
        for seed in range(1, arguments.chains + 1):
            path = RESULTS / f"{row}_{seed}.json"
            if not path.exists():
                write_atomically(path, json.dumps(run(arguments.runs, row, seed)) + "\n")
    table()


if __name__ == "__main__":
    main()
