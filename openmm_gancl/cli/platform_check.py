"""How fast a platform of OpenMM is here: ``python -m openmm_gancl.cli.platform_check NAME``.

In a process of its own, for a driver may end it without a message.
"""

import sys

import openmm

from ..engine.platforms import measured_step
from ..errors import InputError, first_line
from ..system.library import load_system


def main() -> None:
    """Print microseconds of a step of alanine dipeptide, or why there are none."""
    system = load_system("alanine_dipeptide_vacuum")
    try:
        print(f"{measured_step(system.system, system.positions, sys.argv[1]):.1f}")
    except (openmm.OpenMMException, InputError) as error:
        sys.exit(first_line(error))


if __name__ == "__main__":
    main()
