"""Replica exchange of openmmtools with lifts: alanine dipeptide at three temperatures, all replicas begun in C7eq.

gancl run alanine_dipeptide_vacuum -o runs/ala2; python examples/replica_exchange.py runs/ala2
It prints the population of C7ax at 300 K (the reference: 0.0297) and how often lifts were accepted at each temperature.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
from openmm import Platform, app, unit

import openmm_gancl as gancl

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from openmmtools import cache, mcmc, multistate, states  # pip install 'openmm-gancl[openmmtools]'

TEMPERATURES, PHI = (300, 360, 430), gancl.Torsions(("phi",), np.array([[4, 6, 8, 14]]))


def simulate(run, n_iterations, storage):
    """Your script: Langevin dynamics, and after each stretch a lift, the line that is added."""
    system = gancl.load_system("alanine_dipeptide_vacuum").system
    start = app.PDBFile(str(Path(__file__).parent / "alanine_dipeptide_c7eq.pdb"))
    dynamics = mcmc.LangevinDynamicsMove(2 * unit.femtosecond, 1 / unit.picosecond, n_steps=50)
    files = {"model": run / "model.safetensors", "topology": run / "top.pdb", "surface": run / "fes.npz"}
    lift = gancl.moves.LiftMCMCMove(**files, moves="independent", may_differ=["temperature"])
    moves = mcmc.SequenceMove([dynamics, lift])
    sampler = multistate.ReplicaExchangeSampler(mcmc_moves=moves, number_of_iterations=n_iterations)
    thermodynamic = [states.ThermodynamicState(system, one * unit.kelvin) for one in TEMPERATURES]
    reporter = multistate.MultiStateReporter(storage, checkpoint_interval=1)
    sampler.create(thermodynamic, states.SamplerState(start.positions), reporter)
    sampler.run()
    return sampler


def is_c7ax(written, iteration):
    """Whether 0 < phi < 2.5 rad in the replica that is at the first temperature."""
    replica = list(written.read_replica_thermodynamic_states(iteration)).index(0)
    positions = written.read_sampler_states(iteration)[replica].positions.value_in_unit(unit.nanometer)
    return bool(0 < PHI.transform(positions[None])[0, 0] < 2.5)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run", type=Path, help="a finished run")
parser.add_argument("--iterations", type=int, default=2000)
arguments = parser.parse_args()
cache.global_context_cache.platform = Platform.getPlatformByName("Reference")  # the fastest for so few atoms
with tempfile.TemporaryDirectory() as folder:
    sampler = simulate(arguments.run, arguments.iterations, f"{folder}/replicas.nc")
    written = multistate.MultiStateReporter(f"{folder}/replicas.nc", open_mode="r")
    there = [is_c7ax(written, iteration) for iteration in range(1, arguments.iterations + 1)]
blocks = [np.mean(part) for part in np.array_split(there, 10)]
print(f"C7ax at 300 K: {np.mean(there):.4f} +- {np.std(blocks, ddof=1) / 10**0.5:.4f}")
for temperature, lift in zip(TEMPERATURES, (sequence.move_list[1] for sequence in sampler.mcmc_moves), strict=True):
    print(f"{temperature} K: {100 * lift.n_accepted / lift.n_proposed:.0f} % of {lift.n_proposed} lifts accepted")
