"""How OpenMM runs things: platforms, tasks, threads, random numbers, packed copies, restraint and torch forces, XML."""
