"""What of openmm-torch works here, one word a stage: ``python -m openmm_gancl.cli.torch_check``.

In a process of its own, for an unfit pair of versions may end it without a message.
"""

import copy
from typing import Any

from ..units import number

STAGES = {
    "import": "be imported",
    "force": "make a force",
    "evaluation": "be evaluated in a Context",
    "platforms": "be computed by every platform of OpenMM that is here",
    "xml": "be written as XML and read back",
    "copy": "be copied with its System",
    "collective variable": "be used in a CustomCVForce",
}
"""In order, each with what openmm-torch cannot do where it is the first that is missing."""


def _checked(system: Any, platform: str = "Reference") -> None:
    import openmm

    chosen = openmm.Platform.getPlatformByName(platform)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), chosen)
    context.setPositions([[1.0, 2.0, 0.0]])
    energy = number(context.getState(energy=True, forces=True).getPotentialEnergy())
    if abs(energy - 5.0) > 1e-5:
        raise RuntimeError(f"a spring of 5 kJ/mol has {energy:g}")


def main() -> None:
    """Print each stage that passes."""
    import torch

    class Spring(torch.nn.Module):
        def forward(self, positions: torch.Tensor) -> torch.Tensor:
            return positions.square().sum()

    import openmmtorch  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: F401  # torch first

    print("import", flush=True)
    import openmm

    from ..coordinates.torchscript import scripted
    from ..engine.torch_force import module_force

    def system_with(force: Any) -> Any:
        system = openmm.System()
        system.addParticle(1.0)
        system.addForce(force)
        return system

    spring = scripted(Spring())
    system = system_with(module_force(spring, {}, "torch"))
    print("force", flush=True)
    _checked(system)
    print("evaluation", flush=True)
    for i in range(openmm.Platform.getNumPlatforms()):
        _checked(system, openmm.Platform.getPlatform(i).getName())
    print("platforms", flush=True)
    _checked(openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system)))
    print("xml", flush=True)
    _checked(copy.deepcopy(system))
    print("copy", flush=True)
    outer = openmm.CustomCVForce("spring")
    outer.addCollectiveVariable("spring", module_force(spring, {}, "torch"))
    _checked(system_with(outer))
    print("collective variable", flush=True)


if __name__ == "__main__":
    main()
