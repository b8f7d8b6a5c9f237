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
        module = DensityModule(self.generator, self.kT, self.constants)
        centres = np.tile(self.generator.slow.domain.mean(axis=1), (copies, 1))
        scripted = taking_numbers(module, "energy", [centres.size])
        parameters = {f"label_{i}": float(centre) for i, centre in enumerate(centres.ravel())}
        typical, _ = self.generator.transform(np.repeat(self._middle(), copies, axis=0), centres)
        positions = self.generator.chart.to_cartesian(typical).reshape(-1, 3)
        check_module(scripted, positions, parameters, with_forces=False)
        force = module_force(scripted, parameters, self.backend)
        force.setForceGroup(force_group)
        return [force]

    def _middle(self) -> FloatArray:
        """Base numbers of a typical draw, shape=(1, n_base)."""
        n_circular = self.generator.map.n_circular
        return np.concatenate([np.full((1, n_circular), 0.5), np.zeros((1, self.generator.map.narrow.n))], axis=1)

    def set_parameters(
        self, forces: list[openmm.Force], parameters: FloatArray, indices: NDArray[Any], context: openmm.Context
    ) -> None:
        """The restraint's centre of each copy."""
        for i, centre in enumerate(parameters[np.atleast_1d(indices)].ravel()):
            context.setParameter(f"label_{i}", float(centre))
