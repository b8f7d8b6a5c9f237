"""Files of models: read to the last bit what was written, refuse in a sentence what is no model, and run nothing."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from openmm_gancl import InputError, ModuleCoordinates, load_model, load_system
from openmm_gancl.coordinates.features import Features, SineCosine, parse_features
from openmm_gancl.coordinates.label_modules import DistilledNetwork, LearnedCoordinates, WithTorsions
from openmm_gancl.coordinates.slow_coordinates import Torsions, slow_as_module
from openmm_gancl.coordinates.torch_modules import features_module
from openmm_gancl.generator import InvertibleGenerator, restrain_torsions, untrained_model
from openmm_gancl.generator.coupling import CouplingNetwork
from openmm_gancl.generator.model import load_lifting_model, with_encoder, with_generator
from openmm_gancl.generator.model_file import CHECKSUM, DESCRIPTION, SCHEMA_VERSION
from openmm_gancl.generator.trained_for import system_metadata
from openmm_gancl.learning.learned_labels import learn_slow_coordinates, load_labels
from openmm_gancl.reference.chart import chart_for
from tests.generator.random_map import random_map
from tests.planted import Planted

NAMES = ["no latent", "latent", "encoder", "learned labels", "distilled labels", "windows", "invertible", "network"]
LIFTING = [name for name in NAMES if name not in ("invertible", "network")]


def mixed_labels(chain):
    """The chain's torsion and a coordinate of a diffusion map."""
    rng = np.random.default_rng(2)
    positions = chain.positions + 0.03 * rng.standard_normal((200, chain.n_atoms, 3))
    return learn_slow_coordinates(chain, positions, keep=["phi"], most=1, n_landmarks=40).labels


def distilled_labels(chain):
    """The chain's torsion and a network of distances and aligned positions."""
    import mdtraj

    frames = mdtraj.Trajectory(chain.positions[None], mdtraj.Topology.from_openmm(chain.topology))
    features = parse_features(["0.3*distances:all", "positions:all"], frames.topology, frames)
    network = DistilledNetwork((len(features.names), 8, 8, 1), torch.Generator().manual_seed(1))
    torsion = features_module(Features((SineCosine(chain.slow.atoms),)))
    module = WithTorsions(torsion, LearnedCoordinates(features_module(features), network.requires_grad_(False)))
    return ModuleCoordinates.from_module(
        module,
        names=("phi", "learned"),
        periods=[2 * np.pi, np.inf],
        domain=[[-np.pi, np.pi], [-1.0, 1.0]],
        chart_torsions=chain.slow.atoms,
    )


def invertible(with_network=False):
    """Of alanine dipeptide: a wide torsion, rotors, couplings and cubic terms, and perhaps a network."""
    system = load_system("alanine_dipeptide_vacuum")
    chart = chart_for(system.topology, system.slow, system.positions)
    folds_one = np.setdiff1d(np.flatnonzero(chart.periodic & (chart.folds == 1)), chart.label_indices)
    made = random_map(chart, system.slow, chart.to_internal(system.positions[None])[0], wide=folds_one[:1])
    if with_network:
        network = CouplingNetwork(made.narrow.n, made.narrow.condition.n_network_features, 2, 8)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(3))
        made.narrow.set_network(network.requires_grad_(False))
    return InvertibleGenerator(made, chart, system.slow, {**system_metadata(system), "rounds": 2})


@pytest.fixture(scope="module")
def models():
    """One of each kind that the program makes."""
    chain = load_system("bonded_chain")
    plain, latent = (untrained_model(chain, seed=1, latent_size=size) for size in (0, 2))
    exponents = np.linspace(0.0, 0.9, chain.n_atoms * 3 - 6)
    learned = untrained_model(replace(chain, slow=mixed_labels(chain).slow), seed=1, latent_size=2)
    windows = np.array([[0.3, 0.1], [-1.0, 0.4], [2.0, -0.3]])
    return {
        "no latent": plain,
        "latent": latent,
        "encoder": with_encoder(latent, exponents, 16, 20),
        "learned labels": learned,
        "distilled labels": untrained_model(replace(chain, slow=distilled_labels(chain)), seed=1, latent_size=1),
        "windows": restrain_torsions(learned, Torsions(("one",), learned.chart.torsions[:1]), windows, seed=2)[0],
        "invertible": invertible(),
        "network": invertible(with_network=True),
    }


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    """Path, description and tensors of each file."""
    found = {}
    for name, model in models.items():
        path = tmp_path_factory.mktemp("models") / "model.safetensors"
        model.save(path)
        with safe_open(path, framework="pt") as stored:
            description = json.loads(stored.metadata()[DESCRIPTION])
            del description[CHECKSUM]  # so that what is changed is found out by what it is
            found[name] = path, description, load_file(path)
    return found


