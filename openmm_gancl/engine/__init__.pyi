"""How OpenMM runs things: platforms, tasks, threads, random numbers, packed copies, restraint and torch forces, XML."""

from .platforms import PlatformChoice as PlatformChoice
from .restraint_forces import coordinate_forces as coordinate_forces
from .restraint_forces import make_restraint as make_restraint
from .tasks import run_tasks as run_tasks
