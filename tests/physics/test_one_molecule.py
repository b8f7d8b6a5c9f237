"""A molecule beside others that move: its exact distribution with them, and what plants a fault in it.

The bonded chain with a partner that two springs of no length hold to its ends, ``k/2 (|x - a|^2 + |x - b|^2)``: over
the partner the weight of a chain is ``exp(-beta k d^2 / 4)``, d its ends' distance, and given the chain the partner is
normal about the middle of its ends, with the variance kT/2k an axis. Between attempts the partner is drawn so, and the
chain is turned and shifted as a whole together with it.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_gancl import InputError, LiftMove, ParticleCoordinates, Torsions, load_system, structures_at
from openmm_gancl.engine.platforms import PotentialEnergy
from openmm_gancl.moves import lift_move, simulation_energy
from openmm_gancl.moves.inverted import INDEPENDENT
from openmm_gancl.system import card_of_simulation
from openmm_gancl.system.one_molecule import AmongOthers, OneMolecule, placed_like
from openmm_gancl.units import masses_of, numbers

from .exact import CHAIN, KT
from .statistics import z_limit
from .toy_generators import generator, system_and_chart

SPRING, N_BLOCKS = 250.0, 25
"""kJ/mol/nm^2; blocks of attempts, of error bars."""

PARTNER, FIRST, N_SCORES = 0, 1, 7
"""The partner, the chain's first atom; a particle without a mass, which nothing acts on, is the last."""

REJECTED = 5.0


def beside_a_partner(integrator=None):
    """A script's own Simulation: partner, chain, and a particle that is held in space."""
    chain, topology = system_and_chart(CHAIN.name)[0], app.Topology()
    for name in ("PAR", *(residue.name for residue in chain.topology.residues()), "FIX"):
        residue = topology.addResidue(name, topology.addChain())
        if name in ("PAR", "FIX"):
            topology.addAtom("X", None, residue)
            continue
        residue.id = next(chain.topology.residues()).id
        atoms = [topology.addAtom(atom.name, atom.element, residue) for atom in chain.topology.atoms()]
        for one, other in chain.topology.bonds():
            topology.addBond(atoms[one.index], atoms[other.index])
    system = openmm.System()
    for mass in (23.0, *chain.masses, 0.0):
        system.addParticle(mass)
    for force in (chain.system.getForce(i) for i in range(chain.system.getNumForces())):
        system.addForce(shifted(force))
    springs = openmm.CustomBondForce("0.5*k*r^2")
    springs.addGlobalParameter("k", SPRING)
    for end in (FIRST, FIRST + 3):
        springs.addBond(PARTNER, end, [])
    system.addForce(springs)
    integrator = integrator or openmm.LangevinMiddleIntegrator(300, 5.0, 0.002)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    middle = chain.positions[[0, 3]].mean(axis=0)
    simulation.context.setPositions(np.vstack([middle, chain.positions, [1.0, 2.0, 3.0]]))
    simulation.context.setVelocitiesToTemperature(300, 7)
    return simulation


def shifted(force):
    """A force of the chain with its atoms one farther on."""
    found = openmm.XmlSerializer.clone(force)
    for kind, n in (("Bond", 2), ("Angle", 3), ("Torsion", 4)):
        if hasattr(found, f"getNum{kind}s"):
            for i in range(getattr(found, f"getNum{kind}s")()):
                row = getattr(found, f"get{kind}Parameters")(i)
                atoms = [atom + FIRST for atom in row[:n]]
                getattr(found, f"set{kind}Parameters")(i, *atoms, *row[n:])
    return found


def places(simulation):
    return np.array(simulation.context.getState(positions=True).getPositions(asNumpy=True)._value)


def features(positions):
    """Of the chain and its partner, shape=(n, N_SCORES)."""
    chain = positions[:, FIRST : FIRST + 5]
    phi = system_and_chart(CHAIN.name)[1].to_internal(chain)[:, -2:][:, 0]
    ends = chain[:, [0, 3]]
    off = positions[:, PARTNER] - ends.mean(axis=1)
    along = ends[:, 1] - ends[:, 0]
    cosine = (off * along).sum(axis=1) / np.linalg.norm(along, axis=1)
    squares = [np.square(off).sum(axis=1), cosine, np.square(positions[:, PARTNER] - chain[:, 4]).sum(axis=1)]
    return np.stack([np.cos(phi), np.sin(phi), np.cos(2 * phi), np.square(along).sum(axis=1), *squares], axis=1)


