"""Basins and saddles found on surfaces whose answer is known, and the pictures of an analysis."""

import numpy as np
import pytest

from openmm_gancl.coordinates.basin import Basin
from openmm_gancl.free_energy.basins import (
    barrier_table,
    basin_table,
    box_masks,
    find_basins,
    find_saddles,
    lowest_bins,
)
from openmm_gancl.free_energy.convergence import Convergence
from openmm_gancl.free_energy.grid import bin_centres
from openmm_gancl.free_energy.plots import plot_convergence, plot_errors, plot_overlap, plot_surface
from openmm_gancl.free_energy.surface import FreeEnergySurface
from openmm_gancl.units import thermal_energy

KT = thermal_energy(300.0)


def surface_of(function, limits, bins, period, error=0.05, unknown=None):
    edges = tuple(np.linspace(*limit, bins + 1) for limit in limits)
    places = bin_centres(edges)
    energy = function(*places.T).reshape((bins,) * len(edges))
    if unknown is not None:
        energy = np.where(unknown(*places.T).reshape(energy.shape), np.inf, energy)
    energy = KT * (energy - energy.min())
    error = np.where(np.isfinite(energy), error * KT, np.inf)
    names, units = ("x", "y")[: len(edges)], ("radians" if np.isfinite(period) else "nm",) * len(edges)
    return FreeEnergySurface(energy, error, edges, names, np.full(len(edges), period), 300.0, 0, units)


def two_wells(x):
    return 5.0 * (x**2 - 1.0) ** 2 + 0.5 * x


def mueller_brown(x, y):
    """In kT, scaled so that each basin is deep enough; minima and saddles are known (doi 10.1007/BF00547608)."""
    terms = zip(
        [-200, -100, -170, 15],
        [-1, -1, -6.5, 0.7],
        [0, 0, 11, 0.6],
        [-10, -10, -6.5, 0.7],
        [1, 0, -0.5, -1],
        [0, 0.5, 1.5, 1],
        strict=True,
    )
    return 0.2 * sum(
        A * np.exp(a * (x - u) ** 2 + b * (x - u) * (y - v) + c * (y - v) ** 2) for A, a, b, c, u, v in terms
    )


def test_a_line_with_two_wells():
    surface = surface_of(two_wells, [(-1.6, 1.6)], 160, np.inf)
    masks = find_basins(surface)
    assert masks.shape == (2, 160) and (masks.sum(axis=0) == 1).all()
    minima = lowest_bins(surface, masks)
    ((deeper, higher, saddle),) = find_saddles(surface, minima)
    x = surface.centres[0]
    assert (deeper, higher) == (0, 1)
    assert x[minima] == pytest.approx([-1.012, 0.987], abs=0.02) and x[saddle] == pytest.approx(0.025, abs=0.02)
    assert (x[masks[0]] < 0.05).all() and (x[masks[1]] > 0.0).all()


def test_mueller_brown_has_three_basins_and_two_saddles():
    surface = surface_of(mueller_brown, [(-1.7, 1.2), (-0.4, 2.1)], 100, np.inf)
    masks = find_basins(surface)
    minima, places = lowest_bins(surface, masks), bin_centres(surface.edges)
    assert places[minima] == pytest.approx(np.array([[-0.558, 1.442], [0.623, 0.028], [-0.050, 0.467]]), abs=0.03)
    saddles = find_saddles(surface, minima)
    assert [saddle[:2] for saddle in saddles] == [(1, 2), (0, 1)]
    assert places[[saddle[2] for saddle in saddles]] == pytest.approx(
        np.array([[0.212, 0.293], [-0.822, 0.624]]), abs=0.04
    )


def test_shallow_and_noisy_pools_are_no_basins():
    def shallow(x):
        return two_wells(x) + 0.45 * np.cos(12 * x)

    assert len(find_basins(surface_of(shallow, [(-1.6, 1.6)], 160, np.inf))) == 2
    assert len(find_basins(surface_of(two_wells, [(-1.6, 1.6)], 160, np.inf, error=3.0))) == 1


def test_a_basin_goes_on_across_the_edge_of_a_torus():
    def torus(x, y):
        return 3.0 * np.cos(x) + 2.0 * np.cos(y)  # one minimum, in the corner of the grid

    surface = surface_of(torus, [(-np.pi, np.pi)] * 2, 36, 2 * np.pi)
    assert len(find_basins(surface)) == 1
    flat = FreeEnergySurface(**{**vars(surface), "periods": np.full(2, np.inf)})
    assert len(find_basins(flat)) == 4


