"""What `learn_move` costs on alanine dipeptide from an Amber prmtop, HBonds constrained, hydrogens of 3 amu and 4 fs.

    python -m tests.benchmarks.learned_move [--seeds 1 2 3] [--table] [--gbsa]

The prmtop (ff96) is openmmtools' (extra ``openmmtools``), read without its GBSA. Each seed is a process of its own and
one file under tests/benchmarks/results/learned_move. ``cpu_seconds``: user and system time of the call, imports left
out. ``evaluations``: of learning, its check and the move's pilot. ``longest_silence``: seconds between two messages.
``accepted``, ``kinetic_temperature`` and ``c7ax`` (0 < phi < 2.5): of 2,000 attempts with 100 steps between, from the
minimised structure of the file. ``crossings``: one-way, between phi < 0 and phi > 0 for a million evaluations, those of
dynamics and moves counted, and of ``plain`` dynamics of as many. ``--gbsa``: in OBC2.
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
PHI = gancl.Torsions(("phi",), np.array([[4, 6, 8, 14]]))


def simulate(seed, gbsa=False):
    """As the user's script makes it."""
    import openmmtools

    data = Path(openmmtools.__file__).parent / "data" / "alanine-dipeptide-gbsa"
    prmtop = app.AmberPrmtopFile(str(data / "alanine-dipeptide.prmtop"))
    solvent = {"implicitSolvent": app.OBC2} if gbsa else {}
    system = prmtop.createSystem(constraints=app.HBonds, hydrogenMass=3 * unit.amu, **solvent)
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


def is_c7ax(simulation):
    """Whether 0 < phi < 2.5 rad."""
    positions = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    return bool(0 < PHI.transform(positions[None])[0, 0] < 2.5)


def measure(seed, gbsa=False):
    """One seed, JSON-ready."""
    simulation, told = simulate(seed, gbsa), [time.monotonic()]
    before, start = cpu_seconds(), time.monotonic()
    move = gancl.learn_move(simulation, LABELS, seed=seed, progress=lambda _: told.append(time.monotonic()))
    seconds, wall = cpu_seconds() - before, time.monotonic() - start
    temperatures, there = [], []
    for _ in range(2000):
        simulation.step(100)
        temperatures.append(kinetic_temperature(simulation))
        move.attempt()
        there.append(is_c7ax(simulation))
    evaluations, plain = 200_000 + move.force_evaluations, simulate(seed, gbsa)
    alone = [(plain.step(evaluations // 2000), is_c7ax(plain))[1] for _ in range(2000)]
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
        "crossings": round(1e6 * np.count_nonzero(np.diff(there)) / evaluations),
        "plain": round(1e6 * np.count_nonzero(np.diff(alone)) / evaluations),
        "doubts": list(move.doubts),
    }


def table(seeds, kind):
    """A line a seed, then medians."""
    rows = [json.loads((RESULTS / f"{kind}{seed}.json").read_text()) for seed in seeds]
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
    parser.add_argument("--gbsa", action="store_true")
    given = parser.parse_args()
    kind = "gbsa_" if given.gbsa else ""
    if given.one is not None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        record = json.dumps(measure(given.one, given.gbsa), indent=1)
        write_atomically(RESULTS / f"{kind}{given.one}.json", record + "\n")
        return
    for seed in given.seeds:
        if not given.table and not (RESULTS / f"{kind}{seed}.json").is_file():
            command = [sys.executable, "-m", "tests.benchmarks.learned_move", "--one", str(seed)]
            subprocess.run(command + ["--gbsa"] * given.gbsa, check=True)
    table(given.seeds, kind)


if __name__ == "__main__":
    main()
