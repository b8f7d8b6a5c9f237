"""From a Simulation to a move in one call: the same as a run, taken up again, and what is refused before it begins."""

import gc
import json
import re
import shutil
import signal
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import app

from openmm_gancl import (
    InputError,
    LiftMove,
    ModuleCoordinates,
    ParticleCoordinates,
    Torsions,
    load_model,
    load_system,
)
from openmm_gancl import learn as learn_by_hand
from openmm_gancl.cli.runs import Where, advance
from openmm_gancl.lifting import LoopOptions
from openmm_gancl.moves import learning_progress
from openmm_gancl.moves.learned_move import NOT_TRUSTED, load_move
from openmm_gancl.moves.learning import learn_move
from openmm_gancl.moves.learning_progress import TimedReporter
from openmm_gancl.sampling.short_windows import ShortWindows
from openmm_gancl.system import card_of_simulation
from openmm_gancl.workflow import options as run_options
from openmm_gancl.workflow import run as pipeline
from openmm_gancl.workflow.closures import run_closures
from openmm_gancl.workflow.manifest import MANIFEST
from openmm_gancl.workflow.options import LoopSettings, RunOptions
from tests.physics.test_one_molecule import beside_a_partner, places
from tests.workflow.test_run import Notes

TINY = LoopSettings(
    n_windows=10,
    steering_steps=50,
    frames_per_window=10,
    stride=4,
    n_first=1000,
    ceiling=10.0,
    max_evaluations=5400,
    check_evaluations=800,
    network_steps=20,
)
SEED, LABELS = 3, (0, 1, 2, 3)


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    monkeypatch.setattr(run_options, "LOOP_PRESETS", {"default": TINY})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture(scope="module")
def chain():
    return load_system("bonded_chain")


def simulate(chain, integrator=None, forces=(), topology=None, add_later=()):
    """A script's own Simulation."""
    system = openmm.XmlSerializer.clone(chain.system)
    for force in forces:
        system.addForce(force)
    integrator = integrator or openmm.LangevinMiddleIntegrator(chain.temperature, 1.0, chain.time_step)
    if hasattr(integrator, "setRandomNumberSeed"):
        integrator.setRandomNumberSeed(5)
    reference = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(topology or chain.topology, system, integrator, reference)
    simulation.context.setPositions(chain.positions)
    simulation.context.setVelocitiesToTemperature(chain.temperature, 7)
    for force in add_later:
        system.addForce(force)
    return simulation


def learn(simulation, chain, labels=LABELS, **rest):
    options = {"force_constants": chain.force_constants, "seed": SEED, "platform": "Reference"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return learn_move(simulation, labels, **{**options, "progress": lambda _: None, **rest})


def state_of(simulation):
    """All of it that a script could notice."""
    try:
        state = simulation.context.getState(positions=True, velocities=True, parameters=True, energy=True)
    except openmm.OpenMMException:  # no positions
        state = simulation.context.getState(parameters=True)
    return (
        openmm.XmlSerializer.serialize(state),
        openmm.XmlSerializer.serialize(simulation.system),
        openmm.XmlSerializer.serialize(simulation.integrator),
        simulation.currentStep,
    )


def results_of(folder):
    with np.load(folder / "lifts.npz") as lifts, np.load(folder / "fes.npz") as surface:
        arrays = {f"{kind}.{name}": found[name] for kind, found in (("l", lifts), ("s", surface)) for name in found}
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.fixture(scope="module")
def finished(chain, tmp_path_factory):
    """A move that was learned into a folder, its Simulation before and after, and what was told."""
    told, folder, simulation = [], tmp_path_factory.mktemp("learned") / "chain", simulate(chain)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_options, "LOOP_PRESETS", {"default": TINY})
        before = state_of(simulation)
        move = learn(simulation, chain, folder=folder, progress=told.append)
    return move, before, state_of(simulation), told


def copied(finished, tmp_path):
    """Its folder, to be changed."""
    return Path(shutil.copytree(finished[0].folder, tmp_path / "copy"))


