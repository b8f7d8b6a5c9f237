"""A surface that is known, series drawn from it under biases that are known, and files as programs write them."""

import numpy as np

from openmm_gancl.free_energy.from_trajectories import analyse
from openmm_gancl.trajectories.observations import read
from openmm_gancl.units import thermal_energy

TEMPERATURE = 300.0
KT = thermal_energy(TEMPERATURE)
GRID = np.linspace(-np.pi, np.pi, 4001)[:-1]
CENTRES = np.linspace(-np.pi, np.pi, 17)[:-1]
KAPPA = 40.0
N_WINDOW = 400


def energy(phi):
    """kJ/mol."""
    return 6 * np.cos(phi - 0.8) + 5 * np.cos(2 * phi + 0.4)


def bias(phi):
    """That levels most of it, kJ/mol, none negative."""
    return 11.0 - 0.9 * energy(phi)


def wrapped(phi):
    return (phi + np.pi) % (2 * np.pi) - np.pi


def drawn(n, seed, potential):
    """Angles from exp(-potential / kT), in no order."""
    density = np.exp(-(potential(GRID) - potential(GRID).min()) / KT)
    cumulative = np.cumsum(density)
    return np.interp(np.random.default_rng(seed).uniform(0, cumulative[-1], n), cumulative, GRID)


def biased(n=4000, seed=0):
    """Frames under the surface and the bias, with the bias of each."""
    phi = drawn(n, seed, lambda x: energy(x) + bias(x))
    return phi, bias(phi)


def restraint(phi, centre, kappa=KAPPA):
    """Harmonic, around the circle, kJ/mol."""
    return 0.5 * kappa * wrapped(phi - centre) ** 2


def colvar_text(columns, *, period=("-pi", "pi"), name="phi", every=0.2, start=0.0, header=True):
    """As PLUMED prints it."""
    rows = np.stack(list(columns.values()), axis=1)
    lines = [f"#! FIELDS time {' '.join(columns)}"] * header
    if period is not None:
        lines += [f"#! SET min_{name} {period[0]}", f"#! SET max_{name} {period[1]}"]
    lines += [f" {start + every * i:f} " + " ".join(f"{x:f}" for x in row) for i, row in enumerate(rows)]
    return "\n".join(lines) + "\n"


def window_files(folder, *, with_bias=True, others=None):
    """COLVAR files of windows around the circle, and the rows of their table."""
    rows = []
    for i, centre in enumerate(CENTRES):
        phi = drawn(N_WINDOW, 100 + i, lambda x, centre=centre: energy(x) + restraint(x, centre))
        columns = {"phi": phi} | (others(phi) if others else {})
        columns |= {"restraint.bias": restraint(phi, centre)} if with_bias else {}
        (folder / f"w{i}.dat").write_text(colvar_text(columns))
        rows.append((f"w{i}.dat", centre, KAPPA))
    return rows


def write_windows(path, rows, header="file,centre_0,kappa_0", centre=1.0, kappa=1.0):
    """A table of them, centres and force constants multiplied by factors."""
    lines = [f"{name},{centre * place:.6f},{kappa * constant:.10g}" for name, place, constant in rows]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def analysed(cvs, bins=48, **sources):
    """What comes of tables, without any frames discarded."""
    observations = read([], None, list(cvs), TEMPERATURE, **sources)
    return analyse(observations, bins=bins, discard=0, n_bootstrap=40)


def deviation(surface, scale=1.0):
    """Root mean square from the truth below 6 kT, in kT and in standard errors; scale makes radians of the axis."""
    (edges,) = surface.edges
    centres = scale * 0.5 * (edges[1:] + edges[:-1])
    exact = energy(centres) - energy(GRID).min()
    low = exact < 6 * KT
    difference = (surface.energy - exact)[low]
    difference -= difference.mean()
    return float(np.sqrt((difference**2).mean())) / KT, float(np.sqrt(((difference / surface.error[low]) ** 2).mean()))
