"""Tables of windows in every unit and form: right with the option, refused or doubted without it."""

from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openmm_gancl import InputError
from openmm_gancl.free_energy.from_trajectories import analyse
from openmm_gancl.trajectories.observations import read
from openmm_gancl.trajectories.umbrella import UmbrellaWindows
from openmm_gancl.trajectories.window_table import TableUnits, read_table_of_windows

from .known_surface import (
    CENTRES,
    KAPPA,
    KT,
    N_WINDOW,
    TEMPERATURE,
    analysed,
    colvar_text,
    deviation,
    drawn,
    energy,
    restraint,
    window_files,
    write_windows,
)

DEGREE = np.pi / 180
LIMIT = 0.15
"""kT: of 16 windows of 400 frames and 48 bins the truth lies at 0.08; every wrong unit is beyond 0.5."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    window_files(folder, others=lambda phi: {"psi": drawn(len(phi), 7, lambda x: 8 * x**2)})
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Without the energies of the restraints."""
    folder = tmp_path_factory.mktemp("bare")
    window_files(folder, with_bias=False)
    return folder


ROWS = [(f"w{i}.dat", centre, KAPPA) for i, centre in enumerate(CENTRES)]

WRONG = {
    "kcal": (
        {"kappa": 1 / 4.184},
        "4.184 times what the table gives: kappa is in kcal/mol",
        {"kappa_unit": "kcal/mol/rad^2"},
    ),
    "amber": ({"kappa": 0.5}, "2 times .* of the form without the half", {"form": "amber"}),
    "amber in kcal": (
        {"kappa": 0.5 / 4.184},
        "8.368 times .* in kcal/mol and of the form",
        {"form": "amber", "kappa_unit": "kcal/mol/rad^2"},
    ),
    "per degree": ({"kappa": DEGREE**2}, "kappa is per degree", {"kappa_unit": "kJ/mol/deg^2"}),
    "kcal per degree": ({"kappa": DEGREE**2 / 4.184}, "in kcal/mol per degree", {"kappa_unit": "kcal/mol/degree^2"}),
    "kT": ({"kappa": 1 / KT}, "2.494 times .* or give `kappa_unit`", {"kappa_unit": "kT"}),
    "doubled": ({"kappa": 2.0}, "0.5 times .* holds the half's 2 already", None),
    "degrees": ({"centre": 1 / DEGREE}, "beyond the period .* `centre_unit=degrees`", {"centre_unit": "degrees"}),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_unit_is_named_and_its_option_makes_it_right(folder, name):
    factors, message, options = WRONG[name]
    table = write_windows(folder / f"{name}.csv", ROWS, **factors)
    with pytest.raises(InputError, match=message):
        read([], None, ["column:phi"], TEMPERATURE, windows=table)
    if options is not None:
        found = read([], None, ["column:phi"], TEMPERATURE, windows=read_table_of_windows(table, **options)).windows
        assert found.force_constants == pytest.approx(np.full((16, 1), KAPPA), rel=1e-4)
        assert found.centres[:, 0] == pytest.approx(CENTRES, abs=1e-5)


def test_a_right_table_is_right_and_raises_no_doubt(folder):
    analysis = analysed(["column:phi"], windows=write_windows(folder / "right.csv", ROWS))
    rms, z = deviation(analysis.surface)
    assert rms < LIMIT and z < 1.8 and not analysis.doubts, (rms, z, analysis.doubts)


@pytest.mark.parametrize("factor", [1 / 4.184, 0.5, 2.0, 4.184])
def test_without_energies_the_strain_of_all_windows_tells(bare, factor):
    """From both sides: too soft and too stiff a restraint are doubts; the right one is none."""
    analysis = analysed(["column:phi"], windows=write_windows(bare / "scaled.csv", ROWS, kappa=factor))
    assert any("times what all windows together predict" in doubt for doubt in analysis.doubts)
    assert deviation(analysis.surface)[0] > LIMIT
    right = analysed(["column:phi"], windows=write_windows(bare / "right.csv", ROWS))
    assert not right.doubts and deviation(right.surface)[0] < LIMIT


@pytest.mark.parametrize(("shift", "factor"), [(0.5, 1.0), (0.0, 0.25), (0.0, 4.0)])
def test_without_energies_one_wrong_row_is_told_by_its_neighbours(bare, shift, factor):
    """In the mean over all windows it hardly shows."""
    rows = [*ROWS[:5], (ROWS[5][0], ROWS[5][1] + shift, KAPPA * factor), *ROWS[6:]]
    analysis = analysed(["column:phi"], windows=write_windows(bare / "one.csv", rows))
    (doubt,) = analysis.doubts
    assert "of the frames of w5.dat" in doubt and "times what the other windows predict" in doubt
    assert (
        deviation(analysis.surface)[0]
        > deviation(analysed(["column:phi"], windows=write_windows(bare / "right.csv", ROWS)).surface)[0]
    )


@pytest.mark.parametrize(
    "change",
    [lambda i: 1.0, lambda i: 1 / 4.184 if i % 2 else 1.0, lambda i: 0.5 if i < 8 else 1.0],
    ids=["one unit", "kcal/mol", "half"],
)
def test_without_energies_windows_of_two_units_are_told(bare, change):
    """Half of the rows in kcal/mol, or of the form without the half; and the twin of one unit."""
    rows = [(name, centre, change(i) * kappa) for i, (name, centre, kappa) in enumerate(ROWS)]
    mixed = analysed(["column:phi"], windows=write_windows(bare / "mixed.csv", rows))
    wrong = change(0) != change(15)
    assert (deviation(mixed.surface)[0] > 0.5) == wrong
    assert any("in one unit" in doubt for doubt in mixed.doubts) == wrong == bool(mixed.doubts)


def test_a_window_that_is_copied_is_refused(bare):
    (bare / "copy.dat").write_text((bare / "w5.dat").read_text())
    table = write_windows(bare / "copies.csv", [*ROWS, ("copy.dat", *ROWS[5][1:])])
    with pytest.raises(InputError, match=r"copy.dat holds the same frames as .*w5.dat: give each run once"):
        read([], None, ["column:phi"], TEMPERATURE, windows=table)
    # the twin: another run of the same window is welcome
    phi = drawn(N_WINDOW, 999, lambda x: energy(x) + restraint(x, CENTRES[5]))
    (bare / "copy.dat").write_text(colvar_text({"phi": phi}))
    assert not analysed(["column:phi"], windows=table).doubts


def test_a_file_of_another_window_is_named(folder):
    rows = list(ROWS)
    rows[3], rows[6] = (rows[6][0], *rows[3][1:]), (rows[3][0], *rows[6][1:])
    with pytest.raises(InputError, match=r"restraint.bias of w6.dat is .* check its file"):
        read([], None, ["column:phi"], TEMPERATURE, windows=write_windows(folder / "turned.csv", rows))


@pytest.mark.parametrize("cvs", [["column:psi"], ["column:psi", "column:phi"]])
def test_windows_of_another_coordinate_are_told(folder, cvs):
    table = write_windows(folder / "right.csv", ROWS)
    with pytest.raises(InputError, match="is of a restraint on phi: give `bias_cvs=column:phi`"):
        read([], None, cvs, TEMPERATURE, windows=table)
    assert read([], None, cvs, TEMPERATURE, windows=table, bias_cvs=["column:phi"]).restrained == (
        1 if len(cvs) == 1 else cvs.index("column:phi"),
    )


@pytest.mark.parametrize("cvs", [["column:psi"], ["column:psi", "column:phi"], ["column:phi", "column:psi"]])
def test_a_table_may_name_its_coordinate(folder, cvs):
    table = write_windows(folder / "named.csv", ROWS, "file,centre_phi,kappa_phi")
    found = read([], None, cvs, TEMPERATURE, windows=table)
    assert found.series.names[found.restrained[0]] == "phi" and found.n_surface == len(cvs)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("file,center,k\n{}", {}),
        ("file;centre_0;kappa_0\n{}", {}),
        ("file\tcentre_0\tkappa_0\n{}", {}),
        ("file centre_0 kappa_0\n{}", {}),
        ("kappa_0 , file, centre_0\n{}", {}),
        ("file,centre_0,kappa_0,width_0\n{}", {}),
        ("#file centre spring\n{}", {"kappa_unit": "kJ/mol"}),
    ],
)
def test_spellings_of_tables(folder, text, options):
    """Words, semicolons, tabs, order, colvars' widths, WHAM's blanks."""
    header = text.splitlines()[0]
    mark, scale = next(mark for mark in ";,\t " if mark in header), 1.0
    lines = []
    for name, centre, kappa in ROWS:
        cells = [name, f"{centre:.6f}", f"{kappa * scale:g}"]
        cells = [cells[2], *cells[:2]] if header.startswith("kappa") else cells
        cells = [*cells[:2], f"{kappa * 25:g}", "5"] if "width" in header else cells
        lines.append(mark.join(cells))
    (folder / "spelled").write_text(text.format("\n".join(lines)) + "\n")
    windows = read_table_of_windows(folder / "spelled", **options).windows(["radians"], TEMPERATURE)
    assert windows.centres[:, 0] == pytest.approx(CENTRES, abs=1e-5)
    assert windows.force_constants == pytest.approx(np.full((16, 1), KAPPA))