def test_regions_that_nothing_joins_have_no_barrier():
    surface = surface_of(two_wells, [(-1.6, 1.6)], 160, np.inf, unknown=lambda x: np.abs(x) < 0.3)
    masks = find_basins(surface)
    assert len(masks) == 2 and not masks[:, np.isinf(surface.energy)].any()
    assert find_saddles(surface, lowest_bins(surface, masks)) == []


def test_the_first_meeting_of_two_pools_decides():
    """On a ring they meet twice; that the higher saddle is known badly changes nothing."""
    x = np.linspace(-np.pi, np.pi, 41)

    def ring(places):
        return np.interp(places, [-np.pi, -1.6, 0.0, 1.6, np.pi], [12, 0, 5, 1, 12])

    error = np.where(np.abs(0.5 * (x[1:] + x[:-1])) > 2.8, 8.0, 0.1)
    assert len(find_basins(surface_of(ring, [(-np.pi, np.pi)], 40, 2 * np.pi, error=error))) == 2


def test_an_island_of_one_bin_is_no_basin():
    surface = surface_of(two_wells, [(-1.6, 1.6)], 160, np.inf, unknown=lambda x: (x > 1.4) & (x < 1.58))
    assert np.isfinite(surface.energy[-1]) and np.isinf(surface.energy[-2])
    masks = find_basins(surface)
    assert len(masks) == 2 and not masks[:, -1].any()


def test_boxes_have_barriers_too():
    surface = surface_of(two_wells, [(-1.6, 1.6)], 160, np.inf)
    boxes = [
        Basin("right", (np.array([[0.5, 1.5]]),)),
        Basin("slope", (np.array([[0.2, 0.4]]),)),
        Basin("none", (np.array([[5.0, 6.0]]),)),
    ]
    minima = lowest_bins(surface, box_masks(surface, boxes))
    assert minima[2] == -1
    ((deeper, higher, saddle),) = find_saddles(surface, minima)
    assert (deeper, higher) == (0, 1) and saddle == minima[1]  # downhill all the way


def test_pictures_show_what_they_should(tmp_path):
    surface = surface_of(mueller_brown, [(-1.7, 1.2), (-0.4, 2.1)], 60, np.inf)
    minima = {"A": np.array([-0.56, 1.44]), "B": np.array([0.62, 0.03]), "lost": np.full(2, np.nan)}
    ax = plot_surface(surface, minima=minima, saddles=[(-0.82, 0.62)], unit="kcal/mol")
    assert {text.get_text() for text in ax.texts} == {"A", "B"}
    bars = [axis.get_ylabel() for axis in ax.figure.axes]
    assert "free energy (kcal/mol), one contour each kT" in bars and ax.get_xlabel() == "x (nm)"
    assert "standard error (kT)" in [axis.get_ylabel() for axis in plot_errors(surface, unit="kT").figure.axes]
    overlap = np.array([[0.8, 0.2], [0.2, 0.8]])
    assert [text.get_text() for text in plot_overlap(overlap).texts] == ["0.80", "0.20", "0.20", "0.80"]
    fractions = np.linspace(0.1, 1, 10)
    free = np.zeros((2, 10, 2))
    free[0, 0, 1] = np.inf
    convergence = Convergence(fractions, np.ones((2, 10)), free, np.ones((2, 10, 2)), ("A", "B"))
    figure = plot_convergence(convergence, 300.0)
    assert len(figure.axes) == 2 and figure.axes[1].get_ylabel() == "basin free energy (kJ/mol)"
    figure.savefig(tmp_path / "convergence.png")


def test_tables_show_two_digits_of_an_error_and_the_unit_of_each_place():
    rows = [(0.6586, 0.0037), (0.0291, 8.3e-4), (3e-5, 1e-5), (float("inf"), None)]
    basins = [{"name": f"B{i}", "population": p, "population_error": e} for i, (p, e) in enumerate(rows)]
    lines = basin_table([row | {"free_energy": 1.0, "free_energy_error": 0.1} for row in basins])
    populations = ["0.6586 +- 0.0037", "0.02910 +- 0.00083", "0.000030 +- 0.000010", "unknown +- unknown"]
    assert all(text in line for text, line in zip(populations, lines[2:], strict=True))
    assert len({line.index("+- 0.10") for line in lines[3:]}) == 1
    barrier = [{"names": ["A", "B"], "heights": [1.0, 2.0], "errors": [0.1, 0.1], "place": [60.0, 0.35]}]
    for units, heading in (
        (["degrees", ""], "at (degrees, unit unknown)"),
        (["nm", "nm"], "at (nm)"),
        (["", ""], "at"),
    ):
        assert barrier_table(barrier, axis_units=units)[1].endswith(heading)
