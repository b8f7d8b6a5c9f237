"""Packed copies: the forces of one, refusals in a sentence, and copies that fail alone."""

from dataclasses import replace

import numpy as np
import openmm
import pytest

from openmm_gancl import InputError, Lifter, ModuleCoordinates, load_system
from openmm_gancl.coordinates.features import Distances, Features, SineCosine
from openmm_gancl.coordinates.label_modules import WithTorsions
from openmm_gancl.coordinates.torch_modules import features_module
from openmm_gancl.engine.packing import CopyLattice, copies_in_a_context, pack_system, why_not_packed
from openmm_gancl.generator import untrained_model
from openmm_gancl.lifting.packed_relaxation import _packed_paths, copies_of_lifts, relax_packed, why_not_packed_lifts
from openmm_gancl.lifting.relaxation import TASK_SIZE, relax

N_ATOMS, COPIES = 6, 3
PLATFORMS = ("Reference", "CPU")


def bonds():
    force = openmm.HarmonicBondForce()
    for i in range(N_ATOMS - 1):
        force.addBond(i, i + 1, 0.15, 1e4 + i)
    return force


def angles():
    force = openmm.HarmonicAngleForce()
    for i in range(N_ATOMS - 2):
        force.addAngle(i, i + 1, i + 2, 1.9, 300.0 + i)
    return force


def torsions():
    force = openmm.PeriodicTorsionForce()
    for i in range(N_ATOMS - 3):
        force.addTorsion(i, i + 1, i + 2, i + 3, i + 1, 0.3, 20.0)
    return force


def ryckaert_bellemans():
    force = openmm.RBTorsionForce()
    force.addTorsion(0, 1, 2, 3, 1.0, 2.0, -3.0, 4.0, 0.5, -0.2)
    force.addTorsion(2, 3, 4, 5, 2.0, 1.0, 1.0, -2.0, 0.1, 0.3)
    return force


def correction_map():
    force = openmm.CMAPTorsionForce()
    for seed in range(2):
        force.addMap(8, np.random.default_rng(seed).normal(size=64).tolist())
    force.addTorsion(1, 0, 1, 2, 3, 1, 2, 3, 4)
    force.addTorsion(0, 1, 2, 3, 4, 2, 3, 4, 5)
    return force


def custom_bonds():
    force = openmm.CustomBondForce("depth*k*(r-r0)^4")
    force.addPerBondParameter("k")
    force.addPerBondParameter("r0")
    force.addGlobalParameter("depth", 1.5)
    force.addEnergyParameterDerivative("depth")
    force.addBond(0, 3, [1e4, 0.3])
    force.addBond(1, 5, [2e4, 0.5])
    return force


def custom_angles():
    force = openmm.CustomAngleForce("k*cos(theta)")
    force.addPerAngleParameter("k")
    force.addAngle(0, 2, 4, [30.0])
    force.addAngle(1, 3, 5, [40.0])
    return force


def custom_torsions():
    force = openmm.CustomTorsionForce("k*cos(theta-0.4)^2")
    force.addPerTorsionParameter("k")
    force.addTorsion(0, 1, 2, 3, [30.0])
    force.addTorsion(1, 2, 3, 5, [20.0])
    return force


def field():
    force = openmm.CustomExternalForce("k*(x^2+0.5*y^2+z^4)")
    force.addPerParticleParameter("k")
    for i in (1, 4):
        force.addParticle(i, [100.0 + i])
    return force


def nonbonded():
    """Excluded and scaled pairs, one particle without charge, one without a Lennard-Jones well."""
    force = openmm.NonbondedForce()
    for i in range(N_ATOMS):
        force.addParticle(0.0 if i == 2 else 0.3 * (-1) ** i, 0.3 + 0.01 * i, 0.0 if i == 4 else 0.4 + 0.02 * i)
    force.addException(0, 1, 0.0, 1.0, 0.0)
    force.addException(3, 2, 0.0, 1.0, 0.0)
    force.addException(5, 0, 0.05, 0.25, 0.2)
    return force


def born():
    force = openmm.GBSAOBCForce()
    for i in range(N_ATOMS):
        force.addParticle(0.3 * (-1) ** i, 0.15 + 0.01 * i, 0.8)
    return force


KINDS = [
    *(bonds, angles, torsions, ryckaert_bellemans, correction_map),
    *(custom_bonds, custom_angles, custom_torsions, field, nonbonded, born),
]


