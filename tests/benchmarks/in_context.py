"""Moves inside a Context on alanine dipeptide: the time of an attempt, and crossings for a million evaluations.

    python -m tests.benchmarks.in_context [--system alanine_dipeptide_vacuum] [--evaluations N]

trains the generator (`gancl.learn`, the evaluations that it took are printed), then prints one JSON line a measurement:
microseconds of one bare evaluation of the modules of a proposal and of the density of a configuration, and of an
attempt without dynamics by each backend, less its evaluations of the potential; then, from C7eq, for 10 and 100 steps
of dynamics between attempts, one-way crossings between phi < 0 and the C7ax side (0 < phi < 2.5) for a million
evaluations of the potential, and the population of that side with its error from blocks; and plain dynamics of as many
evaluations. With --run RUN the model and the surface are those of a finished `gancl run`.
"""

import argparse
import json
import time

import numpy as np
import openmm
import torch

from openmm_gancl import learn, load_model, load_surface, load_system
from openmm_gancl.engine.platforms import PotentialEnergy, make_context
from openmm_gancl.engine.torch_force import torch_force_type
from openmm_gancl.moves import InContextMove
from openmm_gancl.moves.context_modules import Proposals, even_placement, force_modules

N, REPEATS, BLOCKS, PIECE = 100, 5, 20, 500


def microseconds(action):
    """Of one of N: the median of several."""
    action()
    action()
    times = []
    for _ in range(REPEATS):
        begun = time.process_time()
        action()
        times.append(1e6 * (time.process_time() - begun) / N)
    return float(np.median(times))


def repeated(function, *arguments):
    """N calls without gradients."""

    def action():
        with torch.no_grad():
            for _ in range(N):
                function(*arguments)

    return action


def times_of(system, generator):
    """Of a bare module, and of an attempt outside the potential, processor time."""
    proposals = Proposals(generator, even_placement(system.slow), system).requires_grad_(False)
    proposal, density = force_modules(proposals)
    normals, here = torch.randn(system.n_atoms, 3, dtype=torch.float64), torch.as_tensor(system.positions)
    energy = PotentialEnergy(system.system, "Reference")
    potential = microseconds(repeated(energy, system.positions))
    found = {
        "proposal": microseconds(repeated(proposal, normals)),
        "density": microseconds(repeated(density, here)),
        "potential": potential,
    }
    bare = max(found["proposal"], found["density"])
    for backend in ["torch", "python"] if torch_force_type() else ["python"]:
        move = InContextMove(system, generator, md_steps=0, backend=backend)
        found[f"attempt, {backend}"] = microseconds(lambda move=move: move.step(N)) - 2 * potential
        found[f"attempt over module, {backend}"] = found[f"attempt, {backend}"] / bare
    return {name: round(value, 2) for name, value in found.items()}


def crossings_of(phi, evaluations):
    """One-way crossings for a million evaluations, and the population of the C7ax side, from phi of many steps."""
    right = (phi > 0.0) & (phi < 2.5)
    blocks = right[: len(right) // BLOCKS * BLOCKS].reshape(BLOCKS, -1).mean(axis=1)
    return {
        "evaluations": int(evaluations),
        "crossings_a_million": round(float((right[1:] != right[:-1]).sum()) / evaluations * 1e6, 1),
        "population": round(float(right.mean()), 4),
        "error": round(float(blocks.std(ddof=1) / np.sqrt(BLOCKS)), 4),
    }


def moved(system, generator, surface, md_steps, evaluations):
    """By attempts and dynamics."""
    move = InContextMove(system, generator, md_steps=md_steps, surface=surface, seed=1)
    n, begun = int(evaluations / (md_steps + 1)), time.process_time()
    phi = np.concatenate([move.run(min(PIECE, n - i)).labels[:, 0] for i in range(0, n, PIECE)])
    row = crossings_of(phi, n * (md_steps + 1))
    seconds = round(time.process_time() - begun, 1)
    return row | {"md_steps": md_steps, "accepted": round(move.acceptance_rate, 3), "processor_seconds": seconds}


def plain(system, evaluations, every=10):
    """By OpenMM's own integrator."""
    integrator = openmm.LangevinMiddleIntegrator(system.temperature, system.friction, system.time_step)
    integrator.setConstraintTolerance(1e-6)
    context = make_context(system.system, integrator, "Reference", 1)
    context.setPositions(system.positions)
    context.setVelocitiesToTemperature(system.temperature, 1)
    phi = np.empty(int(evaluations / every))
    for i in range(len(phi)):
        integrator.step(every)
        positions = context.getState(positions=True).getPositions(asNumpy=True)._value
        phi[i] = system.slow.transform(positions[None])[0, 0]
    return crossings_of(phi, len(phi) * every) | {"plain": True}


def main():
    """Parse the arguments, train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", default="alanine_dipeptide_vacuum")
    parser.add_argument("--evaluations", type=float, default=1e6, help="of the potential, a measurement")
    parser.add_argument("--run", help="a run folder, instead of training")
    arguments = parser.parse_args()
    system = load_system(arguments.system)
    if arguments.run:
        generator, surface = (
            load_model(f"{arguments.run}/model.safetensors"),
            load_surface(f"{arguments.run}/fes.npz"),
        )
    else:
        learned = learn(system, seed=1)
        generator, surface = learned.model, learned.surface
        print(json.dumps({"training_evaluations": learned.history[-1].force_evaluations}), flush=True)
    print(json.dumps(times_of(system, generator)), flush=True)
    for md_steps in (10, 100):
        print(json.dumps(moved(system, generator, surface, md_steps, arguments.evaluations)), flush=True)
    print(json.dumps(plain(system, arguments.evaluations)), flush=True)


if __name__ == "__main__":
    main()
