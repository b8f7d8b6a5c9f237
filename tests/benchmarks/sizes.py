"""How lifts fare as a molecule grows: ACE-ALA_n-NME in vacuum, all (phi, psi) as labels.

    python -m tests.benchmarks.sizes [--sizes 1 2 3 5] [--evaluations 20000] [--seed 1] [--table]

``--evaluations`` a residue: the loop of the triangular generator. At 24 labels of its last round, 512 lifts each of the
last model without relaxation and 64 with latent moves, their number doubled from 4 until the spread is below one:
``spread``, half the range of the middle 68 % of log w (what single clashes do not decide), median over labels;
``effective``: effective lifts a lift, at least 1/512 and 1/64 by its definition; ``cost``: evaluations of an effective
lift. ``surface``: effective samples of all lifts of the loop to the equilibrium over all labels. It writes one file a
size under tests/benchmarks/results/sizes, and a killed command goes on where it was. The table ends with the exponents
of powers of n that go through the smallest and the largest size.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from openmm_gancl import Torsions, learn
from openmm_gancl.files import write_atomically
from openmm_gancl.free_energy.weight_statistics import effective_sample_size
from openmm_gancl.lifting.latent_relaxation import LatentMoves, choose_step, lift_latent
from openmm_gancl.lifting.rounds import pooled_log_weights
from openmm_gancl.system.library import systems_root
from openmm_gancl.system.molecular_system import system_from_objects

RESULTS = Path(__file__).parent / "results" / "sizes"
N_LABELS, N_UNRELAXED, N_RELAXED = 24, 512, 64
MOST_MOVES = 256


def superposition(source, target):
    """The rotation and shift that bring three points onto three others of the same triangle."""
    frames = []
    for points in (source, target):
        along = points[1] - points[0]
        normal = np.cross(along, points[2] - points[0])
        axes = np.stack([along, np.cross(normal, along), normal])
        frames.append(axes / np.linalg.norm(axes, axis=1)[:, None])
    rotation = frames[1].T @ frames[0]
    return rotation, target[1] - rotation @ source[1]


def peptide(n):
    """Topology and positions of ACE-ALA_n-NME: the second residue of two is repeated, or cut off."""
    pdb = app.PDBFile(str(systems_root() / "ala_ala_vacuum" / "structure.pdb"))
    positions = pdb.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    cap, first, second, end = pdb.topology.residues()
    at = {(r.index, a.name): positions[a.index] for r in pdb.topology.residues() for a in r.atoms()}
    rotation, shift = superposition(*[np.array([at[r.index, x] for x in ("N", "CA", "C")]) for r in (first, second)])
    topology, placed = app.Topology(), []
    chain = topology.addChain()
    for i, residue in enumerate([cap, *[first, *[second] * (n - 1)][:n], end]):
        times = i - 2 if residue is second else n - 2 if residue is end else 0
        made = topology.addResidue(residue.name, chain)
        for atom in residue.atoms():
            topology.addAtom(atom.name, atom.element, made)
            position = positions[atom.index]
            for _ in range(abs(times)):
                position = rotation @ position + shift if times > 0 else rotation.T @ (position - shift)
            placed.append(position)
    topology.createStandardBonds()
    return topology, np.array(placed)


def system_of(n):
    """Minimised, hydrogens of 3 amu, 2 fs."""
    topology, positions = peptide(n)
    force_field = app.ForceField("amber14/protein.ff14SB.xml")
    made = force_field.createSystem(topology, nonbondedMethod=app.NoCutoff, hydrogenMass=3.0)
    context = openmm.Context(made, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context)
    positions = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    at = {(atom.residue.index, atom.name): atom.index for atom in topology.atoms()}
    names, atoms = [], []
    for i in range(1, n + 1):
        names += [f"phi_{i}", f"psi_{i}"]
        atoms += [[at[i - 1, "C"], at[i, "N"], at[i, "CA"], at[i, "C"]]]
        atoms += [[at[i, "N"], at[i, "CA"], at[i, "C"], at[i + 1, "N"]]]
    slow = Torsions(tuple(names), np.array(atoms))
    return system_from_objects(topology, made, positions, temperature=300.0, slow=slow, name=f"ala_{n}", chirality="L")


def spread_of(log_weights):
    """Of log w at a label, median over labels with lifts that did not fail, and effective lifts a lift, (labels, n)."""
    finite = [row[np.isfinite(row)] for row in log_weights]
    spread = float(np.median([0.5 * np.ptp(np.quantile(row, [0.16, 0.84])) for row in finite if len(row) > 2]))
    effective = np.mean([effective_sample_size(row) if np.isfinite(row).any() else 0.0 for row in log_weights])
    return spread, float(effective) / log_weights.shape[1]


def run(n, evaluations, seed):
    """One size, as a record."""
    system, rng = system_of(n), np.random.default_rng(seed)
    begun = time.process_time()
    learned = learn(system, seed=seed, max_evaluations=n * evaluations)
    cpu = time.process_time() - begun
    labels, rows = learned.placements[-1].sample(N_LABELS, rng), []
    step, _ = choose_step(system, learned.model, labels.repeat(16, axis=0), rng)
    moves = 0
    while not rows or (rows[-1]["spread"] > 1.0 and moves < MOST_MOVES):
        moves = 0 if not rows else max(4, 2 * moves)
        repeated = labels.repeat(N_RELAXED if moves else N_UNRELAXED, axis=0)
        draws = lift_latent(system, learned.model, repeated, rng, LatentMoves(moves, step))
        spread, effective = spread_of(draws.log_weights.reshape(N_LABELS, -1))
        cost = draws.force_evaluations / max(effective * len(draws), 1e-9)
        rows.append(
            {"moves": moves, "spread": round(spread, 3), "effective": round(effective, 4), "cost": round(cost, 1)}
        )
    return {
        "n": n,
        "atoms": system.n_atoms,
        "labels": 2 * n,
        "evaluations": n * evaluations,
        "seed": seed,
        "last_round": round(learned.history[-1].effective_fraction, 4),
        "surface": round(effective_sample_size(pooled_log_weights(learned.lifts)), 1),
        "doubts": len(learned.doubts),
        "cpu": round(cpu, 1),
        "step": step,
        "rows": rows,
    }


def exponent(records, value):
    """Of the power of n through the first and the last."""
    first, last = records[0], records[-1]
    return np.log(value(last) / value(first)) / np.log(last["n"] / first["n"])


def table():
    records = sorted((json.loads(path.read_text()) for path in RESULTS.glob("*.json")), key=lambda one: one["n"])
    print(
        "| n | atoms | evaluations | spread of log w | effective lifts | moves for a spread of 1 | cost then "
        "| least cost | effective samples of the surface | doubts |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for one in records:
        rows, last = one["rows"], one["rows"][-1]
        moves = last["moves"] if last["spread"] <= 1.0 else f"more than {last['moves']}"
        least = min(rows, key=lambda row: row["cost"])
        cells = [one["n"], one["atoms"], f"{one['evaluations']:,}", rows[0]["spread"], rows[0]["effective"], moves]
        cells += [last["cost"], f"{least['cost']} ({least['moves']} moves)", one["surface"], one["doubts"]]
        print("| " + " | ".join(map(str, cells)) + " |")
    if len(records) > 1:
        spread = exponent(records, lambda one: one["rows"][0]["spread"])
        cost = exponent(records, lambda one: min(row["cost"] for row in one["rows"]))
        print(f"\nthe spread of log w goes with n to the {spread:.1f}, the least cost with n to the {cost:.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 3, 5])
    parser.add_argument("--evaluations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for n in () if arguments.table else arguments.sizes:
        path = RESULTS / f"{n}.json"
        if not path.exists():
            record = run(n, arguments.evaluations, arguments.seed)
            write_atomically(path, json.dumps(record, indent=1) + "\n")
            print(json.dumps(record), flush=True)
    return table()


if __name__ == "__main__":
    sys.exit(main())
