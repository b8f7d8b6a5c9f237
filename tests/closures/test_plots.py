"""Pictures of closures over two labels: what is drawn is what was computed, where it is known."""

import numpy as np
import pytest

from openmm_gancl.closures.drift_diffusion import Rates
from openmm_gancl.closures.mean_force import MeanForceTest
from openmm_gancl.closures.plots import plot_closures
from openmm_gancl.closures.reduced_model import ReducedModel
from openmm_gancl.coordinates.slow_coordinates import Torsions
from openmm_gancl.free_energy.surface import FreeEnergySurface
from openmm_gancl.units import thermal_energy

N, HIGH, TEMPERATURE = 12, 20.0, 300.0
AXES = Torsions(("phi", "psi"), np.array([[4, 6, 8, 14], [6, 8, 14, 16]]))
KT = thermal_energy(TEMPERATURE)


def surface(energy):
    """kT, on a grid of both torsions."""
    edges = (np.linspace(-np.pi, np.pi, N + 1),) * 2
    error = np.where(np.isfinite(energy), 0.1, np.inf)
    return FreeEnergySurface.of_reduced(energy.ravel(), error.ravel(), edges, AXES, TEMPERATURE, 1000)


@pytest.fixture(scope="module")
def drawn():
    """The panels, and what belongs into them, shape=(N, N) each."""
    rng = np.random.default_rng(1)
    of_weights = rng.uniform(0.0, 5.0, (N, N))
    of_weights[0, 0], of_weights[1, 1] = np.inf, HIGH
    tilt = rng.normal(0.0, 0.3, (N, N))
    both = surface(of_weights + tilt + 2.0), surface(of_weights)
    test = MeanForceTest(*both, np.zeros((3, 2)), np.zeros(3), np.ones(3), 0.0)
    diffusion = np.zeros((N, N, 2, 2))
    for i in range(2):
        diffusion[..., i, i] = rng.uniform(1.0, 2.0, (N, N)) * (i + 1)
    model = ReducedModel.of_surface(both[1], diffusion)
    labels = np.array([[-1.0, 2.0], [0.5, 0.7]])
    rates = Rates(
        labels=labels,
        drift=np.zeros((2, 2)),
        drift_error=np.ones((2, 2)),
        diffusion=np.tile(np.eye(2), (2, 1, 1)),
        diffusion_error=np.ones((2, 2, 2)),
        model=model,
    )
    average = rng.normal(50.0, 5.0, (N, N))
    figure = plot_closures(test, rates, average, np.ones((N, N)))
    known = of_weights < 10.0
    shift = KT * (tilt - tilt[known].mean())
    return figure, known, [shift, average, diffusion[..., 0, 0], diffusion[..., 1, 1]]


def test_maps_hold_the_fields_where_the_surface_is_low(drawn):
    figure, known, fields = drawn
    panels = [panel for panel in figure.axes if panel.get_title()]
    assert len(panels) == 4 and not known[0, 0] and not known[1, 1] and known.sum() == N * N - 2
    for number, (panel, field) in enumerate(zip(panels, fields, strict=True)):
        (mesh,) = panel.collections
        values = np.ma.filled(mesh.get_array().reshape(N, N), np.nan).T
        assert np.array_equal(np.isfinite(values), known), panel.get_title()
        size = (np.pi / 180) ** 2 if number > 1 else 1.0  # degrees squared
        assert values[known] == pytest.approx(field[known] / size, rel=1e-9, abs=1e-9)
        assert (panel.get_xlabel(), panel.get_ylabel()) == ("φ (degrees)", "ψ (degrees)")
    assert [panel.get_title() for panel in panels[2:]] == [f"diffusion of {name} (degrees²/ps)" for name in "φψ"]


def test_colours_of_a_difference_are_even_about_zero(drawn):
    figure, known, fields = drawn
    low, high = figure.axes[0].collections[0].get_clim()
    assert low == -high and high == pytest.approx(np.abs(fields[0][known]).max())


def test_runs_are_marked_at_their_labels(drawn):
    figure = drawn[0]
    marked = [panel.lines[0].get_xydata() for panel in figure.axes if panel.lines and panel.get_title()]
    assert len(marked) == 2
    for places in marked:
        assert places == pytest.approx(np.degrees([[-1.0, 2.0], [0.5, 0.7]]))
