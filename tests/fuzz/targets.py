"""What is done with a file of each format that ``gancl`` reads, for files of any content.

Each target writes bytes under the format's name beside whole companions, reads them as the programs do, and lets an
`InputError` of one sentence pass. Whatever else is raised, is printed as a warning, crashes or takes too long is a
fault.
"""

import json
import os
import shutil
import tempfile
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import safetensors.torch

from openmm_gancl.coordinates.specification import parse_cv
from openmm_gancl.engine.serialization import refuse_code
from openmm_gancl.errors import InputError
from openmm_gancl.free_energy.surface import load_surface
from openmm_gancl.generator.model import load_model
from openmm_gancl.generator.model_file import DESCRIPTION
from openmm_gancl.lifting.sde import load_sde
from openmm_gancl.system.card import SDECard, read_card
from openmm_gancl.system.force_field_files import refuse_scripts
from openmm_gancl.system.library import load_system
from openmm_gancl.trajectories.headers import check_headers
from openmm_gancl.trajectories.observations import read
from openmm_gancl.trajectories.series import read_series
from openmm_gancl.trajectories.static_bias import metadynamics_bias, opes_bias
from openmm_gancl.trajectories.topologies import load_topology
from openmm_gancl.trajectories.window_table import read_table_of_windows
from openmm_gancl.workflow.folder import RunFolder
from openmm_gancl.workflow.manifest import CHECKSUM, checksum_of
from openmm_gancl.workflow.run import options_of
from tests import strangers

STRUCTURE = Path(__file__).parent.parent / "data" / "alanine_dipeptide.pdb"
CORPUS = Path(__file__).parent / "corpus"
TEMPERATURE = 300.0
WINDOWS = {"w0": 0.1, "w1": 0.4}

OF_SYSTEM = strangers.BUTANE.format(potential='system_xml = "system.xml"')
OF_FORCE_FIELD = strangers.BUTANE.format(potential='[force_field]\nfiles = ["mine.xml"]')
OF_CARD = OF_FORCE_FIELD.replace("mine.xml", "good.xml")
FORCE_FIELD = strangers.FORCE_FIELD.replace("{more}", "")


@cache
def structure():
    return load_topology(STRUCTURE)


@cache
def folder():
    """Where the file is written, with windows beside it; made anew in a process that was forked from another."""
    return _folder(os.getpid())


@cache
def _folder(process):
    path = Path(tempfile.mkdtemp(prefix="gancl-fuzz-"))
    x = np.linspace(-0.5, 0.5, 12)
    (path / "butane.pdb").write_text(strangers.PDB)
    (path / "good.xml").write_text(FORCE_FIELD)
    for name, centre in WINDOWS.items():
        rows = "".join(f"{i} {value + centre:.3f} {20 * value**2:.3f}\n" for i, value in enumerate(x))
        (path / name).write_text(f"#! FIELDS time phi restraint.bias\n{rows}")
    return path


def clean_up():
    shutil.rmtree(folder(), ignore_errors=True)


def trajectory(path):
    check_headers(path, path.suffix, structure().n_atoms)  # here too: of a child no coverage is known
    return read_series(path, structure(), ["phi:2", "distance:0,12"])


def topology(path):
    return parse_cv("phi:2", load_topology(path))


def both(path):
    return read_series(path, path, ["phi:2"])


def series(path, **options):
    for cv in ("column:phi", "column:2:none"):
        try:
            found = read([], None, [cv], TEMPERATURE, colvar=[path], **options)
        except InputError as error:
            last = error
        else:
            assert np.isfinite(found.series.values).all()
            return found
    raise last


def biased(path):
    return series(path, bias_columns=["metad.bias"])


def hills(path):
    return read([], None, ["column:phi"], TEMPERATURE, hills=[path])


def windows(path):
    return read([], None, ["column:phi"], TEMPERATURE, windows=read_table_of_windows(path))


def wham(path):
    return read([], None, ["column:2"], TEMPERATURE, windows=read_table_of_windows(path, kappa_unit="kcal/mol"))


