"""Capped amino acids, and others, labelled by one pair of torsions: what a run says of each, and whether it may.

    python -m tests.benchmarks.molecules [--names ser val ...] [--evaluations 70000] [--seed 1] [--table]

``gancl run CARD --generator triangular --max-evaluations N`` in vacuum at 300 K (ff14SB, 1 fs), one molecule after the
other, labelled by phi and psi of its second residue (proline by psi): ACE-X-NME of tests/data/molecules (ideal
geometry, hydrogens added, minimised), ACE-ALA-ALA-NME with its first pair labelled alone, and n-butane of a serialized
System by its torsion. It writes one file a molecule under tests/benchmarks/results/molecules, and a killed command goes
on where it was.

``code``: exit code. ``ess``: effective samples of the weights to the equilibrium. ``modes``: of each wide coordinate,
with populations.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from openmm_gancl.files import write_atomically
from openmm_gancl.system.library import systems_root

RESULTS = Path(__file__).parent / "results" / "molecules"
DATA = Path(__file__).parent.parent / "data" / "molecules"
RESIDUES = ("gly", "ser", "val", "thr", "cys", "asn", "asp", "phe", "trp", "lys", "pro")
NAMES = (*RESIDUES, "ala_ala", "butane")
EVALUATIONS = 70_000
CARD = """name = "{name}"
structure = "{structure}"
temperature = 300.0
friction = 1.0
time_step = {step}
force_constants = {constants}
{potential}
{labels}
[state]
{state}
"""
FORCE_FIELD = """
[force_field]
files = ["amber14/protein.ff14SB.xml"]
"""


def label(name, torsion):
    return f'[[labels]]\nkind = "torsion"\nname = "{name}"\n{torsion}\n'


def card_of(name):
    """The text of a card."""
    if name == "butane":
        return CARD.format(
            name=name,
            structure=DATA / "butane.pdb",
            step=0.002,
            constants="[100.0]",
            potential=f'system_xml = "{DATA / "butane.xml"}"',
            labels=label("torsion", "atoms = [0, 1, 2, 3]"),
            state="",
        )
    # phi of proline turns a bond of its ring
    names = ("psi",) if name == "pro" else ("phi", "psi")
    structure = systems_root() / "ala_ala_vacuum" / "structure.pdb" if name == "ala_ala" else DATA / f"{name}.pdb"
    return CARD.format(
        name=name,
        structure=structure,
        step=0.001,
        constants=str([200.0] * len(names)),
        potential=FORCE_FIELD,
        labels="".join(label(one, f'torsion = "{one}:2"') for one in names),
        state=("" if name == "gly" else 'chirality = "L"\n') + "trans_peptides = true",
    )


def run(name, evaluations, seed):
    """One run, as a record."""
    with tempfile.TemporaryDirectory() as folder:
        card, out = Path(folder) / "card.toml", Path(folder) / "run"
        card.write_text(card_of(name))
        options = ["--generator", "triangular", "--max-evaluations", str(evaluations), "--seed", str(seed)]
        begun = time.perf_counter()
        command = [
            str(Path(sys.executable).with_name("gancl")),
            "run",
            str(card),
            "-o",
            str(out),
            "--workers",
            "1",
            *options,
        ]
        ended = subprocess.run(command, capture_output=True, text=True, env=os.environ)
        seconds = time.perf_counter() - begun
        record = {"name": name, "evaluations": evaluations, "seed": seed, "code": ended.returncode}
        record["seconds"] = round(seconds)
        if not (out / "surface" / "summary.json").exists():
            return {**record, "error": ended.stderr.strip().splitlines()[-1:]}
        found = json.loads((out / "surface" / "summary.json").read_text())
    return {
        **record,
        "ess": round(found["effective_sample_size"]),
        "efficiency": round(found["efficiency"] or 0.0, 3),
        "median_error": round(found["median_error"], 3),
        "pooled_z": found["pooled_z"] and round(found["pooled_z"], 2),
        "p_value": found["p_value"] and float(f"{found['p_value']:.2g}"),
        "doubts": found["doubts"],
        "modes": [
            [row["name"], round(row["low"], 2), round(row["high"], 2), round(row["weight"], 3)]
            for row in found["modes"]
        ],
    }


def table():
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    print("| molecule | evaluations | wide coordinates | code | effective samples | efficiency | first doubt |")
    print("|---|---|---|---|---|---|---|")
    for one in records:
        wide = len({row[0] for row in one.get("modes", [])})
        doubt = (one.get("error") or one.get("doubts") or [""])[0]
        values = [
            one["name"],
            f"{one['evaluations']:,}",
            wide,
            one["code"],
            one.get("ess", ""),
            one.get("efficiency", ""),
        ]
        print("| " + " | ".join(map(str, [*values, doubt])) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=list(NAMES))
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in () if arguments.table else arguments.names:
        more = "" if arguments.evaluations == EVALUATIONS else f"_{arguments.evaluations}"
        path = RESULTS / f"{name}{more}.json"
        if not path.exists():
            record = run(name, arguments.evaluations, arguments.seed)
            if record["code"] < 0:
                return f"the run of {name} was killed"
            write_atomically(path, json.dumps(record, indent=1) + "\n")
            print(json.dumps(record), flush=True)
    return table()


if __name__ == "__main__":
    sys.exit(main())
