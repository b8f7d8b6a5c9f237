"""A torch module as an OpenMM force: TorchForce where openmm-torch can be loaded, PythonForce where it cannot."""

import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import openmm
import torch  # before openmmtorch, which finds torch's libraries only once torch is imported
from openmm import version
from torch import Tensor, nn

from .errors import InputError, quiet
from .slow import ModuleCoordinates, archived
from .units import FloatArray

Backend = Literal["auto", "torch", "python"]


@cache
def torch_force_type() -> Any:
    """The class ``openmmtorch.TorchForce``, or None where it cannot be loaded."""
    try:
        with quiet(None):  # its import warns of a name of OpenMM's that it still uses
            import openmmtorch  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except (ImportError, OSError):
        return None
    _load_plugins()
    return openmmtorch.TorchForce


def _load_plugins() -> None:
    """OpenMM loaded its plugins without those of openmm-torch if it was imported before torch."""
    folder = Path(version.openmm_library_path) / "plugins"
    loaded = {Path(name).name for name in openmm.pluginLoadedLibNames}
    for path in sorted(folder.glob("*OpenMMTorch*")):
        if path.name not in loaded:
            try:
                openmm.Platform.loadPluginLibrary(str(path))
            except openmm.OpenMMException:  # of a platform that is not here
                continue


class ModuleEnergy:
    """What a PythonForce calls: energy and forces of a scripted module; pickles, and loads when first called.

    Args:
        archive: of a module whose forward takes positions and one number a parameter to an energy.
        parameters: their names, in order.
    """

    def __init__(self, archive: bytes, parameters: tuple[str, ...]):
        self.archive, self.parameters = archive, parameters
        self._module: Any = None

    def __getstate__(self) -> tuple[bytes, tuple[str, ...]]:
        return self.archive, self.parameters

    def __setstate__(self, state: tuple[bytes, tuple[str, ...]]) -> None:
        self.archive, self.parameters = state
        self._module = None

    def __call__(self, state: Any) -> tuple[float, FloatArray]:
        """Energy, kJ/mol, and forces, shape=(n_atoms, 3), kJ/mol/nm."""
        if self._module is None:
            self._module = torch.jit.load(io.BytesIO(self.archive))
        positions = torch.tensor(state.getPositions(asNumpy=True)._value, dtype=torch.float64, requires_grad=True)
        values = state.getParameters() if self.parameters else {}
        numbers = [torch.tensor(values[name], dtype=torch.float64) for name in self.parameters]
        energy = self._module(positions, *numbers)
        (gradient,) = torch.autograd.grad(energy, positions)
        return energy.item(), -gradient.numpy()


def module_force(module: Any, parameters: Mapping[str, float], backend: Backend = "auto") -> openmm.Force:
    """A scripted module as a force.

    Args:
        module: its forward takes positions, shape=(n_atoms, 3) in nm, and one number a parameter to an energy, kJ/mol.
        parameters: name and default of each, global parameters of the Context, in the order of the arguments.
        backend: ``torch`` (TorchForce), ``python`` (PythonForce), or ``auto``: the first where it can be loaded.

    Raises:
        InputError: TorchForce is asked for and cannot be loaded.
    """
    # with more threads a small network is tens of times slower
    torch.set_num_threads(1)
    torch_force = None if backend == "python" else torch_force_type()
    if torch_force is None and backend == "torch":
        raise InputError(
            "openmm-torch cannot be loaded: pip install 'openmm-gancl[openmmtorch]', or see `gancl doctor`"
        )
    if torch_force is not None:
        force = torch_force(module)
        for name, value in parameters.items():
            force.addGlobalParameter(name, float(value))
        return force
    return openmm.PythonForce(ModuleEnergy(archived(module), tuple(parameters)), dict(parameters))


class _RestraintEnergy(nn.Module):
    periodic: Tensor

    def __init__(self, slow: ModuleCoordinates):
        super().__init__()
        self.coordinates = slow.module
        self.register_buffer("periodic", torch.isfinite(torch.as_tensor(slow.periods)))

    @torch.jit.export
    def energy(self, positions: Tensor, centres: Tensor, constants: Tensor) -> Tensor:
        difference = self.coordinates(positions.to(torch.float64)) - centres
        terms = torch.where(self.periodic, 1.0 - torch.cos(difference), 0.5 * difference.square())
        return (constants * terms).sum()


class _Coordinate(nn.Module):
    def __init__(self, slow: ModuleCoordinates, index: int):
        super().__init__()
        self.coordinates, self.index = slow.module, index

    def forward(self, positions: Tensor) -> Tensor:
        coordinates: Tensor = self.coordinates(positions.to(torch.float64))
        return coordinates[self.index]


def restraint_module(slow: ModuleCoordinates) -> Any:
    """U_C as a scripted module: positions, d centres, d constants to an energy, kJ/mol."""
    d = len(slow.names)
    # a module that was read from an archive has types of its own, which a method can be added to
    scripted = torch.jit.load(io.BytesIO(archived(torch.jit.script(_RestraintEnergy(slow)))))
    centres, constants = (", ".join(f"{letter}{i}" for i in range(d)) for letter in "ck")
    # TorchScript has no functions of any number of arguments, and a force passes one number at a time
    scripted.define(
        f"def forward(self, positions, {centres}, {constants}):\n"
        f"    return self.energy(positions, torch.stack([{centres}]), torch.stack([{constants}]))\n"
    )
    return scripted


def coordinate_module(slow: ModuleCoordinates, index: int) -> Any:
    """One coordinate as a scripted module: positions to its value."""
    return torch.jit.script(_Coordinate(slow, index))
