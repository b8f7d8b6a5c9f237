"""What is done with a file of each format that `gancl fes` and `gancl lift` read, for files of any content.

Each target writes bytes under the format's name beside whole companions, reads them as the programs do, and lets an
`InputError` of one sentence pass. Whatever else is raised, is printed as a warning, crashes or takes too long is a
fault.
"""

import os
import shutil
import tempfile
import warnings
from functools import cache
from pathlib import Path

import numpy as np

from openmm_gancl.coordinates.specification import parse_cv
from openmm_gancl.errors import InputError
from openmm_gancl.free_energy.surface import load_surface
from openmm_gancl.trajectories.headers import check_headers
from openmm_gancl.trajectories.observations import read
from openmm_gancl.trajectories.series import read_series
from openmm_gancl.trajectories.static_bias import metadynamics_bias, opes_bias
from openmm_gancl.trajectories.topologies import load_topology
from openmm_gancl.trajectories.window_table import read_table_of_windows

STRUCTURE = Path(__file__).parent.parent / "data" / "alanine_dipeptide.pdb"
CORPUS = Path(__file__).parent / "corpus"
TEMPERATURE = 300.0
WINDOWS = {"w0": 0.1, "w1": 0.4}


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
