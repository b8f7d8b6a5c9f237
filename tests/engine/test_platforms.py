"""Platforms as they are written, and tasks distributed over devices."""

from dataclasses import dataclass, replace

import numpy as np
import openmm
import pytest

from openmm_gancl import InputError, Lifter, load_system
from openmm_gancl.engine import platforms
from openmm_gancl.engine.platforms import PlatformChoice, platform_names
from openmm_gancl.engine.tasks import run_tasks
from openmm_gancl.generator import untrained_model


@dataclass(frozen=True)
class OnPlatform:
    platform: str

    def on(self, platform):
        return OnPlatform(platform)


@pytest.fixture
def cards(monkeypatch):
    monkeypatch.setattr(platforms, "platform_names", lambda: ["Reference", "CPU", "CUDA"])


def test_platforms_are_read(cards):
    assert PlatformChoice.read("CPU").properties() == {"Threads": "1"}
    assert PlatformChoice.read("Reference").properties() == {}
    assert PlatformChoice.read("CUDA").properties() == {"Precision": "mixed"}
    assert PlatformChoice.read("CUDA:1").properties() == {"Precision": "mixed", "DeviceIndex": "1"}
    assert PlatformChoice.read("CUDA:0,2:double").single_devices() == ["CUDA:0:double", "CUDA:2:double"]
    assert PlatformChoice.read("CUDA::single").properties() == {"Precision": "single"}
    assert PlatformChoice.read(PlatformChoice.read("CUDA").single_devices()[0]) == PlatformChoice("CUDA")


@pytest.mark.parametrize(
    ("platform", "message"),
    [
        ("CPU:0", "only CUDA, OpenCL, HIP take devices"),
        ("CUDA:zero", "devices are numbers"),
        ("CUDA:0:half", "precision one of single, mixed, double"),
        ("CUDA:0:mixed:1", "take devices and a precision"),
    ],
)
def test_other_platforms_are_refused(cards, platform, message):
    with pytest.raises(InputError, match=message):
        PlatformChoice.read(platform)


def test_a_platform_that_is_not_here(cards):
    PlatformChoice.read("CUDA:1").check_here()
    with pytest.raises(InputError, match="no platform 'HIP' here: use one of Reference, CPU, CUDA, or auto"):
        PlatformChoice.read("HIP:0").check_here()


@pytest.mark.parametrize(("step", "tried"), [(2.0, ["Reference"]), (50.0, ["Reference", "CPU", "CUDA"])])
def test_few_particles_try_no_other_platform(step, tried, cards, monkeypatch):
    """PoCL's OpenCL crashes the process with one particle; no card is faster there."""
    made, make, system = [], platforms.make_context, load_system("double_well_oscillators")

    def noted(system, integrator, name, threads):
        made.append(name)
        return make(system, integrator, "Reference", threads)

    monkeypatch.setattr(platforms, "make_context", noted)
    monkeypatch.setattr(platforms, "_microseconds_a_step", lambda context, seconds: step)
    assert platforms.fastest_platform(system.system, system.positions) == "Reference" and made == tried


def test_tasks_are_distributed_over_devices(cards):
    used = run_tasks(lambda task: task.platform, [OnPlatform("CUDA:0,1")] * 5)
    assert used == ["CUDA:0:mixed", "CUDA:1:mixed"] * 2 + ["CUDA:0:mixed"]
    assert run_tasks(lambda task: task.platform, [OnPlatform("CUDA:1"), OnPlatform("CPU")]) == ["CUDA:1", "CPU"]


def test_packed_lifts_are_distributed_over_devices(cards, monkeypatch):
    from openmm_gancl.lifting import packed_relaxation

    system, ran = load_system("bonded_chain"), []

    def here(task, copies):
        ran.append((task.platform, len(task.labels)))
        return relax_packed(replace(task, platform="Reference"), copies)

    relax_packed = packed_relaxation.relax_packed
    monkeypatch.setattr(packed_relaxation, "relax_packed", here)
    lifter = Lifter(system, untrained_model(system, seed=1), relax_steps=1, platform="Reference", packed=4096)
    lifter.platform = "CUDA:0,1"
    assert len(lifter.lift(np.zeros((96, 1)), seed=1)) == 96
    assert ran == [("CUDA:0:mixed", 64), ("CUDA:1:mixed", 32)]


@pytest.mark.skipif("CUDA" in platform_names(), reason="there is a device")
def test_a_missing_device_is_reported_before_anything_runs():
    system = load_system("bonded_chain")
    with pytest.raises(InputError, match="no platform 'CUDA' here"):
        Lifter(system, untrained_model(system, seed=1), platform="CUDA")
    with pytest.raises(InputError, match="torch cannot use the device 'cuda'"):
        untrained_model(system, seed=1).on("cuda")


def test_a_model_on_its_own_device_is_the_same():
    model = untrained_model(load_system("bonded_chain"), seed=1, latent_size=2)
    labels, latents = np.array([[0.3]]), np.array([[0.1, 0.2, 0.0]])
    here, there = (one.reference_parameters(labels, latents) for one in (model, model.on("cpu")))
    assert np.array_equal(here.centres, there.centres) and np.array_equal(here.widths, there.widths)


def test_a_parameter_with_the_name_of_one_of_the_integrator_is_named():
    system = openmm.System()
    system.addParticle(1.0)
    force = openmm.CustomExternalForce("k*x^2")
    force.addGlobalParameter("k", 1.0)
    force.addParticle(0, [])
    system.addForce(force)
    integrator = openmm.CustomIntegrator(0.001)
    integrator.addGlobalVariable("k", 0.0)
    with pytest.raises(InputError, match="a force has a parameter k, which is the integrator's name: rename it"):
        platforms.make_context(system, integrator, "Reference", 1)


def test_dynamics_that_fail_in_openmm_are_bad_input():
    message = r"the window failed \(Particle coordinate is NaN\): give a shorter time step"
    with pytest.raises(InputError, match=message), platforms.named_failures("the window"):
        raise openmm.OpenMMException("Particle coordinate is NaN.  For more information, see ...")
