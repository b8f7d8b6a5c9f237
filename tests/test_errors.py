"""Arguments of another kind are refused in one sentence that names them, by every public function."""

import importlib
import inspect
from types import SimpleNamespace

import numpy as np
import pytest

import openmm_gancl as gancl
from openmm_gancl.closures import projective_integration
from openmm_gancl.errors import _kinds, checked
from openmm_gancl.generator.model import LiftingModel
from openmm_gancl.lifting import accept_metropolis
from openmm_gancl.system.molecular_system import MolecularSystem

FOLDERS = ("coordinates", "trajectories", "engine", "system", "reference", "sampling", "free_energy", "generator")
FOLDERS += ("learning", "lifting", "closures", "moves")
NEEDS_MORE = {"LiftMCMCMove"}
"""An optional package."""


def public_functions():
    for folder in FOLDERS:
        module = importlib.import_module(f"openmm_gancl.{folder}")
        names = set(module.__all__) - NEEDS_MORE
        yield from (found for found in (getattr(module, name) for name in sorted(names)) if inspect.isfunction(found))


def of_kinds(function):
    """Parameters that are looked at, and an argument of another kind for each."""
    for name, parameter in inspect.signature(function).parameters.items():
        if kinds := _kinds(parameter.annotation):
            yield name, 3 if "str" in kinds or "path" in kinds else "alanine_dipeptide_vacuum"


CASES = [(function, name, other) for function in public_functions() for name, other in of_kinds(function)]


@pytest.mark.parametrize(("function", "name", "other"), CASES, ids=[f"{f.__name__}-{name}" for f, name, _ in CASES])
def test_every_public_function_names_an_argument_of_another_kind(function, name, other):
    arguments = {
        one: other if one == name else SimpleNamespace()  # of no kind that is looked at
        for one, parameter in inspect.signature(function).parameters.items()
        if one == name or (parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD)
    }
    with pytest.raises(gancl.InputError, match=rf"^`{name}` of {function.__name__} is an? (str|int): give an? "):
        function(**arguments)


def test_what_is_expected_is_taken_and_what_else_is_said():
    @checked
    def lifted(system: MolecularSystem, model: LiftingModel | None = None, *labels: int, name: str = "") -> str:
        return f"{type(system).__name__} {model} {labels} {name}"

    toy = gancl.load_system("double_well_oscillators")
    assert lifted(toy, None, 1, name="a") == "MolecularSystem None (1,) a" and lifted.__name__ == "lifted"
    for other, words in (("x", "a str"), (None, "None"), (np.zeros(3), "a ndarray"), ([toy], "a list")):
        with pytest.raises(gancl.InputError, match=f"is {words}: give a MolecularSystem"):
            lifted(other)
    with pytest.raises(gancl.InputError, match=r"^`model` of .*lifted is an int: give a LiftingModel$"):
        lifted(toy, 3)
    with pytest.raises(TypeError, match="missing"):
        lifted()


def test_log_weights_are_taken_as_they_come():
    given = [0.0, -np.inf, 0.0, -np.inf]
    for of_one_kind in (given, tuple(given), np.array(given)):
        assert gancl.free_energy.effective_sample_size(of_one_kind) == pytest.approx(2.0)
        assert list(accept_metropolis(of_one_kind, np.random.default_rng(1))[0]) == [0, 0, 2, 2]
    rows = np.log(np.random.default_rng(1).exponential(size=200))
    assert gancl.free_energy.pareto_index(list(rows)) == gancl.free_energy.pareto_index(rows)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: gancl.Torsions(("phi",), None), "`atoms` is None: give numbers of shape"),
        (lambda: gancl.Torsions(("phi",), [4, 6, 8]), "`atoms` is .4, 6, 8.: give numbers of shape .n, 4."),
        (lambda: gancl.ParticleCoordinates(("x",), [[0, 0]], ["low", "high"]), "`domain` is .*: give numbers of shape"),
        (lambda: gancl.free_energy.pareto_index(None), "`log_weights` are None: give numbers of shape .n,., one log-w"),
        (lambda: gancl.free_energy.pareto_index([0.0, np.nan]), "1 of 2 `log_weights` are NaN or infinite: a lift"),
        (
            lambda: accept_metropolis([0.0, np.inf], np.random.default_rng(1)),
            "1 of 2 `log_weights` are NaN or infinite",
        ),
        (lambda: gancl.free_energy.pareto_index("x"), "`log_weights` are 'x': give numbers of shape"),
        (lambda: gancl.free_energy.effective_sample_size(3.0), "`log_weights` are 3.0: give numbers of shape"),
        (lambda: gancl.free_energy.effective_sample_size([[0.0, 1.0]] * 2), "`log_weights` are of shape .2, 2.: give"),
        (lambda: accept_metropolis(["a"], np.random.default_rng(1)), "`log_weights` are .*: give numbers of shape"),
        (lambda: accept_metropolis([0.0], 1), "^`rng` of accept_metropolis is an int: give a numpy.random.Generator$"),
        (lambda: projective_integration(print, "x", 1, 0.1), "^start is .nan. and step 0.1: give finite numbers"),
        (lambda: gancl.LiftMove("simulation", None), "`model` of LiftMove is None: give a LiftingModel or an Inver"),
        (lambda: gancl.structures_at("simulation", None, labels=[1.0]), "give"),
        (lambda: gancl.system_from_simulation("simulation", gancl.Torsions(("phi",), [4, 6, 8, 14])), "is a str: give"),
        (
            lambda: gancl.system_from_objects("a.pdb", None, None, slow=SimpleNamespace(), temperature=300),
            "give an OpenMM Topology and a System",
        ),
    ],
)
def test_what_newcomers_give_by_mistake(make, words):
    with pytest.raises(gancl.InputError, match=words):
        make()
