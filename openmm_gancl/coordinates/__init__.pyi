"""What maps positions to numbers: slow coordinates, collective variables, features, restraint energies, basins."""

from .basin import Basin as Basin
from .features import Features as Features
from .features import parse_features as parse_features
from .slow_coordinates import ModuleCoordinates as ModuleCoordinates
from .slow_coordinates import ParticleCoordinates as ParticleCoordinates
from .slow_coordinates import SlowCoordinates as SlowCoordinates
from .slow_coordinates import Torsions as Torsions
from .specification import CollectiveVariable as CollectiveVariable
from .specification import parse_cv as parse_cv
