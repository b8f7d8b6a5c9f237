"""Microseconds of a Langevin step of alanine dipeptide in vacuum with a force on learned labels, by backend.

    python tests/benchmarks/backends.py

learns two diffusion-map coordinates from quick windows and prints one JSON line a platform: without a force, with the
native restraint of phi and psi, and with the learned restraint by PythonForce and, where it can be loaded, TorchForce;
and with the reference energy of an untrained generator by either. Medians of five, in turn.
"""

import argparse
import json
import time

import numpy as np
import openmm

from openmm_gancl import learn_slow_coordinates, load_system, sample_windows, torch_force
from openmm_gancl.engine import make_restraint
from openmm_gancl.engine.platforms import make_context
from openmm_gancl.engine.torch_force import torch_force_type
from openmm_gancl.generator import untrained_model

STEPS = 200


def stepper(system, force, platform):
    """A function that takes STEPS steps and returns microseconds a step."""
    restrained = openmm.XmlSerializer.clone(system.system)
    if force is not None:
        restrained.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(system.temperature, system.friction, 0.001)
    context = make_context(restrained, integrator, platform, 1)
    context.setPositions(system.positions)
    integrator.step(STEPS)

    def microseconds():
        begun = time.perf_counter()
        integrator.step(STEPS)
        context.getState(energy=True)
        return 1e6 * (time.perf_counter() - begun) / STEPS

    return microseconds


def main():
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platforms", nargs="+", default=["Reference", "CPU"])
    arguments = parser.parse_args()
    system = load_system("alanine_dipeptide_vacuum")
    frames = sample_windows(system, n_windows=64, steps_per_window=1000, frames_per_window=20, seed=1)
    slow = learn_slow_coordinates(system, frames.positions, keep=[], most=2, n_landmarks=400).labels.slow
    model = untrained_model(system, seed=1)
    kappa = np.full(len(slow.names), 20.0)
    backends = ["torch", "python"] if torch_force_type() else ["python"]
    for platform in arguments.platforms:
        forces = {"none": None, "native": make_restraint(system.slow, system.force_constants, 0).force}
        for backend in backends:
            forces[f"learned_{backend}"] = make_restraint(slow, kappa, 0, backend=backend).force
            forces[f"reference_{backend}"] = torch_force(model, "reference", backend=backend)
        steppers = {name: stepper(system, force, platform) for name, force in forces.items()}
        times = {name: [] for name in steppers}
        for _ in range(5):
            for name, microseconds in steppers.items():
                times[name].append(microseconds())
        medians = {name: round(float(np.median(values)), 1) for name, values in times.items()}
        print(
            json.dumps({"platform": platform, "labels": list(slow.names), "microseconds_a_step": medians}), flush=True
        )


if __name__ == "__main__":
    main()