@pytest.mark.parametrize("unit", ["kcal/mol", "kcal/mol/degree^2"])
def test_widths_of_colvars_are_in_the_unit_of_the_centres(folder, unit):
    """kappa ((x - s) / width)^2 / 2, of a torsion in radians whose table is in degrees."""
    lines = [f"{name},{centre / DEGREE:.6f},{KAPPA / 4.184 * (5 * DEGREE) ** 2:.9g},5" for name, centre, _ in ROWS]
    (folder / "colvars.csv").write_text("\n".join(["file,centre_0,kappa_0,width_0", *lines]) + "\n")
    table = read_table_of_windows(folder / "colvars.csv", centre_unit="degrees", kappa_unit=unit)
    windows = table.windows(["radians"], TEMPERATURE)
    assert windows.force_constants == pytest.approx(np.full((16, 1), KAPPA), rel=1e-6)


def test_metadata_of_wham_in_degrees_and_kilocalories(tmp_path):
    """Series of two columns; force constants in kcal/mol/degree^2, which has to be said."""
    lines = ["# file place spring correlation"]
    for i, centre in enumerate(CENTRES):
        phi = drawn(N_WINDOW, 100 + i, lambda x, centre=centre: energy(x) + restraint(x, centre)) / DEGREE
        (tmp_path / f"s{i}").write_text("".join(f"{0.5 * k:.1f} {x:.4f}\n" for k, x in enumerate(phi)))
        lines.append(f"s{i} {centre / DEGREE:.2f} {KAPPA / 4.184 * DEGREE**2:.8f} 10")
    (tmp_path / "metadata.dat").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"metadata of WHAM, .* give `kappa_unit`, kcal/mol or kJ/mol"):
        read([], None, ["column:2:360"], TEMPERATURE, windows=tmp_path / "metadata.dat")
    table = read_table_of_windows(tmp_path / "metadata.dat", kappa_unit="kcal/mol")
    with pytest.raises(InputError, match="give the period of an angle in degrees, column:2:360"):
        read([], None, ["column:2"], TEMPERATURE, windows=table)
    analysis = analysed(["column:2:360"], windows=table)
    assert deviation(analysis.surface, DEGREE)[0] < LIMIT and not analysis.doubts
    wrong = read_table_of_windows(tmp_path / "metadata.dat", kappa_unit="kJ/mol")
    assert analysed(["column:2:360"], windows=wrong).doubts


