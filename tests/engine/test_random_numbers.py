"""Streams of random numbers: named, repeatable, and never the same one under two names, in any command or script."""

import re
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import app

import openmm_gancl as api
from openmm_gancl.engine import random_numbers
from openmm_gancl.engine.random_numbers import named_rng, named_seed, openmm_seed, torch_rng, torch_seeded
from openmm_gancl.errors import InputError
from openmm_gancl.lifting.label_proposals import UniformProposal
from openmm_gancl.workflow import options
from tests.cli.test_cli import gancl
from tests.physics.toy_generators import generator
from tests.tiny_run import PRESETS

PACKAGE = Path(random_numbers.__file__).parents[1]
AS_IT_IS = random_numbers._sequence
TOY = "double_well_oscillators"
QUICK = ("--preset", "quick", "--generator", "product", "--platform", "Reference", "--workers", "1", "--seed", "5")
RUNS = {
    "free labels, one chain": (TOY, "--acceptance", "metropolis"),
    "restrained, rounds of lifts": (TOY, "--target-error", "0.3", "--relax-steps", "auto"),
    "learned labels": ("bonded_chain", "--slow", "diffusion-map", "--restrain", "none"),
}
ONCE_BY_NUMBERS = {
    ("run", "lift", "labels"): (2, 0),
    ("run", "lift", "lifts", 0): (2, 0),
    ("run", "lift", "lifts"): (2, 3),
    ("run", "lift", "pilots", "labels"): (2, 6),
    ("run", "lift", "pilots"): (2, 7),
    ("lift",): (0,),
    ("reverse",): (1,),
}
"""How streams were once distinguished: numbers appended to the seed."""


def appended(seed, name):
    """The twin: SeedSequence pads what is short with zeros, so [seed, 2, 0] and [seed, 2, 0, 0] are one stream."""
    for n in range(len(name), 0, -1):
        if (numbers := ONCE_BY_NUMBERS.get(name[:n])) is not None:
            return np.random.SeedSequence([seed, *numbers, *name[n:]])
    return AS_IT_IS(seed, name)


class Recorded:
    """Every stream that is requested, with the state it starts from, and every seed that OpenMM is given."""

    def __init__(self, monkeypatch, sequence=AS_IT_IS):
        self.streams, self.openmm_seeds = [], []

        def recorded(seed, name):
            made = sequence(seed, name)
            if name[0] != "fixed":
                self.streams.append((int(seed), name, tuple(made.generate_state(4).tolist())))
            return made

        def drawn(rng):
            self.openmm_seeds.append(openmm_seed(rng))
            return self.openmm_seeds[-1]

        monkeypatch.setattr(random_numbers, "_sequence", recorded)
        for name, module in list(sys.modules.items()):
            if name.startswith("openmm_gancl.") and getattr(module, "openmm_seed", None) is openmm_seed:
                monkeypatch.setattr(module, "openmm_seed", drawn)

    def repeated(self):
        """Streams that start where another, or the same one before, has started."""
        seen, found = {}, []
        for *stream, state in self.streams:
            if state in seen:
                found.append((seen[state], stream))
            seen.setdefault(state, stream)
        return found

    def starts_at(self, rng):
        return [
            stream for *stream, state in self.streams if state == tuple(rng.bit_generator.seed_seq.generate_state(4))
        ]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(options, "PRESETS", PRESETS)
    monkeypatch.setattr(options, "LEARNED_LABEL_SETTINGS", {"quick": {"n_lifts": 128}})


def run_recorded(folder, arguments, monkeypatch, *sequence):
    recorded = Recorded(monkeypatch, *sequence)
    result = gancl("run", *arguments, "-o", folder, *QUICK)
    assert result.exit_code in (0, 3), result.stderr
    assert len(recorded.streams) > 20 and len(recorded.openmm_seeds) > 10
    return recorded


@pytest.mark.parametrize("arguments", RUNS.values(), ids=RUNS)
def test_no_two_streams_of_a_run_meet(arguments, tmp_path, monkeypatch):
    recorded = run_recorded(tmp_path / "run", arguments, monkeypatch)
    assert not recorded.repeated()
    # 31 bits: a few hundred seeds are all different but for one run in ten thousand
    assert len(set(recorded.openmm_seeds)) == len(recorded.openmm_seeds)


def test_streams_distinguished_by_appended_numbers_meet(tmp_path, monkeypatch):
    arguments = RUNS["free labels, one chain"]
    repeated = run_recorded(tmp_path / "run", arguments, monkeypatch, appended).repeated()
    assert any(first[1][:3] == ("run", "lift", "labels") for first, _ in repeated), repeated


def test_no_two_streams_of_other_commands_meet(tmp_path, monkeypatch, chain_frames):
    top, trajectory, weights = chain_frames
    recorded = Recorded(monkeypatch)
    frames = ("--top", top, "--cv", "torsion:0,1,2,3", "--log-weights", weights)
    for result in (
        gancl(
            "train", "bonded_chain", "--traj", trajectory, *frames, "--latent", 0, "-o", tmp_path / "model.safetensors"
        ),
        gancl("fes", trajectory, *frames, "--temperature", 300, "-o", tmp_path / "fes"),
    ):
        assert result.exit_code in (0, 3), result.stderr  # so few frames are doubted
    assert len(recorded.streams) == 3 and not recorded.repeated()