@cache
def exact(n=60_000):
    """Features by quadrature's draws of the chain alone and the partner's normal, with weights; mean and error."""
    rng, chart = np.random.default_rng(3), system_and_chart(CHAIN.name)[1]
    chain = CHAIN.sample(n, rng, chart=chart)
    partner = chain[:, [0, 3]].mean(axis=1) + np.sqrt(KT / (2 * SPRING)) * rng.standard_normal((n, 3))
    found = features(np.concatenate([partner[:, None], chain], axis=1))
    weights = np.exp(-0.25 * SPRING * np.square(chain[:, 3] - chain[:, 0]).sum(axis=1) / KT)
    weights /= weights.sum()
    mean = weights @ found
    return mean, np.sqrt(np.square(weights[:, None] * (found - mean)).sum(axis=0))


def partner_drawn(positions, rng):
    """The partner given the chain, and a rigid motion of both."""
    found, n = positions.copy(), len(positions) - 1
    ends = positions[[FIRST, FIRST + 3]]
    found[PARTNER] = ends.mean(axis=0) + np.sqrt(KT / (2 * SPRING)) * rng.standard_normal(3)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    found[:n] = found[:n] @ (turn * np.linalg.det(turn)) + 0.3 * rng.normal(size=3)
    return found


def move_of(simulation, **options):
    return LiftMove(simulation, generator(CHAIN.name, "trained"), moves=INDEPENDENT, seed=5, **options)


def scores(n):
    """z of the features over a chain of n attempts."""
    simulation, rng, found = beside_a_partner(), np.random.default_rng(9), []
    move = move_of(simulation)
    for _ in range(n):
        simulation.context.setPositions(partner_drawn(places(simulation), rng))
        move.attempt()
        found.append(places(simulation))
    blocks = features(np.array(found)).reshape(N_BLOCKS, -1, N_SCORES).mean(axis=1)
    mean, error = exact()
    return (blocks.mean(axis=0) - mean) / np.hypot(blocks.std(axis=0, ddof=1) / N_BLOCKS**0.5, error)


def test_the_joint_distribution_stays_exact():
    z = scores(750)
    assert np.abs(z).max() < z_limit(N_SCORES), z


class PartnerOfTheStart(lift_move.SimulationEnergy):
    """The fault: energies with the partner where it was at first."""

    def whole(self, positions):
        found = super().whole(positions)
        self.first = getattr(self, "first", found[PARTNER].copy())
        found[PARTNER] = self.first
        return found


class PlaceOfTheStart(AmongOthers):
    """The fault: a lift is put where the molecule was at first, without a weight."""

    first = None

    def placed(self, positions, everything):
        PlaceOfTheStart.first = everything.copy() if self.first is None else self.first
        found = everything.copy()
        found[self.atoms] = placed_like(positions, self.first[self.atoms], self.masses)
        return found


class FirstAtomKept(AmongOthers):
    """No fault: any body-fixed frame will do, that of the first three atoms too."""

    def placed(self, positions, everything):
        found, there = everything.copy(), everything[self.atoms]
        found[self.atoms] = (positions - positions[0]) @ frame(positions) @ frame(there).T + there[0]
        return found


def frame(positions):
    """Columns are the axes of the first three atoms, shape=(3, 3)."""
    along, beside = positions[1] - positions[0], positions[2] - positions[1]
    normal = np.cross(along, beside)
    axes = [along, normal, np.cross(along, normal)]
    return np.stack([axis / np.linalg.norm(axis) for axis in axes], axis=1)


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [(lift_move, "SimulationEnergy", PartnerOfTheStart), (simulation_energy, "AmongOthers", PlaceOfTheStart)],
)
def test_a_stale_partner_or_another_place_shows(monkeypatch, where, name, fault):
    monkeypatch.setattr(where, name, fault)
    z = scores(250)
    assert np.abs(z).max() > REJECTED, z


def test_any_frame_of_the_molecule_will_do(monkeypatch):
    monkeypatch.setattr(simulation_energy, "AmongOthers", FirstAtomKept)
    z = scores(400)
    assert np.abs(z).max() < z_limit(N_SCORES), z