def test_nothing_leaks_into_the_simulation(chain, finished):
    _, before, after, _ = finished
    assert before == after
    # one generator serves all Contexts of the Reference platform
    untouched = simulate(chain)
    untouched.step(20)
    path = [untouched.context.getState(positions=True).getPositions(asNumpy=True)._value]
    simulation = simulate(chain)  # which seeds that generator anew
    learn(simulation, chain, max_evaluations=2500)
    simulation.step(20)
    path.append(simulation.context.getState(positions=True).getPositions(asNumpy=True)._value)
    assert np.array_equal(*path)


def hand_made_card(simulation, chain, folder):
    """As a user serializes them: System and State as XML, the topology as a PDB file, and a card around."""
    folder.mkdir()
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(simulation.system))
    simulation.saveState(str(folder / "state.xml"))
    positions = simulation.context.getState(positions=True).getPositions()
    with open(folder / "topology.pdb", "w") as file:
        app.PDBFile.writeFile(simulation.topology, positions, file)
    (folder / "card.toml").write_text(
        'name = "by_hand"\nstructure = "topology.pdb"\nsystem_xml = "system.xml"\nstate_xml = "state.xml"\n'
        f"temperature = {chain.temperature}\nfriction = 1.0\ntime_step = 0.002\n"
        f"force_constants = {chain.force_constants.tolist()}\n"
        '[[labels]]\nkind = "torsion"\nname = "torsion:0,1,2,3"\natoms = [0, 1, 2, 3]\n'
        '[state]\nchirality = "structure"\ntrans_peptides = "auto"\n'
    )
    return folder / "card.toml"


def test_it_is_the_run_of_the_serialized_system_and_state(chain, finished, tmp_path):
    card = hand_made_card(simulate(chain), chain, tmp_path / "card")
    options = RunOptions(generator="triangular", seed=SEED, platform="Reference")
    by_hand = pipeline.run(tmp_path / "run", str(card), options, reporter=Notes(), workers=1)
    assert results_of(by_hand.folder) == results_of(finished[0].folder)
    labels = np.linspace(-3, 3, 20)[:, None]
    ours, theirs = (load_model(one / "model.safetensors") for one in (finished[0].folder, by_hand.folder))
    draws = [one.sample(labels, np.random.default_rng(0))[0] for one in (ours, theirs)]
    assert np.array_equal(*draws)
    other = pipeline.run(
        tmp_path / "other", str(card), replace(options, seed=SEED + 1), reporter=Notes(), workers=1, until="lift"
    )
    assert results_of(other.folder) != results_of(finished[0].folder)


def test_each_step_can_be_done_by_hand(chain):
    simulation = simulate(chain)
    slow = Torsions(("phi",), np.array([LABELS]))
    card = card_of_simulation(simulation, slow, force_constants=chain.force_constants)
    options = LoopOptions(ShortWindows(n=10, steering_steps=50, n_frames=10), n_first=1000)
    learned = learn_by_hand(card.system, seed=1, max_evaluations=4000, options=options)
    move = LiftMove(simulation, learned.model, surface=learned.surface, seed=1)
    move.run(40, 2)
    assert move.acceptance_rate > 0.5


def test_the_command_line_goes_on_with_its_folder(finished, tmp_path):
    moved = copied(finished, tmp_path)
    outcome = advance(moved, None, None, Where(1, None), "surface")
    assert outcome.summary == finished[0].summary
    assert load_system(moved / "system").positions.tolist() == finished[0].system.positions.tolist()


def test_a_second_script_reads_the_move_and_learns_nothing(chain, finished, monkeypatch, tmp_path):
    move, manifest = finished[0], (finished[0].folder / MANIFEST).read_text()
    monkeypatch.setattr(pipeline.Loop, "steps", None)  # no step is computed again
    with pytest.warns(UserWarning, match=NOT_TRUSTED):
        read = load_move(simulate(chain), move.folder, seed=SEED)
    assert [vars(one) for one in read.run(5, 2)] == [vars(one) for one in load_again(chain, move).run(5, 2)]
    assert (move.folder / MANIFEST).read_text() == manifest
    read.save(tmp_path / "saved")
    assert results_of(tmp_path / "saved") == results_of(move.folder)
    with pytest.raises(InputError, match="exists already"):
        read.save(tmp_path / "saved")


