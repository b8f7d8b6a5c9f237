"""Text tables of PLUMED, GROMACS, colvars, cpptraj, spreadsheets: the same series from each, and what is no series."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openmm_gancl import InputError
from openmm_gancl.trajectories.colvar import read_colvar
from openmm_gancl.trajectories.observations import read
from openmm_gancl.trajectories.periods import plumed_number
from openmm_gancl.trajectories.tables import READERS, check_series, expanded, read_table

from .known_surface import colvar_text

X = np.array([0.25, 1.5, -2.0, 3.125])
TIME = np.array([0.0, 0.5, 1.0, 1.5])
ROWS = [f"{t:.4f} {x:.4f}" for t, x in zip(TIME, X, strict=True)]

FORMATS = {
    "plumed": ("PLUMED", ["#! FIELDS time phi", *ROWS], "phi"),
    "xvg": (
        "GROMACS",
        ["# gmx angle", '@ yaxis label "Angle (degrees)"', "@TYPE xy", '@ s0 legend "phi"', *ROWS],
        "phi",
    ),
    "pullx": ("GROMACS", ['@ s0 legend "1"', *ROWS], "1"),
    "xvg without legends": ("GROMACS", ["@TYPE xy", *ROWS], "2"),
    "colvars": ("colvars", ["# step         phi", *ROWS[:2], "# step         phi", *ROWS[2:]], "phi"),
    "cpptraj": ("cpptraj", ["#Frame          phi", *ROWS], "phi"),
    "savetxt": ("columns", ["# a remark of the user", "# time phi", *ROWS], "phi"),
    "csv": ("CSV", ["time,phi", *(row.replace(" ", ",") for row in ROWS)], "phi"),
    "quoted csv": ("columns", ['#"time","phi"', *(row.replace(" ", ",") for row in ROWS)], "phi"),
    "state data of OpenMM": ("columns", ['#"Time (ps)","phi"', *(row.replace(" ", ",") for row in ROWS)], "phi"),
    "spreadsheet": ("CSV", ["time;phi", *(row.replace(" ", ";").replace(".", ",") for row in ROWS)], "phi"),
    "header without a mark": ("CSV", ["time phi", *ROWS], "phi"),
    "plain": ("columns", ROWS, "2"),
    "units in brackets": ("CSV", ["Time (ns),phi (rad)", *(row.replace(" ", ",") for row in ROWS)], "phi (rad)"),
    "Fortran": ("columns", [row.replace(" ", "D+00 ") + "D+00" for row in ROWS], "2"),
    "Fortran with names": ("columns", ["# time phi", *(row.replace(" ", "D+00 ") + "d+00" for row in ROWS)], "phi"),
    "decimal commas": ("columns", [row.replace(".", ",") for row in ROWS], "2"),
    "decimal commas and tabs": (
        "CSV",
        ["time\tphi", *(row.replace(".", ",").replace(" ", "\t") for row in ROWS)],
        "phi",
    ),
    "another time": ("GROMACS", ['@ xaxis label "Simulation t / ns"', '@ s0 legend "phi"', *ROWS], "phi"),
    "grace": ("GROMACS", ['@ xaxis label "Frame"', '@ s0 legend "phi"', "@target G0.S0", *ROWS], "phi"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_series(tmp_path, name):
    form, lines, column = FORMATS[name]
    (tmp_path / "t").write_text("\n".join(lines) + "\n")
    table = read_table(tmp_path / "t")
    assert table.header.form == form
    assert read_colvar([tmp_path / "t"]).column(column).tolist() == X.tolist()
    assert (
        read([], None, [f"column:{column}"], 300.0, colvar=[tmp_path / "t"]).series.values[:, 0].tolist() == X.tolist()
    )
    if name == "xvg":
        assert table.header.units == {"phi": "degrees"}


def test_every_reader_is_needed(monkeypatch, tmp_path):
    """Planted: without its reader a format is refused, or its column has no name."""
    for name, missing in (("xvg", "_xvg"), ("colvars", "_commented"), ("csv", "_headed"), ("plain", "_plain")):
        _, lines, column = FORMATS[name]
        (tmp_path / "t").write_text("\n".join(lines) + "\n")
        with monkeypatch.context() as patch:
            patch.setattr(
                "openmm_gancl.trajectories.tables.READERS", tuple(r for r in READERS if r.__name__ != missing)
            )
            with pytest.raises(InputError):
                read_colvar([tmp_path / "t"]).column(column)


@pytest.mark.parametrize("dressing", ["plain", "gz", "bom", "crlf", "blank lines", "latin-1", "utf-16"])
def test_gzip_marks_and_line_ends_change_nothing(tmp_path, dressing):
    text = colvar_text({"phi": X})
    if dressing == "blank lines":
        text = text.replace("\n", "\n\n")
    raw = text.replace("\n", "\r\n").encode() if dressing == "crlf" else text.encode()
    raw = b"# 90\xb0 and 3 \xc5\n" + raw if dressing == "latin-1" else raw
    raw = text.encode("utf-16") if dressing == "utf-16" else raw
    raw = b"\xef\xbb\xbf" + raw if dressing == "bom" else gzip.compress(raw) if dressing == "gz" else raw
    (tmp_path / "COLVAR").write_bytes(raw)
    table = read_colvar([tmp_path / "COLVAR"])
    assert table.column("phi").tolist() == X.tolist() and table.period("phi") == pytest.approx(2 * np.pi)


@pytest.mark.parametrize(
    "ending",
    [" 0.800000 ", " 0.800000 1.2", " 0.8", " 0.800000 -", " 0.800000\n", "\0\0\0\0"],
    ids=["no number", "half a number", "half a time", "a sign", "ended", "zeros"],
)
def test_a_line_that_a_kill_cut_is_left_out_and_said(tmp_path, ending):
    (tmp_path / "COLVAR").write_text(colvar_text({"phi": X}) + ending)
    table = read_colvar([tmp_path / "COLVAR"])
    assert table.column("phi").tolist() == X.tolist()
    assert table.notes == (f"a line of {tmp_path / 'COLVAR'} that was cut while it was written is left out",)


def test_a_last_line_that_is_whole_is_kept(tmp_path):
    (tmp_path / "COLVAR").write_text(colvar_text({"phi": X}).rstrip("\n"))
    table = read_colvar([tmp_path / "COLVAR"])
    assert table.column("phi").tolist() == X.tolist() and not table.notes


@pytest.mark.parametrize("glue", ["\n", ""], ids=["on its own line", "within the line"])
def test_a_run_that_was_cut_and_went_on(tmp_path, glue):
    first, second = colvar_text({"phi": X}), colvar_text({"phi": X + 10}, start=0.6, period=None)
    (tmp_path / "COLVAR").write_text(f"{first} 0.800000 {glue}{second}")
    table = read_colvar([tmp_path / "COLVAR"])
    assert table.column("time") == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2])
    assert table.column("phi").tolist() == [*X[:3], *(X + 10)]
    assert "was cut" in table.notes[0] and "1 rows" in table.notes[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (colvar_text({"phi": X}).replace(" 0.200000 1.500000", " 0.200000"), "holds 1 in line 5"),
        (colvar_text({"phi": X}).replace("1.500000", "1.50x000"), "line 5: '1.50x000' is no number"),
        ("", "holds no row"),
        ("a.dat 1.0 60\n", "as a table of windows does: give it by `windows`"),
        ("# window place k\nw0.dat 1.0 60\nw1.dat 2.0 60\n", "as a table of windows does: give it by `windows`"),
        ("# time phi psi\n0.1x 1.0 60\n1 2.0 60\n", "line 2: '0.1x' is no number"),
        ("file,centre_0,kappa_0\na.dat,1,60\n", "is a table of windows: give it by `windows`"),
        ('@ s0 legend "a"\n0 1\n1 2\n&\n0 3\n', "several sets of data"),
        ('@ xaxis label "Phi"\n-60.1 140.2 ALA-2\n-61.1 141.2 ALA-3\n', "names a residue, ALA-2, as gmx rama does"),
        ("# time phi\n0 1.0\n1 ******\n2 1.0\n", "line 3: a number was wider than its column (******)"),
        ("#! FIELDS time phi\n#! SET min_phi -pi\n0 1\n#! SET min_phi -180\n1 2\n", "changes min_phi"),
    ],
)
def test_files_that_are_broken_are_named(tmp_path, text, message):
    (tmp_path / "t").write_text(text)
    with pytest.raises(InputError) as error:
        read_table(tmp_path / "t")
    assert message in str(error.value) and str(tmp_path / "t") in str(error.value)


@pytest.mark.parametrize("raw", [b"\x1f\x8b\x08junk", bytes(range(256)) * 9, b"a" * 2_000_000, b"\0" * 500])
def test_files_that_are_no_text_are_named(tmp_path, raw):
    (tmp_path / "t").write_bytes(raw)
    with pytest.raises(InputError, match=str(tmp_path / "t")):
        read_table(tmp_path / "t")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (
            "#! FIELDS time phi sigma_phi height biasf\n0 1 0.3 1.2 8\n",
            "hills of metadynamics, no series: give it by `hills`",
        ),
        ("#! FIELDS time phi sigma_phi height logweight\n0 1 0.3 1.2 8\n", "kernels of OPES"),
        ("#! FIELDS time phi sigma_phi height\n#! SET action OPES_METAD_state\n0 1 0.3 1.2\n", "kernels of OPES"),
        ("#! FIELDS phi file.free der_phi\n0 1 0.3\n", "a surface or a bias on a grid"),
        ("#! FIELDS phi metad.bias\n#! SET nbins_phi 100\n0 1\n", "a surface or a bias on a grid"),
        ("#Coor Free +/- Prob +/-\n0 1 0 1 0\n", "a surface or a bias on a grid"),
        ('@ xaxis label "Degrees"\n@ s0 legend "phi"\n0 1\n1 2\n', "a curve over Degrees, no series in time"),
    ],
)
def test_tables_that_are_no_series_are_recognised(tmp_path, text, remedy):
    (tmp_path / "t").write_text(text)
    with pytest.raises(InputError) as error:
        read([], None, ["column:phi"], 300.0, colvar=[tmp_path / "t"])
    assert remedy in str(error.value)
    check_series(read_table_of(tmp_path, colvar_text({"phi": X})))


def read_table_of(folder, text):
    (folder / "series").write_text(text)
    return read_table(folder / "series")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-pi", -np.pi),
        ("+pi", np.pi),
        ("2*pi", 2 * np.pi),
        ("2pi", 2 * np.pi),
        ("-PI", -np.pi),
        ("-pi/2", -np.pi / 2),
        ("3*pi/2", 1.5 * np.pi),
        ("0.5pi", np.pi / 2),
        ("-180", -180.0),
        ("6.28318530717959", 2 * np.pi),
    ],
)
def test_numbers_of_plumed_are_understood(text, value):
    assert plumed_number(text) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("text", ["abc", "..", "1/0", "__import__('os')", "pi" * 1000, "9**9**9", ""])
def test_what_is_no_number_is_none(text):
    assert np.isnan(plumed_number(text))


def test_vectors_of_colvars_are_columns(tmp_path):
    """Each component by its number; a row where one is missing is named."""
    header = "# step    d    com\n"
    rows = [f"{i} {0.5 + i} ( {i}.1 , -{i}.2 , 3e0 )\n" for i in range(3)]
    (tmp_path / "run.colvars.traj").write_text(header + rows[0] + rows[1] + header + rows[2])
    table = read_colvar([tmp_path / "run.colvars.traj"])
    assert table.fields == ("step", "d", "com_1", "com_2", "com_3")
    assert table.column("com_2").tolist() == [-0.2, -1.2, -2.2] and table.column("d").tolist() == [0.5, 1.5, 2.5]
    (tmp_path / "broken").write_text(header + rows[0] + rows[1].replace(", 3e0 ", "") + rows[2])
    with pytest.raises(InputError, match="names 5 columns but holds 4 in line 3"):
        read_colvar([tmp_path / "broken"])


def test_wildcards_are_in_the_order_of_their_numbers(tmp_path):
    for i in (0, 2, 10, 1):
        (tmp_path / f"w{i}.dat").write_text("0 1\n")
    assert [path.name for path in expanded([tmp_path / "w*.dat"])] == ["w0.dat", "w1.dat", "w2.dat", "w10.dat"]
    with pytest.raises(InputError, match="no file matches"):
        expanded([tmp_path / "v*.dat"])


numbers = st.floats(-1e6, 1e6).map(lambda x: float(f"{x:.4f}"))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(numbers, numbers), min_size=2, max_size=12),
    st.sampled_from([" ", ",", ";"]),
    st.permutations(["time", "phi", "psi"]),
)
def test_order_of_columns_and_what_divides_them_change_nothing(tmp_path_factory, rows, mark, order):
    path = tmp_path_factory.mktemp("columns") / "t"
    cells = [dict(zip(("time", "phi", "psi"), (i, *row), strict=True)) for i, row in enumerate(rows)]
    path.write_text("\n".join([mark.join(order), *(mark.join(str(c[name]) for name in order) for c in cells)]) + "\n")
    table = read_colvar([path])
    assert table.column("phi").tolist() == [row[0] for row in rows]
    assert table.column("psi").tolist() == [row[1] for row in rows]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_no_file_crashes_the_reader(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("bytes") / "t"
    path.write_bytes(b"#! FIELDS time phi\n0 1\n" + raw)
    try:
        table = read_colvar([path], series=True)
        assert table.rows.shape[1] == len(table.fields)
        table.period("phi")
    except InputError as error:
        assert str(path) in str(error)


def test_names_that_stand_twice(tmp_path):
    """The same numbers twice are one column; others are refused by that name, and have their numbers."""
    (tmp_path / "same").write_text("# time phi phi\n0 1 1\n1 2 2\n2 nan nan\n")
    assert read_table(tmp_path / "same").names == ("time", "phi", "phi (column 3)")
    (tmp_path / "other").write_text("#! FIELDS time phi phi\n#! SET min_phi -pi\n#! SET max_phi pi\n0 1 1\n1 2 3\n")
    table = read_colvar([tmp_path / "other"])
    with pytest.raises(InputError, match=r"no column phi: it has time, phi \(column 2\), phi \(column 3\)"):
        table.column("phi")
    assert table.column("3").tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("time,bias (kcal/mol)\n0,1\n1,2\n", "kcal/mol"),
        ('#"Step","bias (kJ/mole)"\n0,1\n1,2\n', "kJ/mol"),
        ('@ yaxis label "(kT)"\n@ s0 legend "bias"\n0 1\n1 2\n', "kT"),
        ('@ yaxis label "(kJ/mol), (K)"\n@ s0 legend "bias"\n0 1\n1 2\n', ""),
        ("time bias\n0 1\n1 2\n", ""),
    ],
)
def test_headers_tell_units_of_energies(tmp_path, text, unit):
    (tmp_path / "t").write_text(text)
    name = next(name for name in read_table(tmp_path / "t").names if "bias" in name)
    size = {"kcal/mol": 4.184, "kT": 2.494339, "kJ/mol": 1.0, "": 1.0}[unit]
    np.save(tmp_path / "x.npy", np.array([0.1, 0.2]))
    observed = read([], None, [f"npy:{tmp_path / 'x.npy'}"], 300.0, colvar=[tmp_path / "t"], bias_columns=[name])
    assert np.diff(observed.log_weights) == pytest.approx(size / 2.494339)
    assert any("is taken to be in kJ/mol" in note for note in observed.notes) == (not unit)
    if unit == "kcal/mol":
        with pytest.raises(InputError, match="in kcal/mol by its file's header"):
            sources = {"colvar": [tmp_path / "t"], "bias_columns": [name], "input_unit": "kJ/mol"}
            read([], None, [f"npy:{tmp_path / 'x.npy'}"], 300.0, **sources)


def test_files_in_other_units_are_refused(tmp_path):
    for name, unit in (("a.xvg", "nm"), ("b.xvg", "A"), ("c.xvg", "Angstrom")):
        (tmp_path / name).write_text(f'@ yaxis label "Distance ({unit})"\n0 1\n1 2\n')
    with pytest.raises(InputError, match=r"2 in angstrom, .* in nm: give files of one unit"):
        read_colvar([tmp_path / "a.xvg", tmp_path / "c.xvg"])
    assert len(read_colvar([tmp_path / "a.xvg", tmp_path / "a.xvg"]).rows) == 4


def test_times_in_nanoseconds_are_picoseconds(tmp_path):
    (tmp_path / "t").write_text("Time (ns),phi\n0,1\n0.01,2\n")
    assert read_colvar([tmp_path / "t"]).time == pytest.approx([0.0, 10.0])


def test_rows_in_no_order_are_sorted_by_their_time(tmp_path):
    order = np.random.default_rng(0).permutation(200)
    for rows in (order, np.arange(200)[::-1]):
        text = "#! FIELDS time phi\n" + "".join(f"{i} {i / 7}\n" for i in rows)
        (tmp_path / "t").write_text(text)
        table = read_colvar([tmp_path / "t"])
        assert table.column("phi") == pytest.approx(np.arange(200) / 7) and table.run[-1] == 0
        assert "not in the order of their times" in table.notes[0] and table.reordered
        with pytest.raises(InputError, match="the weights may be in either order: sort both"):
            read([], None, ["column:phi"], 300.0, colvar=[tmp_path / "t"], log_weights=rows / 200)
