"""What a generator proposes at labels: references, and the coordinates where each path has its reference end."""

from dataclasses import dataclass

import numpy as np

from ..generator.density_reference import DensityReference
from ..generator.model import LiftingModel
from ..reference.potential import ReferenceParameters, ReferencePotential
from ..units import BoolArray, FloatArray


@dataclass(frozen=True)
class Proposals:
    """n references, with the latents they belong to and the coordinates at the reference end of each path.

    Attributes:
        labels: shape=(n, d).
        latents: shape=(n, latent_size).
        parameters: n references, with the restraint as that of the label coordinates; of a generator with a density
            the restraints' centres, shape=(n, d).
        coordinates: shape=(n, n_coordinates), x0 in the chart; NaN in reverse until the path has run.
        log_encoder: shape=(n,), log r(z | x, s) at the real end; NaN of lifts until the path has run.
    """

    labels: FloatArray
    latents: FloatArray
    parameters: ReferenceParameters | FloatArray
    coordinates: FloatArray
    log_encoder: FloatArray


def restraint_reference(
    parameters: ReferenceParameters, model: LiftingModel, labels: FloatArray, force_constants: FloatArray, kT: float
) -> ReferenceParameters:
    """Let the restraint be the reference of the label coordinates themselves, where the chart has them.

    A torsion without a restraint is drawn uniformly; a coordinate without a period stays the generator's.
    """
    indices = model.chart.label_indices
    if not len(indices):
        return parameters
    restrained = (force_constants > 0) | model.chart.periodic[indices]
    centres, widths = parameters.centres.copy(), parameters.widths.copy()
    centres[:, indices[restrained]] = labels[:, restrained]
    with np.errstate(divide="ignore"):
        widths[:, indices[restrained]] = np.sqrt(kT / force_constants[restrained])
    return ReferenceParameters(centres, widths)


def propose(
    model: LiftingModel, labels: FloatArray, force_constants: FloatArray, kT: float, rng: np.random.Generator
) -> Proposals:
    """Draw latents from the prior and configurations from their references.

    Args:
        model: the lifting model.
        labels: shape=(n, d).
        force_constants: shape=(d,).
        kT: kJ/mol.
        rng: the task's generator.
    """
    latents = model.sample_latents(labels, rng)
    parameters = model.reference_parameters(labels, latents)
    parameters = restraint_reference(parameters, model, labels, force_constants, kT)
    coordinates = ReferencePotential(model.chart, kT).sample(parameters, rng)
    return Proposals(labels, latents, parameters, coordinates, np.full(len(labels), np.nan))


def propose_reverse(
    model: LiftingModel,
    positions: FloatArray,
    labels: FloatArray,
    force_constants: FloatArray,
    kT: float,
    rng: np.random.Generator,
) -> Proposals:
    """Draw latents from the encoder at real frames; the paths back to their references start there."""
    coordinates = model.chart.to_internal(positions)
    latents, log_encoder = model.sample_encoder(coordinates, labels, rng)
    parameters = model.reference_parameters(labels, latents)
    parameters = restraint_reference(parameters, model, labels, force_constants, kT)
    return Proposals(labels, latents, parameters, np.full_like(coordinates, np.nan), log_encoder)


def propose_density(
    reference: DensityReference, labels: FloatArray, frames: FloatArray | None, rng: np.random.Generator
) -> tuple[Proposals, BoolArray]:
    """Draw labels from their restraints and configurations from a generator, or take frames; no latents.

    Args:
        reference: the generator's potential under restraints.
        labels: shape=(n, d), the restraints' centres.
        frames: shape=(n, n_atoms, 3), nm, for the way back.
        rng: the task's generator.

    Returns:
        the proposals, and which may have a weight.
    """
    n, chart = len(labels), reference.generator.chart
    coordinates, inside = np.full((n, chart.n_coordinates), np.nan), np.ones(n, dtype=bool)
    if frames is None:
        coordinates, inside = reference.sample(labels, rng)
    return Proposals(labels, np.empty((n, 0)), labels, coordinates, np.zeros(n)), inside