def load_again(chain, move):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_move(simulate(chain), move.folder, seed=SEED)


def test_the_same_call_reads_a_finished_folder_wherever_the_simulation_has_gone(chain, finished, tmp_path):
    folder, simulation = copied(finished, tmp_path), simulate(chain)
    spent = json.loads((folder / MANIFEST).read_text())["stages"]
    simulation.step(50)
    told = []
    learn(simulation, chain, folder=folder, progress=told.append)
    assert json.loads((folder / MANIFEST).read_text())["stages"] == spent
    assert not any(one.step.startswith(("sampling", "lifting")) for one in told)


def test_doubts_of_a_run_with_exit_code_3_are_warned_of(chain, finished):
    move = finished[0]
    assert move.summary.doubts() and not move.summary.trusted  # its check is too small
    assert move.doubts[: len(move.summary.doubts())] == [f"{NOT_TRUSTED}: {one}" for one in move.summary.doubts()]
    with pytest.warns(UserWarning) as heard:
        load_move(simulate(chain), move.folder)
    assert {str(one.message) for one in heard} == {f"{NOT_TRUSTED}: {one}" for one in move.summary.doubts()}


class ControlC:
    """The terminal's signal when a step begins."""

    def __init__(self, step):
        self.step = step

    def __call__(self, progress):
        if progress.step == self.step:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("named", [True, False])
def test_control_c_keeps_what_was_learned(chain, finished, tmp_path, named):
    simulation = simulate(chain)
    before = state_of(simulation)
    with pytest.raises(KeyboardInterrupt) as caught:
        learn(simulation, chain, folder=tmp_path / "named" if named else None, progress=ControlC("lifting, round 2"))
    (note,) = caught.value.__notes__
    folder = Path(note.split("folder='")[1].split("'")[0])
    assert "the same call with folder=" in note and (folder == tmp_path / "named") == named
    assert state_of(simulation) == before
    kept = (folder / "rounds/00/lifts/lifts.npz").stat().st_mtime_ns
    move = learn(simulation, chain, folder=folder)
    assert (folder / "rounds/00/lifts/lifts.npz").stat().st_mtime_ns == kept
    assert results_of(folder) == results_of(finished[0].folder) and move.folder == folder


def test_a_temporary_folder_goes_with_its_move_unless_it_is_saved(chain, tmp_path):
    move = learn(simulate(chain), chain, max_evaluations=2500)
    temporary = move.folder
    assert temporary.parent == tmp_path and (temporary / "fes.npz").is_file()
    move.save(tmp_path / "kept")
    del move
    gc.collect()
    assert not temporary.exists() and (tmp_path / "kept" / "fes.npz").is_file()


def bias():
    """Whose parameter a script sets in the Context."""
    force = openmm.CustomTorsionForce("bias_k*(1-cos(theta-1))")
    force.addGlobalParameter("bias_k", 0.0)
    force.addTorsion(*LABELS)
    return force


