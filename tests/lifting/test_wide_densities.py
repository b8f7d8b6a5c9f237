"""Densities of wide coordinates from draws: closed forms, walls of thousands of kT included."""

import numpy as np
import pytest

from openmm_gancl import load_system
from openmm_gancl.errors import InputError
from openmm_gancl.lifting import wide_densities
from openmm_gancl.lifting.wide_densities import fit_wide_regressions

N = 20_000


def log_density(x, angle):
    """Of an angle that a particle's component turns by about its origin: two wells, and infinity at half a turn."""
    place = 0.3 * np.tan(0.5 * np.clip(angle, -3.1, 3.1))
    return np.logaddexp(-0.5 * ((place - 0.25) / 0.05) ** 2 - 0.4 * x, -0.5 * ((place + 0.25) / 0.05) ** 2)


def slopes(x, angle, step=1e-5):
    """Along both."""
    along = [(log_density(x + dx, angle + dt) - log_density(x - dx, angle - dt)) for dx, dt in ((step, 0), (0, step))]
    return np.stack(along, axis=1) / (2 * step)


@pytest.mark.parametrize("depth", [wide_densities.DEPTH, 1e9])
def test_a_high_wall_leaves_the_wells_as_they_are(depth, monkeypatch):
    """Drawn evenly: off by 0.8 kT, which weights make up for; the twin follows the wall to its top: by 8."""
    monkeypatch.setattr(wide_densities, "DEPTH", depth)
    slow, rng = load_system("forked_oscillator").slow, np.random.default_rng(1)
    x, angle = rng.uniform(*slow.domain[0], N), rng.uniform(-np.pi, np.pi, N)
    even = np.full((N, 1), -np.log(2 * np.pi))
    conditions, of_draws = np.column_stack([x, angle]), log_density(x, angle) - even[:, 0]
    found = fit_wide_regressions(slow, conditions, of_draws, even, slopes(x, angle), np.ones(N))
    nodes = np.linspace(-np.pi, np.pi, 361)
    for at in (-0.5, 0.5):
        exact = log_density(at, nodes)
        off = found.log_density(np.column_stack([np.full(361, at), nodes])) - exact
        wells = exact > exact.max() - 3.0
        spread = np.ptp(off[wells])
        assert (spread < 1.5) if depth < 100 else (spread > 4.0), spread


def test_draws_without_a_weight_are_refused():
    slow = load_system("forked_oscillator").slow
    nothing = np.full(100, -np.inf)
    with pytest.raises(InputError, match="every draw has weight zero"):
        fit_wide_regressions(slow, np.zeros((100, 2)), nothing, np.zeros((100, 1)), np.zeros((100, 2)), np.ones(100))