@pytest.fixture(scope="module")
def chain_frames(tmp_path_factory):
    import mdtraj

    folder, system = tmp_path_factory.mktemp("frames"), api.load_system("bonded_chain")
    frames = api.sampling.sample_langevin(system, 20_000, n_frames=400, seed=1, platform="Reference")
    topology = mdtraj.Topology.from_openmm(system.topology)
    trajectory = mdtraj.Trajectory(frames.positions.astype(np.float32), topology)
    trajectory[0].save_pdb(str(folder / "top.pdb"))
    trajectory.save_dcd(str(folder / "frames.dcd"))
    np.save(folder / "weights.npy", np.linspace(-1.0, 1.0, len(trajectory)))
    return [folder / name for name in ("top.pdb", "frames.dcd", "weights.npy")]


def test_no_two_streams_of_a_script_with_one_seed_meet(monkeypatch):
    recorded, system = Recorded(monkeypatch), api.load_system(TOY)
    frames = api.sample_windows(system, n_windows=8, steps_per_window=40, frames_per_window=10, exchange_steps=10)
    model = api.train(system, frames, seed=0, options=api.TrainingOptions(latent_size=1, generator_steps=4))
    api.Lifter(system, api.generator.untrained_model(system, seed=0), relax_steps=2).lift(frames.labels[:40], seed=0)
    lifter = api.Lifter(system, model, relax_steps=2)
    lifter.reverse(frames.positions[:40], frames.labels[:40], seed=0)
    lifter.lift(frames.labels[:40], seed=0)
    api.sampling.sample_swarm(system, frames.positions[:2], 4)
    api.sampling.sample_langevin(system, 100)
    api.structures_at(system, model, frames.labels[:2], relax_steps=2)
    simulation = app.Simulation(system.topology, system.system, openmm.LangevinMiddleIntegrator(300, 1, 0.001))
    simulation.context.setPositions(system.positions)
    for _ in range(2):
        api.LiftMove(simulation, model, relax_steps=2).run(2)
    api.moves.InContextMove(system, generator(TOY, "trained"), md_steps=2).run(2)
    # an untrained and a trained model were lifted with one seed, on purpose
    twice = [
        first for first, second in recorded.repeated() if first != second or first[1][0] not in ("lift", "restart")
    ]
    assert not twice and len(recorded.streams) > 40


def test_a_generator_of_the_users_is_none_of_ours(monkeypatch):
    """Labels drawn from ``default_rng(k)`` and lifted with seed k must not be what the latents are drawn from."""
    system = api.load_system(TOY)
    model = api.generator.untrained_model(system, seed=1)
    for sequence, meets in ((AS_IT_IS, False), (appended, True)):
        with monkeypatch.context() as patch:
            recorded, rng = Recorded(patch, sequence), np.random.default_rng(7)
            labels = UniformProposal(system.slow, system.force_constants, system.kT).sample(40, rng)
            api.Lifter(system, model, relax_steps=1, platform="Reference").lift(labels, seed=7)
            assert bool(recorded.starts_at(rng)) == meets


def test_names_are_taken_whole():
    names = [(), (0,), (0, 0), ("a",), ("a", 0), ("a0",), ("a", "0"), ("0", "a"), (10,), (1, 0), ("lift", 1), (-1,)]
    draws = [named_rng(3, *name).random() for name in names]
    assert len(set(draws)) == len(names) and named_rng(3, "a").random() == draws[3]
    assert named_rng(4, "a").random() != draws[3] and named_rng(np.int64(3), "a", np.int64(0)).random() == draws[4]
    assert 0 <= named_seed(3, "a") < 2**63


@pytest.mark.parametrize("seed", [-1, 1.5, "1", None])
def test_seeds_that_are_none(seed):
    with pytest.raises(InputError, match=r"the seed is .*: give a whole number from 0 up"):
        named_rng(seed, "a")


def test_seeds_of_63_bits_are_taken_whole():
    assert named_rng(2**62, "a").random() != named_rng(2**62 + 1, "a").random()


def test_generators_of_torch_follow_names_and_leave_the_users_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    with torch_seeded(1, "a"):
        first = torch.randn(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch_seeded(1, "a"):
        assert torch.equal(torch.randn(3), first)
    assert torch.equal(torch.randn(3, generator=torch_rng(1, "a")), first)
    assert not torch.equal(torch.randn(3, generator=torch_rng(1, "b")), first)


def test_random_numbers_come_from_nowhere_else():
    made = re.compile(
        r"default_rng|SeedSequence|manual_seed|np\.random\.(?!Generator\b)|torch\.Generator\(|random\.seed"
    )
    for path in PACKAGE.rglob("*.py"):
        if path.name != "random_numbers.py":
            assert not made.search(path.read_text()), path
