"""What is simulated: cards, Systems, the declared state, constraints, a user's Simulation."""

from .library import copy_system as copy_system
from .library import list_systems as list_systems
from .library import load_system as load_system
from .molecular_system import MolecularSystem as MolecularSystem
from .molecular_system import system_from_objects as system_from_objects
from .simulation import system_from_simulation as system_from_simulation
from .simulation_card import SimulationCard as SimulationCard
from .simulation_card import card_of_simulation as card_of_simulation