def test_metadata_of_two_coordinates_and_of_temperatures(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text("0 1 2\n1 2 3\n")
    for text, d, expected in (
        ("a 1 2 30 40\nb 2 2 30 40\n", 2, [[1, 2], [30, 40]]),
        ("a 1 30 5 300\nb 2 30 5 300\n", 1, [[1], [30]]),
    ):
        (tmp_path / "m").write_text(text)
        table = read_table_of_windows(tmp_path / "m", kappa_unit="kJ/mol", d=d)
        windows = table.windows([""] * d, 300.0)
        assert [windows.centres[0].tolist(), windows.force_constants[0].tolist()] == expected
    with pytest.raises(InputError, match=r"line 1: a was sampled at 300 K, the surface is for 310 K"):
        table.check_one_temperature(310.0)


def test_metadata_of_wham_may_end_in_comments_and_name_backups(tmp_path):
    for name in ("#a.1#", "b"):
        (tmp_path / name).write_text("0 1\n1 2\n")
    (tmp_path / "m").write_text("# all\n\n ./#a.1# 1 30 # the first\nb 2 30\t# 2 30 40\n")
    table = read_table_of_windows(tmp_path / "m", kappa_unit="kJ/mol")
    assert [path.name for path in table.files] == ["#a.1#", "b"]
    assert table.windows([""], 300.0).centres[:, 0].tolist() == [1, 2]


def test_an_unbiased_run_among_windows(folder):
    """Of a force constant of zero: its frames count as the others do."""
    phi = drawn(3000, 77, energy)
    (folder / "free.dat").write_text(colvar_text({"phi": phi, "psi": phi, "restraint.bias": 0 * phi}))
    table = write_windows(folder / "free.csv", [*ROWS, ("free.dat", 0.5, 0.0)])
    analysis = analysed(["column:phi"], windows=table)
    assert deviation(analysis.surface)[0] < LIMIT and not analysis.doubts
    weights = np.exp(analysis.windows.mbar.log_weights)
    last = np.repeat(analysis.blocks.stratum, analysis.blocks.sizes) == len(ROWS)
    assert 0.3 < weights[last].sum() / weights.sum() < 0.9 and np.ptp(np.log(weights[last])) > 0.1
    assert "free.dat without a restraint" in analysis.windows.windows.describe(len(ROWS))


def at_temperature(temperature, n, seed):
    """A harmonic oscillator of 3000 kJ/mol/nm^2 and 30 more that hold energy: places, and the potential energy."""
    rng, kT = np.random.default_rng(seed), KT * temperature / TEMPERATURE
    x = rng.normal(0.0, np.sqrt(kT / 3000), n)
    return x, 1500 * x**2 + kT * rng.gamma(15.0, size=n)


def test_windows_of_several_temperatures_are_joined_by_their_energies(tmp_path):
    """Two unbiased runs and a restraint that does nothing: the variance is that of the surface's temperature."""
    rows = []
    for i, temperature in enumerate((300.0, 330.0, 360.0)):
        x, potential = at_temperature(temperature, 3000, i)
        columns = {"x": x, "ener": potential, "wall.bias": np.maximum(x, 0.0)}
        (tmp_path / f"w{i}").write_text(colvar_text(columns, period=None))
        rows.append(f"w{i},0,{1e-3 if i == 0 else 0},{temperature}")
    (tmp_path / "t.csv").write_text("\n".join(["file,centre_0,kappa_0,temperature", *rows]) + "\n")
    with pytest.raises(InputError, match="by `energy_column`"):
        read([], None, ["column:x"], 300.0, windows=tmp_path / "t.csv")
    beside = {"bias_columns": ["wall.bias"], "energy_column": "ener"}
    with pytest.raises(InputError, match="nothing tells whether `energy_column` holds it"):
        read([], None, ["column:x"], 300.0, windows=tmp_path / "t.csv", **beside)
    observed = read([], None, ["column:x"], 300.0, windows=tmp_path / "t.csv", energy_column="ener")
    analysis = analyse(observed, bins=24, discard=0, n_bootstrap=20)
    weights = np.exp(analysis.windows.mbar.log_weights)
    x = observed.series.values[analysis.blocks.frames(), 0]
    variance = (weights * x**2).sum() / weights.sum()
    assert variance == pytest.approx(KT / 3000, rel=0.06)  # 3 sigma of some 5000 effective frames
    assert np.var(x) > 1.08 * KT / 3000  # what joining them without the energies would say


@pytest.mark.parametrize(
    ("text", "unit"),
    [("kcal/mol/rad^2", 4.184), ("kJ/mol/degree2", DEGREE**-2), ("kT", KT), ("KJ/MOL/RAD²", 1.0), ("kcal/mol", 4.184)],
)
def test_units_of_force_constants(text, unit):
    assert TableUnits.of(None, text).factors("radians", TEMPERATURE, "phi") == pytest.approx((1.0, unit))


@pytest.mark.parametrize(
    ("options", "unit", "message"),
    [
        ({"centre_unit": "grad"}, "radians", "grad is no unit of a coordinate"),
        ({"kappa_unit": "eV/rad^2"}, "radians", "is no unit of a force constant"),
        ({"kappa_unit": "kJ/mol/nm^2"}, "radians", "which nm are no unit of"),
        ({"centre_unit": "degrees"}, "nm", "which degrees are no unit of"),
    ],
)
def test_units_that_cannot_be(options, unit, message):
    with pytest.raises(InputError, match=message):
        TableUnits.of(options.get("centre_unit"), options.get("kappa_unit")).factors(unit, TEMPERATURE, "phi")


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["radians", "degrees"]),
    st.sampled_from(["kJ/mol/rad^2", "kcal/mol/rad^2", "kJ/mol/deg^2", "kcal/mol/deg^2", "kT/rad^2"]),
    st.sampled_from(["harmonic", "amber"]),
    st.permutations(range(16)),
    st.permutations(["file", "centre_0", "kappa_0"]),
)
def test_units_and_orders_of_rows_and_columns_never_change_windows(
    tmp_path_factory, centre, kappa, form, rows, columns
):
    folder = tmp_path_factory.mktemp("units")
    units = TableUnits.of(centre, kappa)
    factors = units.factors("radians", TEMPERATURE, "phi")
    lines = [",".join(columns)]
    for i in rows:
        (folder / f"w{i}.dat").touch()
        cells = {
            "file": f"w{i}.dat",
            "centre_0": repr(float(CENTRES[i] / factors[0])),
            "kappa_0": repr(float(KAPPA / factors[1] / (2 if form == "amber" else 1))),
        }
        lines.append(",".join(cells[name] for name in columns))
    (folder / "t.csv").write_text("\n".join(lines))
    table = read_table_of_windows(folder / "t.csv", form, centre_unit=centre, kappa_unit=kappa)
    found: UmbrellaWindows = table.windows(["radians"], TEMPERATURE)
    assert found.centres[:, 0] == pytest.approx(CENTRES[list(rows)])
    assert found.force_constants == pytest.approx(np.full((16, 1), KAPPA))
    assert [path.name for path in found.files] == [f"w{i}.dat" for i in rows]


