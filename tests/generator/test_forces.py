"""A lifting model's parts as forces: equal to native ones and numpy, by both backends; broken ones are refused."""

import copy
import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext

import numpy as np
import openmm
import pytest
import torch
from torch import nn

from openmm_gancl import (
    InputError,
    ModuleCoordinates,
    load_system,
    sample_windows,
    system_from_objects,
    torch_force,
)
from openmm_gancl.coordinates.restraint_energies import restraint_energies
from openmm_gancl.coordinates.slow_coordinates import slow_as_module
from openmm_gancl.engine.restraint_forces import coordinate_forces, make_restraint
from openmm_gancl.engine.serialization import deserialized_system, refuse_code
from openmm_gancl.engine.tasks import run_tasks
from openmm_gancl.engine.torch_force import check_module, restraint_module, taking_numbers
from openmm_gancl.generator import untrained_model
from openmm_gancl.generator.force_modules import MIN_LOG_PROBABILITY, ReferenceModule
from openmm_gancl.lifting.proposals import restraint_reference
from openmm_gancl.reference.potential import ReferencePotential
from openmm_gancl.trajectories.static_bias import TabulatedBias
from tests.openmm_contexts import BACKENDS, context_of, energy_and_forces, finite_differences

pytestmark = pytest.mark.openmmtorch

PLATFORMS = ["Reference", "CPU", *(["OpenCL"] if os.environ.get("GANCL_TEST_OPENCL") else [])]
TOLERANCE = {"Reference": 1e-6, "CPU": 1e-6, "OpenCL": 1e-4}
"""Relative; the last computes in single precision."""


@pytest.fixture(scope="module")
def models():
    made = {}
    for name in ("bonded_chain", "alanine_dipeptide_vacuum", "double_well_oscillators"):
        system = load_system(name)
        made[name] = system, untrained_model(system, seed=1, latent_size=2)
    return made


def place_of(system, seed=0):
    rng = np.random.default_rng(seed)
    label = system.slow.domain[:, 0] + rng.random(len(system.slow.names)) * np.ptp(system.slow.domain, axis=1)
    return system.positions + 0.01 * rng.standard_normal(system.positions.shape), label, rng.standard_normal(2)


def native(system, model, positions, label, latent, platform, restraint):
    parameters = model.reference_parameters(label[None], np.append(latent, 0.0)[None])
    if restraint is not None:
        parameters = restraint_reference(parameters, model, label[None], restraint, system.kT)
    reference = ReferencePotential(model.chart, system.kT)
    forces = reference.forces(0)
    context = context_of(forces, system.n_atoms, positions, platform)
    reference.set_parameters(forces, parameters, 0, context)
    return energy_and_forces(context)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", ["bonded_chain", "alanine_dipeptide_vacuum", "double_well_oscillators"])
def test_reference_equals_the_native_forces(models, name, platform, backend):
    system, model = models[name]
    if platform == "OpenCL" and (backend == "torch" or name == "double_well_oscillators"):
        pytest.skip("PoCL with OpenMM 8.5 runs neither TorchForce nor CustomExternalForce")
    for restraint in (None, system.force_constants):
        force = torch_force(model, "reference", force_constants=restraint, backend=backend, force_group=3)
        assert force.getForceGroup() == 3
        context = context_of(force, system.n_atoms, system.positions, platform)
        for seed in range(2):
            positions, label, latent = place_of(system, seed)
            context.setPositions(positions)
            for kind, values in (("label", label), ("latent", latent)):
                for i, value in enumerate(values):
                    context.setParameter(f"{kind}_{i}", value)
            energy, forces = energy_and_forces(context)
            expected, expected_forces = native(system, model, positions, label, latent, platform, restraint)
            assert energy == pytest.approx(expected, rel=TOLERANCE[platform])
            error = np.abs(forces - expected_forces).max() / np.abs(expected_forces).max()
            assert error < TOLERANCE[platform]


