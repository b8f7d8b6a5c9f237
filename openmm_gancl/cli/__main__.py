"""``python -m openmm_gancl.cli``: the same as ``gancl``."""

from . import main

main()
