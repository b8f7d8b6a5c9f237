"""A torch module as an OpenMM force: TorchForce where openmm-torch can be loaded, PythonForce where it cannot."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openmm
import torch  # before openmmtorch, which finds torch's libraries only once torch is imported
from openmm import version
from torch import Tensor, nn

from ..coordinates.slow_coordinates import ModuleCoordinates
from ..coordinates.torchscript import archived, loaded, scripted
from ..errors import InputError, last_line, quiet
from ..units import FloatArray, numbers
from .threads import torch_threads

Backend = Literal["auto", "torch", "python"]


def why_not_torch() -> str:
    """Which of the versions here is known not to go with openmm-torch 1.5, and which would; empty where none is.

    With others it crashes the process, when it is evaluated or when a System is copied, and not when it is imported.
    """
    try:
        if metadata.version("openmmtorch") != "1.5":
            return ""
    except metadata.PackageNotFoundError:
        return ""
    if not torch.__version__.startswith("2.9."):
        return f"it needs torch 2.9, here is {torch.__version__}"
    if torch.version.cuda is None:
        return "it needs a torch with CUDA libraries, also without a device"
    if not version.short_version.startswith(("8.4", "8.5")):
        return f"it needs OpenMM 8.5, here is {version.short_version}"
    return ""


def runs_everywhere() -> bool:
    """Whether every platform of OpenMM that is here can compute a TorchForce: that for CUDA is a package of its own."""
    platforms = (openmm.Platform.getPlatform(i) for i in range(openmm.Platform.getNumPlatforms()))
    return all(platform.supportsKernels(["CalcTorchForce"]) for platform in platforms)


@cache
def torch_force_type() -> Any:
    """The class ``openmmtorch.TorchForce``, or None where it cannot be loaded."""
    if why_not_torch():
        return None
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


class ModuleForce:
    """What a PythonForce calls: energy and forces of a scripted module; pickles, and loads when first called.

    Args:
        archive: of a module as `module_force` takes it.
        parameters: their names, in order.
        with_forces: whether the module returns forces and the energy; else they are its gradient.
    """

    def __init__(self, archive: bytes, parameters: tuple[str, ...], with_forces: bool):
        self.archive, self.parameters, self.with_forces = archive, parameters, with_forces
        self._module: Any = None

    def __getstate__(self) -> tuple[bytes, tuple[str, ...], bool]:
        return self.archive, self.parameters, self.with_forces

    def __setstate__(self, state: tuple[bytes, tuple[str, ...], bool]) -> None:
        self.archive, self.parameters, self.with_forces = state
        self._module = None

    def __call__(self, state: Any) -> tuple[float, FloatArray]:
        """Energy, kJ/mol, and forces, shape=(n_atoms, 3), kJ/mol/nm."""
        if self._module is None:
            self._module = loaded(self.archive)
        values = state.getParameters() if self.parameters else {}
        scalars = [torch.tensor(values[name], dtype=torch.float64) for name in self.parameters]
        positions = torch.tensor(numbers(state.getPositions(asNumpy=True)), dtype=torch.float64)
        with torch_threads(1):
            return _evaluated(self._module, positions, scalars, self.with_forces)


def _evaluated(module: Any, positions: Tensor, numbers: list[Tensor], with_forces: bool) -> tuple[float, FloatArray]:
    if with_forces:
        with torch.no_grad():
            energy, forces = module(positions, *numbers)
        return energy.item(), forces.numpy()
    positions.requires_grad_(True)
    with torch.enable_grad():
        energy = module(positions, *numbers)
    (gradient,) = torch.autograd.grad(energy, positions)
    return energy.item(), -gradient.numpy()


def check_module(module: Any, positions: FloatArray, parameters: Mapping[str, float], with_forces: bool) -> None:
    """Refuse a module that would fail, or be silently misread, inside a Context.

    Args:
        module: as `module_force` takes it.
        positions: shape=(n_atoms, 3), nm, at which it must be finite.
        parameters: name and default of each.
        with_forces: see `module_force`.

    Raises:
        InputError: what is wrong with it, in one sentence.
    """
    place = torch.tensor(np.asarray(positions), dtype=torch.float64)
    numbers = [torch.tensor(float(value), dtype=torch.float64) for value in parameters.values()]
    try:
        with torch.no_grad():
            found = module(place, *numbers)
            module(place.float(), *(number.float().reshape(1) for number in numbers))  # as on a graphics card
    except Exception as error:  # torch.jit.Error is no RuntimeError
        raise InputError(
            f"the module fails at {len(place)} atoms and {len(numbers)} parameter(s) "
            f"({last_line(error)}): export one that was made for this system"
        ) from None
    expected = "an energy and forces" if with_forces else "one energy"
    parts = found if isinstance(found, tuple) else (found,)
    if len(parts) != 1 + with_forces or not all(isinstance(part, Tensor) for part in parts):
        raise InputError(f"the module returns {_described(found)}, not {expected}: let its forward return tensors")
    for part, shape in zip(parts, [(), tuple(place.shape)], strict=False):
        if tuple(part.shape) != shape or part.dtype != torch.float64 or not part.is_contiguous():
            raise InputError(
                f"the module returns {_described(part)} where {expected} of shape {shape}, contiguous and in "
                "double precision, must be: correct its forward"
            )
    energy, forces = _evaluated(module, place, numbers, with_forces)
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise InputError("the module's energy or forces are not finite at the structure: train it again, or correct it")


def _described(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"{str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}"
    return type(found).__name__


def module_force(
    module: Any, parameters: Mapping[str, float], backend: Backend = "auto", *, with_forces: bool = False
) -> openmm.Force:
    """A scripted module as a force.

    torch's thread count is left to the process. A PythonForce sets it to one in each evaluation. A TorchForce cannot,
    for OpenMM calls it without Python, step after step, on the caller's thread; nor need it: with 1, 2 and 4 threads
    the modules of this package took the same time on two cores, since torch divides only operations of more than
    32,768 numbers. A larger module of your own may gain from ``torch.set_num_threads(1)`` in the script that steps
    its Context: one of 40,000 units took 3.5 times longer with two.

    Args:
        module: its forward takes positions, shape=(n_atoms, 3) in nm, and one number a parameter to an energy, kJ/mol.
        parameters: name and default of each, global parameters of the Context, in the order of the arguments.
        backend: ``torch`` (TorchForce), ``python`` (PythonForce), or ``auto``: the first where it can be loaded, and
            computed by every platform of OpenMM.
        with_forces: whether the module returns forces, shape=(n_atoms, 3), and the energy; else they are its
            gradient.

    Raises:
        InputError: TorchForce is requested and cannot be loaded.
    """
    if backend not in ("auto", "torch", "python"):
        raise InputError(f"there is no backend {backend!r}: choose auto, torch or python")
    torch_force = None if backend == "python" else torch_force_type()
    if backend == "auto" and torch_force is not None and not runs_everywhere():
        torch_force = None
    if torch_force is None and backend == "torch":
        raise InputError(
            "openmm-torch cannot be loaded: pip install 'openmm-gancl[openmmtorch]', or see `gancl doctor`"
        )
    if torch_force is not None:
        force = torch_force(module)
        force.setOutputsForces(with_forces)
        for name, value in parameters.items():
            force.addGlobalParameter(name, float(value))
        return force
    call = ModuleForce(archived(module), tuple(parameters), with_forces)
    return openmm.PythonForce(call, {name: float(value) for name, value in parameters.items()})


def taking_numbers(module: Any, method: str, sizes: Sequence[int]) -> Any:
    """A scripted module whose forward takes positions and single numbers, as a force passes them.

    TorchScript has no functions of any number of arguments, so this one is written for the numbers at hand.

    Args:
        module: a module with the exported method.
        method: takes positions and as many vectors as there are sizes.
        sizes: of these vectors.
    """
    # a module that was read from an archive has types of its own, which a method can be added to
    found = loaded(archived(scripted(module)))
    names = [[f"{chr(ord('a') + i)}{j}" for j in range(size)] for i, size in enumerate(sizes)]
    # on a graphics card openmm-torch passes each as shape=(1,), and in single precision
    vectors = [
        f"torch.stack([{', '.join(row)}]).flatten().to(torch.float64)"
        if row
        else "positions.new_zeros([0], dtype=torch.float64)"
        for row in names
    ]
    arguments = ", ".join(["self", "positions", *(name for row in names for name in row)])
    found.define(f"def forward({arguments}):\n    return self.{method}({', '.join(['positions', *vectors])})\n")
    return found


class _RestraintEnergy(nn.Module):
    periodic: Tensor

    def __init__(self, slow: ModuleCoordinates):
        super().__init__()
        self.coordinates = slow.module
        self.register_buffer("periodic", torch.isfinite(torch.as_tensor(slow.periods)))

    @torch.jit.export
    def energy(self, positions: Tensor, centres: Tensor, constants: Tensor) -> Tensor:
        coordinates = self.coordinates(positions.to(torch.float64))
        assert coordinates.shape == centres.shape, "the labels' module returns another number of coordinates"
        difference = coordinates - centres
        terms = torch.where(self.periodic, 1.0 - torch.cos(difference), 0.5 * difference.square())
        return (constants * terms).sum()


class _Coordinate(nn.Module):
    def __init__(self, slow: ModuleCoordinates, index: int):
        super().__init__()
        self.coordinates, self.index, self.n = slow.module, index, len(slow.names)

    def forward(self, positions: Tensor) -> Tensor:
        coordinates: Tensor = self.coordinates(positions.to(torch.float64))
        assert coordinates.dim() == 1 and len(coordinates) == self.n, (
            "the labels' module returns another number of coordinates"
        )
        return coordinates[self.index]


def restraint_module(slow: ModuleCoordinates) -> Any:
    """U_C as a scripted module: positions, d centres, d constants to an energy, kJ/mol."""
    return taking_numbers(_RestraintEnergy(slow), "energy", [len(slow.names)] * 2)


def coordinate_module(slow: ModuleCoordinates, index: int) -> Any:
    """One coordinate as a scripted module: positions to its value."""
    return scripted(_Coordinate(slow, index))
