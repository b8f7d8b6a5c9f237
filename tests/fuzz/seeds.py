"""Whole files of each format, small, that fuzzing begins with.

    python -m tests.fuzz.seeds

writes ``corpus/FORMAT/whole*``.
"""

import io
import tempfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import mdtraj
import numpy as np
import openmm
from safetensors import safe_open

from openmm_gancl.free_energy.surface import FreeEnergySurface
from openmm_gancl.generator.model_file import DESCRIPTION
from openmm_gancl.system.library import systems_root
from tests.strangers import PDB

from .targets import CORPUS, FORCE_FIELD, OF_CARD, OF_FORCE_FIELD, STRUCTURE

PHI = np.linspace(-3.0, 3.0, 24)
PERIOD = "#! SET min_phi -pi\n#! SET max_phi pi\n"


def rows(*columns):
    return "".join(" ".join(f"{value:.4g}" for value in row) + "\n" for row in zip(*columns, strict=True))


def _tables():
    t, bias = np.arange(24.0), 5 + np.cos(PHI)
    sigma, height = np.full(24, 0.3), np.full(24, 1.2)
    degrees = np.degrees(PHI)
    return {
        "colvar": [f"#! FIELDS time phi metad.bias\n{PERIOD}{rows(t, PHI, bias)}"],
        "hills": [
            f"#! FIELDS time phi sigma_phi height biasf\n#! SET multivariate false\n{PERIOD}"
            f"{rows(t, PHI, sigma, height, np.full(24, 8.0))}"
        ],
        "kernels": [
            "#! FIELDS time phi sigma_phi height logweight\n#! SET biasfactor 10\n#! SET epsilon 1e-4\n"
            f"{rows(t, PHI, sigma, height, 0 * t)}"
        ],
        "windows": ["file,centre_0,kappa_0,temperature\nw0,0.1,40,300\nw1,0.4,40,300\n"],
        "wham": ["w0 0.1 9.56 0 300\nw1 0.4 9.56 0 300\n"],
        "xvg": [f'# made by hand\n@ title "x"\n@ yaxis label "Angle (deg)"\n@ s0 legend "phi"\n{rows(t, degrees)}'],
        "colvars": [f"# step phi\n{rows(t, degrees)}# step phi\n{rows(t + 24, degrees)}"],
        "dat": [f"#Frame phi\n{rows(t, PHI)}", "time;phi\n" + rows(t, PHI).replace(" ", ";").replace(".", ",")],
    }


def _archive(**arrays):
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _array(values):
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def _arrays():
    n = 5
    kernels = {"positions": PHI[:n, None], "bandwidths": np.full((n, 1), 0.1), "logWeights": np.zeros(n)}
    stream = io.BytesIO()
    FreeEnergySurface(
        np.cos(PHI), np.full(24, 0.1), (np.linspace(0, 1, 25),), ("x",), np.array([np.inf]), 300.0, 0, ("nm",)
    ).save(stream)
    return {
        "metadynamics": [_array(1 + np.cos(np.linspace(-np.pi, np.pi, 25)))],
        "opes": [_archive(exploreMode=False, **{f"totalRW_{key}": value for key, value in kernels.items()})],
        "surface": [stream.getvalue()],
        "npy": [_array(PHI)],
    }


def _molecules():
    from ..peptides import Residue, chain_positions, gro_text, pdb_text, prmtop_text, psf_text

    residues = [Residue(1), Residue(2), Residue(3)]
    x = chain_positions(*np.full((2, 1, 3), 2.0))[0]
    whole = mdtraj.load(str(STRUCTURE))
    positions = whole.xyz[0] + np.random.default_rng(0).normal(0.0, 0.01, (3, *whole.xyz[0].shape))
    frames = mdtraj.Trajectory(positions, whole.topology, np.arange(3.0), np.full((3, 3), 3.0), np.full((3, 3), 90.0))
    found = {
        "pdb": [pdb_text(residues, x), STRUCTURE.read_bytes()],
        "gro": [gro_text(residues, x)],
        "prmtop": [prmtop_text(residues, numbered=True)],
        "psf": [psf_text(residues)],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in (("dcd", "dcd"), ("xtc", "xtc"), ("trr", "trr"), ("netcdf", "nc"), ("gro", "gro")):
            path = Path(folder) / f"t.{kind}"
            (frames[0] if kind == "gro" else frames).save(str(path))
            found.setdefault(name, []).append(path.read_bytes())
    return found


def _systems():
    """Of cards: force field, System, a model of each kind, and the manifest of a run."""
    from openmm_gancl.cli.runs import run_options
    from openmm_gancl.system.build import objects_of_card
    from openmm_gancl.system.card import read_card
    from openmm_gancl.workflow.manifest import MANIFEST
    from openmm_gancl.workflow.run import run

    toy = systems_root() / "double_well_oscillators" / "card.toml"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in (("card.toml", OF_FORCE_FIELD), ("mine.xml", FORCE_FIELD), ("butane.pdb", PDB)):
            (folder / file).write_text(text)
        _, system, _ = objects_of_card(read_card(folder / "card.toml"), folder)
        options = run_options(preset="quick", generator="triangular", platform="Reference", relax_steps=None)
        quiet = SimpleNamespace(step=lambda title, total: nullcontext(lambda count: None), note=print)
        run(folder / "run", "double_well_oscillators", options, reporter=quiet, until="train")
        model = (folder / "run" / "rounds" / "00" / "model" / "model.safetensors").read_bytes()
        manifest = (folder / "run" / MANIFEST).read_text()
        described = read_description(folder / "run" / "rounds" / "00" / "model" / "model.safetensors")
    sde = systems_root() / "quadratic" / "card.toml"
    return {
        "card": [toy.read_text(), OF_CARD, sde.read_text()],
        "force_field": [FORCE_FIELD],
        "system": [openmm.XmlSerializer.serialize(system)],
        "model": [model],
        "description": [described],
        "manifest": [manifest],
    }


def read_description(path):
    with safe_open(path, framework="np") as stored:
        return stored.metadata()[DESCRIPTION]


if __name__ == "__main__":
    for name, contents in (_tables() | _arrays() | _molecules() | _systems()).items():
        (CORPUS / name).mkdir(parents=True, exist_ok=True)
        for i, content in enumerate(contents):
            raw = content.encode() if isinstance(content, str) else content
            (CORPUS / name / f"whole{i or ''}").write_bytes(raw)