def test_other_energies_beside_the_restraint_are_left_alone(tmp_path):
    """A wall and a potential energy are no restraint; a bias of an unknown kind that acts as well is a doubt."""
    extra = {"uwall.bias": 3.0, "E_pot": -900.0}
    window_files(tmp_path, others=lambda phi: {name: x + 0.3 * np.cos(phi) for name, x in extra.items()})
    table = write_windows(tmp_path / "w.csv", ROWS)
    assert not read([], None, ["column:phi"], TEMPERATURE, windows=table).doubts
    window_files(tmp_path, with_bias=False, others=lambda phi: {"E_pot": 5 * np.cos(phi)})
    assert not read([], None, ["column:phi"], TEMPERATURE, windows=table).doubts
    window_files(tmp_path, with_bias=False, others=lambda phi: {"b.bias": 5 + 5 * np.cos(phi)})
    (doubt,) = read([], None, ["column:phi"], TEMPERATURE, windows=table).doubts
    assert "b.bias of w0.dat is" in doubt and "it is not undone" in doubt


def test_a_bias_that_all_windows_have_beside_their_restraints(tmp_path):
    """Left as it is, it is in the surface, and a doubt; `bias_columns` undo it, on top of MBAR."""

    def other(x):
        return 5 + 5 * np.cos(x - 2.0)

    rows = []
    for i, centre in enumerate(CENTRES):
        phi = drawn(N_WINDOW, 100 + i, lambda x, c=centre: energy(x) + restraint(x, c) + other(x))
        columns = {"phi": phi, "restraint.bias": restraint(phi, centre), "opes.bias": other(phi)}
        (tmp_path / f"w{i}.dat").write_text(colvar_text(columns))
        rows.append((f"w{i}.dat", centre, KAPPA))
    table = write_windows(tmp_path / "w.csv", rows)
    left = analysed(["column:phi"], windows=table)
    assert "opes.bias" in left.doubts[0] and deviation(left.surface)[0] > 0.5
    undone = analysed(["column:phi"], windows=table, bias_columns=["opes.bias"])
    kT, sigma = deviation(undone.surface)
    assert not undone.doubts and kT < 0.15 and 0.4 < sigma < 1.6
    with pytest.raises(InputError, match="differs from run to run"):
        analysed(["column:phi"], windows=table, bias_columns=["restraint.bias"])