def test_energies_beside_others_have_their_forces_and_no_place():
    simulation, rng = beside_a_partner(), np.random.default_rng(2)
    one = OneMolecule.of(simulation.topology, simulation.system, places(simulation), FIRST + 2)
    assert one.atoms.tolist() == [1, 2, 3, 4, 5] and one.topology.getNumBonds() == 4
    context = openmm.Context(one.system, openmm.VerletIntegrator(0.001))
    bent = one.positions + 0.03 * rng.standard_normal(one.positions.shape)

    def at(positions):
        context.setPositions(positions)
        state = context.getState(energy=True, forces=True)
        return state.getPotentialEnergy()._value, np.array(state.getForces(asNumpy=True)._value)

    energy, forces = at(bent)
    step = 1e-5
    slopes = np.zeros_like(bent)
    for index in np.ndindex(bent.shape):
        moved = np.zeros_like(bent)
        moved[index] = step
        slopes[index] = (at(bent + moved)[0] - at(bent - moved)[0]) / (2 * step)
    assert np.abs(forces + slopes).max() < 1e-4 * np.abs(forces).max()
    assert np.abs(forces.sum(axis=0)).max() < 1e-8 and np.abs(np.cross(bent, forces).sum(axis=0)).max() < 1e-8
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned = bent @ (turn * np.linalg.det(turn)) + [0.3, -2.0, 5.0]
    assert abs(at(turned)[0] - energy) < 1e-8
    # in its own place it has the energy of all
    simulation.context.setPositions(places(simulation))
    assert abs(at(one.positions)[0] - simulation.context.getState(energy=True).getPotentialEnergy()._value) < 1e-8


def whole_step(simulation):
    """Velocities of a whole step, and masses; zero of what has none."""
    state = simulation.context.getState(velocities=True, forces=True)
    velocities, forces = (numbers(one) for one in (state.getVelocities(True), state.getForces(True)))
    masses = masses_of(simulation.system)[:, None]
    half = 0.5 * simulation.integrator.getStepSize()._value
    return velocities + np.where(masses > 0, half * forces / np.where(masses > 0, masses, 1.0), 0.0), masses


def test_others_keep_their_velocities_and_the_molecule_its_momentum():
    simulation = beside_a_partner()
    move, accepted = move_of(simulation), 0
    for _ in range(12):
        simulation.step(5)
        (before, masses), there = whole_step(simulation), places(simulation)
        record = move.attempt()
        after, accepted = whole_step(simulation)[0], accepted + record.accepted
        assert np.abs(after - before)[[0, 6]].max() < 1e-9
        assert np.abs((masses * (after - before))[FIRST : FIRST + 5].sum(axis=0)).max() < 1e-3
        assert record.accepted == (np.abs(after - before).max() > 0.1)
        assert (places(simulation)[[0, 6]] == there[[0, 6]]).all()
        assert record.force_evaluations == 2 + 3 * record.accepted
    assert accepted > 2


def test_masses_of_the_molecule_are_its_own():
    """Those of others may change, for only the molecule's velocities are drawn."""
    simulation = beside_a_partner()
    move = move_of(simulation)
    simulation.system.setParticleMass(PARTNER, 40.0)
    simulation.context.reinitialize(preserveState=True)
    move.run(2)
    simulation.system.setParticleMass(FIRST, 40.0)
    simulation.context.reinitialize(preserveState=True)
    with pytest.raises(InputError, match="masses or constraints have changed"):
        move.run(1)


@pytest.mark.slow
def test_with_dynamics_between_attempts():
    """The joint distribution, and the temperature of each atom, whose centre of mass is held at rest."""
    simulation = beside_a_partner(openmm.LangevinMiddleIntegrator(300, 20.0, 0.002))
    simulation.system.addForce(openmm.CMMotionRemover(1))
    simulation.context.reinitialize(preserveState=True)
    move, found, kinetic = move_of(simulation), [], []
    masses = masses_of(simulation.system)[:6]
    for _ in range(10_000):
        simulation.step(10)
        velocities = numbers(simulation.context.getState(velocities=True).getVelocities(True))[:6]
        kinetic.append((masses[:, None] * velocities**2).mean(axis=1) / KT)
        move.attempt()
        found.append(places(simulation))
    blocks = features(np.array(found)).reshape(N_BLOCKS, -1, N_SCORES).mean(axis=1)
    mean, error = exact()
    z = (blocks.mean(axis=0) - mean) / np.hypot(blocks.std(axis=0, ddof=1) / N_BLOCKS**0.5, error)
    assert np.abs(z).max() < z_limit(N_SCORES), z
    ratios = np.array(kinetic).reshape(N_BLOCKS, -1, 6).mean(axis=1) / (1 - masses / masses.sum())
    errors = ratios.std(axis=0, ddof=1) / N_BLOCKS**0.5
    assert errors.max() < 0.025 and np.abs((ratios.mean(axis=0) - 1) / errors).max() < z_limit(6), (ratios, errors)