def system_of(*forces):
    system = openmm.System()
    for i in range(N_ATOMS):
        system.addParticle(12.0 + i)
    for group, force in enumerate(forces):
        force.setForceGroup(group + 3)
        system.addForce(force)
    return system


def configurations():
    """Chains like no other, shape=(COPIES, N_ATOMS, 3), nm."""
    rng = np.random.default_rng(5)
    line = np.cumsum(np.full((N_ATOMS, 3), 0.15) * [[1, 0.5, 0]] + rng.normal(scale=0.05, size=(N_ATOMS, 3)), axis=0)
    return line - line.mean(axis=0) + rng.normal(scale=0.02, size=(COPIES, N_ATOMS, 3))


def evaluate(system, positions, platform, groups=-1):
    chosen = openmm.Platform.getPlatformByName(platform)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), chosen)
    context.setPositions(positions.reshape(-1, 3))
    state = context.getState(energy=True, forces=True, parameterDerivatives=True, groups=groups)
    derivatives = sum(dict(state.getEnergyParameterDerivatives()).values())
    return state.getForces(asNumpy=True)._value, state.getPotentialEnergy()._value, derivatives


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_packed_forces_are_those_of_one_copy(make):
    """On the Reference platform; elsewhere generalised Born and lone NonbondedForces are in single precision."""
    system, positions = system_of(make()), configurations()
    cells = CopyLattice(reach=2.0, separate=make is born)
    packed = pack_system(system, COPIES, cells)
    placed = positions + cells.centres(COPIES)[:, None]
    forces, energy, derivative = evaluate(packed, placed, "Reference", groups={3})
    alone = [evaluate(system, one, "Reference") for one in positions]
    expected = np.concatenate([part[0] for part in alone])
    assert np.abs(expected).max() > 1.0
    np.testing.assert_allclose(forces, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    if make is not born:  # whose cutoff shifts its energy
        assert energy == pytest.approx(sum(part[1] for part in alone), rel=1e-9)
    assert derivative == pytest.approx(sum(part[2] for part in alone), rel=1e-9)


def test_packing_leaves_the_system_as_it_was():
    system = system_of(*(make() for make in KINDS if make is not field))
    before = openmm.XmlSerializer.serialize(system)
    packed = pack_system(system, COPIES)
    assert openmm.XmlSerializer.serialize(system) == before
    assert packed.getNumParticles() == COPIES * N_ATOMS
    assert [force.getForceGroup() for force in packed.getForces()] == [
        force.getForceGroup() for force in system.getForces()
    ]


def with_cutoff(force, method):
    force.setNonbondedMethod(method)
    return force


def with_offsets():
    force = nonbonded()
    force.addGlobalParameter("charging", 1.0)
    force.addParticleParameterOffset("charging", 0, 0.1, 0.0, 0.0)
    return force


REFUSED = {
    "CustomNonbondedForce": lambda: [openmm.CustomNonbondedForce("r")],
    "CustomGBForce": lambda: [openmm.CustomGBForce()],
    "CustomCVForce": lambda: [openmm.CustomCVForce("0")],
    "CMMotionRemover": lambda: [openmm.CMMotionRemover()],
    "NonbondedForce with a cutoff": lambda: [with_cutoff(nonbonded(), openmm.NonbondedForce.CutoffNonPeriodic)],
    "NonbondedForce with parameter offsets": lambda: [with_offsets()],
    "GBSAOBCForce with a cutoff": lambda: [with_cutoff(born(), openmm.GBSAOBCForce.CutoffNonPeriodic)],
    "is periodic": lambda: [with_cutoff(nonbonded(), openmm.NonbondedForce.PME)],
    "CustomExternalForce and a GBSAOBCForce": lambda: [field(), born()],
}


@pytest.mark.parametrize("words", list(REFUSED))
def test_what_cannot_be_packed_is_refused_by_name_with_the_remedy(words):
    system = system_of(*REFUSED[words]())
    with pytest.raises(InputError, match=f"{words}.*: use packed=1$"):
        pack_system(system, 2)


def test_virtual_sites_and_constraints_are_refused():
    constrained = system_of(bonds())
    constrained.addConstraint(0, 1, 0.1)
    assert "1 constraints" in why_not_packed(constrained)
    virtual = system_of()
    virtual.setVirtualSite(5, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    assert "virtual sites" in why_not_packed(virtual)


def test_labels_that_cannot_be_packed_are_refused():
    learned = ModuleCoordinates(("u",), np.array([np.inf]), np.array([[-1.0, 1.0]]), b"")
    assert why_not_packed_lifts(system_of(bonds()), learned) == ""
    for slow in (learned, load_system("double_well_oscillators").slow):
        assert "moved apart" in why_not_packed_lifts(system_of(born()), slow)


def test_a_restraint_of_learned_labels_is_shared_by_a_tasks_lifts():
    learned = ModuleCoordinates(("u",), np.array([np.inf]), np.array([[-1.0, 1.0]]), b"")
    free, restrained, bonded = np.zeros(1), np.ones(1), system_of(bonds())
    assert copies_of_lifts("auto", bonded, learned, restrained, "Reference") == TASK_SIZE
    assert copies_of_lifts("auto", bonded, learned, free, "Reference") == 1
    assert copies_of_lifts(1, bonded, learned, restrained, "Reference") == 1
    assert copies_of_lifts("auto", system_of(born()), learned, restrained, "Reference") == 1
    assert copies_of_lifts("auto", bonded, load_system("bonded_chain").slow, restrained, "Reference") == 1
    assert copies_of_lifts(4096, bonded, learned, free, "CUDA") == 4096
    with pytest.raises(InputError, match="at most 256"):
        copies_of_lifts(4096, bonded, learned, restrained, "CUDA")


def test_how_many_copies_share_a_context():
    assert [copies_in_a_context("auto", "", platform, 22) for platform in ("Reference", "CPU", "CUDA")] == [1, 1, 4096]
    assert [copies_in_a_context("auto", "", "CUDA", n_atoms) for n_atoms in (300, 5000)] == [22, 1]
    assert copies_in_a_context("auto", "a reason", "CUDA", 22) == 1
    assert copies_in_a_context(1, "a reason", "CUDA", 22) == 1
    with pytest.raises(InputError, match="a reason"):
        copies_in_a_context(2, "a reason", "CUDA", 22)
    with pytest.raises(InputError, match="0 copies"):
        copies_in_a_context(0, "", "CPU", 22)


def system_for(name):
    """A card's; ``learned``: the chain with its torsion, and the distance of its ends, from a torch module."""
    if name != "learned":
        return load_system(name)
    system = load_system("bonded_chain")
    torsion, distance = (
        features_module(Features((part,)))
        for part in (SineCosine(np.array([[0, 1, 2, 3]])), Distances(np.array([[0, 3]])))
    )
    names, periods, domain = ("phi", "distance"), [2 * np.pi, np.inf], [[-np.pi, np.pi], [0.0, 1.0]]
    slow = ModuleCoordinates.from_module(WithTorsions(torsion, distance), names=names, periods=periods, domain=domain)
    return replace(system, slow=slow, force_constants=np.array([20.0, 200.0]))


def chain_task(n=8, *, seed=4, name="bonded_chain", **options):
    system = system_for(name)
    model = untrained_model(system, seed=1, latent_size=2)
    lifter = Lifter(system, model, **{"relax_steps": 60, "platform": "Reference", **options})
    labels = np.full((n, len(system.slow.names)), 0.4)
    return lifter, labels, lifter._prepare(labels, None, np.random.default_rng(seed))[0]


@pytest.mark.parametrize("name", ["bonded_chain", "double_well_oscillators", "learned"])
@pytest.mark.parametrize("copies", [1, 3])
def test_packed_paths_are_the_paths_themselves(name, copies):
    """Without noise, of which each computation on the Reference platform draws its own; the guard changes no bit.

    The sums of a torch module over many copies may be in another order.
    """
    _, _, task = chain_task(name=name, friction=0.0)
    alone, packed = relax(task), relax_packed(task, copies=copies)
    kept = ~packed.failed
    assert kept.sum() > 4
    tolerance = 1e-9 if name == "learned" else 0.0
    np.testing.assert_allclose(packed.positions[kept], alone.positions[kept], rtol=0, atol=tolerance)
    np.testing.assert_allclose(packed.heat[kept], alone.heat[kept], atol=1e-12)
    np.testing.assert_allclose(packed.real_energies[kept], alone.real_energies[kept], rtol=max(tolerance, 1e-12))
    np.testing.assert_allclose(packed.kinetic_end[kept], alone.kinetic_end[kept], rtol=max(tolerance, 1e-12))


def clash(positions):
    positions[3, 1] = positions[3, 0]


def nan(positions):
    positions[3, 2] = np.nan


def far(positions):
    positions[3, 1] = 1e30


def overflow(positions):
    positions[3, 1] = np.inf


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("fault", [clash, nan, far, overflow], ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("name", ["bonded_chain", "learned"])
def test_a_copy_that_fails_changes_no_byte_of_the_others(name, fault, platform):
    _, _, task = chain_task(name=name, platform=platform, friction=2.0)
    whole = relax_packed(task)
    positions = task.positions.copy()
    fault(positions)
    broken = relax_packed(replace(task, positions=positions))
    others = np.arange(len(positions)) != 3
    assert broken.failed[3] and np.isnan(broken.positions[3]).all() and not whole.failed[3]
    for name in ("positions", "heat", "real_energies", "kinetic_end", "failed"):
        np.testing.assert_array_equal(getattr(broken, name)[others], getattr(whole, name)[others])


def test_paths_that_all_fail_or_cannot_run_are_all_counted():
    _, _, task = chain_task(n=3)
    assert relax_packed(replace(task, positions=np.full_like(task.positions, np.nan))).failed.all()
    idle = relax_packed(replace(task, runnable=np.zeros(3, dtype=bool)))
    assert not idle.failed.any() and np.isnan(idle.positions).all()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_noise_is_that_of_the_seed(platform):
    """All Contexts of the Reference platform share one generator, which the last one made has seeded."""
    _, _, task = chain_task(platform=platform)
    runs = [relax_packed(replace(task, seed=seed)).heat for seed in (5, 5, 6)]
    np.testing.assert_array_equal(runs[0], runs[1])
    kept = np.isfinite(runs[0]) & np.isfinite(runs[2])
    assert kept.any() and (runs[0][kept] != runs[2][kept]).all()


def test_generalised_born_copies_do_not_feel_each_other():
    """Packed weights are the unpacked ones to 1e-9; one that leaves its cell fails, and the others stay."""
    lifter, labels, task = chain_task(n=4, name="alanine_dipeptide_gbsa", friction=0.0)
    alone = lifter.lift(labels, seed=2)
    packed = Lifter(lifter.system, lifter.model, relax_steps=60, friction=0.0, platform="Reference", packed=4)
    np.testing.assert_allclose(packed.lift(labels, seed=2).log_weights, alone.log_weights, rtol=1e-9)
    whole = relax_packed(task)
    velocities, positions = task.velocities.copy(), task.positions.copy()
    velocities[1] += 100.0
    positions[2, 3] += 60.0
    left = relax_packed(replace(task, velocities=velocities, positions=positions))
    assert left.failed.tolist() == [False, True, True, False]
    np.testing.assert_array_equal(left.positions[[0, 3]], whole.positions[[0, 3]])


def test_packing_changes_neither_tasks_nor_progress_nor_workers():
    lifter, _, _ = chain_task(friction=0.0, relax_steps=5)
    labels = np.linspace(-2, 2, 100)[:, None]
    calls = {copies: [] for copies in (1, 16, 64)}
    runs = {}
    for copies, finished in calls.items():
        one = Lifter(
            lifter.system,
            lifter.model,
            relax_steps=5,
            platform="Reference",
            packed=copies,
            workers=2 if copies == 64 else 1,
        )
        runs[copies] = one.lift(labels, seed=3, progress=lambda finished=finished: finished.append(0))
        np.testing.assert_array_equal(runs[copies].task, np.arange(100) // 32)
        np.testing.assert_array_equal(runs[copies].latents, runs[1].latents)
        assert len(finished) == 4
    again = Lifter(lifter.system, lifter.model, relax_steps=5, platform="Reference", packed=64)
    np.testing.assert_array_equal(again.lift(labels, seed=3).log_weights, runs[64].log_weights)


def test_a_kept_system_is_of_its_own_paths_alone():
    """Each is what it is without packing, after another restraint, temperature, number, molecule or set of widths."""
    _, _, task = chain_task(friction=0.0)
    others = [
        chain_task(friction=0.0, force_constants=[70.0])[2],
        replace(task, protocol=replace(task.protocol, temperature=600.0)),
        chain_task(n=5, friction=0.0)[2],
        chain_task(name="double_well_oscillators", friction=0.0)[2],
        chain_task(seed=9, friction=0.0)[2],
        replace(task, seed=9),
    ]
    for other in [one for pair in zip([task] * len(others), others, strict=True) for one in pair]:
        packed = relax_packed(other)
        kept = ~packed.failed
        assert kept.sum() > 2
        np.testing.assert_array_equal(packed.positions[kept], relax(other).positions[kept])
    assert _packed_paths.cache_info().hits