@pytest.mark.parametrize("backend", BACKENDS)
def test_slow_bias_alone_and_in_a_collective_variable(models, backend):
    """Centres and constants are parameters of the Context, inside CustomCVForce too, and after copies."""
    system, model = models["alanine_dipeptide_vacuum"]
    centre, constant = np.array([-1.0, 2.0]), np.array([80.0, 50.0])
    expected = restraint_energies(system.slow, constant, system.slow.transform(system.positions[None]), centre)[0]
    inner = torch_force(model, "slow_bias", backend=backend)
    outer = openmm.CustomCVForce("0.5*bias")
    outer.addCollectiveVariable("bias", copy.deepcopy(inner))
    found = []
    for force, factor in ((inner, 1.0), (outer, 0.5)):
        holder = openmm.System()
        for _ in range(system.n_atoms):
            holder.addParticle(1.0)
        holder.addForce(force)
        for copied in (copy.deepcopy(holder), openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(holder))):
            context = context_of(copied, system.n_atoms, system.positions)
            assert energy_and_forces(context)[0] == 0.0
            for i in range(2):
                context.setParameter(f"slow_centre_{i}", centre[i])
                context.setParameter(f"slow_constant_{i}", constant[i])
            energy, forces = energy_and_forces(context)
            assert energy == pytest.approx(factor * expected, rel=1e-9)
            found.append(forces / factor)
    np.testing.assert_allclose(found, np.broadcast_to(found[0], np.shape(found)), rtol=1e-9, atol=1e-9)
    assert found[0] == pytest.approx(finite_differences(context, system.positions) / 0.5, rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["alanine_dipeptide_vacuum", "double_well_oscillators"])
def test_tabulated_bias(models, name, backend):
    """The spline that undoes the same bias in trajectories, on a ring and between ends, and nothing beyond them."""
    system, model = models[name]
    periodic = bool(np.isfinite(system.slow.periods).all())
    table = np.random.default_rng(2).normal(0, 5, (13,) if len(system.slow.names) == 1 else (9, 12))
    if periodic:
        table[-1], table[:, -1] = table[0], table[:, 0]
    bias = TabulatedBias(table, system.slow.domain, periodic)
    context = context_of(torch_force(model, "slow_bias", bias=bias, backend=backend), system.n_atoms, system.positions)
    places = [place_of(system, seed)[0] for seed in range(4)]
    if not periodic:
        places = [system.positions + np.array([x, 0.0, 0.0]) for x in (-0.55, 0.1, 0.9, 2.57, 2.7)]
    for positions in places:
        context.setPositions(positions)
        energy, forces = energy_and_forces(context)
        expected = bias.energies(system.slow.transform(positions[None]))[0]
        assert energy == pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert forces == pytest.approx(finite_differences(context, positions), rel=1e-4, abs=1e-3)
    context.setParameter("slow_bias_factor", 0.0)
    assert energy_and_forces(context)[0] == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_proposal_is_a_draw_with_its_density(models, backend):
    system, model = models["double_well_oscillators"]
    noise, label, latent = np.random.default_rng(3).standard_normal((1, 3)), np.array([0.4]), np.array([0.2, -1.1])
    context = context_of(
        torch_force(model, "proposal", force_constants=system.force_constants, backend=backend),
        2,
        [*noise, [9.0, 9.0, 9.0]],
    )
    for i, value in enumerate(latent):
        context.setParameter(f"latent_{i}", value)
    context.setParameter("label_0", label[0])
    log_q, moved = energy_and_forces(context)
    parameters = model.reference_parameters(label[None], np.append(latent, 0.0)[None])
    parameters = restraint_reference(parameters, model, label[None], system.force_constants, system.kT)
    drawn = parameters.centres[0] + parameters.widths[0] * noise[0]
    reference = ReferencePotential(model.chart, system.kT)
    expected = -reference.energies(drawn[None], parameters) / system.kT - reference.log_partition(parameters)
    assert log_q == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(noise[0] + moved[0], drawn, rtol=0, atol=1e-14)
    np.testing.assert_allclose(moved[1], parameters.widths[0], rtol=1e-14)
    context.setPositions([[np.nan, 0.0, 0.0], [0.0, 0.0, 0.0]])
    log_q, moved = energy_and_forces(context)
    assert log_q == MIN_LOG_PROBABILITY and not moved.any()