def test_a_bias_is_learned_with_the_value_that_the_context_has(chain, finished):
    """The surfaces differ by the bias, which the System's default does not have."""
    simulation = simulate(chain, forces=[bias()])
    simulation.context.setParameter("bias_k", 3.0)
    biased = learn(simulation, chain).surface
    phi = 0.5 * (biased.edges[0][1:] + biased.edges[0][:-1])

    def worst(surface, k):
        free = finished[0].surface
        difference = surface.energy - free.energy - k * (1 - np.cos(phi - 1.0))
        errors, low = np.hypot(surface.error, free.error), (surface.energy < 12) & (free.energy < 12)
        z = (difference - np.average(difference[low], weights=errors[low] ** -2.0)) / errors
        return np.abs(z[low]).max()

    assert worst(biased, 3.0) < 4.5
    assert worst(biased, 0.0) > 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"forces": [bias()]}, "begun with another force field"),
        ({"integrator": openmm.LangevinMiddleIntegrator(310, 1, 0.002)}, "whose temperature is 300.0, now it is 310.0"),
    ],
)
def test_a_folder_of_another_system_is_not_gone_on_with(chain, finished, tmp_path, change, words):
    folder, simulation = copied(finished, tmp_path), simulate(chain, **change)
    before = state_of(simulation)
    with pytest.raises(InputError, match=words):
        learn(simulation, chain, folder=folder)
    assert state_of(simulation) == before and results_of(folder) == results_of(finished[0].folder)


def test_a_folder_of_other_labels_options_or_topology_is_not_gone_on_with(chain, finished, tmp_path):
    folder = copied(finished, tmp_path)
    with pytest.raises(InputError, match=r"whose labels is .*, now it is other: "):
        learn(simulate(chain), chain, labels=Torsions(("other",), np.array([LABELS])), folder=folder)
    with pytest.raises(InputError, match=r"begun with `seed=3`, now `seed=4`"):
        learn(simulate(chain), chain, seed=4, folder=folder)
    stored = json.loads((folder / "system" / "topology.json").read_text())
    stored["atoms"][2][1] = "Q"
    (folder / "system" / "topology.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="begun with another topology"):
        learn(simulate(chain), chain, folder=folder)


def without_positions(chain):
    system = openmm.XmlSerializer.clone(chain.system)
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.002)
    return app.Simulation(chain.topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))


def in_two_boxes(chain):
    simulation = simulate(chain)
    simulation.context.setPositions(chain.positions + np.array([0, 0, 0, 3.0, 3.0])[:, None])
    return simulation


def of_two_molecules(chain):
    topology, system = app.Topology(), openmm.XmlSerializer.clone(chain.system)
    for _ in range(2):
        residue = topology.addResidue("M", topology.addChain())
        atoms = [topology.addAtom(atom.name, atom.element, residue) for atom in chain.topology.atoms()]
        for first, second in chain.topology.bonds():
            topology.addBond(atoms[first.index], atoms[second.index])
    for mass in chain.masses:
        system.addParticle(mass)
    across = openmm.HarmonicBondForce()
    across.addBond(1, 6, 3.0, 10.0)
    system.addForce(across)
    simulation = app.Simulation(
        topology, system, openmm.LangevinMiddleIntegrator(300, 1, 0.002), openmm.Platform.getPlatformByName("Reference")
    )
    simulation.context.setPositions(np.concatenate([chain.positions, chain.positions + 3.0]))
    return simulation


def restrained_in_place(chain):
    force = openmm.CustomExternalForce("100*((x-x0)^2+y^2+z^2)")
    force.addPerParticleParameter("x0")
    force.addParticle(0, [0.0])
    return simulate(chain, forces=[force])


def barostat(chain):
    """Whose box the toy's forces do not know: what matters is that it is there."""
    simulation = simulate(chain)
    simulation.system.addForce(openmm.MonteCarloBarostat(1, 300))
    return simulation


def constant_bias():
    force = openmm.CustomTorsionForce("3*(1-cos(theta-1))")
    force.addTorsion(*LABELS)
    return force


