"""The parts of a lifting model as forces: openmmtorch.TorchForce, or openmm.PythonForce where that cannot be loaded."""

from typing import Any, Literal

import numpy as np
import openmm

from .chart import CartesianCoordinates
from .errors import InputError
from .model import LiftingModel
from .module_force import Backend, check_module, module_force, restraint_module, taking_numbers
from .static_bias import TabulatedBias
from .torch_modules import ReferenceModule, TabulatedBiasModule, slow_as_module
from .units import FloatArray, thermal_energy

Kind = Literal["slow_bias", "reference", "proposal"]


def torch_force(
    model: LiftingModel,
    kind: Kind,
    *,
    restraint: float | FloatArray | None = None,
    bias: TabulatedBias | None = None,
    force_group: int = 0,
    backend: Backend = "auto",
) -> openmm.Force:
    """A part of a lifting model as a force for a System of its atoms; the System may be copied and written as XML.

    ====================  ========================================  ================================================
    kind                  energy                                    global parameters of the Context
    ====================  ========================================  ================================================
    ``slow_bias``         k (1 - cos(xi - s)) of periodic labels,   ``slow_centre_0``, ...; ``slow_constant_0``, ...
                          k (xi - s)^2 / 2 of others
    ``slow_bias`` with    the table at xi, times a factor           ``slow_bias_factor``
    ``bias``
    ``reference``         U_B that the generator writes at s and z  ``label_0``, ...; ``latent_0``, ...
    ``proposal``          log q(x0 | s, z); forces: x0 - x          ``label_0``, ...; ``latent_0``, ...
    ====================  ========================================  ================================================

    A proposal takes the positions for standard normal numbers (Cartesian charts only). Put it into a force group of
    its own, which no integrator but that of the move and no energy includes, as
    `openmm_gancl.in_context.InContextMove` does. Molecules are proposed by `openmm_gancl.Lifter`.

    Args:
        model: the lifting model.
        kind: see the table.
        restraint: constants of the labels, one number or shape=(d,): kJ/mol (torsions), kJ/mol/nm^2 (particles) or
            kJ/mol (learned); of ``slow_bias`` the default of its parameters, without which it is zero. With it a
            label that is a coordinate of the chart has its restraint as its reference, as in lifts.
        bias: over the labels.
        force_group: to put it in.
        backend: ``torch``, ``python``, or ``auto``: TorchForce where it can be loaded.

    Raises:
        InputError: the kind does not fit the model, or the model is broken: it fails, or is not finite.
    """
    d = len(model.slow.names)
    constants = np.broadcast_to(np.asarray(0.0 if restraint is None else restraint, dtype=float), (d,))
    if not (np.isfinite(constants) & (constants >= 0)).all():
        raise InputError(f"restraint {constants.tolist()} holds negative numbers or NaN: give constants from zero up")
    model.check_networks()
    place = _typical(model)
    if kind == "slow_bias":
        module, parameters = _slow_bias(model, constants, bias)
    elif kind in ("reference", "proposal"):
        widths = np.empty(0)
        if restraint is not None and len(model.chart.label_indices):
            widths = np.sqrt(_thermal(model) / constants)
        module, parameters = _reference(model, kind, widths)
        if kind == "proposal":
            place = np.zeros_like(place)
    else:
        raise InputError(f"there is no force of kind {kind!r}: ask for slow_bias, reference or proposal")
    check_module(module, place, parameters, with_forces=kind == "proposal")
    force = module_force(module, parameters, backend, with_forces=kind == "proposal")
    force.setForceGroup(force_group)
    return force


def _thermal(model: LiftingModel) -> float:
    return thermal_energy(model.metadata["temperature"])


def _typical(model: LiftingModel) -> FloatArray:
    """A configuration that the model itself proposes, shape=(n_atoms, 3), nm, at which its parts must work."""
    middle = model.slow.domain.mean(axis=1)[None]
    rng = np.random.default_rng(0)
    parameters = model.reference_parameters(middle, model.sample_latents(middle, rng))
    return model.chart.to_cartesian(parameters.centres)[0]


def _slow_bias(model: LiftingModel, constants: FloatArray, bias: TabulatedBias | None) -> tuple[Any, dict[str, float]]:
    slow, d = slow_as_module(model.slow), len(model.slow.names)
    if bias is not None:
        if bias.n_variables != d:
            raise InputError(
                f"the bias is over {bias.n_variables} variable(s), the model has {d} label(s): give another"
            )
        return taking_numbers(TabulatedBiasModule(slow.module, bias), "energy", [1]), {"slow_bias_factor": 1.0}
    centres = {f"slow_centre_{i}": float(low) for i, low in enumerate(slow.domain.mean(axis=1))}
    return restraint_module(slow), {**centres, **{f"slow_constant_{i}": float(k) for i, k in enumerate(constants)}}


def _reference(model: LiftingModel, kind: Kind, widths: FloatArray) -> tuple[Any, dict[str, float]]:
    if kind == "proposal" and not isinstance(model.chart, CartesianCoordinates):
        raise InputError(
            "a proposal inside a Context is for particles in an external field: of a molecule, use Lifter or LiftMove"
        )
    middle = model.slow.domain.mean(axis=1)
    parameters = {f"label_{i}": float(label) for i, label in enumerate(middle)}
    parameters |= {f"latent_{i}": 0.0 for i in range(model.latent_size)}
    module = ReferenceModule(model.networks.generator, model.chart, _thermal(model), widths)
    method = "energy" if kind == "reference" else "proposal"
    return taking_numbers(module, method, [len(middle), model.latent_size]), parameters
