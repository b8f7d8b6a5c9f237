"""Coordinates under one name and in one unit, in tables, pictures and records."""

import json
import warnings

import numpy as np
import pytest
from typer.testing import CliRunner

from openmm_gancl import InputError
from openmm_gancl.cli import app
from openmm_gancl.free_energy.axes import axes_of
from openmm_gancl.free_energy.plots import plot_equilibration, plot_surface
from openmm_gancl.free_energy.surface import FreeEnergySurface, load_surface

from ..peptides import Residue, chain_positions, pdb_text, trajectory


def gancl(*arguments):
    return CliRunner().invoke(app, ["fes", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("axes"), np.random.default_rng(0)
    first, second = rng.normal(-1.2, 0.5, (2000, 3)), rng.normal(1.0, 0.5, (2000, 3))
    phi = np.where(rng.random((2000, 1)) < 0.6, first, second)
    x = chain_positions(phi, rng.normal(2.0, 0.4, (2000, 3)))
    (folder / "t.pdb").write_text(pdb_text([Residue(i, "B") for i in (1, 2, 3)], x[0], box=1.0))
    trajectory(x).save_dcd(str(folder / "t.dcd"))
    rows = [
        f"{i} {a:.4f} {d:.4f}"
        for i, (a, d) in enumerate(zip(np.degrees(phi[:, 1]), rng.normal(0.5, 0.1, 2000), strict=True))
    ]
    (folder / "COLVAR").write_text(
        "\n".join(["#! FIELDS time a d", "#! SET min_a -180", "#! SET max_a 180", *rows, ""])
    )
    return folder


def common(folder, *cvs):
    return [
        folder / "t.dcd",
        "--top",
        folder / "t.pdb",
        *(word for cv in cvs for word in ("--cv", cv)),
        *("--temperature", 300, "--discard", 0, "-o", folder / "fes"),
    ]


def run(folder, *cvs, more=()):
    result = gancl(*common(folder, *cvs), "--json", *more)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_what_a_cv_resolved_to_is_printed_stored_and_drawn(folder):
    results = run(folder, "phi:2", "distance:0,10")
    names = ["phi of ALA2", "distance of N of B/ALA1 and N of B/ALA3"]
    atoms = ["C of B/ALA1, N CA C of B/ALA2", "N of B/ALA1, N of B/ALA3"]
    assert [row["label"] for row in results["coordinates"]] == names
    assert [row["atoms"] for row in results["coordinates"]] == atoms
    assert [row["unit"] for row in results["coordinates"]] == ["degrees", "nm"]
    surface = load_surface(folder / "fes.npz")
    assert surface.labels == tuple(names) and surface.resolved == tuple(atoms)
    ax = plot_surface(surface)
    assert ax.get_xlabel() == "phi of ALA2 (degrees)" and ax.get_ylabel() == f"{names[1]} (nm)"
    assert f"{names[0]}: {atoms[0]}" in ax.figure.get_supxlabel()
    assert ax.get_xticks().tolist() == [-180, -120, -60, 0, 60, 120, 180]
    text = gancl(*common(folder, "phi:2"))
    assert "phi of ALA2: C of B/ALA1, N CA C of B/ALA2" in text.stdout


def places(results):
    minima = [row["minimum"][0] for row in results["basins"]]
    return [*minima, *(row["place"][0] for row in results["barriers"]), results["bandwidths"][0]]


def test_table_and_record_are_in_the_unit_of_the_picture(folder):
    degrees, radians = run(folder, "phi:2"), run(folder, "phi:2", more=("--axis-unit", "radians"))
    assert np.allclose(np.radians(places(degrees)), places(radians), rtol=1e-3)
    assert degrees["coordinates"][0]["unit"] == "degrees" and radians["coordinates"][0]["unit"] == "radians"
    text = gancl(*common(folder, "phi:2")).stdout
    barrier = degrees["barriers"][0]["place"][0]
    assert "at (degrees)" in text and f"({barrier:.4g})" in text and f"{degrees['bandwidths'][0]:.3g} degrees" in text
    surface = load_surface(folder / "fes.npz")
    assert surface.edges[0][0] == pytest.approx(-np.pi)  # files stay in the coordinate's own unit
    assert plot_surface(surface, axis_units=["radians"]).get_xlim() == pytest.approx((-np.pi, np.pi))
    assert plot_surface(surface).get_xlim() == pytest.approx((-180, 180))


def test_what_the_bandwidths_are_of_is_said(folder):
    """One of most of a turn is that of a correction, and a histogram has none."""
    text = gancl(*common(folder, "phi:2")).stdout
    line = next(line for line in text.splitlines() if line.startswith("bandwidths"))
    assert line.endswith("degrees, of the ratio to a smooth first estimate")
    text = gancl(*common(folder, "phi:2"), "--method", "histogram").stdout
    assert next(line for line in text.splitlines() if line.startswith("bandwidths")).endswith("  none (histogram)")


def test_basins_and_ranges_are_in_the_unit_that_is_given(folder):
    own = run(folder, "phi:2", more=("--basin", "low:-3.1:0", "--basin", "high:0:3.1"))
    shown = run(
        folder, "phi:2", more=("--axis-unit", "deg", "--basin", "low:-177.6169:0", "--basin", "high:0:177.6169")
    )
    assert own["basin_order"] == shown["basin_order"] == "as given"
    assert own["basins"] == shown["basins"]
    run(folder, "distance:0,10", more=("--axis-unit", "angstrom", "--range", "4:7"))
    assert load_surface(folder / "fes.npz").edges[0][[0, -1]] == pytest.approx([0.4, 0.7])
    run(folder, "phi:2", "distance:0,10", more=("--range", "0.4:0.7"))
    assert load_surface(folder / "fes.npz").edges[1][[0, -1]] == pytest.approx([0.4, 0.7])
    found = run(folder, "phi:2")
    energies = [load_surface(folder / "fes.npz").energy_at(np.radians([row["minimum"]]))[0] for row in found["basins"]]
    assert found["basin_order"] == "lowest minimum first" and energies == sorted(energies)


def test_columns_in_degrees_and_columns_of_no_unit(folder):
    table = ("--colvar", folder / "COLVAR", "--temperature", 300, "--discard", 0, "-o", folder / "fes", "--json")
    angle = json.loads(gancl("--cv", "column:a", *table).stdout)
    assert angle["coordinates"][0]["unit"] == "degrees" and -100 < angle["basins"][0]["minimum"][0] < -40
    assert plot_surface(load_surface(folder / "fes.npz")).get_xticks().tolist() == [-180, -120, -60, 0, 60, 120, 180]
    plain = json.loads(gancl("--cv", "column:d", *table).stdout)["coordinates"][0]
    assert (plain["unit"], plain["label"], plain["atoms"]) == ("", "d", "")
    named = gancl("--cv", "column:d", *table, "--axis-unit", "nm", "--label", "O-O distance")
    assert json.loads(named.stdout)["coordinates"][0]["label"] == "O-O distance"
    assert plot_surface(load_surface(folder / "fes.npz"), axis_units=["nm"]).get_xlabel() == "O-O distance (nm)"


def test_a_unit_that_is_chosen_for_a_column_of_no_unit_converts_and_is_said(folder):
    """As `--centre-unit` does: a file that tells no unit is in PLUMED's, nm and radians."""
    table = ("--colvar", folder / "COLVAR", "--temperature", 300, "--discard", 0, "-o", folder / "fes", "--json")
    plain = json.loads(gancl("--cv", "column:d", *table).stdout)
    shown = json.loads(gancl("--cv", "column:d", *table, "--axis-unit", "angstrom").stdout)
    assert shown["basins"][0]["minimum"][0] == pytest.approx(10 * plain["basins"][0]["minimum"][0])
    assert any("unit of d is not known and taken to be PLUMED's, nm" in note for note in shown["warnings"])
    told = json.loads(gancl("--cv", "column:d", *table, "--input-unit", "angstrom", "--axis-unit", "angstrom").stdout)
    assert told["basins"][0]["minimum"] == plain["basins"][0]["minimum"]
    assert not any("is not known" in note for note in told["warnings"] + plain["warnings"])
    both = gancl("--cv", "column:a", "--cv", "column:d", *table, "--axis-unit", "degrees")
    assert both.exit_code == 2 and "the unit of d is not known: give a unit for each" in both.stderr


def test_pi_is_of_radians_alone(folder):
    whole = run(folder, "phi:2", more=("--basin", "all:-pi:pi"))
    assert whole["basins"][0]["population"] == pytest.approx(1.0)
    for unit, cv in (("degrees", "phi:2"), ("nm", "distance:0,10")):
        result = gancl(*common(folder, cv), "--axis-unit", unit, "--basin", "all:-pi:pi")
        assert result.exit_code == 2 and f"has pi, and its coordinate is in {unit}" in result.stderr
    both = run(folder, "phi:2", "distance:0,10", more=("--basin", "all:-pi:pi:0.1:2"))
    assert both["basins"][0]["population"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--axis-unit", "nm"), "which no factor turns into nm"),
        (("--axis-unit", "furlong"), "no unit of a coordinate"),
        (("--axis-unit", "nm", "--axis-unit", "nm"), "2 units for 1 coordinates"),
        (("--label", "a", "--label", "b"), "2 --label for 1 coordinates"),
        (("--range", "0:1"), "phi:2 has a period"),
        (("--range", "1:0"), "--range 1:0 is empty"),
        (("--range", "one"), "--range one is not understood"),
        (("--range", "0:1", "--range", "0:1"), "2 ranges for 1 coordinates"),
    ],
)
def test_units_and_names_that_cannot_be(folder, more, message):
    result = gancl(*common(folder, "phi:2"), *more)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.exit_code == 2 and len(errors) == 1 and message in errors[0], result.stderr


def test_ticks_of_an_angle_without_a_period():
    surface = FreeEnergySurface(
        np.zeros(4),
        np.zeros(4),
        (np.linspace(0, np.pi, 5),),
        ("angle:0,1,2",),
        np.array([np.inf]),
        300.0,
        0,
        ("radians",),
    )
    assert axes_of(surface)[0].ticks(surface.edges[0]).tolist() == [0.0, 60.0, 120.0, 180.0]
    with pytest.raises(InputError):
        axes_of(surface, ["nm"])


def test_no_legend_lies_on_what_is_drawn(folder):
    run(folder, "phi:2")
    figures = [
        plot_surface(load_surface(folder / "fes.npz")).figure,
        plot_equilibration([3, 0, 7], [1.0, 2.0, 30.0]).figure,
    ]
    for figure in figures:
        figure.canvas.draw()
        for ax in figure.axes:
            if (legend := ax.get_legend()) is not None:
                assert not legend.get_window_extent().overlaps(ax.patch.get_window_extent().padded(-1.0))


def test_nothing_of_other_packages_is_said(folder):
    """The topology has a dummy box, of which mdtraj warns."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = gancl(*common(folder, "phi:2"))
    assert result.exit_code == 0 and not caught
    assert all(line.startswith(("reading: ", "note: ")) for line in result.stderr.splitlines()), result.stderr