CASES = {
    "no such residue": (simulate, {"labels": ["phi:2"]}, "phi:2 matches nothing"),
    "no such atom": (simulate, {"labels": [(0, 1, 2, 9)]}, "atom 9 is out of range"),
    "no torsion": (simulate, {"labels": "distance:0,1"}, "is no torsion"),
    "not bonded": (simulate, {"labels": [(3, 0, 2, 1)]}, "does not follow bonds"),
    "no labels": (simulate, {"labels": []}, "there are no labels"),
    "no positions": (without_positions, {}, "positions"),
    "cut by a box": (in_two_boxes, {}, "cut by a periodic box"),
    "no temperature": (lambda chain: simulate(chain, openmm.VerletIntegrator(0.002)), {}, "temperature"),
    "barostat": (barostat, {}, "MonteCarloBarostat.*umbrella windows"),
    "bonded across": (of_two_molecules, {}, "atoms 1 and 6 are bonded across.*add the bond"),
    "labels of two": (of_two_molecules, {"labels": [(0, 1, 2, 3), (5, 6, 7, 8)]}, "bonded across"),
    "restrained in place": (restrained_in_place, {}, "moved or turned"),
    "force added later": (lambda chain: simulate(chain, add_later=[constant_bias()]), {}, "Context"),
    "too few evaluations": (simulate, {"max_evaluations": 100}, "max_evaluations"),
    "no count": (simulate, {"max_evaluations": 1.5}, "whole number"),
    "a System": (lambda chain: chain.system, {}, "give an openmm.app.Simulation"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_learned_is_refused_before_anything_is_sampled(chain, tmp_path, case):
    make, options, words = CASES[case]
    simulation = make(chain)
    before = state_of(simulation) if case != "a System" else None
    with pytest.raises(InputError, match=words) as caught:
        learn(simulation, chain, **options)
    assert len(str(caught.value).splitlines()) == 1 and not getattr(caught.value, "__notes__", [])
    assert not list(tmp_path.iterdir())
    assert case == "a System" or state_of(simulation) == before


def test_over_more_labels_than_a_surface_has_proposals_are_where_lifts_were(chain, finished, monkeypatch):
    """As if the surface were over others: p(s) is then made of the lifts alone."""
    others = replace(finished[0].surface, names=("x",))
    monkeypatch.setattr("openmm_gancl.moves.learned_move.load_surface_over", lambda path, names: others)
    move = load_again(chain, finished[0])
    proposal, grid = move._sourced.label_proposal, np.linspace(-np.pi, np.pi, 721)[:-1]
    density = np.exp(proposal.log_prior(grid[:, None]))
    assert abs(density.mean() * 2 * np.pi - 1) < 1e-6
    energy = np.interp(grid, 0.5 * (others.edges[0][1:] + others.edges[0][:-1]), others.energy, period=2 * np.pi)
    boltzmann = np.exp(-energy / move.system.kT)
    assert (np.minimum(density / density.sum(), boltzmann / boltzmann.sum())).sum() > 0.8
    move.run(60, 2)
    assert move.acceptance_rate > 0.5


@pytest.mark.slow
def test_three_labels_have_proposals_where_lifts_were(chain):
    system, topology = openmm.System(), app.Topology()
    force = openmm.CustomExternalForce("a*(x^2-1)^2+30*(y-0.5*x)^2+40*z^2+b*(x^2-1)")
    force.addPerParticleParameter("a")
    force.addPerParticleParameter("b")
    for name, parameters in (("X", (20.0, 0.0)), ("Y", (0.0, 40.0))):
        topology.addAtom(name, None, topology.addResidue("TOY", topology.addChain()))
        force.addParticle(system.addParticle(20.0), parameters)
    system.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(300, 5, 0.005)
    simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions([[1.0, 0.5, 0.0], [0.1, 0.1, 0.1]])
    labels = ParticleCoordinates(("x", "y", "z"), [[0, 0], [0, 1], [0, 2]], [[-1.8, 1.8], [-1.5, 1.5], [-1.0, 1.0]])
    move = learn(simulation, chain, labels=labels, force_constants=200.0)
    move.run(100, 5)
    assert move.surface.names == ("x", "y") and move.acceptance_rate > 0.2


class Slow:
    """A step that says nothing of itself for a while."""

    def __init__(self, seconds):
        self.seconds = seconds

    def of(self, reporter):
        with reporter.running(), reporter.step("fitting", 1):
            end = time.monotonic() + self.seconds
            while time.monotonic() < end:  # busy in Python, which leaves other threads least time
                sum(range(1000))


def test_a_fit_that_says_nothing_is_told_of_all_the_same(monkeypatch):
    monkeypatch.setattr(learning_progress, "INTERVAL", 0.4)
    monkeypatch.setattr(learning_progress, "TICK", 0.05)
    told = []
    Slow(2.0).of(TimedReporter(told.append))
    seconds = np.array([one.seconds for one in told])
    assert np.diff(seconds).max() < 0.5 and 4 <= len(told) <= 8
    assert str(told[-1]).startswith("learning: fitting, ")


def test_what_progress_raises_ends_the_learning(monkeypatch):
    monkeypatch.setattr(learning_progress, "INTERVAL", 0.2)
    monkeypatch.setattr(learning_progress, "TICK", 0.05)
    heard = []

    def tell(progress):
        heard.append(progress)
        if len(heard) > 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Slow(0.6).of(TimedReporter(tell))
    assert len(heard) == 2


def test_progress_is_a_line_to_standard_error_by_default(chain, capsys):
    learn(simulate(chain), chain, max_evaluations=2500, progress=None)
    lines = capsys.readouterr().err.splitlines()
    assert any(re.fullmatch(r"learning: (fitting|lifting, round 1, 0 %), \d+ s", line) for line in lines)
    assert all(line.startswith("learning: ") for line in lines)


class Cosine(torch.nn.Module):
    """A learned label of the chain: the cosine of its torsion."""

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        bonds = positions[..., 1:4, :] - positions[..., 0:3, :]
        first = torch.linalg.cross(bonds[..., 0, :], bonds[..., 1, :])
        second = torch.linalg.cross(bonds[..., 1, :], bonds[..., 2, :])
        cosine = (first * second).sum(-1) / ((first**2).sum(-1) * (second**2).sum(-1)).sqrt()
        return cosine.unsqueeze(-1)


def test_learned_labels_are_drawn_by_their_torsions(chain, finished, tmp_path):
    """The same as with the torsion itself."""
    labels = ModuleCoordinates.from_module(
        Cosine(), names=("cosine",), periods=[np.inf], domain=[[-1.0, 1.0]], chart_torsions=[LABELS]
    )
    told = []
    move = learn(simulate(chain), chain, labels=labels, folder=tmp_path / "learned", progress=told.append)
    assert results_of(move.folder) == results_of(finished[0].folder)
    assert any(one.note.startswith("cosine are drawn by their torsions 0,1,2,3") for one in told)
    alone = ModuleCoordinates.from_module(Cosine(), names=("cosine",), periods=[np.inf], domain=[[-1.0, 1.0]])
    with pytest.raises(InputError, match="name no torsions"):
        learn(simulate(chain), chain, labels=alone)


def test_of_several_molecules_the_one_of_the_labels_is_learned(chain, tmp_path):
    """Beside a partner and a particle without a mass; a second script reads it, closures are refused."""
    simulation = beside_a_partner()
    before = state_of(simulation)
    move = learn(simulation, chain, [(1, 2, 3, 4)], folder=tmp_path / "run")
    assert state_of(simulation) == before and move.system.n_atoms == 5
    assert move.summary.force_evaluations <= TINY.max_evaluations
    there = places(simulation)
    records = move.run(40)
    assert sum(record.accepted for record in records) >= 4
    moved = np.flatnonzero((places(simulation) != there).any(axis=1))
    assert moved.tolist() == [1, 2, 3, 4, 5]
    with pytest.warns(UserWarning, match="not to be trusted"):
        again = load_move(beside_a_partner(), tmp_path / "run", seed=move.seed).run(5)
    assert len({record.label for record in again} - {record.label for record in records}) <= 5
    with pytest.raises(InputError, match="of a molecule beside others that are held"):
        run_closures(tmp_path / "run", reporter=Notes())
    with pytest.raises(InputError, match="label torsion:1,2,3,0 names atom 0 of another molecule"):
        learn(simulation, chain, [(1, 2, 3, 0)])
