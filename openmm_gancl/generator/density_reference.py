"""A generator with a density as the reference of relaxations: ``U_B = -kT log(q(y | s) / J(y)) + U_C(s)``.

Labels are drawn from the restraint around a centre, coordinates given the labels from the generator: as positions their
density is ``exp(-U_B / kT)`` over the restraint's integral, so a path starts in the equilibrium of its reference. How
exact the force of U_B is has no influence on a weight, which holds U_B at one end alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..coordinates.restraint_energies import log_restraint_integral, restraint_energies, sample_restraint
from ..engine.torch_force import Backend, check_module, module_force, taking_numbers
from ..errors import InputError
from ..reference.torch_chart import ChartCoordinates, ChartPositions
from ..units import BoolArray, FloatArray
from .invertible import InvertibleGenerator


class DensityModule(nn.Module):
    """U_B of positions under restraints of the labels.

    Args:
        generator: whose density it is.
        kT: kJ/mol.
        constants: shape=(d,), of the restraints.
    """

    periodic: Tensor
    constants: Tensor

    def __init__(self, generator: InvertibleGenerator, kT: float, constants: FloatArray):
        super().__init__()
        self.coordinates, self.volume = ChartCoordinates(generator.chart), ChartPositions(generator.chart)
        self.map, self.kT = generator.map, kT
        self.register_buffer("periodic", torch.isfinite(torch.as_tensor(np.array(generator.slow.periods))))
        self.register_buffer("constants", torch.as_tensor(np.array(constants, dtype=float)))

    @torch.jit.export
    def energy(self, positions: Tensor, centres: Tensor) -> Tensor:
        """Sum of U_B over copies, kJ/mol.

        Args:
            positions: shape=(copies * n_atoms, 3), nm.
            centres: shape=(copies * d,).
        """
        copies = positions.to(torch.float64).reshape(-1, self.volume.n_atoms, 3)
        coordinates = self.coordinates(copies)
        _, log_density = self.map.inverse(coordinates)
        away = coordinates[:, self.map.label_indices] - centres.reshape(len(copies), -1)
        restraint = torch.where(self.periodic, 1.0 - torch.cos(away), 0.5 * away.square())
        log_volume = self.volume.log_jacobian(coordinates)
        return self.kT * (log_volume - log_density).sum() + (self.constants * restraint).sum()


def density_force(
    generator: InvertibleGenerator,
    kT: float,
    constants: FloatArray,
    copies: int = 1,
    *,
    prefix: str = "",
    backend: Backend = "auto",
) -> openmm.Force:
    """U_B of a generator as a TorchForce or a PythonForce; the restraints' centres are ``label_0``, ``label_1``, ...

    Args:
        generator: whose density it is.
        kT: kJ/mol.
        constants: shape=(d,), of the restraints; zeros leave them out.
        copies: packed, in one call; the centres are those of the first copy, then of the next.
        prefix: of the parameters' names.
        backend: ``torch``, ``python`` or ``auto``.
    """
    centres = np.tile(generator.slow.domain.mean(axis=1), (copies, 1))
    module = taking_numbers(DensityModule(generator, kT, constants), "energy", [centres.size])
    parameters = {f"{prefix}label_{i}": float(centre) for i, centre in enumerate(centres.ravel())}
    positions = generator.typical_positions(centres).reshape(-1, 3)
    check_module(module, positions, parameters, with_forces=False)
    return module_force(module, parameters, backend)


@dataclass(frozen=True, eq=False)
class DensityReference:
    """See `openmm_gancl.reference.potential.Reference`; its parameters are the restraints' centres, shape=(n, d).

    Attributes:
        generator: whose density it is.
        kT: kJ/mol.
        constants: shape=(d,), of the restraints, positive, kJ/mol or kJ/mol/nm^2.
        backend: of the force.
    """

    generator: InvertibleGenerator
    kT: float
    constants: FloatArray
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        if not (np.asarray(self.constants) > 0).all():
            raise InputError(
                f"`force_constants` {np.asarray(self.constants).tolist()}: labels of an invertible generator are "
                "restrained while a Context moves them, so give positive ones"
            )

    def sample(self, centres: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, BoolArray]:
        """One draw for each restraint: coordinates, shape=(n, n_coordinates), and which are in the chart."""
        labels = sample_restraint(self.generator.slow, self.constants / self.kT, centres, rng)
        coordinates, _ = self.generator.sample(labels, rng)
        return coordinates, self.generator.inside(coordinates)

    def energies(self, coordinates: FloatArray, parameters: FloatArray) -> FloatArray:
        """U_B in kJ/mol, shape=(n,)."""
        chart, slow = self.generator.chart, self.generator.slow
        finite = np.isfinite(coordinates).all(axis=1)
        result = np.full(len(coordinates), np.nan)
        at = coordinates[finite]
        of_density = self.kT * (chart.log_jacobian(at) - self.generator.log_density(at))
        restraint = restraint_energies(slow, self.constants, at[:, chart.label_indices], parameters[finite])
        result[finite] = of_density + restraint
        return result

    def log_volume(self, coordinates: FloatArray, parameters: FloatArray) -> FloatArray:
        """log of the restraint's integral, shape=(n,): U_B holds log J."""
        return np.full(len(coordinates), log_restraint_integral(self.generator.slow, self.constants / self.kT))

    def forces(self, force_group: int, copies: int = 1) -> list[openmm.Force]:
        """A TorchForce, or a PythonForce, of all copies together."""
        force = density_force(self.generator, self.kT, self.constants, copies, backend=self.backend)
        force.setForceGroup(force_group)
        return [force]

    def set_parameters(
        self, forces: list[openmm.Force], parameters: FloatArray, indices: NDArray[Any], context: openmm.Context
    ) -> None:
        """The restraint's centre of each copy."""
        for i, centre in enumerate(parameters[np.atleast_1d(indices)].ravel()):
            context.setParameter(f"label_{i}", float(centre))
