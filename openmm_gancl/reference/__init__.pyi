"""The reference: internal coordinates and the potential that is a product in them."""

from .chart import InternalCoordinates as InternalCoordinates
from .chart import chart_for as chart_for
from .potential import ReferenceParameters as ReferenceParameters
from .potential import ReferencePotential as ReferencePotential
