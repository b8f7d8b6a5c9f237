"""Structures and Systems at the edges of numbers: lines, clashes, seams, many atoms, single precision, no mass."""

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_gancl.coordinates.slow_coordinates import Torsions
from openmm_gancl.errors import InputError
from openmm_gancl.lifting.evaluation import evaluate
from openmm_gancl.lifting.loop import learn
from openmm_gancl.reference.chart import chart_for
from openmm_gancl.sampling.stability import check_dynamics
from openmm_gancl.sampling.windows import sample_windows
from openmm_gancl.system.library import load_system
from openmm_gancl.system.molecular_system import system_from_objects
from openmm_gancl.units import GAS_CONSTANT
from tests import strangers

ANGLE, BOND, BARRIER = 1.95, 0.153, 6.0
KT = 300.0 * GAS_CONSTANT


def placed(n, angles, dihedral):
    """A chain of atoms with these bond angles, all torsions alike; shape=(n, 3)."""
    x = [np.zeros(3), np.array([BOND, 0.0, 0.0])]
    x.append(x[1] + BOND * np.array([-np.cos(angles[0]), np.sin(angles[0]), 0.0]))
    for angle in angles[1:]:
        along = (x[-1] - x[-2]) / np.linalg.norm(x[-1] - x[-2])
        normal = np.cross(x[-2] - x[-3], along)
        normal /= np.linalg.norm(normal)
        side = np.cross(normal, along)
        turned = np.cos(dihedral) * side + np.sin(dihedral) * normal
        x.append(x[-1] + BOND * (-np.cos(angle) * along + np.sin(angle) * turned))
    return np.array(x[:n])


def chain(n=4, last_angle=ANGLE, dihedral=1.0, masses=None, more=(), dtype=float, positions=None):
    """Bonds, angles and one torsion whose minimum is at pi: its free energy is its potential, exactly."""
    system, topology, masses = openmm.System(), app.Topology(), [14.0] * n if masses is None else masses
    residue = topology.addResidue("A", topology.addChain())
    atoms = [topology.addAtom(f"C{i}", app.element.carbon, residue) for i in range(n)]
    bonds, bends, turns = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    angles = [ANGLE] * (n - 3) + [last_angle]
    for i in range(n):
        system.addParticle(masses[i])
    for i in range(n - 1):
        topology.addBond(atoms[i], atoms[i + 1])
        bonds.addBond(i, i + 1, BOND, 2e5)
    for i in range(n - 2):
        bends.addAngle(i, i + 1, i + 2, angles[i], 500.0)
    turns.addTorsion(0, 1, 2, 3, 1, 0.0, BARRIER)
    for force in (bonds, bends, turns, *more):
        system.addForce(force)
    if positions is None:
        positions = placed(n, angles, dihedral)
    slow = Torsions(names=("t",), atoms=[[0, 1, 2, 3]])
    return system_from_objects(topology, system, positions.astype(dtype), temperature=300.0, slow=slow, wide=())


@pytest.fixture(scope="module")
def learned():
    return learn(chain(), seed=1, max_evaluations=9500)


@pytest.mark.parametrize("off", [1e-2, 3e-3])
def test_a_nearly_linear_angle_keeps_its_torsion(off):
    system = chain(last_angle=np.pi - off, dihedral=2.0)
    chart = chart_for(system.topology, system.slow, system.positions, system.constraints)
    coordinates = chart.to_internal(system.positions[None])
    assert chart.inside(coordinates).all()
    again = chart.to_internal(chart.to_cartesian(coordinates))
    np.testing.assert_allclose(again, coordinates, atol=1e-9)
    np.testing.assert_allclose(system.slow.transform(system.positions[None]), 2.0, atol=1e-9)
    assert np.isfinite(chart.log_jacobian(coordinates)).all()


def test_a_torsion_of_atoms_in_a_line_is_no_label():
    with pytest.raises(InputError, match=r"label t has three atoms in a line .*\(0, 1, 2, 3\).*label another one"):
        chain(last_angle=np.pi - 1e-5)


