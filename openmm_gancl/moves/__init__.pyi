"""Lifts as moves in a script of the user's own."""

from .context_move import ContextChain as ContextChain
from .context_move import InContextMove as InContextMove
from .learned_move import LearnedMove as LearnedMove
from .learned_move import load_move as load_move
from .learning import learn_move as learn_move
from .learning_progress import LearningProgress as LearningProgress
from .lift_move import LiftMove as LiftMove
from .lift_move import LiftRecord as LiftRecord
from .lift_move import LiftReporter as LiftReporter
from .openmmtools import LiftMCMCMove as LiftMCMCMove
