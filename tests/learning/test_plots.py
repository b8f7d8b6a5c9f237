"""The report of a diffusion map and its pictures: the gap where it is, and in the pictures what is in the results."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from openmm_gancl import InputError
from openmm_gancl.learning.diffusion_map import DiffusionMap
from openmm_gancl.learning.plots import (
    KEPT_COLOUR,
    REJECTED_COLOUR,
    plot_bandwidth_curve,
    plot_coordinates,
    plot_selection,
    plot_slow,
    plot_spectrum,
)
from openmm_gancl.learning.spectrum import Selection, select_coordinates, spectral_gap


@pytest.fixture(scope="module")
def strip():
    """A map of a long rectangle, whose second coordinate is a harmonic of the first."""
    points = np.random.default_rng(8).uniform(0, 1, (1500, 2)) * [1.0, 0.4]
    fitted = DiffusionMap(5, n_neighbors=128).fit(points)
    return points, fitted, select_coordinates(fitted.coordinates_)


class Spectrum:
    """A made-up fitted map."""

    def __init__(self, rates, coordinates=None):
        self.rates_ = np.array(rates, dtype=float)
        self.bandwidth_, self.dimension_ = 0.01, 2.0
        self.eigenvalues_ = np.exp(-self.rates_ * self.bandwidth_)
        n = len(self.rates_)
        self.coordinates_ = np.random.default_rng(0).normal(size=(3000, n)) if coordinates is None else coordinates


def chosen(n, *indices):
    scores = np.where(np.isin(np.arange(n), indices), 0.9, 0.1)
    return Selection(scores, np.array(indices, dtype=int), 0.3)


def test_the_gap_is_among_the_coordinates_that_were_kept():
    gap = spectral_gap(Spectrum([1.0, 1.2, 4.0, 6.0, 30.0, 33.0]), chosen(6, 0, 1, 3, 5))
    assert gap.ratios == pytest.approx([1.2, 5.0, 5.5])
    assert gap.n_before == 3 and gap.between == (3, 5) and gap.rejected.tolist() == [2, 4]
    gap = spectral_gap(Spectrum([1.0, 1.2, 4.0, 6.0, 30.0, 33.0]), chosen(6, 0, 1, 3))
    assert gap.n_before == 2 and gap.between == (1, 3) and gap.ratios.max() == pytest.approx(5.0)


@pytest.mark.parametrize(("indices", "n_before"), [((), 0), ((1,), 1)])
def test_without_two_coordinates_there_is_no_gap(indices, n_before):
    gap = spectral_gap(Spectrum([1.0, 2.0, 3.0]), chosen(3, *indices))
    assert gap.between is None and gap.n_before == n_before and len(gap.ratios) == 0
    assert "No gap" in gap.describe()
    assert plot_spectrum(gap).get_legend() is not None


def test_a_rate_of_zero_has_the_gap_after_it():
    gap = spectral_gap(Spectrum([0.0, 1.0, 2.0]), chosen(3, 0, 1, 2))
    assert gap.n_before == 1 and (gap.ratios > 0).all()


def test_the_report_says_it_all(strip):
    _, fitted, selection = strip
    text = spectral_gap(fitted, selection).describe()
    assert selection.chosen[:2].tolist() == [0, 2]
    assert f"Bandwidth {fitted.bandwidth_:.3g}" in text and f"{fitted.dimension_:.1f}-dimensional" in text
    assert f"Kept {len(selection.chosen)} of 5 coordinates: 1 (score 1.00), 3 (score" in text
    assert f"Harmonics, with scores up to 0.3: 2 (score {selection.scores[1]:.2f})" in text
    assert "fold from coordinate 1 to 3; 1 kept coordinate comes before it." in text
    assert "outliers" not in text


def test_an_outlier_and_the_end_of_the_spectrum_are_reported():
    coordinates = np.random.default_rng(0).normal(size=(3000, 3))
    coordinates[:, 1] = 0.01
    coordinates[7, 1] = 50.0
    gap = spectral_gap(Spectrum([1.0, 2.0, 9.0], coordinates), chosen(3, 0, 1, 2))
    assert gap.shares[0] == pytest.approx(1 / 3, rel=0.15) and gap.shares[1] == pytest.approx(1 / 3000, rel=0.01)
    text = gap.describe()
    assert "Coordinate 2 is localised on 0.033 % of the frames" in text
    assert "The last of the 3 coordinates was kept too" in text
    assert "The last" not in spectral_gap(Spectrum([1.0, 2.0, 9.0]), chosen(3, 0, 1)).describe()


def test_a_selection_of_another_map_is_refused(strip):
    with pytest.raises(InputError, match="3 scores for 5 coordinates"):
        spectral_gap(strip[1], chosen(3, 0, 1))


def test_the_spectrum_is_drawn_as_it_is():
    gap = spectral_gap(Spectrum([1.0, 1.2, 4.0, 6.0]), chosen(4, 0, 1, 3))
    ax = plot_spectrum(gap, unit="nm")
    drawn = {line.get_label(): line.get_xydata() for line in ax.get_lines()}
    assert drawn["kept"] == pytest.approx(np.array([[1, 1.0], [2, 1.2], [4, 6.0]]))
    assert drawn["harmonic"] == pytest.approx(np.array([[3, 4.0]]))
    (band,) = ax.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((1.2, 6.0))
    assert band.get_label() == "largest gap, 5.00-fold"
    assert ax.get_ylabel() == "rate (nm⁻²)" and ax.get_xlabel() == "coordinate"


def test_the_bandwidth_curve_is_drawn_as_it_is(strip):
    curve = strip[1].curve_
    ax = plot_bandwidth_curve(curve, unit="nm")
    line, _, marker = ax.get_lines()
    assert np.array_equal(line.get_xydata(), np.column_stack([curve.bandwidths, curve.slopes]))
    assert marker.get_xydata()[0] == pytest.approx([curve.best, curve.slopes[curve.choice]])
    assert ax.get_title() == f"ε = {curve.best:.2g} nm², dimension {curve.dimension:.1f}"
    (right,) = ax.child_axes
    ax.figure.canvas.draw()
    assert right.get_ylim() == pytest.approx([2.0 * y for y in ax.get_ylim()])
    given = plot_bandwidth_curve(curve, bandwidth=curve.bandwidths[10]).get_lines()[2].get_xydata()[0]
    assert given == pytest.approx([curve.bandwidths[10], curve.slopes[10]])


def test_the_scores_are_drawn_as_they_are():
    selection = Selection(np.array([1.0, 0.05, 0.7, 0.29]), np.array([0, 2]), 0.3)
    ax = plot_selection(selection)
    bars = {round(bar.get_x() + bar.get_width() / 2): bar for bar in ax.patches}
    assert [bars[i + 1].get_height() for i in range(4)] == pytest.approx(selection.scores)
    assert [to_hex(bars[i + 1].get_facecolor()) for i in range(4)] == [
        KEPT_COLOUR,
        REJECTED_COLOUR,
        KEPT_COLOUR,
        REJECTED_COLOUR,
    ]
    assert ax.get_lines()[0].get_ydata() == pytest.approx([0.3, 0.3])


def test_coordinates_are_drawn_with_their_angles():
    rng = np.random.default_rng(1)
    coordinates, angles = rng.normal(size=(500, 3)), rng.uniform(-np.pi, np.pi, 500)
    coordinates[3, 2] = 1000.0
    ax = plot_coordinates(coordinates, angles, pair=(0, 2), name="phi")
    (dots,) = ax.collections
    assert np.array_equal(dots.get_offsets(), coordinates[:, [0, 2]])
    assert np.array_equal(dots.get_array(), np.degrees(angles))
    assert dots.get_cmap().name == "twilight" and dots.get_clim() == (-180, 180)
    assert ax.get_title().startswith("colour: φ, ") and ax.get_title().endswith("outside") and ax.get_ylim()[1] < 10
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("coordinate 1", "coordinate 3")
    assert ax.figure.axes[1].get_ylabel() == "φ (degrees)"
    with pytest.raises(InputError, match=r"angles of shape \(20,\) for 500 frames"):
        plot_coordinates(coordinates, angles[:20])


def test_one_figure_shows_all_and_is_saved(strip, tmp_path):
    points, fitted, selection = strip
    angles = {"phi": 2 * np.pi * points[:, 0] - np.pi, "psi": 2 * np.pi * points[:, 1] - np.pi}
    figure = plot_slow(fitted, selection, angles, tmp_path / "slow.png", pairs=[(0, 2)], unit="nm")
    assert (tmp_path / "slow.png").read_bytes().startswith(b"\x89PNG")
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert labels[:3] == ["rate (nm⁻²)", "d log S / d log ε", "score (1 new, 0 predicted)"]
    assert labels[3:5] == ["coordinate 3"] * 2 and labels[-1] == "angle (degrees)"
    assert np.array_equal(figure.axes[3].collections[0].get_offsets(), fitted.coordinates_[:, [0, 2]])


def test_without_angles_there_are_three_panels(strip):
    figure = plot_slow(strip[1], strip[2], {})
    assert len(figure.axes) == 3


def test_an_outlier_is_selected_without_a_singular_fit():
    """One frame far from all others had no neighbour in the regression."""
    coordinates = np.random.default_rng(2).normal(size=(300, 3))
    coordinates[5] = 400.0
    scores = select_coordinates(coordinates).scores
    assert np.isfinite(scores).all()