def written(path, description, tensors):
    save_file(tensors, path, {DESCRIPTION: json.dumps(description)})
    return path


def numbers_of_lifting(model):
    rng = np.random.default_rng(2)
    low, high = model.slow.domain.T
    labels = rng.uniform(low, high, (30, len(low)))
    latents = model.sample_latents(labels, rng)
    parameters = model.reference_parameters(labels, latents)
    drawn, log_encoder = model.sample_encoder(parameters.centres, labels, rng)
    return (
        latents,
        *vars(parameters).values(),
        drawn,
        log_encoder,
        model.log_prior(latents, labels),
        model.log_encoder(latents, parameters.centres + 0.01, labels),
        model.slow.transform(model.chart.to_cartesian(parameters.centres)),
    )


def numbers_of_invertible(generator):
    rng = np.random.default_rng(2)
    base, labels = generator.sample_base(50, rng), rng.uniform(-3, 3, (50, 2))
    coordinates, log_density = generator.transform(base, labels)
    return coordinates, log_density, generator.log_density(coordinates), generator.inside(coordinates)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_model_is_read(models, files, name):
    model, read = models[name], load_model(files[name][0])
    assert type(read) is type(model)
    of = numbers_of_lifting if name in LIFTING else numbers_of_invertible
    for first, second in zip(of(model), of(read), strict=True):
        np.testing.assert_array_equal(first, second)
    assert read.metadata == json.loads(json.dumps(model.metadata))
    assert read.slow.describe() == model.slow.describe() and read.chart.describe() == model.chart.describe()
    if name in LIFTING:
        assert read.fingerprint == model.fingerprint


@pytest.mark.parametrize("name", NAMES)
def test_the_same_model_gives_the_same_bytes_which_hold_no_code(files, tmp_path, name):
    path = files[name][0]
    load_model(path).save(tmp_path / "again.safetensors")
    content = path.read_bytes()
    assert (tmp_path / "again.safetensors").read_bytes() == content
    assert b"PK\x03\x04" not in content and b"__torch__" not in content
    with pytest.raises(RuntimeError):
        torch.jit.load(str(path))


def test_a_model_of_learned_labels_fits_its_system(models, files):
    chain = load_system("bonded_chain")
    load_model(files["learned labels"][0]).check_system(replace(chain, slow=mixed_labels(chain).slow))
    with pytest.raises(InputError, match="the model's labels are"):
        load_model(files["distilled labels"][0]).check_system(replace(chain, slow=mixed_labels(chain).slow))


def test_reading_leaves_random_numbers_as_they_were(files):
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    for path, _, _ in files.values():
        load_model(path)
    assert torch.equal(torch.rand(3), expected)


def test_torsions_and_particles_by_a_module_come_back_too(tmp_path):
    chain = load_system("bonded_chain")
    slow = replace(slow_as_module(chain.slow), chart_torsions=chain.slow.atoms)
    model = untrained_model(replace(chain, slow=slow), seed=1, latent_size=0)
    model.save(tmp_path / "model.safetensors")
    read = load_model(tmp_path / "model.safetensors").slow
    np.testing.assert_array_equal(read.transform(chain.positions[None]), slow.transform(chain.positions[None]))
    components = slow_as_module(load_system("double_well_oscillators").slow)
    assert components.structure == {"kind": "components", "labels": 1}


@pytest.mark.parametrize("name", ["encoder", "learned labels", "network"])
def test_torchscript_is_exported_and_not_read(models, tmp_path, name):
    model, extra = models[name], {"metadata.json": ""}
    model.export(tmp_path / "model.pt")
    exported = torch.jit.load(str(tmp_path / "model.pt"), _extra_files=extra)
    rng = np.random.default_rng(3)
    if name in LIFTING:
        labels = np.zeros((4, len(model.slow.names)))
        inputs = labels, model.sample_latents(labels, rng)
        expected = vars(model.reference_parameters(*inputs)).values()
    else:
        inputs = model.sample_base(4, rng), np.zeros((4, 2))
        expected = model.transform(*inputs)
    for ours, theirs in zip(expected, exported(*map(torch.as_tensor, inputs)), strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())
    description = json.loads(extra["metadata.json"])
    assert description["kind"] == model.kind and description["schema_version"] == SCHEMA_VERSION
    with pytest.raises(InputError, match=r"is TorchScript, code that gancl does not run: give the model\.safetensors"):
        load_model(tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"name it model\.safetensors"):
        model.save(tmp_path / "model.pt")


