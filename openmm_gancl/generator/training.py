"""Training: a lifting model from frames of restrained ensembles, or one that has seen none."""

from typing import Any

import numpy as np
import torch
from torch import nn

from ..engine.random_numbers import named_rng, torch_seeded
from ..engine.threads import torch_threads
from ..errors import InputError, checked
from ..reference.chart import Chart, chart_for
from ..sampling.frames import Frames
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, whole_number
from .model import LiftingModel, frozen_networks
from .networks import Generator, coordinate_kinds
from .trained_for import system_metadata
from .wgan_gp import TrainingHistory, TrainingOptions, coordinate_statistics, fit_baseline, train_adversarially

UNTRAINED_WIDTHS = {"bond": 0.004, "angle": 0.06, "torsion": 0.2, "cartesian": 0.1}
"""nm and radians, of a generator that has seen no frame."""


def _bundle(
    system: MolecularSystem,
    chart: Chart,
    generator: Generator,
    **metadata: Any,
) -> LiftingModel:
    import openmm

    networks = frozen_networks(generator, np.zeros(chart.n_coordinates), 1)
    base = {
        **system_metadata(system),
        "encoder_relax_steps": None,
        "versions": {"torch": torch.__version__, "openmm": openmm.__version__},
    }
    return LiftingModel(networks, chart, system.slow, {**base, **metadata})


@torch_threads(1)
def train_model(
    system: MolecularSystem,
    positions: FloatArray,
    labels: FloatArray,
    *,
    seed: int,
    options: TrainingOptions | None = None,
    progress: Any = None,
) -> LiftingModel:
    """Train a lifting model on frames of restrained ensembles; the encoder stays the prior.

    Args:
        system: the real system.
        positions: shape=(n, n_atoms, 3), nm.
        labels: shape=(n, d): the restraint's centre of each frame, or the label obtained.
        seed: of every random number; the same seed gives the same bytes at the same thread count.
        options: hyper-parameters.
        progress: called with the step and the number of steps.
    """
    options = options or TrainingOptions()
    whole_number("latent_size", options.latent_size, 0)
    chart = chart_for(system.topology, system.slow, system.positions, system.constraints)
    coordinates = chart.to_internal(positions)
    keep = np.isfinite(coordinates).all(axis=1) & np.isfinite(labels).all(axis=1)
    if keep.sum() < 20:
        raise InputError(f"only {int(keep.sum())} usable training frames: sample more windows, or longer ones")
    coordinates, labels = coordinates[keep], labels[keep]
    origin, scale = coordinate_statistics(coordinates, chart)
    with torch_seeded(seed, "training", "generator"):
        generator = Generator(chart, system.slow, options.latent_size, origin, scale)
    history = TrainingHistory()
    history.baseline_loss = fit_baseline(generator, labels, coordinates, options.roughness)
    if options.latent_size > 0 and options.generator_steps > 0:
        order = named_rng(seed, "training", "held out").permutation(len(labels))
        split = int(len(order) * options.held_out)
        held_out = (labels[order[:split]], coordinates[order[:split]])
        rows = order[split:]
        train_adversarially(
            generator,
            system.slow,
            labels[rows],
            coordinates[rows],
            held_out,
            options,
            seed,
            history,
            progress,
        )
    return _bundle(system, chart, generator, n_frames=len(labels), seed=seed, history=vars(history))


@checked
def train(
    system: MolecularSystem,
    frames: Frames,
    *,
    seed: int,
    options: TrainingOptions | None = None,
    progress: Any = None,
) -> LiftingModel:
    """Train a lifting model on sampled frames: the baseline is fitted, then the GAN (arXiv 1704.00028, 1705.08868).

    Args:
        system: the real system.
        frames: of restrained windows, whose centres are the labels, or of free runs.
        seed: of every random number; the same seed gives the same bytes at the same thread count.
        options: hyper-parameters.
        progress: called with the step and the number of steps.

    Raises:
        InputError: fewer than 20 usable frames, a latent of negative size, or a molecule without a chart.
    """
    return train_model(system, frames.positions, frames.labels, seed=seed, options=options, progress=progress)


@checked
def untrained_model(
    system: MolecularSystem,
    *,
    seed: int,
    latent_size: int = 4,
    strength: float = 1.0,
    widths: dict[str, float] | None = None,
) -> LiftingModel:
    """A generator that has seen no frame: random non-zero last layer, no baseline fit, around the structure.

    Args:
        system: the real system; its structure is the centre.
        seed: of the random layer.
        latent_size: dimension of z.
        strength: typical size of the random raw outputs, in widths.
        widths: by kind of coordinate, `UNTRAINED_WIDTHS` by default; nm and radians.
    """
    chart = chart_for(system.topology, system.slow, system.positions, system.constraints)
    by_kind = {**UNTRAINED_WIDTHS, **(widths or {})}
    scale = np.array([by_kind[kind] for kind in coordinate_kinds(chart)])
    origin = chart.to_internal(system.positions[None])[0]
    with torch_seeded(seed, "untrained model"):
        generator = Generator(chart, system.slow, latent_size, origin, scale)
        last: Any = generator.correction[-1]
        nn.init.normal_(last.weight, std=strength * 2.0 / last.in_features**0.5)
    return _bundle(system, chart, generator, n_frames=0, seed=seed, history=vars(TrainingHistory()))