def test_what_does_not_fit_is_refused(models):
    _, model = models["alanine_dipeptide_vacuum"]
    with pytest.raises(InputError, match="use Lifter or LiftMove"):
        torch_force(model, "proposal")
    with pytest.raises(InputError, match="no force of kind 'generator': choose slow_bias, reference or proposal"):
        torch_force(model, "generator")
    with pytest.raises(InputError, match="give one number, or 2, from zero up"):
        torch_force(model, "slow_bias", force_constants=-1.0)
    bias = TabulatedBias(np.zeros(5), np.array([[-1.0, 1.0]]), False)
    with pytest.raises(InputError, match=r"over 1 variable.* 2 label"):
        torch_force(model, "slow_bias", bias=bias)
    degrees = TabulatedBias(np.zeros((5, 5)), np.array([[-180.0, 180.0]] * 2), True)
    with pytest.raises(InputError, match="give its limits in radians"):
        torch_force(model, "slow_bias", bias=degrees)
    with pytest.raises(InputError, match="is a ndarray: give a TabulatedBias"):
        torch_force(model, "slow_bias", bias=np.zeros(3))
    for arguments in ({"kind": "reference"}, {"kind": "slow_bias", "force_constants": 1.0}):
        with pytest.raises(InputError, match="give one of the two"):
            torch_force(model, **arguments, bias=degrees)
    with pytest.raises(InputError, match="no backend 'pytorch'"):
        torch_force(model, "slow_bias", backend="pytorch")
    with pytest.raises(InputError, match="give positive ones"):
        torch_force(models["double_well_oscillators"][1], "proposal", force_constants=0.0)