def repelling():
    force = openmm.NonbondedForce()
    for _ in range(4):
        force.addParticle(0.0, 0.3, 0.5)
    return force


def test_coincident_atoms_are_named():
    positions = placed(4, [ANGLE, ANGLE], 1.0)
    check_dynamics(chain(more=[repelling()], positions=positions))
    positions[3] = positions[0]
    with pytest.raises(InputError, match=r"forces at the structure are not finite \(atoms 0 and 3 are 0 nm apart\)"):
        check_dynamics(chain(more=[repelling()], positions=positions))


def test_five_hundred_atoms():
    """Their chart is as exact as that of four, and nothing overflows."""
    system = chain(500, dihedral=np.pi - 0.3)
    chart = chart_for(system.topology, system.slow, system.positions, system.constraints)
    coordinates = chart.to_internal(system.positions[None])
    again = chart.to_cartesian(coordinates)
    ends = [np.linalg.norm(x[0, -1] - x[0, 0]) for x in (again, system.positions[None])]
    assert chart.n_coordinates == 3 * 500 - 6 and ends[0] == pytest.approx(ends[1], abs=1e-7)
    assert np.isfinite(chart.log_jacobian(coordinates)).all()
    check_dynamics(system)


def test_a_basin_on_the_seam_is_whole(learned):
    """The only basin lies about pi: F = 6 cos(t) + const, in kJ/mol, exactly."""
    (centres,), energy = learned.surface.centres, learned.surface.energy
    difference = energy - BARRIER * np.cos(centres)
    assert np.isfinite(energy).all() and learned.surface.median_error < 0.05 * KT
    assert np.abs(difference - difference.mean()).max() < 0.02 * KT
    assert energy[0] == pytest.approx(energy[-1], abs=0.02 * KT)
    density = learned.regression.log_density(np.array([[np.pi], [-np.pi]]))
    assert density[0] == pytest.approx(density[1], abs=1e-9)


def test_single_precision_is_taken_as_numbers(learned):
    """Positions of a trajectory, say: energies to the precision that they have."""
    system, single = chain(), chain(dtype=np.float32)
    xml = openmm.XmlSerializer.serialize(system.system)
    energies = [evaluate(xml, x[None], "Reference")[0] for x in (system.positions, single.positions)]
    assert single.positions.dtype == np.float64 and energies[0] == pytest.approx(energies[1], abs=1e-3)
    rng = np.random.default_rng(0)
    coordinates, log_density = learned.model.sample(np.zeros((50, 1)), rng)
    found = learned.model.log_density(coordinates.astype(np.float32))
    assert found == pytest.approx(log_density, abs=0.02) and found.dtype == np.float64


def test_a_massless_particle_stays_where_it_is():
    system = chain(masses=[14.0, 14.0, 14.0, 0.0])
    frames = sample_windows(
        system,
        n_windows=2,
        steps_per_window=50,
        frames_per_window=5,
        equilibration_steps=10,
        seed=1,
        platform="Reference",
        starts="pulling",
    )
    assert len(frames) == 10 and np.abs(frames.positions[:, :3] - system.positions[:3]).max() > 1e-3
    np.testing.assert_array_equal(frames.positions[:, 3], np.broadcast_to(system.positions[3], (10, 3)))
    with pytest.raises(InputError, match="1 particles have no mass"):
        learn(system, seed=1, max_evaluations=9500)


def test_barostats_and_removers_of_motion_are_no_part_of_the_target(tmp_path):
    forces = [openmm.CMMotionRemover(1), openmm.AndersenThermostat(300.0, 1.0), openmm.MonteCarloBarostat(1.0, 300.0)]
    plain, system = chain(), chain(more=forces)
    assert system.force_field_hash == plain.force_field_hash
    text = strangers.butane_system(openmm.CMMotionRemover(1), openmm.AndersenThermostat(300.0, 1.0))
    assert "CMMotionRemover" in text
    system = load_system(strangers.write(strangers.of_system(text), tmp_path / "theirs"))
    assert [type(force).__name__ for force in system.system.getForces()] == ["HarmonicBondForce"]
