"""Damaged tables of every kind: one sentence that names the file, never another exception, never a warning."""

import os
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openmm_gancl import InputError
from openmm_gancl.trajectories import opes_bias
from openmm_gancl.trajectories.observations import read
from openmm_gancl.trajectories.window_table import read_table_of_windows

from .known_surface import TEMPERATURE, biased, colvar_text, write_windows

PHI, BIAS = biased(40)
HILLS = "#! FIELDS time phi sigma_phi height biasf\n#! SET min_phi -pi\n#! SET max_phi pi\n" + "".join(
    f"{i + 1} {x:.4f} 0.3 1.2 8\n" for i, x in enumerate(PHI)
)
KERNELS = "#! FIELDS time phi sigma_phi height logweight\n#! SET biasfactor 10\n#! SET epsilon 1e-4\n" + "".join(
    f"{i + 1} {x:.4f} 0.3 1.2 0.1\n" for i, x in enumerate(PHI)
)
TEXTS = {
    "colvar": colvar_text({"phi": PHI, "metad.bias": BIAS}),
    "xvg": '@ s0 legend "phi"\n' + "".join(f"{i} {x:.3f}\n" for i, x in enumerate(PHI)),
    "csv": "time;phi\n" + "".join(f"{i};{x:.3f}\n".replace(".", ",") for i, x in enumerate(PHI)),
    "hills": HILLS,
    "kernels": KERNELS,
    "windows": "file,centre_0,kappa_0,width_0,temperature\nw0,0.1,40,1,300\nw1,0.4,40,1,300\n",
    "wham": "w0 0.1 40 1\nw1 0.4 40 1\n",
}
PIECES = [
    b"nan",
    b"-inf",
    b"1e400",
    b"#! FIELDS",
    b"#! SET min_phi",
    b"#",
    b"&",
    b";",
    b",",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
]
PIECES += [b"-", b'""', b"\r", b"\n\n", b"*", b"kappa_1", b"sigma_phi", b"time", b"9" * 25]


def opened(name, path):
    """Whatever is done with a file of its kind."""
    if name in ("windows", "wham"):
        table = read_table_of_windows(path, kappa_unit="kJ/mol" if name == "wham" else None)
        return read([], None, ["column:phi"], TEMPERATURE, windows=table)
    if name == "hills":
        return read([], None, ["column:phi"], TEMPERATURE, hills=[path])
    if name == "kernels":
        return opes_bias(path, temperature=TEMPERATURE, periods=[np.inf]).energies(PHI[:, None])
    bias = ["metad.bias"] if name == "colvar" else []
    return read([], None, ["column:phi:none"], TEMPERATURE, colvar=[path], bias_columns=bias)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    for i in range(2):
        (folder / f"w{i}").write_text(colvar_text({"phi": PHI[:: 1 - 2 * i], "restraint.bias": 0 * PHI}))
    write_windows(folder / "w.csv", [("w0", 0.1, 40.0), ("w1", 0.4, 40.0)])
    return folder


@pytest.mark.parametrize("name", TEXTS)
@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(PIECES) | st.binary(max_size=4)), max_size=4
    ),
    st.floats(0.2, 1),
)
def test_no_damage_goes_through(folder, name, damages, length):
    raw = TEXTS[name].encode()
    for place, removed, inserted in damages:
        i = int(place * len(raw))
        raw = raw[:i] + inserted + raw[i + removed :]
    path = folder / f"{name}.{os.getpid()}"
    path.write_bytes(raw[: max(int(length * len(raw)), 1)] if damages else raw)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            opened(name, path)
        except InputError as error:
            assert damages and 10 < len(str(error)) < 600, error
