"""Features by mdtraj and by torch: the same numbers, right gradients, and errors that name frame and atom."""

from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch

from openmm_gancl import InputError
from openmm_gancl.coordinates.features import (
    AlignedPositions,
    Distances,
    Features,
    SineCosine,
    heavy_atom_distances,
    parse_features,
)
from openmm_gancl.coordinates.torch_modules import features_module
from openmm_gancl.learning.diffusion_map import DiffusionMap
from openmm_gancl.learning.torch_map import coordinates_module

TOP = Path(__file__).parents[1] / "data" / "alanine_dipeptide.pdb"
SPECS = ["distances", "torsions:phi/psi:2/4,6,8,14", "positions:not element H", "0.5*torsions:1,4,6,8"]


@pytest.fixture(scope="module")
def structure():
    return mdtraj.load(str(TOP))


def shaken(structure, n, boxed):
    """Frames with shaken atoms, turned and moved; in a box that cuts the molecule, in reduced triclinic form."""
    rng = np.random.default_rng(0)
    turns = np.linalg.qr(rng.normal(size=(n, 3, 3)))[0]
    turns *= np.sign(np.linalg.det(turns))[:, None, None]
    xyz = (structure.xyz[0] + rng.normal(0.0, 0.02, (n, structure.n_atoms, 3))) @ turns + rng.normal(size=(n, 1, 3))
    frames = mdtraj.Trajectory(xyz.astype(np.float32), structure.topology)
    if boxed:
        box = np.array([[2.6, 0.0, 0.0], [0.4, 2.5, 0.0], [-0.5, 0.6, 2.7]])
        shifts = rng.integers(-1, 2, (n, structure.n_atoms, 3)) @ box
        frames.xyz += shifts.astype(np.float32)
        frames.unitcell_vectors = np.tile(box, (n, 1, 1)).astype(np.float32)
    return frames


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("n", [1, 7])
def test_twins_are_equal(structure, boxed, n):
    specs = [spec for spec in SPECS if not (boxed and spec.startswith("positions"))]
    frames, features = shaken(structure, n, boxed), parse_features(specs, structure.topology, structure)
    module = features_module(features)
    box = torch.as_tensor(frames.unitcell_vectors[0], dtype=torch.float64) if boxed else None
    found = module(torch.as_tensor(frames.xyz, dtype=torch.float64), box).numpy()
    expected = features.compute(frames)
    assert expected.shape == (n, len(features.names)) and np.abs(found - expected).max() < 1e-5
    single = module(torch.as_tensor(frames.xyz[0], dtype=torch.float64), box).numpy()
    assert np.allclose(single, found[0], atol=1e-12)


def rebuilt(description):
    """What is stored of features in a run's report is enough to make them again."""
    kinds = {kind.kind: kind for kind in (Distances, SineCosine, AlignedPositions)}
    parts = [
        kinds[part["kind"]](**{key: np.array(value) for key, value in part.items() if key != "kind"})
        for part in description["parts"]
    ]
    return Features(tuple(parts), tuple(description["scales"]))


def test_scripted_twins_are_equal_and_saved(structure, tmp_path):
    features = parse_features(SPECS, structure.topology, structure)
    positions = torch.as_tensor(shaken(structure, 3, False).xyz, dtype=torch.float64)
    module = features_module(features)
    torch.jit.script(module).save(str(tmp_path / "features.pt"))
    loaded = torch.jit.load(str(tmp_path / "features.pt"))
    assert torch.equal(loaded(positions), module(positions))
    again = rebuilt(features.describe())
    assert again.names == features.names
    assert torch.allclose(features_module(again)(positions), module(positions), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS)
def test_gradients_are_finite_differences(structure, spec):
    module = features_module(parse_features([spec], structure.topology, structure))
    positions = torch.as_tensor(shaken(structure, 1, False).xyz[0], dtype=torch.float64)
    assert torch.autograd.gradcheck(module, (positions.requires_grad_(True),), eps=1e-6, atol=1e-7, rtol=1e-4)


def test_the_mirror_image_is_aligned_without_a_reflection(structure):
    features = parse_features(["positions:not element H"], structure.topology, structure)
    frames = shaken(structure, 2, False)
    frames.xyz[..., 0] *= -1
    found = features_module(features)(torch.as_tensor(frames.xyz, dtype=torch.float64)).numpy()
    assert np.abs(found - features.compute(frames)).max() < 1e-5
    assert np.sqrt((found - structure.xyz[0][features.atoms].ravel()).reshape(2, -1, 3).std(axis=1)).max() > 0.05


def test_broken_frames_are_named(structure):
    features = parse_features(["distances"], structure.topology)
    frames = shaken(structure, 5, True)
    frames.xyz[3, 8, 1] = np.nan
    with pytest.raises(InputError, match="frame 3, atom 8: a coordinate is NaN"):
        features.compute(frames)
    frames = shaken(structure, 5, True)
    frames.unitcell_vectors[2] = 0.0
    frames.unitcell_lengths = np.where(np.arange(5)[:, None] == 2, 0.0, frames.unitcell_lengths)
    with pytest.raises(InputError, match="frame 2: the box is"):
        features.compute(frames)
    with pytest.raises(InputError, match="a feature needs atom 18, the topology has 10"):
        features.compute(shaken(structure, 1, False).atom_slice(range(10)))


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["distances:name XX"], "matches no atom"),
        (["distances:index 4"], "matches one atom"),
        (["torsions:phi:9"], "matches nothing"),
        (["torsions:1,2,3"], "needs 4 atom numbers"),
        (["positions:name CA"], "at least three"),
        (["angles:1,2,3"], "is no feature"),
        (["half*distances"], "half is no scale"),
        (["-1*distances"], "positive scale"),
        ([], "positive scale"),
    ],
)
def test_features_that_cannot_be(structure, specs, message):
    with pytest.raises(InputError, match=message):
        parse_features(specs, structure.topology, structure)


def test_heavy_atoms_are_the_default(structure):
    assert len(heavy_atom_distances(structure.topology).pairs) == 45


def test_a_map_of_features_is_a_module_of_positions(structure, tmp_path):
    frames, features = shaken(structure, 400, False), parse_features(["distances"], structure.topology)
    fitted = DiffusionMap(3, n_landmarks=150, bandwidth=0.01).fit(features.compute(frames))
    module = coordinates_module(features, fitted, [2, 0])
    positions = torch.as_tensor(frames.xyz[:20], dtype=torch.float64)
    expected = fitted.transform(features.compute(frames[:20]))[:, [2, 0]]
    torch.jit.script(module).save(str(tmp_path / "coordinates.pt"))
    found = torch.jit.load(str(tmp_path / "coordinates.pt"))(positions).numpy()
    assert np.abs(found - expected).max() < 1e-3  # the transform works in single precision
    assert torch.autograd.gradcheck(module, (positions[0].clone().requires_grad_(True),), eps=1e-6, atol=1e-7)
    far = positions[0] * 50.0
    assert torch.isfinite(module(far)).all()
    tuned = DiffusionMap(3, bandwidth="self-tuning").fit(features.compute(frames))
    with pytest.raises(InputError, match="no scale for new points"):
        coordinates_module(features, tuned)