def of_two_chains(simulation):
    """The same molecule once more, far away."""
    modeller = app.Modeller(simulation.topology, places(simulation))
    chain = list(modeller.topology.residues())[1]
    modeller.delete([residue for residue in modeller.topology.residues() if residue is not chain])
    topology = app.Modeller(simulation.topology, places(simulation))
    topology.add(modeller.topology, modeller.positions)
    system = openmm.XmlSerializer.clone(simulation.system)
    for i in range(FIRST, FIRST + 5):
        system.addParticle(system.getParticleMass(i))
    found = app.Simulation(topology.topology, system, openmm.LangevinMiddleIntegrator(300, 1, 0.002))
    found.context.setPositions(np.vstack([places(simulation), places(simulation)[FIRST : FIRST + 5] + 3.0]))
    return found


def bonded_across(simulation):
    force = openmm.HarmonicBondForce()
    force.addBond(PARTNER, FIRST, 0.2, 1000.0)
    simulation.system.addForce(force)
    simulation.context.reinitialize(preserveState=True)
    return simulation


def with_constraint(simulation):
    simulation.system.addConstraint(PARTNER, FIRST, 0.15)
    simulation.context.reinitialize(preserveState=True)
    return simulation


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (bonded_across, {}, "atoms 0 and 1 are bonded across"),
        (with_constraint, {}, "atoms 0 and 1 are bonded across"),
        (of_two_chains, {}, r"2 molecules have the model's residue and atom names \(their first atoms: 1, 7\)"),
        (lambda simulation: simulation, {"molecule": 99}, "`molecule` is 99, and the Topology has atoms 0 to 6"),
        (lambda simulation: simulation, {"molecule": PARTNER}, "the model has 5 atoms"),
        (lambda simulation: simulation, {"acceptance": "metropolis"}, "metropolis"),
    ],
)
def test_what_is_no_molecule_of_its_own_is_refused(change, options, message):
    with pytest.raises(InputError, match=message):
        move_of(change(beside_a_partner()), **options)


def test_of_two_alike_the_one_that_is_named_moves():
    simulation = of_two_chains(beside_a_partner())
    before = places(simulation)
    move_of(simulation, molecule=9).run(8)
    moved = np.flatnonzero((places(simulation) != before).any(axis=1))
    assert moved.tolist() == [7, 8, 9, 10, 11]


def test_structures_are_of_one_molecule():
    """Of two alike one is to be named; atoms of a model are not gathered by their names from two."""
    simulation = of_two_chains(beside_a_partner())
    model, how = generator(CHAIN.name, "trained"), {"equilibration_steps": 10, "platform": "Reference", "seed": 1}
    with pytest.raises(InputError, match=r"2 molecules have the model's residue .*molecule= one of these"):
        structures_at(simulation, model, [0.5], **how)
    found = structures_at(simulation, model, [0.5], molecule=9, **how)
    assert abs(found.cv_values[0, 0] - 0.5) < 0.6


def test_labels_of_another_molecule_are_refused():
    simulation = beside_a_partner()
    one = OneMolecule.of(simulation.topology, simulation.system, places(simulation), FIRST)
    phi = Torsions(("phi",), np.array([[1, 2, 3, 4]]))
    assert one.labels(phi).atoms.tolist() == [[0, 1, 2, 3]]
    with pytest.raises(InputError, match="label phi names atom 0 of another molecule"):
        one.labels(replace(phi, atoms=np.array([[0, 2, 3, 4]])))
    with pytest.raises(InputError, match="beside other molecules labels must be torsions"):
        one.labels(ParticleCoordinates(("x",), [[0, 0]], [[-1.0, 1.0]]))


def test_a_card_names_the_molecule(tmp_path):
    """Of a Simulation, written and read again: no code in the files, the same energies, labels by its own numbers."""
    simulation = beside_a_partner()
    slow = Torsions(("phi",), np.array([[1, 2, 3, 4]]))
    made = card_of_simulation(simulation, slow, force_constants=50.0)
    made.write(tmp_path / "system")
    found = load_system(tmp_path / "system")
    assert found.card["molecule"] == 1 and found.n_atoms == 5 and found.slow.atoms.tolist() == [[0, 1, 2, 3]]
    assert "PythonForce" not in (tmp_path / "system" / "system.xml").read_text()
    assert found.force_field_hash == made.system.force_field_hash
    bent = found.positions + 0.02 * np.random.default_rng(1).standard_normal((5, 3))
    energies = [PotentialEnergy(one.system, "Reference")(bent) for one in (found, made.system)]
    assert energies[0] == energies[1]
    card = tmp_path / "system" / "card.toml"
    card.write_text(card.read_text().replace("molecule = 1", "molecule = 0"))
    with pytest.raises(InputError, match="label phi names atom 1 of another molecule"):
        load_system(card)