def test_two_forces_of_a_kind_in_one_system(models):
    """Their parameters have a prefix each."""
    system, model = models["bonded_chain"]
    forces = [
        torch_force(model, "slow_bias", force_constants=k, prefix=name, backend="python")
        for name, k in (("one_", 10.0), ("two_", 30.0))
    ]
    context = context_of(forces, system.n_atoms, system.positions)
    both = energy_and_forces(context)[0]
    context.setParameter("one_slow_constant_0", 0.0)
    assert energy_and_forces(context)[0] == pytest.approx(0.75 * both, rel=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_system_with_a_module_in_workers_and_other_processes(models, backend, tmp_path):
    """Its windows do not depend on the workers, its hash not on how often it is written, and its card is read."""
    system, model = models["bonded_chain"]
    biased = openmm.XmlSerializer.clone(system.system)
    biased.addForce(torch_force(model, "slow_bias", force_constants=5.0, backend=backend))
    system = system_with(system, system.slow, biased)
    assert system.force_field_hash == system.force_field_hash != models["bonded_chain"][0].force_field_hash
    labels = np.linspace(-2, 2, 20)[:, None]
    options = {"steps_per_window": 10, "frames_per_window": 2, "equilibration_steps": 0, "platform": "Reference"}
    one, two = (sample_windows(system, labels, workers=n, **options) for n in (1, 2))
    np.testing.assert_array_equal(one.positions, two.positions)
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(biased))
    script = (
        "from openmm_gancl.engine.serialization import deserialized_system, system_hash\n"
        f"print(system_hash(deserialized_system(open({str(tmp_path / 'system.xml')!r}).read())))"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert finished.stdout.strip() == system.force_field_hash, finished.stderr


@contextmanager
def threads_as_before(threads=2):
    """Of this process, set to a number that nothing here would set."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_thread_count_of_the_process_stays(models, backend, monkeypatch):
    """A PythonForce has one thread while it is evaluated."""
    from openmm_gancl.engine import torch_force as home

    inside, evaluated = [], home._evaluated
    system, model = models["bonded_chain"]
    with threads_as_before():
        force = torch_force(model, "slow_bias", force_constants=20.0, backend=backend)
    monkeypatch.setattr(home, "_evaluated", lambda *rest: (inside.append(torch.get_num_threads()), evaluated(*rest))[1])
    with threads_as_before():
        context = context_of(force, system.n_atoms, system.positions)
        context.getIntegrator().step(3)
        energy_and_forces(context)
    assert set(inside) == ({1} if backend == "python" else set())
    text = openmm.XmlSerializer.serialize(context.getSystem())
    with threads_as_before():
        energy_and_forces(context_of(deserialized_system(text), system.n_atoms, system.positions))


def test_a_changed_thread_count_would_be_noticed(models, monkeypatch):
    from openmm_gancl.engine import torch_force as home

    _, model = models["bonded_chain"]
    made = home.archived
    monkeypatch.setattr(home, "archived", lambda module: (torch.set_num_threads(1), made(module))[1])
    with pytest.raises(AssertionError), threads_as_before():
        torch_force(model, "slow_bias", backend="python")
    monkeypatch.undo()
    inside, evaluated = [], home._evaluated
    monkeypatch.setattr(home, "_evaluated", lambda *rest: (inside.append(torch.get_num_threads()), evaluated(*rest))[1])
    monkeypatch.setattr(home, "torch_threads", lambda threads: nullcontext())
    system, _ = models["bonded_chain"]
    with threads_as_before():
        force = torch_force(model, "slow_bias", backend="python")
        energy_and_forces(context_of(force, system.n_atoms, system.positions))
    assert set(inside) == {2}


def threads_of(_):
    return torch.get_num_threads()


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_have_one_thread_each(workers):
    with threads_as_before():
        assert run_tasks(threads_of, range(4), workers=workers) == [1] * 4


class Broken(nn.Module):
    """Coordinates of two atoms that go wrong in one of several ways."""

    def __init__(self, fault: str):
        super().__init__()
        self.fault = fault

    def forward(self, positions):
        distance = (positions[..., 0, :] - positions[..., 1, :]).square().sum(dim=-1, keepdim=True)
        if self.fault == "shape":
            return torch.cat([distance, distance], dim=-1)
        if self.fault == "nan":
            return distance / 0.0 * 0.0
        if self.fault == "dtype":
            return distance.to(torch.float32)
        if self.fault == "gradient":
            return torch.sqrt(distance * 0.0)
        if self.fault == "constant":
            return torch.ones_like(distance).detach()
        assert self.fault != "assertion", "not these atoms"
        if self.fault == "raise":
            raise ValueError("not these atoms")
        return (positions.reshape(-1, 66) @ torch.ones(66, 1, dtype=torch.float64)).squeeze(-1)


FAULTS = {
    "shape": "shape",
    "nan": "not finite",
    "dtype": "float32",
    "gradient": "not finite",
    "constant": "gradient",
    "atoms": "fails",
    "assertion": "fails at 5 atoms .*not these atoms",
    "raise": "fails at 5 atoms .*not these atoms",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_coordinates_are_refused_before_a_context(fault):
    system = load_system("bonded_chain")
    slow = ModuleCoordinates.from_module(Broken(fault), names=("d",), periods=[np.inf], domain=[[0.0, 1.0]])
    with pytest.raises(InputError, match=FAULTS[fault]):
        system_with(system, slow)


class Tuple(nn.Module):
    def forward(self, positions):
        return positions[..., 0, :1], 1.0


def test_coordinates_that_are_no_tensor_are_refused():
    slow = ModuleCoordinates.from_module(Tuple(), names=("d",), periods=[np.inf], domain=[[0.0, 1.0]])
    with pytest.raises(InputError, match="returns a tuple, not a tensor"):
        system_with(load_system("bonded_chain"), slow)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_module_of_other_coordinates_stops_in_a_context(backend):
    """Where nobody has checked it: no sum over what was broadcast."""
    slow = ModuleCoordinates.from_module(Broken("shape"), names=("d",), periods=[np.inf], domain=[[0.0, 1.0]])
    restraint = make_restraint(slow, np.array([10.0]), 0, backend=backend).force
    for force in (restraint, *coordinate_forces(slow, backend=backend)):
        with pytest.raises(openmm.OpenMMException, match="another number of coordinates"):
            energy_and_forces(context_of([force], 2, np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]])))


def test_numbers_as_a_graphics_card_passes_them(models):
    """There openmm-torch gives each parameter as shape=(1,), and all in single precision."""
    system, model = models["alanine_dipeptide_vacuum"]
    toy = models["double_well_oscillators"]
    cases = [
        (system, restraint_module(slow_as_module(model.slow)), [0.3, -0.2, 20.0, 50.0]),
        (system, reference_of(model, "energy", system), [0.3, -0.2, *np.linspace(-1, 1, model.latent_size)]),
        (toy[0], reference_of(toy[1], "proposal", toy[0]), [0.3, *np.linspace(-1, 1, toy[1].latent_size)]),
    ]
    for one, module, numbers in cases:
        place = torch.tensor(one.positions, dtype=torch.float32).double()
        exact = module(place, *(torch.tensor(float(np.float32(number)), dtype=torch.float64) for number in numbers))
        single = module(place.float(), *(torch.tensor([number], dtype=torch.float32) for number in numbers))
        for a, b in zip(*(found if isinstance(found, tuple) else (found,) for found in (exact, single)), strict=True):
            assert a.shape == b.shape
            torch.testing.assert_close(a, b.double(), rtol=1e-6, atol=1e-7)
    assert single[1].dtype == torch.float32  # of the positions: openmm-torch would convert it, and not keep that


def reference_of(model, method, system):
    widths = np.sqrt(system.kT / system.force_constants)
    module = ReferenceModule(model.on("cpu").networks.generator, model.chart, system.kT, widths)
    return taking_numbers(module, method, [len(model.slow.names), model.latent_size])


def test_a_backend_that_not_every_platform_has(models, monkeypatch):
    from openmm_gancl.engine import torch_force as home

    _, model = models["bonded_chain"]
    monkeypatch.setattr(home, "runs_everywhere", lambda: False)
    assert isinstance(torch_force(model, "slow_bias"), openmm.PythonForce)


def test_code_in_a_system_of_a_card_is_refused(models):
    """TorchScript too, which may write files."""
    _, model = models["bonded_chain"]
    system = openmm.System()
    for _ in range(5):
        system.addParticle(1.0)
    refuse_code(openmm.XmlSerializer.serialize(system))
    system.addForce(torch_force(model, "slow_bias", backend="python"))
    with pytest.raises(InputError, match="a PythonForce in it would run code"):
        refuse_code(openmm.XmlSerializer.serialize(system))


def system_with(system, slow, forces=None):
    return system_from_objects(
        system.topology,
        forces or system.system,
        system.positions,
        temperature=300.0,
        slow=slow,
        force_constants=100.0,
    )


@pytest.mark.parametrize("fault", ["shape", "nan", "dtype", "atoms"])
def test_broken_networks_are_refused_before_a_context(models, fault):
    _, model = models["bonded_chain"]

    class Generator(nn.Module):
        def __init__(self, inner, fault: str):
            super().__init__()
            self.inner, self.fault, self.latent_size = inner, fault, int(inner.latent_size)
            self.folds, self.is_torsion = inner.folds, inner.is_torsion

        def forward(self, labels, latents):
            centres, widths = self.inner(labels, latents)
            if self.fault == "shape":
                return centres[:, :-1], widths[:, :-1]
            if self.fault == "nan":
                return centres, widths / 0.0 * 0.0
            if self.fault == "dtype":
                return centres.to(torch.float32), widths.to(torch.float32)
            return torch.cat([centres, centres[:, -3:]], dim=1), torch.cat([widths, widths[:, -3:]], dim=1)

    from openmm_gancl.generator.model import with_generator

    broken = with_generator(model, Generator(model.networks.generator, fault), model.chart, model.slow)
    with pytest.raises(InputError, match="networks"):
        torch_force(broken, "reference")


def test_broken_modules_of_any_force_are_refused():
    class Sum(nn.Module):
        def forward(self, positions):
            return positions.sum(dim=0)

    scripted = torch.jit.script(Sum())
    with pytest.raises(InputError, match=r"float64 of shape \(3,\) where one energy"):
        check_module(scripted, np.zeros((2, 3)), {}, with_forces=False)
    with pytest.raises(InputError, match="not an energy and forces"):
        check_module(scripted, np.zeros((2, 3)), {}, with_forces=True)

    class Turned(nn.Module):
        def forward(self, positions):
            return positions.sum(), positions.t().contiguous().t()

    with pytest.raises(InputError, match="contiguous"):
        check_module(torch.jit.script(Turned()), np.zeros((2, 3)), {}, with_forces=True)
    with pytest.raises(InputError, match="fails at 2 atoms and 1 parameter"):
        check_module(scripted, np.zeros((2, 3)), {"k": 1.0}, with_forces=False)


def test_without_openmm_torch_its_force_is_refused(monkeypatch, models):
    from openmm_gancl.engine import torch_force as home

    monkeypatch.setattr(home, "torch_force_type", lambda: None)
    _, model = models["bonded_chain"]
    with pytest.raises(InputError, match=r"cannot be loaded: pip install 'openmm-gancl\[openmmtorch\]'"):
        torch_force(model, "slow_bias", backend="torch")
    assert isinstance(torch_force(model, "slow_bias"), openmm.PythonForce)


def test_native_coordinates_as_modules(models):
    for system, _ in models.values():
        several = system.positions + np.linspace(0, 0.1, 5)[:, None, None] * np.eye(3)[0] * system.positions
        module = slow_as_module(system.slow)
        np.testing.assert_allclose(module.transform(several), system.slow.transform(several), rtol=1e-12)
        module.check(system.positions)
