import os
from functools import lru_cache, wraps

import numpy as np
import pytest

from openmm_gancl import TrainingOptions, load_model, load_system, sample_windows
from openmm_gancl.generator import untrained_model
from openmm_gancl.generator.training import train_model
from openmm_gancl.lifting import fit_encoder

from .exact import EXACT, FORKED, exact_frames

UNTRAINED_WIDTHS = {
    "double_well_oscillators": {"cartesian": 0.35},
    "bonded_chain": {"bond": 0.035, "angle": 0.4, "torsion": 1.0},
    "forked_oscillator": {"cartesian": 0.4},
}
"""Wider than anything real, so that the variance of one step is finite; no frame was used for it."""


def stored(make):
    """A model that one process of the session makes and the others read."""

    @lru_cache
    @wraps(make)
    def read(models, *key):
        path = models.folder / f"{make.__name__}-{'-'.join(map(str, key))}.safetensors"
        if not path.exists():
            part = path.with_suffix(f".{os.getpid()}")
            make(models, *key).save(part)
            part.replace(path)
        return load_model(path)

    return read


class Models:
    """Systems, frames and models, each made once a session."""

    def __init__(self, folder):
        self.folder = folder

    system = staticmethod(lru_cache(load_system))

    @lru_cache  # noqa: B019  # one instance a session
    def frames(self, name):
        """Positions and labels; of the fork from its exact answer, since short runs do not leave a well."""
        system = self.system(name)
        if name == "forked_oscillator":
            rng = np.random.default_rng(1)
            labels = np.linspace(-1, 1, 64)
            positions = [exact_frames(system, FORKED, 20, rng, label) for label in labels]
            return np.concatenate(positions), np.repeat(labels, 20)[:, None]
        sampled = sample_windows(
            system, n_windows=64, steps_per_window=1000, frames_per_window=20, seed=1, platform="Reference"
        )
        return sampled.positions, sampled.labels

    @stored
    def with_prior_encoder(self, name, generator, latent_size):
        """Trained, trained on shuffled labels, or untrained; r = p(z)."""
        system = self.system(name)
        if generator == "untrained":
            return untrained_model(system, seed=3, latent_size=latent_size, strength=0.5, widths=UNTRAINED_WIDTHS[name])
        positions, labels = self.frames(name)
        options = TrainingOptions(latent_size=latent_size, generator_steps=100)
        if generator == "shuffled":
            labels = np.random.default_rng(5).permutation(labels)
        return train_model(system, positions, labels, seed=2, options=options)

    @stored
    def model(self, name, generator, latent_size, relax_steps):
        """The same with the fitted encoder, where there is a latent and a training to fit it after."""
        model = self.with_prior_encoder(name, generator, latent_size)
        if latent_size == 0 or generator == "untrained":
            return model
        labels = np.array(EXACT[name].labels)[:, None]
        fit = fit_encoder(
            self.system(name),
            model,
            labels,
            relax_steps=relax_steps,
            seed=4,
            n_pilot=384,
            n_reverse=384,
            platform="Reference",
        )
        return fit.model


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    (folder := folder / "models").mkdir(exist_ok=True)
    return Models(folder)