PLACES = [(phi, r) for phi in CENTRES[::2] for r in (0.35, 0.5, 0.65)]
CONSTANTS = (12.0, 500.0)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Windows over a torsion and a distance that do not couple, and their table."""
    folder = tmp_path_factory.mktemp("mixed")
    lengths, rows = np.linspace(0.2, 0.8, 601), []
    for i, (phi, r) in enumerate(PLACES):
        angles = drawn(150, 700 + i, lambda x, phi=phi: 0.5 * energy(x) + restraint(x, phi, CONSTANTS[0]))
        logs = -(0.5 * CONSTANTS[1] * (lengths - r) ** 2 + 30 * np.cos((lengths - 0.2) * 10)) / KT
        weights = np.exp(logs - np.logaddexp.reduce(logs))
        distances = np.random.default_rng(900 + i).choice(lengths, 150, p=weights)
        (folder / f"w{i}.dat").write_text(colvar_text({"phi": angles, "r": distances}))
        rows.append((f"w{i}.dat", phi, CONSTANTS[0], r, CONSTANTS[1]))
    return folder, rows


@pytest.mark.parametrize(
    ("factors", "along"),
    [((1.0, 1.0), None), ((DEGREE**2, 1.0), "phi"), ((1.0, 0.01), "r"), ((1 / 4.184, 1.0), "phi")],
    ids=["right", "phi per degree", "r per angstrom", "phi in kcal"],
)
def test_a_force_constant_of_one_of_two_coordinates_in_another_unit(mixed, factors, along):
    """In the sum over both it hardly shows; each by itself tells."""
    folder, rows = mixed
    lines = [f"{name},{x:.6f},{k * factors[0]:.8g},{r},{q * factors[1]:.8g}" for name, x, k, r, q in rows]
    (folder / "w.csv").write_text("\n".join(["file,centre_0,kappa_0,centre_1,kappa_1", *lines]) + "\n")
    observations = read([], None, ["column:phi", "column:r"], TEMPERATURE, windows=folder / "w.csv")
    doubts = analyse(observations, bins=16, discard=0, n_bootstrap=10).doubts
    assert {name for name in ("phi", "r") if any(f"along {name}" in doubt for doubt in doubts)} == {along} - {None}


@pytest.mark.parametrize(("temperature", "refused"), [(27.0, True), (300.0, False)])
def test_temperatures_of_windows_in_celsius_are_refused(bare, temperature, refused):
    rows = [f"{name},{centre:.6f},{kappa},{temperature}" for name, centre, kappa in ROWS]
    (bare / "t.csv").write_text("\n".join(["file,centre_0,kappa_0,temperature", *rows]) + "\n")
    with pytest.raises(InputError, match=r"give kelvin, 300.15 if degrees Celsius") if refused else nullcontext():
        read([], None, ["column:phi"], TEMPERATURE, windows=bare / "t.csv")
