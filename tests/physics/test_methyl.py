"""Wells of a symmetric rotor: butane's heavy atoms with one methyl, whose energy is a sum over internal coordinates.

So is the log of the integral over all but the label, a product of one-dimensional ones. The z-score is within 3.5
sigma, a planted fault beyond 5.
"""

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_gancl.coordinates.slow_coordinates import Torsions
from openmm_gancl.generator.invertible import InvertibleGenerator
from openmm_gancl.generator.score_fit import fit_triangular
from openmm_gancl.generator.trained_for import system_metadata
from openmm_gancl.lifting.draws import draw
from openmm_gancl.reference.chart import chart_for
from openmm_gancl.reference.gradients import in_chart_frame, log_density_gradients
from openmm_gancl.sampling.short_windows import ShortWindows, sample_short_windows
from openmm_gancl.system.molecular_system import system_from_objects

from .exact import KT, log_integral
from .statistics import score

LIMIT, REJECTED = 3.5, 5.0
BOND, ANGLE, OFFSET = 200_000.0, 500.0, 300.0
"""kJ/mol/nm^2, kJ/mol and kJ/mol: of bonds, angles, and hydrogens about the first one."""

LABEL, ROTOR = 4.0, 6.0
"""kJ/mol: barriers of the label and, threefold, of the methyl."""

LENGTHS, BEND = {"C": 0.153, "H": 0.109}, 1.91
CIRCLE = np.linspace(-np.pi, np.pi, 4001)


def torsion_energy(angles, kind):
    """Of the label, of the methyl, or of a hydrogen about the first one, kJ/mol."""
    if kind == "label":
        return LABEL * (1 + np.cos(angles))
    if kind == "rotor":
        return ROTOR * (1 + np.cos(3 * angles))
    off = angles - (2 if kind == "second" else -2) * np.pi / 3
    return OFFSET * (1 - np.cos(off))


EXPRESSIONS = {
    "label": f"{LABEL}*(1+cos(theta))",
    "rotor": f"{ROTOR}*(1+cos(3*theta))",
    "second": f"{OFFSET}*(1-cos(theta-{2 * np.pi / 3!r}))",
    "third": f"{OFFSET}*(1-cos(theta+{2 * np.pi / 3!r}))",
}


def methyl():
    """The molecule and its chart, whose coordinates the energy is a sum over."""
    topology = app.Topology()
    residue = topology.addResidue("BUT", topology.addChain())
    carbon, hydrogen = (app.Element.getBySymbol(symbol) for symbol in "CH")
    atoms = [topology.addAtom(f"C{i + 1}", carbon, residue) for i in range(4)]
    atoms += [topology.addAtom(f"H{i + 1}", hydrogen, residue) for i in range(3)]
    for i, j in ((0, 1), (1, 2), (2, 3), (3, 4), (3, 5), (3, 6)):
        topology.addBond(atoms[i], atoms[j])
    slow = Torsions(("turn",), np.array([[0, 1, 2, 3]]))
    system = openmm.System()
    for atom in atoms:
        system.addParticle(atom.element.mass)
    heavy = [[0.0, 0.14, 0.0], [0.0, 0.0, 0.0], [0.15, 0.0, 0.0], [0.2, -0.14, 0.02]]
    positions = np.array([*heavy, [0.31, -0.14, 0.03], [0.16, -0.2, 0.1], [0.17, -0.19, -0.08]])
    chart = chart_for(topology, slow, positions)
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    torsions = {kind: openmm.CustomTorsionForce(expression) for kind, expression in EXPRESSIONS.items()}
    rows = [[int(i) for i in row if i >= 0] for row in chart.z_matrix.tolist()]
    for number, row in enumerate(rows):
        if number >= 1:
            length = LENGTHS["H" if max(row[:2]) > 3 else "C"]
            bonds.addBond(*row[:2], length, BOND)
        if number >= 2:
            angles.addAngle(*row[:3], BEND, ANGLE)
    for kind, row in zip(kinds_of(chart), chart.torsions.tolist(), strict=True):
        torsions[kind].addTorsion(*row, [])
    for force in (bonds, angles, *torsions.values()):
        system.addForce(force)
    made = system_from_objects(topology, system, positions, temperature=300.0, slow=slow, time_step=0.001)
    return made, chart


def kinds_of(chart):
    """What each torsion of the chart is."""
    kinds = []
    for i in range(chart.n_torsions):
        if chart.n_bonds + chart.n_angles + i in chart.label_indices:
            kinds.append("label")
        elif chart.torsion_folds[i] == 3:
            kinds.append("rotor")
        else:
            kinds.append("second" if "second" not in kinds else "third")
    return kinds


def log_others(chart):
    """Log of the integral over all coordinates but the label, in their measure."""
    lengths, bends = np.linspace(0.07, 0.2, 4001), np.linspace(0.5, 3.0, 4001)
    bend = log_integral(np.log(np.sin(bends)) - 0.5 * ANGLE * (bends - BEND) ** 2 / KT, bends)
    total = chart.n_angles * bend
    for kind, n in (("C", 3), ("H", 3)):
        total += n * log_integral(2 * np.log(lengths) - 0.5 * BOND * (lengths - LENGTHS[kind]) ** 2 / KT, lengths)
    for kind in ("rotor", "second", "third"):
        total += log_integral(-torsion_energy(CIRCLE, kind) / KT, CIRCLE)
    return total


@pytest.fixture(scope="module")
def drawn():
    """Draws at labels all over the circle, and log exp(-F) there."""
    system, chart = methyl()
    assert sorted(kinds_of(chart)) == ["label", "rotor", "second", "third"]
    frames = sample_short_windows(system, np.random.default_rng(1), ShortWindows(n=20))
    coordinates = chart.to_internal(frames.positions)
    forces = in_chart_frame(chart, frames.positions, frames.forces)
    gradients = log_density_gradients(chart, coordinates, forces, system.kT, system.constraints, system.masses)
    fitted = fit_triangular(chart, system.slow, coordinates, gradients)
    generator = InvertibleGenerator(fitted, chart, system.slow, system_metadata(system))
    labels = np.random.default_rng(2).uniform(-np.pi, np.pi, (4000, 1))
    found = draw(system, [generator], np.ones(1), labels, np.random.default_rng(3))
    return chart, found, log_others(chart) - torsion_energy(labels[:, 0], "label") / KT


def test_the_mean_weight_is_the_density_of_the_label(drawn):
    _, found, exact = drawn
    result = score(found.log_weights - exact, 0.0)
    assert result.relative_error <= 0.05 and result.effective_sample_size >= 200, result
    assert abs(result.z) < LIMIT, result


def test_wells_of_the_rotor_that_are_not_counted_show(drawn):
    """The density of the phase taken for that of the angle in one of three wells."""
    _, found, exact = drawn
    wrong = score(found.log_weights - np.log(3.0) - exact, 0.0)
    assert abs(wrong.z) > REJECTED, wrong


def test_all_wells_are_drawn(drawn):
    """A third each; the twin that draws one well alone would have all of its weight there."""
    chart, found, _ = drawn
    angles = found.coordinates[:, np.flatnonzero(chart.folds == 3)[0]]
    wells = np.bincount(np.floor(np.mod(angles, 2 * np.pi) / (2 * np.pi / 3)).astype(int) % 3, minlength=3)
    assert np.abs(wells / len(angles) - 1 / 3).max() < 4.0 * np.sqrt(2 / 9 / len(angles))
