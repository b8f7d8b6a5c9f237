"""How OpenMM runs things: platforms, tasks, random numbers, packed copies, restraint and torch forces, XML."""
