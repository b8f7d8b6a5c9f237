"""The parts of a lifting model as forces: openmmtorch.TorchForce, or openmm.PythonForce where that cannot be loaded."""

from typing import Any, Literal

import numpy as np
import openmm

from ..coordinates.slow_coordinates import checked_constants, slow_as_module
from ..engine.random_numbers import named_rng
from ..engine.torch_force import Backend, check_module, module_force, restraint_module, taking_numbers
from ..errors import InputError, checked
from ..reference.chart import CartesianCoordinates
from ..trajectories.static_bias import TabulatedBias
from ..units import FloatArray, thermal_energy
from .density_reference import density_force
from .force_modules import ReferenceModule, TabulatedBiasModule
from .invertible import InvertibleGenerator
from .model import LiftingModel

Kind = Literal["slow_bias", "reference", "proposal"]


@checked
def torch_force(
    model: LiftingModel | InvertibleGenerator,
    kind: Kind,
    *,
    force_constants: float | FloatArray | None = None,
    bias: TabulatedBias | None = None,
    prefix: str = "",
    force_group: int = 0,
    backend: Backend = "auto",
) -> openmm.Force:
    """A part of a model as a force for a System of its atoms; the System may be copied and written as XML.

    ====================  ========================================  ================================================
    kind                  energy                                    global parameters of the Context
    ====================  ========================================  ================================================
    ``slow_bias``         k (1 - cos(xi - s)) of periodic labels,   ``slow_centre_0``, ...; ``slow_constant_0``, ...
                          k (xi - s)^2 / 2 of others
    ``slow_bias`` with    the table at xi, times a factor           ``slow_bias_factor``
    ``bias``
    ``reference``         U_B that the generator writes at s and z  ``label_0``, ...; ``latent_0``, ...
    ``reference`` of an   ``-kT log(q(y | s) / J(y))``, s being     ``label_0``, ...: centres of the restraint that
    invertible generator  the structure's own labels                ``force_constants`` adds
    ``proposal``          log q(x0 | s, z); forces: x0 - x          ``label_0``, ...; ``latent_0``, ...
    ====================  ========================================  ================================================

    A proposal takes the positions for standard normal numbers (Cartesian charts only). Put it into a force group of
    its own, which no integrator but that of the move and no energy includes, as
    `openmm_gancl.moves.context_move.InContextMove` does. Molecules are proposed by `openmm_gancl.Lifter`.

    Args:
        model: the lifting model.
        kind: see the table.
        force_constants: of the labels, one number or shape=(d,): kJ/mol (torsions), kJ/mol/nm^2 (particles) or kJ/mol
            (learned); of ``slow_bias`` the default of its parameters, without which it is zero. With it a label that
            is a coordinate of the chart has its restraint as its reference, as in lifts.
        bias: over the labels, of ``slow_bias`` instead of the restraint.
        prefix: of the parameters' names, where two forces of a kind are in one System.
        force_group: to put it in.
        backend: ``torch``, ``python``, or ``auto``: TorchForce where it can be loaded.

    Raises:
        InputError: the kind does not fit the model, or the model is broken: it fails, or is not finite.
    """
    constants = checked_constants(0.0 if force_constants is None else force_constants, model.slow)
    if bias is not None and (kind != "slow_bias" or force_constants is not None):
        raise InputError("a bias is one of slow_bias, and instead of its restraint: give one of the two")
    if isinstance(model, InvertibleGenerator) and kind != "slow_bias":
        return _density(model, kind, constants, prefix, force_group, backend)
    place, proposes = _typical(model), kind == "proposal"
    if kind == "slow_bias":
        module, parameters = _slow_bias(model, constants) if bias is None else _tabulated(model, bias)
    elif isinstance(model, LiftingModel) and kind in ("reference", "proposal"):
        module, parameters = _reference(model, kind, None if force_constants is None else constants)
        place = np.zeros_like(place) if proposes else place
    else:
        raise InputError(f"there is no force of kind {kind!r}: choose slow_bias, reference or proposal")
    parameters = {prefix + name: value for name, value in parameters.items()}
    check_module(module, place, parameters, with_forces=proposes)
    return _in_group(module_force(module, parameters, backend, with_forces=proposes), force_group)


