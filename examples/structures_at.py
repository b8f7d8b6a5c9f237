"""All-atom structures at given labels: exact lifts in vacuum, and in a box of water the solute steered there.

gancl run alanine_dipeptide_vacuum --generator product -o runs/ala2
python examples/structures_at.py runs/ala2/model.safetensors [--preset quick]

It writes vacuum.pdb and water.pdb, one model a structure, and says which guarantee each has.
"""

import argparse

import numpy as np
from openmm import LangevinMiddleIntegrator, Platform, app

import openmm_gancl as gancl

LABELS = [(-1.4, 1.2), (1.0, -0.8)]  # phi and psi, radians: C7eq and C7ax
STEPS = {"default": (20, 500, 2000), "quick": (2, 100, 120)}  # structures, relaxation, steering


def write(path, topology, positions):
    """All structures as models of one PDB file."""
    with open(path, "w") as file:
        app.PDBFile.writeHeader(topology, file)
        for number, structure in enumerate(positions, start=1):
            app.PDBFile.writeModel(topology, 10 * structure, file, modelIndex=number)
        app.PDBFile.writeFooter(topology, file)


def main():
    """In vacuum, then in water."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--preset", choices=STEPS, default="default")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    model = gancl.load_model(arguments.model)
    n, relax_steps, steer_steps = STEPS[arguments.preset]

    vacuum = gancl.load_system("alanine_dipeptide_vacuum")
    found = gancl.structures_at(vacuum, model, LABELS, n, relax_steps=relax_steps, workers=arguments.workers)
    print(f"vacuum: {found.describe(vacuum.slow)}")
    for label, log_weights in zip(LABELS, np.split(found.log_weights, len(LABELS)), strict=True):
        print(f"effective sample size at {label}: {gancl.free_energy.effective_sample_size(log_weights):.1f} of {n}")
    write("vacuum.pdb", vacuum.topology, found.positions[np.isfinite(found.log_weights)])

    water = gancl.load_system("alanine_dipeptide_water")  # here your own topology, System and positions
    integrator = LangevinMiddleIntegrator(300, 1, 0.004)
    simulation = app.Simulation(water.topology, water.system, integrator, Platform.getPlatformByName("CPU"))
    simulation.context.setPositions(water.positions)
    options = {"steer_steps": steer_steps, "equilibration_steps": steer_steps, "workers": arguments.workers}
    found = gancl.structures_at(simulation, model, LABELS, platform="CPU", **options)
    print(f"water: {found.describe(water.slow)}")
    write("water.pdb", water.topology, found.positions)


if __name__ == "__main__":
    main()
