import dataclasses
import pickle
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from openmm_gancl import InputError, TrainingOptions, load_system
from openmm_gancl.cli import app
from openmm_gancl.generator import untrained_model
from openmm_gancl.generator.training import train_model
from openmm_gancl.learning.diffusion_map import DiffusionMap
from openmm_gancl.lifting import lift_sde, load_sde
from openmm_gancl.system.library import copy_system, systems_root
from tests.system.test_molecular_system import assert_card_refused, assert_one_sentence

NAMES = ["half_moon", "quadratic"]


@pytest.fixture(scope="module", params=NAMES)
def sde(request):
    return load_sde(request.param)


@pytest.fixture(scope="module")
def half_moon():
    return load_sde("half_moon")


def some_states(sde, n=7):
    low, high = sde.slow.domain[0]
    states = np.random.default_rng(1).normal(sde.start, 0.01, (n, len(sde.variables)))
    states[:, sde.slow.components[:, 1]] = np.linspace(low, high, n)[:, None]
    return states


def test_observations_and_closures_are_their_formulas(half_moon):
    states, (u, v) = some_states(half_moon), some_states(half_moon).T
    expected = np.column_stack([v * np.cos(u + v - 1), v * np.sin(u + v - 1)])
    assert half_moon.observe(states) == pytest.approx(expected, rel=1e-13)
    complex_mean = np.exp(1j * u - 0.025) * (1 + 0.05j)
    expected = np.column_stack([complex_mean.real, complex_mean.imag])
    assert half_moon.exact_closures(u[:, None]) == pytest.approx(expected, rel=1e-13)
    quadratic = load_sde("quadratic")
    x1, x2 = (states := some_states(quadratic)).T
    assert quadratic.observe(states) == pytest.approx(np.column_stack([x1 + x2**2 / 1e-3, x2 / 1e-3**0.5]))
    assert quadratic.exact_closures(x1[:, None]) == pytest.approx(np.column_stack([x1 + 0.5, 0 * x1]))


def test_shapes_and_no_mutation(sde):
    states = some_states(sde)
    kept = states.copy()
    assert sde.simulate(3, sde.time_step, seed=1).shape == (3, 1, 2)
    assert sde.simulate(2, sde.time_step, seed=1, states=states).shape == (2, 7, 2)
    assert sde.relax_frozen(states, sde.relaxation_time, seed=1).shape == (7, 2)
    assert sde.bursts(states, 5, 1e-3 * sde.time_step, seed=1).shape == (7, 2, 2)
    assert sde.to_positions(states).shape == (7, 1, 3)
    assert np.array_equal(sde.as_molecular().slow.transform(sde.to_positions(states)), states[:, :1])
    assert np.array_equal(states, kept)
    assert pickle.loads(pickle.dumps(sde)).observe(states) == pytest.approx(sde.observe(states))


def test_frozen_variables_keep_their_last_bit(sde):
    states = some_states(sde)
    relaxed = sde.relax_frozen(states, sde.relaxation_time, seed=2)
    assert np.array_equal(relaxed[:, 0], states[:, 0]) and (relaxed[:, 1] != states[:, 1]).all()
    moved = sde.simulate(1, sde.relaxation_time, seed=2, states=states)[0]
    assert (moved != states).all()
    assert np.array_equal(sde.relax_frozen(states, 0.0, seed=2), states)


def test_the_seed_says_everything(sde):
    model = untrained_model(sde.as_molecular(), seed=1)
    runs = [
        lambda seed: sde.simulate(2, sde.time_step, seed=seed, states=some_states(sde)),
        lambda seed: sde.relax_frozen(some_states(sde), sde.time_step, seed=seed)[:, 1],
        lambda seed: sde.bursts(some_states(sde), 5, 1e-3 * sde.time_step, seed=seed),
        lambda seed: lift_sde(sde, model, np.zeros((5, 1)), 0.1, seed=seed).states[:, 1],
    ]
    for run in runs:
        first = run(3)
        assert np.array_equal(first, run(3)) and not np.isclose(first, run(4), rtol=1e-9).any()


def test_the_time_of_integration_is_the_one_asked_for(half_moon):
    still = dataclasses.replace(half_moon, noise={"u": "0", "v": "0"})
    end = still.simulate(2, 3.3 * still.time_step, seed=1)[-1, 0]
    assert end[0] == pytest.approx(6.6e-3 * still.time_step, rel=1e-12)
    n_steps = 8
    decay = (1 - 0.1 * 6.6 * still.time_step / n_steps) ** n_steps
    assert still.simulate(2, 3.3 * still.time_step, seed=1, states=np.array([[0.0, 3.0]]))[-1, 0, 1] == pytest.approx(
        1 + 2 * decay, rel=1e-12
    )