def _in_group(force: openmm.Force, force_group: int) -> openmm.Force:
    force.setForceGroup(force_group)
    return force


def _density(
    model: InvertibleGenerator, kind: str, constants: FloatArray, prefix: str, force_group: int, backend: Backend
) -> openmm.Force:
    if kind != "reference":
        raise InputError(
            f"an invertible generator has no force of kind {kind!r}, and Lifter draws from it: ask for reference or "
            "slow_bias"
        )
    return _in_group(density_force(model, _thermal(model), constants, prefix=prefix, backend=backend), force_group)


def _thermal(model: LiftingModel | InvertibleGenerator) -> float:
    return thermal_energy(model.metadata["temperature"])


def _typical(model: LiftingModel | InvertibleGenerator) -> FloatArray:
    """A configuration that the model itself proposes, shape=(n_atoms, 3), nm, at which its parts must work."""
    middle = model.slow.domain.mean(axis=1)[None]
    if isinstance(model, InvertibleGenerator):
        return model.typical_positions(middle)[0]
    model.check_networks()
    rng = named_rng(0, "fixed", "typical configuration")
    parameters = model.reference_parameters(middle, model.sample_latents(middle, rng))
    return model.chart.to_cartesian(parameters.centres)[0]


def _slow_bias(model: LiftingModel | InvertibleGenerator, constants: FloatArray) -> tuple[Any, dict[str, float]]:
    slow = slow_as_module(model.slow)
    centres = {f"slow_centre_{i}": float(low) for i, low in enumerate(slow.domain.mean(axis=1))}
    return restraint_module(slow), {**centres, **{f"slow_constant_{i}": float(k) for i, k in enumerate(constants)}}


def _tabulated(model: LiftingModel | InvertibleGenerator, bias: TabulatedBias) -> tuple[Any, dict[str, float]]:
    slow, d = slow_as_module(model.slow), len(model.slow.names)
    if not isinstance(bias, TabulatedBias) or bias.n_variables != d:
        given = f"over {bias.n_variables} variable(s)" if isinstance(bias, TabulatedBias) else type(bias).__name__
        raise InputError(f"the bias is {given}, the model has {d} label(s): give a TabulatedBias over them")
    if not bias.periodic and np.isfinite(slow.periods).any():
        raise InputError("the labels are periodic, the bias is not: give one that is, with limits in radians")
    if bias.periodic and not np.allclose(np.diff(bias.limits, axis=1)[:, 0], slow.periods):
        raise InputError(
            f"the bias turns around after {np.diff(bias.limits, axis=1)[:, 0].tolist()}, the labels after "
            f"{slow.periods.tolist()}: give its limits in radians"
        )
    return taking_numbers(TabulatedBiasModule(slow.module, bias), "energy", [1]), {"slow_bias_factor": 1.0}


def _reference(model: LiftingModel, kind: Kind, constants: FloatArray | None) -> tuple[Any, dict[str, float]]:
    if kind == "proposal" and not isinstance(model.chart, CartesianCoordinates):
        raise InputError(
            "a proposal inside a Context is for particles in an external field: of a molecule, use Lifter or LiftMove"
        )
    widths, middle = np.empty(0), model.slow.domain.mean(axis=1)
    if constants is not None and len(model.chart.label_indices):
        if not (constants > 0).all():
            raise InputError(f"`force_constants` {constants.tolist()} is the labels' reference: give positive ones")
        widths = np.sqrt(_thermal(model) / constants)
    parameters = {f"label_{i}": float(label) for i, label in enumerate(middle)}
    parameters |= {f"latent_{i}": 0.0 for i in range(model.latent_size)}
    module = ReferenceModule(model.on("cpu").networks.generator, model.chart, _thermal(model), widths)
    method = "energy" if kind == "reference" else "proposal"
    return taking_numbers(module, method, [len(middle), model.latent_size]), parameters
