"""Lifts of alanine dipeptide a second: packed, one after the other, and one after the other with a process a core.

    python tests/benchmarks/packed.py [--platforms Reference CPU] [--copies 1 2 4 8 16 32 64] [--lifts 128]

prints one JSON line for each platform and number of copies: medians of five rounds, in each of which every way runs in
turn, of lifts a second with an untrained model and 500 steps, and of their ratios within a round. Packed lifts run in
one process. A further line for each gives the microseconds a copy of its non-bonded forces: as bonds, and as a
NonbondedForce whose pairs are all exceptions, the copies 1 nm apart since it gives NaN where their atoms coincide.
"""

import argparse
import json
import time

import numpy as np
import openmm

from openmm_gancl import Lifter, load_system
from openmm_gancl.engine.packing import pack_system
from openmm_gancl.engine.tasks import available_workers
from openmm_gancl.generator import untrained_model

RELAX_STEPS, ROUNDS = 500, 5


def seconds(action):
    """Of one call."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def lifting(system, platform, copies, labels):
    """Medians of one platform and number of copies."""
    model = untrained_model(system, seed=1)
    options = {"relax_steps": RELAX_STEPS, "platform": platform}
    lifters = {
        "packed": Lifter(system, model, packed=copies, **options),
        "alone": Lifter(system, model, packed=1, **options),
        "process_a_core": Lifter(system, model, packed=1, workers=available_workers(), **options),
    }
    for lifter in lifters.values():
        lifter.lift(labels, seed=0)
    rounds = [
        {
            name: len(labels) / seconds(lambda one=lifter, i=i: one.lift(labels, seed=i))
            for name, lifter in lifters.items()
        }
        for i in range(ROUNDS)
    ]
    result = {f"{name}_per_second": median(one[name] for one in rounds) for name in lifters}
    for name in ("alone", "process_a_core"):
        result[f"packed_over_{name}"] = median(one["packed"] / one[name] for one in rounds)
    return result


def median(values):
    return round(float(np.median(list(values))), 2)


def upper(n):
    return zip(*(index.tolist() for index in np.triu_indices(n, 1)), strict=True)


def bonded(system, copies):
    """A System of copies whose pairs are bonds, and nothing else."""
    packed = pack_system(system, copies)
    for i in reversed(range(packed.getNumForces())):
        if not isinstance(packed.getForce(i), openmm.CustomBondForce):
            packed.removeForce(i)
    return packed


def all_exceptions(system, copies):
    """A System of copies whose pairs are the exceptions of a NonbondedForce, and nothing else."""
    packed, force, with_bonds = openmm.System(), openmm.NonbondedForce(), bonded(system, copies)
    bonds = with_bonds.getForce(0)
    n_atoms = system.getNumParticles()
    pairs = {(a + first, b + first) for first in range(0, copies * n_atoms, n_atoms) for a, b in upper(n_atoms)}
    for _ in range(copies * n_atoms):
        packed.addParticle(12.0)
        force.addParticle(0.0, 1.0, 0.0)
    for i in range(bonds.getNumBonds()):
        a, b, (charge, sigma, epsilon) = bonds.getBondParameters(i)
        force.addException(a, b, charge, sigma, epsilon)
        pairs.remove((a, b))
    for a, b in pairs:
        force.addException(a, b, 0.0, 1.0, 0.0)
    packed.addForce(force)
    return packed


def microseconds(packed, platform, positions, copies):
    """Of the forces of one copy."""
    integrator = openmm.VerletIntegrator(1e-9)
    context = openmm.Context(
        packed,
        integrator,
        openmm.Platform.getPlatformByName(platform),
        {"Threads": "1"} if platform == "CPU" else {},
    )
    context.setPositions((positions + np.arange(copies)[:, None, None]).reshape(-1, 3))
    integrator.step(2)
    steps = max(3, 200 // copies)
    return 1e6 * median_time(lambda: integrator.step(steps)) / steps / copies


def median_time(action):
    return float(np.median([seconds(action) for _ in range(ROUNDS)]))


def main():
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platforms", nargs="+", default=["Reference", "CPU"])
    parser.add_argument("--copies", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--lifts", type=int, default=128)
    arguments = parser.parse_args()
    system = load_system("alanine_dipeptide_vacuum")
    labels = np.random.default_rng(0).uniform(-np.pi, np.pi, (arguments.lifts, 2))
    for platform in arguments.platforms:
        for copies in arguments.copies:
            line = {"platform": platform, "copies": copies}
            forces = {
                name: round(microseconds(make(system.system, copies), platform, system.positions, copies), 1)
                for name, make in (("bonds_us", bonded), ("exceptions_us", all_exceptions))
            }
            print(json.dumps(line | forces), flush=True)
            if copies > 1:
                print(json.dumps(line | lifting(system, platform, copies, labels)), flush=True)


if __name__ == "__main__":
    main()