def test_more_than_three_things_may_be_seen_and_every_name_used(tmp_path):
    """Names that OpenMM's integrator has for itself, a function of a variable's name, an exponent."""
    (tmp_path / "card.toml").write_text(
        """
        name = "odd names"
        [sde]
        variables = ["v", "x", "dt"]
        slow = ["dt", "v"]
        time_step = 0.1
        relaxation_time = 1.0
        parameters = { m = -2.0, e = 3.0 }
        drift = { v = "0", x = "-x", dt = "1e-2*e" }
        noise = { v = "0", x = "1.5e+0", dt = "0" }
        start = { v = 1.0, x = 2.0, dt = 3.0 }
        domain = { v = [0.0, 2.0], dt = [0.0, 5.0] }
        observed = { a = "v^m", b = "x*v", c = "exp(dt)", d = "max(e,x)+1e-1", g = "dt-v" }
        """
    )
    sde = load_sde(tmp_path)
    seen = sde.observe(np.array([[2.0, 5.0, 1.0], [0.5, -1.0, 2.0]]))
    expected = [[0.25, 10.0, np.e, 5.1, -1.0], [4.0, -0.5, np.exp(2), 3.1, 1.5]]
    assert seen == pytest.approx(np.array(expected))
    assert sde.slow.names == ("dt", "v") and sde.slow.domain.tolist() == [[0.0, 5.0], [0.0, 2.0]]
    model = untrained_model(sde.as_molecular(), seed=1)
    lifts = lift_sde(sde, model, np.array([[4.0, 1.5], [0.0, 0.5]]), 1.0, seed=1)
    assert lifts.states[:, [2, 0]].tolist() == lifts.labels.tolist() == [[4.0, 1.5], [0.0, 0.5]]
    assert sde.simulate(1, 10.0, seed=1)[0, 0, 2] == pytest.approx(3.3)
    with pytest.raises(InputError, match=r"odd names has no exact closures: write them in its card as sde\.closures"):
        sde.exact_closures(np.array([[1.0, 1.0]]))


def test_a_generator_trains_on_states_and_fits_its_own_equation_only(sde):
    states = some_states(sde, 64)
    particle = sde.as_molecular()
    model = train_model(
        particle, sde.to_positions(states), states[:, :1], seed=1, options=TrainingOptions(latent_size=0)
    )
    assert lift_sde(sde, model, [[0.1]], 0.0, seed=1).states[0, 0] == 0.1
    other = load_sde(NAMES[1 - NAMES.index(sde.name)])
    with pytest.raises(InputError, match="use the system that the model was trained for"):
        lift_sde(other, model, [[0.1]], 1.0, seed=1)


