"""Lifts as moves in a script of the user's own."""

from .context_move import ContextChain as ContextChain
from .context_move import InContextMove as InContextMove
from .lift_move import LiftMove as LiftMove
from .openmmtools import LiftMCMCMove as LiftMCMCMove
from .records import LiftRecord as LiftRecord
from .records import LiftReporter as LiftReporter