def static(make, period):
    """A bias on as many variables as the file has, up to two."""
    for d in (1, 2):
        try:
            bias = make([period] * d)
        except InputError as error:
            last = error
        else:
            assert np.isfinite(bias.energies(np.zeros((2, bias.n_variables)))).all()
            return
    raise last


def opes(path):
    static(lambda periods: opes_bias(path, temperature=TEMPERATURE, barrier=30.0, periods=periods), np.inf)


def metadynamics(path):
    static(lambda periods: metadynamics_bias(path, periods=periods), 2 * np.pi)


def card(path):
    """Itself first, where coverage is known; what it names is read in a child."""
    if isinstance(read_card(path), SDECard):
        load_sde(path)
    else:
        load_system(path)


def from_card(text, check):
    """A reader of a file that a card of this text names."""

    def reader(path):
        check(path)
        (path.parent / "card.toml").write_text(text)
        load_system(path.parent / "card.toml")

    return reader


def system_xml(path):
    refuse_code(path.read_text(encoding="utf-8", errors="replace"))


def model(path):
    try:
        load_model(path)
    except InputError as error:
        assert path.name in str(error)
        raise


def description(path):
    """The JSON of a model's file, in place of that of a whole one with its tensors."""
    text, whole = path.read_bytes().decode(errors="replace"), path.with_name("model.safetensors")
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        raise InputError("it is no JSON: give the description of a model") from None
    whole.write_bytes(safetensors.torch.save(tensors_of_model(), {DESCRIPTION: text}))
    model(whole)


@cache
def tensors_of_model():
    return safetensors.torch.load((CORPUS / "model" / "whole").read_bytes())


def manifest(path):
    """As it is, and as one whose checksum is right, which a stranger can make too."""
    text = path.read_bytes()
    try:
        content = json.loads(text)
        path.write_text(json.dumps({**content, CHECKSUM: checksum_of(content)}))
    except (ValueError, RecursionError, TypeError):
        path.write_bytes(text)
    run = RunFolder.load(path.parent)
    options_of(run)
    run.seconds(), run.evaluations_spent(), run.last_model()
    for name in run.manifest["stages"]:
        run.is_done(name), run.is_lost(name)


def weights(path):
    return read([], None, ["npy:" + str(path)], TEMPERATURE)


TARGETS = {
    "pdb": ("m.pdb", both),
    "gro": ("m.gro", both),
    "prmtop": ("m.prmtop", topology),
    "psf": ("m.psf", topology),
    "dcd": ("m.dcd", trajectory),
    "xtc": ("m.xtc", trajectory),
    "trr": ("m.trr", trajectory),
    "netcdf": ("m.nc", trajectory),
    "colvar": ("COLVAR", biased),
    "hills": ("HILLS", hills),
    "kernels": ("KERNELS", opes),
    "windows": ("w.csv", windows),
    "wham": ("metadata.dat", wham),
    "xvg": ("m.xvg", series),
    "colvars": ("m.colvars.traj", series),
    "dat": ("m.dat", series),
    "metadynamics": ("bias_0_1.npy", metadynamics),
    "opes": ("state.npz", opes),
    "surface": ("fes.npz", load_surface),
    "npy": ("x.npy", weights),
    "card": ("mine.toml", card),
    "force_field": ("mine.xml", from_card(OF_FORCE_FIELD, lambda path: refuse_scripts([path]))),
    "system": ("system.xml", from_card(OF_SYSTEM, system_xml)),
    "model": ("m.safetensors", model),
    "description": ("description.json", description),
    "manifest": ("manifest.json", manifest),
}
"""For each format the name that its file gets, and what reads it."""


def outcome(name, content):
    """The `InputError` of reading a file of this content, None if it is read; anything else is raised."""
    file, reader = TARGETS[name]
    path = folder() / file
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            reader(path)
        except InputError as error:
            text = str(error)
            assert 10 < len(text) < 700 and text.isprintable(), text
            return error
    return None


def corpus(name):
    """Files of a format that are kept, in order."""
    return sorted(path for path in (CORPUS / name).iterdir() if path.is_file())