def test_bursts_are_a_metric_for_diffusion_maps(half_moon):
    states = half_moon.simulate(300, 2.5, seed=4)[:, 0]
    covariances = half_moon.bursts(states, 50, 1e-5, seed=5)
    assert np.linalg.eigvalsh(covariances).min() > 0
    fitted = DiffusionMap(2, alpha=1.0).fit(half_moon.observe(states), covariances=covariances)
    assert fitted.coordinates_.shape == (300, 2)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda s: s.observe(np.zeros((3, 1))), r"states have shape \(3, 1\), but half_moon has 2 variables \(u, v\)"),
        (lambda s: s.observe(np.zeros(2)), "one row of them a state"),
        (lambda s: s.relax_frozen([[0.0, np.nan]], 1.0, seed=1), "states hold NaN or infinity"),
        (lambda s: s.relax_frozen([[0.0, 1.0]], -1.0, seed=1), "time of integration is -1: give a positive one"),
        (lambda s: s.simulate(1, np.nan, seed=1), "time of integration is nan"),
        (lambda s: s.simulate(0, 1.0, seed=1), "0 frames are requested"),
        (lambda s: s.bursts([[0.0, 1.0]], 1, 1.0, seed=1), r"covariance of 1 run\(s\): give at least 2"),
        (lambda s: s.exact_closures([[2.0]]), "label u = 2 lies outside the domain"),
        (lambda s: lift_sde(s, None, [[0.0]], -1.0, seed=1), "relaxation_times is -1"),
        (lambda s: lift_sde(s, None, [[0.0]], np.inf, seed=1), "relaxation_times is inf"),
        (lambda s: dataclasses.replace(s, drift={"u": "0", "v": "v^3"}).simulate(1, 99.0, seed=1), "run away"),
    ],
)
def test_bad_input(half_moon, use, message):
    with pytest.raises(InputError, match=message) as caught:
        use(half_moon)
    assert_one_sentence(str(caught.value))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("time_step", "time_stepp", ["sde.time_stepp", "did you mean 'time_step'"]),
        ("description", "descripton", ["descripton", "did you mean 'description'"]),
        ("[sde]", "temperature = 300.0\n[sde]", ["unknown key 'temperature': remove it"]),
        ("[sde]", "[toy]\n[sde]", ["unknown key 'toy': remove it"]),
        ("[sde]", "[sdee]", ["unknown key 'sdee'", "did you mean 'sde'"]),
        ("time_step = 0.05", "time_step = 0.0", ["sde.time_step", "greater than 0"]),
        ("relaxation_time = 10.0", "", ["sde.relaxation_time", "missing"]),
        ('variables = ["u", "v"]', 'variables = ["u", "v", "w", "q"]', ["sde.variables", "at most 3"]),
        ('variables = ["u", "v"]', 'variables = ["u", "u"]', ["'variables' holds a name twice"]),
        ('variables = ["u", "v"]', 'variables = ["u", "2v"]', ["sde.variables[1]", "pattern"]),
        ('slow = ["u"]', 'slow = ["w"]', ["'slow' must be some of the 'variables'"]),
        ('slow = ["u"]', 'slow = ["u", "v"]', ["'slow' must be some of the 'variables'"]),
        ("a1 = 1e-3", "a1 = 1e-3\nu = 1.0", ["a variable and a parameter share a name"]),
        ('v = "a4"', "", ["'noise' must have exactly the keys u, v"]),
        ("v = 1.0", "w = 1.0", ["'start' must have exactly the keys u, v"]),
        ("u = [-1.5, 1.5]", "v = [-1.5, 1.5]", ["'domain' must have exactly the keys u"]),
        ("u = [-1.5, 1.5]", "u = [1.5, -1.5]", ["'domain.u' must be [low, high]"]),
        ("[sde.closures]\nx = ", "[sde.closures]\nz = ", ["'closures' must have exactly the keys x, y"]),
        ("a3*(1-v)", "a3*(1-w)", ["'drift.v' holds 'w', which is no variable and no parameter"]),
        ("a3*(1-v)", "k*v; k = a3", ["'drift.v' holds"]),
        ("a3*(1-v)", "-v;", ["'drift.v' holds a semicolon"]),
        ("(cos(u) -", "(cos(v) -", ["'closures.x' holds 'v', which is no slow variable"]),
        ("v*sin(u+v-1)", "v*sinn(u+v-1)", ["key 'sde.observed.y'", "OpenMM refuses", "sinn"]),
        ("v*sin(u+v-1)", "v*sin(u+v-1", ["key 'sde.observed.y'", "OpenMM refuses"]),
        ("a3*(1-v)", "log(u)", ["key 'sde.drift.v'", "not finite at 'sde.start'"]),
        ("a3*(1-v)", "", ["key 'sde.drift.v'", "OpenMM refuses"]),
    ],
)
def test_bad_card_is_refused_in_one_sentence(tmp_path, old, new, words):
    folder = copy_system("half_moon", tmp_path / "card")
    text = (folder / "card.toml").read_text()
    assert old in text
    (folder / "card.toml").write_text(text.replace(old, new))
    assert_card_refused(load_sde, folder, words)


def test_an_equation_is_no_molecular_system_and_the_other_way_round(sde, tmp_path):
    with pytest.raises(InputError, match=r"no energy, so its lifts have no weight: use openmm_gancl\.load_sde"):
        load_system(sde.name)
    with pytest.raises(InputError, match=r"no table 'sde'\): use openmm_gancl\.load_system"):
        load_sde("narrow_barrier")
    for command in (["run", sde.name, "-o", str(tmp_path / "run")], ["train", sde.name, "-o", str(tmp_path / "m.pt")]):
        finished = CliRunner().invoke(app, command)
        assert finished.exit_code == 2
    output = re.sub(r"\s+", " ", CliRunner().invoke(app, ["run", sde.name, "-o", str(tmp_path / "run")]).output)
    assert "openmm_gancl.load_sde and openmm_gancl.lift_sde" in output
    assert not (tmp_path / "run").exists()
    assert (systems_root() / sde.name / "README.md").is_file()


def test_the_command_line_lists_and_copies_equations(sde, tmp_path):
    assert sde.name in CliRunner().invoke(app, ["systems"]).output
    assert CliRunner().invoke(app, ["systems", "copy", sde.name, str(tmp_path / "mine")]).exit_code == 0
    assert load_sde(tmp_path / "mine").drift == sde.drift
