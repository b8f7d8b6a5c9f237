"""The bonded chain with rigid bonds: its System, and its exact averages by quadrature over angles and branch."""

import numpy as np
import openmm
from scipy.special import logsumexp

from openmm_gancl import load_system
from openmm_gancl.reference.chart import chart_for
from openmm_gancl.system.molecular_system import system_from_objects

from .exact import ANGLES, BONDS, CHAIN, KT, log_integral

MASSES = (12.0, 1.0, 12.0, 12.0, 12.0)
"""amu; a light vertex makes the Fixman term vary."""

LABEL, RESTRAINT = 0.5, 50.0
N_POINTS = 48


def rigid_chain(masses=MASSES):
    """The shipped chain, its bonds made constraints."""
    chain = load_system("bonded_chain")
    system = openmm.XmlSerializer.clone(chain.system)
    for i in reversed(range(system.getNumForces())):
        if isinstance(system.getForce(i), openmm.HarmonicBondForce):
            system.removeForce(i)
    for (a, b), (length, _) in BONDS.items():
        system.addConstraint(a, b, length)
    for i, mass in enumerate(masses):
        system.setParticleMass(i, mass)
    chart = chart_for(chain.topology, chain.slow, chain.positions)
    coordinates = chart.to_internal(chain.positions[None])
    coordinates[0, : chart.n_bonds] = [BONDS[min(a, b), max(a, b)][0] for a, b in chart.bonds.tolist()]
    return system_from_objects(
        chain.topology,
        system,
        chart.to_cartesian(coordinates)[0],
        temperature=300.0,
        slow=chain.slow,
        force_constants=RESTRAINT,
        friction=5.0,
        time_step=0.002,
        chirality="none",
        trans_peptides=False,
    )


def log_determinant(first, second, third, psi):
    """log det Z of the four bonds at angles (0,1,2), (1,2,3), (1,2,4) and the torsion (4,2,1,3)."""
    inverse = 1 / np.array(MASSES)
    across = np.cos(second) * np.cos(third) + np.sin(second) * np.sin(third) * np.cos(psi)
    z = np.zeros((*np.broadcast_shapes(first.shape, second.shape, third.shape, psi.shape), 4, 4))
    z[..., range(4), range(4)] = [inverse[a] + inverse[b] for a, b in BONDS]
    # two bonds that share an atom, both read from it outwards
    entries = {(0, 1): (np.cos(first), 1), (1, 2): (np.cos(second), 2), (1, 3): (np.cos(third), 2), (2, 3): (across, 2)}
    for (i, j), (cosine, shared) in entries.items():
        z[..., i, j] = z[..., j, i] = cosine * inverse[shared]
    return np.linalg.slogdet(z)[1]


def window_by_quadrature():
    """log Z of the window at LABEL, and the mean of the angle (0,1,2) in it, rad."""
    axes = []
    for centre, k in ANGLES.values():
        reach = 6 * np.sqrt(KT / k)
        axes.append(np.linspace(max(centre - reach, 1e-6), min(centre + reach, np.pi - 1e-6), N_POINTS))
    circle = np.linspace(-np.pi, np.pi, N_POINTS, endpoint=False)
    *bends, psi = np.meshgrid(*axes, circle, indexing="ij", sparse=True)
    log_density = 0.5 * log_determinant(*bends, psi) - 10 * (1 + np.cos(psi - 5.236)) / KT
    for bend, (centre, k) in zip(bends, ANGLES.values(), strict=True):
        log_density = log_density + np.log(np.sin(bend)) - 0.5 * k * (bend - centre) ** 2 / KT
    log_total = logsumexp(log_density)
    mean = float((np.exp(log_density - log_total) * bends[0]).sum())
    log_volume = sum(np.log(axis[1] - axis[0]) for axis in (*axes, circle))
    return float(log_total + log_volume) + log_integral(CHAIN.log_turns(LABEL, RESTRAINT), CHAIN.circle), mean
