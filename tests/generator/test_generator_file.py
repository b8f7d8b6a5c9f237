"""Files of generators: what is read is what was written, and what could not be a map is refused in a sentence."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from openmm_gancl import InputError, load_system
from openmm_gancl.generator.generator_file import DESCRIPTION, load_generator, save_generator
from openmm_gancl.lifting.loop import LoopOptions, learn
from openmm_gancl.sampling import ShortWindows


@pytest.fixture(scope="module")
def generator():
    """Of alanine dipeptide: with rotors, couplings and cubic terms."""
    system = load_system("alanine_dipeptide_vacuum")
    options = LoopOptions(ShortWindows(n=12), n_first=400)
    found = learn(system, seed=1, max_evaluations=4000, options=options).generator
    assert found.map.narrow.cubic.depth > 0
    return found


@pytest.fixture(scope="module")
def parts(generator, tmp_path_factory):
    """The file's path, its description and its tensors."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_generator(generator, path)
    with safe_open(path, framework="pt") as stored:
        return path, json.loads(stored.metadata()[DESCRIPTION]), load_file(path)


def written(path, description, tensors):
    save_file(tensors, path, {DESCRIPTION: json.dumps(description)})
    return path


def test_the_same_map_is_read(generator, parts):
    read = load_generator(parts[0])
    rng = np.random.default_rng(2)
    base, labels = generator.sample_base(50, rng), rng.uniform(-3, 3, (50, 2))
    for first, second in zip(generator.transform(base, labels), read.transform(base, labels), strict=True):
        np.testing.assert_array_equal(first, second)
    coordinates, _ = generator.transform(base, labels)
    np.testing.assert_array_equal(generator.log_density(coordinates), read.log_density(coordinates))


def test_the_same_generator_gives_the_same_bytes(generator, parts, tmp_path):
    save_generator(load_generator(parts[0]), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == parts[0].read_bytes()


def test_the_file_is_small_and_holds_no_code(parts):
    content = parts[0].read_bytes()
    assert len(content) < 2_000_000
    assert b"PK\x03\x04" not in content[:4] and b"__torch__" not in content


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"there is no model at .*: give the model\.safetensors of a run"):
        load_generator(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("length", [0, 5, 100, 20_000])
def test_a_truncated_file(parts, tmp_path, length):
    path = tmp_path / "short.safetensors"
    path.write_bytes(parts[0].read_bytes()[:length])
    with pytest.raises(InputError, match="is no model"):
        load_generator(path)


def test_another_schema(parts, tmp_path):
    _, description, tensors = parts
    path = written(tmp_path / "other.safetensors", {**description, "schema_version": 2}, tensors)
    with pytest.raises(InputError, match="schema version 2, this program reads 3"):
        load_generator(path)


def test_labels_that_are_code(parts, tmp_path):
    _, description, tensors = parts
    slow = {
        "kind": "module",
        "names": ["u"],
        "periods": [None],
        "domain": [[0, 1]],
        "archive": "",
        "chart_torsions": [],
    }
    path = written(tmp_path / "code.safetensors", {**description, "slow": slow}, tensors)
    with pytest.raises(InputError, match="describes no map"):
        load_generator(path)


def changed(tensor, index, value):
    copy = tensor.clone()
    copy[index] = value
    return copy


DAMAGE = {
    "not finite": lambda t: {"narrow.mean": changed(t["narrow.mean"], (0, 0), float("nan"))},
    "another shape": lambda t: {"narrow.log_width": t["narrow.log_width"][:, :-1].contiguous()},
    "another type": lambda t: {"narrow.mean": t["narrow.mean"].float()},
    "a negative scale": lambda t: {"narrow.scale": changed(t["narrow.scale"], 3, -1.0)},
    "a later coordinate": lambda t: {"narrow.coupling": changed(t["narrow.coupling"], 5, 0.5)},
    "a feature that is none": lambda t: {"circular.0.functions": changed(t["circular.0.functions"], 0, 10_000)},
    "a pair that is none": lambda t: {"cubic.left": changed(t["cubic.left"], 0, 999)},
    "a fold of the map": lambda t: {"cubic.skews": changed(t["cubic.skews"], 0, 2.0)},
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_wrong_tensors(kind, parts, tmp_path):
    _, description, tensors = parts
    path = written(tmp_path / "wrong.safetensors", description, {**tensors, **DAMAGE[kind](tensors)})
    with pytest.raises(InputError, match=r"describes no map .*: get the file again"):
        load_generator(path)


def test_a_missing_tensor(parts, tmp_path):
    _, description, tensors = parts
    rest = {name: part for name, part in tensors.items() if name != "narrow.scale"}
    with pytest.raises(InputError, match="describes no map"):
        load_generator(written(tmp_path / "less.safetensors", description, rest))


def test_torch_reads_no_code_from_it(parts):
    with pytest.raises(RuntimeError):
        torch.jit.load(str(parts[0]))
