"""A window of a learned coordinate by either backend, against exact frames weighted by its restraint."""

import numpy as np
import openmm
import pytest

from openmm_gancl import load_system, sample_windows
from openmm_gancl.coordinates.restraint_energies import restraint_energies
from openmm_gancl.engine import make_restraint
from openmm_gancl.engine.platforms import make_context
from openmm_gancl.learning.learned_labels import learn_slow_coordinates
from tests.openmm_contexts import BACKENDS

from .exact import CHAIN, exact_frames
from .statistics import z_limit

pytestmark = pytest.mark.openmmtorch

N_FRAMES, STRIDE, N_BLOCKS, N_EXACT = 400, 20, 20, 200_000
KAPPA = np.array([40.0])


@pytest.fixture(scope="module")
def learned():
    system = load_system("bonded_chain")
    frames = sample_windows(system, n_windows=32, steps_per_window=200, frames_per_window=10, platform="Reference")
    slow = learn_slow_coordinates(system, frames.positions, keep=[], most=1, n_landmarks=60).labels.slow
    label = np.quantile(slow.transform(frames.positions), 0.3, axis=0)
    return system, slow, label


def window(system, slow, label, backend, seed):
    """Labels along a restrained run, shape=(N_FRAMES,)."""
    restraint = make_restraint(slow, KAPPA, 1, backend=backend)
    restrained = openmm.XmlSerializer.clone(system.system)
    restrained.addForce(restraint.force)
    integrator = openmm.LangevinMiddleIntegrator(system.temperature, system.friction, system.time_step)
    context = make_context(restrained, integrator, "Reference", seed)
    restraint.move(context, label)
    context.setPositions(system.positions)
    context.setVelocitiesToTemperature(system.temperature, seed)
    integrator.step(100 * STRIDE)
    positions = np.empty((N_FRAMES, system.n_atoms, 3))
    for frame in positions:
        integrator.step(STRIDE)
        frame[:] = context.getState(positions=True).getPositions(asNumpy=True)._value
    return slow.transform(positions)[:, 0]


def mean_and_error(series):
    blocks = series.reshape(N_BLOCKS, -1).mean(axis=1)
    return blocks.mean(), blocks.std(ddof=1) / N_BLOCKS**0.5


def test_window_means_agree(learned):
    """Each backend's, and that of exact frames weighted by the restraint; of a centre moved by little they do not."""
    system, slow, label = learned
    exact = exact_frames(system, CHAIN, N_EXACT, np.random.default_rng(1))
    values = slow.transform(exact)

    def expected(centre):
        weights = np.exp(-restraint_energies(slow, KAPPA, values, centre) / system.kT)
        weights /= weights.sum()
        mean = weights @ values[:, 0]
        return mean, np.sqrt((weights**2) @ (values[:, 0] - mean) ** 2)

    truth, truth_error = expected(label)
    other, other_error = expected(label + 0.15)
    for i, backend in enumerate(BACKENDS):
        mean, error = mean_and_error(window(system, slow, label, backend, seed=11 + i))
        print(backend, mean, error, "exact", truth, truth_error, "moved", other)
        assert error < 0.02 * np.ptp(slow.domain)
        assert abs(mean - truth) / np.hypot(error, truth_error) < z_limit(2)
        assert abs(mean - other) / np.hypot(error, other_error) > 5.0