def test_a_module_of_your_own_is_in_no_file(tmp_path):
    class Own(torch.nn.Module):
        def forward(self, positions):
            return positions.flatten(-2)[..., :1]

    class OwnNetwork(LearnedCoordinates):
        pass

    chain = load_system("bonded_chain")
    ours = distilled_labels(chain)
    for module in (Own(), torch.jit.script(Own()), ours.module, OwnNetwork(*two_parts(chain))):
        slow = ModuleCoordinates.from_module(module, names=("u",), periods=[np.inf], domain=[[-1.0, 1.0]])
        model = untrained_model(replace(chain, slow=slow), seed=1, latent_size=0)
        with pytest.raises(InputError, match=r"labels u are a module of your own, .*: keep the module with torch"):
            model.save(tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def two_parts(chain):
    """Features and a network of them."""
    features = Features((SineCosine(chain.slow.atoms),))
    return features_module(features), DistilledNetwork((2, 3, 1), torch.Generator())


def test_a_generator_of_your_own_is_in_no_file(models, tmp_path):
    class Generator(type(models["latent"].networks.generator)):
        pass

    model = models["latent"]
    own = Generator(model.chart, model.slow, 2, np.ones(9), np.ones(9))
    with pytest.raises(InputError, match=r"the generator is a Generator of your own, .*: keep it with torch"):
        with_generator(model, own, model.chart, model.slow).save(tmp_path / "model.safetensors")


def test_learned_labels_of_a_run_are_arrays_and_json(tmp_path):
    chain = load_system("bonded_chain")
    labels = mixed_labels(chain)
    labels.save(tmp_path / "labels.npz")
    read = load_labels(tmp_path / "labels.npz")
    assert read.slow.describe() == labels.slow.describe()
    np.testing.assert_allclose(  # sums in another order, once a module is compiled
        read.slow.transform(chain.positions[None]), labels.slow.transform(chain.positions[None]), rtol=1e-13
    )
    with np.load(tmp_path / "labels.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
        assert not any(b"__torch__" in array.tobytes() for array in arrays.values())
    np.savez(tmp_path / "short.npz", **{name: a for name, a in arrays.items() if not name.endswith("scales")})
    with pytest.raises(InputError, match=r"short.npz holds no learned labels \(the tensor .*scales is missing\)"):
        load_labels(tmp_path / "short.npz")


class Evil:
    """A pickle that runs when it is read."""

    def __reduce__(self):
        return print, ("planted code runs",)


def planted(kind, path, description, tensors):
    """A file with code where a model should be; a twin's way to read it runs that."""
    torch.jit.save(torch.jit.script(Planted()), str(path))
    archive = path.read_bytes()
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
        return lambda: pickle.loads(path.read_bytes())
    if kind == "archive of torch":
        torch.save(Evil(), path)
        return lambda: torch.load(path, weights_only=False)
    if kind == "labels":
        slow = {"kind": "module", "names": ["u"], "periods": [None], "domain": [[0, 1]], "chart_torsions": []}
        slow |= {"archive": archive.hex(), "structure": None}
        written(path, {**description, "slow": slow}, tensors)
    return lambda: torch.jit.load(__import__("io").BytesIO(archive))


@pytest.mark.parametrize("kind", ["TorchScript", "pickle", "archive of torch", "labels"])
def test_planted_code_does_not_run(files, tmp_path, capfd, kind):
    path = tmp_path / "model.safetensors"
    planted(kind, path, *files["latent"][1:])()
    assert "planted code runs" in capfd.readouterr().out
    with pytest.raises(InputError, match=r": (give|get) .*model"):
        load_model(path)
    assert "planted code runs" not in capfd.readouterr().out


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"there is no model at .*: give the model\.safetensors of a run"):
        load_model(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("name", ["latent", "invertible"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.999])
def test_a_truncated_file(files, tmp_path, name, share):
    path, content = tmp_path / "short.safetensors", files[name][0].read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"is no model \(.*\): give a model\.safetensors that gancl wrote"):
        load_model(path)


@pytest.mark.parametrize("place", [0.1, 0.6, 0.95])
def test_one_changed_bit_is_noticed(files, tmp_path, place):
    """Also in a number, which makes another model, as good as any."""
    path, _, _ = files["latent"]
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"is no model|describes no model"):
        load_model(tmp_path / "model.safetensors")


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"schema_version": NaN}'])
def test_a_description_that_is_none(tmp_path, text):
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors", {DESCRIPTION: text})
    with pytest.raises(InputError, match=r"is no model|has schema version None"):
        load_model(tmp_path / "model.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="is no model"):
        load_model(tmp_path / "model.safetensors")


def test_another_schema_or_kind(files, tmp_path):
    _, description, tensors = files["latent"]
    path = written(tmp_path / "other.safetensors", {**description, "schema_version": 2}, tensors)
    with pytest.raises(InputError, match=f"schema version 2, this program reads {SCHEMA_VERSION}"):
        load_model(path)
    path = written(tmp_path / "other.safetensors", {**description, "kind": "flow"}, tensors)
    with pytest.raises(InputError, match="of kind 'flow', this program reads product reference and invertible"):
        load_model(path)
    with pytest.raises(InputError, match="is an invertible generator"):
        load_lifting_model(files["invertible"][0])


def changed(name, index, value):
    def change(tensors):
        copy = tensors[name].clone()
        copy[index] = value
        return {name: copy}

    return change


def cut(name):
    return lambda tensors: {name: tensors[name][..., :-1].contiguous()}


def single(name):
    return lambda tensors: {name: tensors[name].float()}


DAMAGE = {
    "invertible": {
        "not finite": changed("narrow.mean", (0, 0), float("nan")),
        "another shape": cut("narrow.log_width"),
        "another type": single("narrow.mean"),
        "a negative scale": changed("narrow.scale", 3, -1.0),
        "a later coordinate": changed("narrow.coupling", 5, 0.5),
        "a feature that is none": changed("circular.0.functions", 0, 10_000),
        "a pair that is none": changed("cubic.left", 0, 999),
        "a fold of the map": changed("cubic.skews", 0, 2.0),
    },
    "learned labels": {
        "not finite": changed("generator.baseline", (0, 0), float("inf")),
        "another shape": cut("generator.correction.0.weight"),
        "another type": single("exponents"),
        "a negative scale": changed("generator.scale", 3, -1.0),
        "an origin that is none": changed("generator.origin", 0, -1.0),
        "an atom that is none": changed("slow.learned.features.parts.0.pairs", (0, 0), 99),
        "another atom that is none": changed("slow.learned.features.parts.0.pairs", (0, 0), -1),
        "landmarks of another shape": cut("slow.learned.coordinates.landmarks"),
        "a label that is not finite": changed("slow.learned.coordinates.values", (0, 0), float("nan")),
        "unknown": lambda tensors: {"generator.more": torch.zeros(2, dtype=torch.float64)},
        "unknown of the labels": lambda tensors: {"slow.more": torch.zeros(2, dtype=torch.float64)},
    },
    "windows": {"another shape": cut("generator.windows"), "no windows": changed("generator.windows", 0, float("nan"))},
    "network": {"another shape": cut("network.0.network.0.weight"), "another type": single("network.0.network.0.bias")},
    "latent": {"labels that have none": lambda tensors: {"slow.a": torch.zeros(2, dtype=torch.float64)}},
}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in DAMAGE.items() for kind in kinds])
def test_wrong_tensors(files, tmp_path, name, kind):
    _, description, tensors = files[name]
    path = written(tmp_path / "wrong.safetensors", description, {**tensors, **DAMAGE[name][kind](tensors)})
    with pytest.raises(InputError, match=r"describes no model \(.+\): get the file again"):
        load_model(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_tensor(files, tmp_path, name):
    _, description, tensors = files[name]
    for missing in tensors:
        rest = {other: part for other, part in tensors.items() if other != missing}
        with pytest.raises(InputError, match="describes no model"):
            load_model(written(tmp_path / "less.safetensors", description, rest))


HUGE = 10**15
DESCRIPTIONS = {
    "latent": [
        (("metadata", "temperature"), -3.0),
        (("metadata", "temperature"), None),
        (("metadata", "temperature"), "hot"),
        (("metadata", "atom_names"), 5),
        (("metadata", "atom_names"), ["A"]),
        (("metadata", "encoder_relax_steps"), "many"),
        (("metadata", "history"), None),
        (("metadata",), []),
        (("chart",), {}),
        (("chart",), {"kind": "polar"}),
        (("chart",), {"kind": "cartesian", "n_atoms": HUGE, "label_components": [[0, 0]]}),
        (("chart", "z_matrix", 2, 1), 4),
        (("chart", "z_matrix", 4, 0), 3),
        (("chart", "torsion_folds", 0), 0),
        (("chart", "label_indices"), [0]),
        (("chart", "label_indices"), [-1]),
        (("chart", "label_indices"), [99]),
        (("chart", "label_indices"), []),
        (("slow",), {"kind": "module"}),
        (("slow", "atoms", 0, 1), 3),
        (("slow", "more"), 1),
        (("sizes", "latent_size"), "four"),
        (("sizes", "latent_size"), True),
        (("sizes", "latent_size"), HUGE),
        (("sizes", "latent_size"), 3),
        (("sizes", "n_candidates"), HUGE),
        (("sizes", "n_candidates"), 0),
        (("sizes", "hidden"), HUGE),
        (("sizes", "hidden"), 4000),
        (("sizes", "hidden"), 2.0),
        (("sizes", "order"), HUGE),
        (("sizes", "order"), 4),
        (("sizes", "periodic"), [True] * 30),
        (("sizes", "periodic"), [True, True]),
        (("sizes", "periodic"), HUGE),
        (("sizes", "n_windows"), 10**6),
    ],
    "learned labels": [
        (("slow", "structure"), None),
        (("slow", "structure", "kind"), "code"),
        (("slow", "structure", "learned", "kind"), "torsions"),
        (("slow", "structure", "learned", "coordinates", "landmarks"), 10**6),
        (("slow", "structure", "learned", "coordinates", "landmarks"), HUGE),
        (("slow", "structure", "learned", "coordinates", "landmarks"), 7),
        (("slow", "structure", "learned", "features", "parts", 0, 1), HUGE),
        (("slow", "structure", "learned", "features", "parts", 0, 0), "code"),
        (("slow", "periods"), [None, None, None]),
        (("slow", "names"), ["phi"]),
        (("chart", "label_indices"), [3]),
    ],
    "distilled labels": [
        (("slow", "structure", "learned", "coordinates", "layers"), [25, 4000, 4000, 1]),
        (("slow", "structure", "learned", "coordinates", "layers"), [25, 1]),
        (("slow", "structure", "learned", "coordinates", "layers", 1), 9),
    ],
    "windows": [(("sizes", "n_windows"), HUGE), (("sizes", "n_windows"), 2), (("sizes", "n_windows"), None)],
    "network": [
        (("metadata", "atom_names"), None),
        (("metadata", "temperature"), -1.0),
        (("sizes", "order"), HUGE),
        (("sizes", "wide"), [HUGE]),
        (("sizes", "wide"), [-1]),
        (("sizes", "wide"), [0]),
        (("sizes", "wide"), [list(range(40))]),
        (("sizes", "network"), [HUGE, 8]),
        (("sizes", "network"), [2, HUGE]),
        (("sizes", "network"), [64, 4096]),
        (("sizes", "network"), [2]),
        (("sizes", "circular", 0, 0), 2),
        (("sizes", "circular", 0, 1), 7.0),
        (("sizes", "circular"), []),
    ],
}


def with_value(description, place, value):
    """A copy with another value at one place."""
    copy = json.loads(json.dumps(description))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return copy


@pytest.mark.parametrize(
    ("name", "place", "value"), [(name, *case) for name, cases in DESCRIPTIONS.items() for case in cases]
)
def test_descriptions_that_describe_no_model(files, tmp_path, name, place, value):
    """Sizes beyond all memory are refused before it is taken."""
    _, description, tensors = files[name]
    path = written(tmp_path / "model.safetensors", with_value(description, place, value), tensors)
    with pytest.raises(InputError, match=r"describes no model \(.+\): get the file again") as refused:
        load_model(path)
    assert "\n" not in str(refused.value)


def test_torsions_read_backwards_are_the_same_labels(files, tmp_path):
    _, description, tensors = files["latent"]
    atoms = [row[::-1] for row in description["slow"]["atoms"]]
    path = written(tmp_path / "model.safetensors", with_value(description, ("slow", "atoms"), atoms), tensors)
    assert isinstance(load_model(path).slow, Torsions)
