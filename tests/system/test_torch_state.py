"""The declared state in torch is that of numpy."""

import numpy as np
import torch

from openmm_gancl import load_system
from openmm_gancl.system.state import DeclaredState
from openmm_gancl.system.torch_state import InState


def test_torch_and_numpy_agree_on_what_is_inside():
    system = load_system("alanine_dipeptide_vacuum")
    rng = np.random.default_rng(0)
    frames = system.positions + 0.02 * rng.standard_normal((60, system.n_atoms, 3)) * np.arange(60)[:, None, None] / 30
    frames[0] = system.positions * [1, 1, -1]  # the mirror image
    frames[1, 0, 0] = np.nan
    frames[2, 18] += 0.2  # a broken bond
    n_cis = system.state.trans_peptides[0]
    turned = frames[3].copy()
    turned[n_cis[3:]] = 2 * turned[n_cis[2]] - turned[n_cis[3:]]
    frames[3] = turned
    state = torch.jit.script(InState(system.state))
    expected = system.state.inside(frames)
    assert (state(torch.as_tensor(frames)).numpy() == expected).all()
    assert 10 < expected.sum() < 50 and set(system.state.violations(frames)) >= {"", "bond", "nan", "chirality"}


def test_the_empty_state_holds_what_is_finite():
    frames = torch.zeros(2, 3, 3, dtype=torch.float64)
    frames[1, 0, 0] = torch.inf
    assert InState(DeclaredState())(frames).tolist() == [True, False]
