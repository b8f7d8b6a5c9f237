"""What `learn_move` costs on alanine dipeptide from an Amber prmtop, HBonds constrained, hydrogens of 3 amu and 4 fs.

    python -m tests.benchmarks.learned_move [--seeds 1 2 3] [--table]

The prmtop (ff96) is openmmtools' (extra ``openmmtools``), read without its GBSA. Each seed is a process of its own and
one file under tests/benchmarks/results/learned_move. ``cpu_seconds``: user and system time of the call, imports left
out. ``evaluations``: of learning, its check and the move's pilot. ``longest_silence``: seconds between two messages.
``accepted``, ``kinetic_temperature`` and ``c7ax`` (0 < phi < 2.5): of 2,000 attempts with 100 steps between, from the
minimised structure of the file.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

import openmm_gancl as gancl
from openmm_gancl.files import write_atomically

RESULTS = Path(__file__).parent / "results" / "learned_move"
LABELS = ["phi:2", "psi:2"]


def simulate(seed):
    """As the user's script makes it."""
    import openmmtools

    data = Path(openmmtools.__file__).parent / "data" / "alanine-dipeptide-gbsa"
    prmtop = app.AmberPrmtopFile(str(data / "alanine-dipeptide.prmtop"))
    system = prmtop.createSystem(constraints=app.HBonds, hydrogenMass=3 * unit.amu)
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.004)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(prmtop.topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(app.AmberInpcrdFile(str(data / "alanine-dipeptide.crd")).positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(300, seed)
    return simulation


def cpu_seconds():
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def kinetic_temperature(simulation):
    """K, of constraints and a centre of mass at rest."""
    energy = simulation.context.getState(energy=True).getKineticEnergy()
    degrees = 3 * simulation.system.getNumParticles() - simulation.system.getNumConstraints() - 3
    return (2 * energy / (degrees * unit.MOLAR_GAS_CONSTANT_R)).value_in_unit(unit.kelvin)


def measure(seed):
    """One seed, JSON-ready."""
    simulation, told = simulate(seed), [time.monotonic()]
    before, start = cpu_seconds(), time.monotonic()
    move = gancl.learn_move(simulation, LABELS, seed=seed, progress=lambda _: told.append(time.monotonic()))
    seconds, wall = cpu_seconds() - before, time.monotonic() - start
    temperatures, there, labels = [], [], gancl.Torsions(("phi",), np.array([[4, 6, 8, 14]]))
    for _ in range(2000):
        simulation.step(100)
        temperatures.append(kinetic_temperature(simulation))
        move.attempt()
        positions = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
        there.append(0 < labels.transform(positions[None])[0, 0] < 2.5)
    blocks = [np.mean(part) for part in np.array_split(there, 10)]
    return {
        "seed": seed,
        "cpu_seconds": round(seconds, 1),
        "wall_seconds": round(wall, 1),
        "evaluations": move.summary.force_evaluations + move.summary.check_evaluations + move.pilot_evaluations,
        "longest_silence": round(float(np.diff([*told, start + wall]).max()), 1),
        "accepted": round(move.acceptance_rate, 3),
        "kinetic_temperature": round(float(np.mean(temperatures)), 1),
        "c7ax": round(float(np.mean(there)), 4),
        "c7ax_error": round(float(np.std(blocks, ddof=1) / 10**0.5), 4),
        "doubts": list(move.doubts),
    }


def table(seeds):
    """A line a seed, then medians."""
    rows = [json.loads((RESULTS / f"{seed}.json").read_text()) for seed in seeds]
    names = [name for name in rows[0] if name not in ("seed", "doubts")]
    print(" ".join(f"{name:>19}" for name in ["seed", *names]))
    for row in rows:
        print(" ".join(f"{row[name]:>19}" for name in ["seed", *names]), *row["doubts"])
    print(" ".join(f"{value:>19}" for value in ["median", *(float(np.median([r[n] for r in rows])) for n in names)]))


def main():
    """Measure the seeds that have no file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_atomically(RESULTS / f"{given.one}.json", json.dumps(measure(given.one), indent=1) + "\n")
        return
    for seed in given.seeds:
        if not given.table and not (RESULTS / f"{seed}.json").is_file():
            subprocess.run([sys.executable, "-m", "tests.benchmarks.learned_move", "--one", str(seed)], check=True)
    table(given.seeds)


if __name__ == "__main__":
    main()
