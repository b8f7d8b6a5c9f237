"""Mean forces along labels and wide torsions, freed of most of their noise by the generator's map."""

import numpy as np
import torch

from ..generator.invertible import InvertibleGenerator
from ..generator.transport import transported_gradients
from ..units import FloatArray
from .draws import Draws
from .stored_rows import blocks_of
from .wide_densities import condition_indices


def mean_forces(generator: InvertibleGenerator, coordinates: FloatArray, gradients: FloatArray) -> FloatArray:
    """Slopes of the log target along labels and wide torsions while narrow ones move along, shape=(n, d + n_wide)."""
    of_map = generator.map
    labels, circular = of_map.label_indices.numpy(), of_map.circular_indices.numpy()
    conditions = coordinates[:, np.concatenate([labels, circular])]
    values = of_map.narrow_values(torch.as_tensor(coordinates)).numpy()
    of_narrow = gradients[:, of_map.narrow_indices.numpy()]
    indices = condition_indices(of_map)
    moved = transported_gradients(of_map.narrow, conditions, values, of_narrow, len(indices), of_map.periodic.numpy())
    return np.asarray(gradients[:, indices] + moved)


def slopes_of(generator: InvertibleGenerator, draws: Draws) -> FloatArray:
    """Mean forces of draws along labels and wide torsions, zero where there is no weight, shape=(n, d + n_wide)."""
    slopes = np.zeros((len(draws), len(condition_indices(generator.map))))
    for rows in blocks_of(draws.reason == "ok"):
        slopes[rows] = mean_forces(generator, draws.coordinates[rows], draws.gradients[rows])
    return slopes
