"""Time scales and committor of a reduced model against a Markov model that deeptime makes of its trajectories.

    python tests/benchmarks/deeptime_peer.py

needs deeptime (`pip install deeptime`), and prints a line of JSON: the slowest time scale and the root mean square
difference of the committors, of the backward equation on cells and of the Markov model of the same cells.
"""

import json

import numpy as np
from deeptime.markov import TransitionCountEstimator
from deeptime.markov.msm import MaximumLikelihoodMSM

from openmm_gancl.closures import ReducedModel, committor, relaxations
from openmm_gancl.coordinates.basin import Basin
from openmm_gancl.coordinates.slow_coordinates import FirstAxes

LINE = FirstAxes(("x",), np.array([np.inf]), np.array([[-1.6, 1.6]]), ("nm",))
CELLS, LAG = 80, 20
LEFT, RIGHT = Basin("left", (np.array([[-1.6, -0.9]]),)), Basin("right", (np.array([[0.9, 1.6]]),))


def main():
    """One model, both."""
    model = ReducedModel.of_functions(
        LINE,
        lambda places: 2.5 * (places[:, 0] ** 2 - 1) ** 2 + 0.3 * places[:, 0],
        lambda places: 0.25 * np.exp(1.2 * np.sin(2 * places[:, 0]))[:, None, None],
        300.0,
        CELLS,
    )
    starts = np.repeat([-1.0, 1.0], 250)[:, None]
    frames = model.simulate(starts, 80_000, 0.0005, stride=20, seed=1)
    cells = model.cells_of(frames.reshape(-1, 1)).reshape(frames.shape[:2])
    counts = TransitionCountEstimator(LAG, "sliding").fit_fetch([part.astype(np.int32) for part in cells.T])
    markov = MaximumLikelihoodMSM(reversible=True).fit_fetch(counts.submodel_largest())
    states = markov.count_model.state_symbols
    places = model.centres[states]
    sets = [np.flatnonzero(basin.contains(places)) for basin in (LEFT, RIGHT)]
    q = markov.committor_forward(*sets)
    own = committor(model, LEFT, RIGHT).ravel()[states]
    print(
        json.dumps(
            {
                "time_scale_ps": float(relaxations(model, 1).time_scales[0]),
                "time_scale_deeptime_ps": float(markov.timescales(1)[0] * 0.01),
                "rms_committor": float(np.sqrt(((q - own) ** 2).mean())),
            }
        )
    )


if __name__ == "__main__":
    main()
