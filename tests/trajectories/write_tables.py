"""Small files as PLUMED, WHAM, GROMACS and colvars write them, of the surface that is known.

    python -m tests.trajectories.write_tables

writes ``tests/data/tables``, on which the commands of ``docs/other_programs.md`` run.
"""

from pathlib import Path

import numpy as np

from .known_surface import KT, biased, colvar_text, drawn, energy, restraint, wrapped

FOLDER = Path(__file__).parent.parent / "data" / "tables"
CENTRES = np.arange(-180, 180, 30)
KAPPA = 5.0  # kcal/mol/rad^2, WHAM's form with the half
N_WINDOW, N_BIASED, N_HILLS = 100, 800, 300


def well_tempered(gamma=8.0, height=1.2, width=0.35, frames_per_hill=3):
    """Rows of HILLS and of a COLVAR of independent draws under the bias as it grows."""
    rng = np.random.default_rng(0)
    grid = np.linspace(-np.pi, np.pi, 721)[:-1]
    v, hills, frames = np.zeros(len(grid)), [], []
    for k in range(N_HILLS):
        logs = -(energy(grid) + v) / KT
        phi = rng.choice(grid, frames_per_hill, p=np.exp(logs - np.logaddexp.reduce(logs)))
        offset = KT * (np.logaddexp.reduce(gamma / (gamma - 1) * v / KT) - np.logaddexp.reduce(v / (gamma - 1) / KT))
        for i, x in enumerate(phi):
            bias = v[np.abs(grid - x).argmin()]
            frames.append((k + (i + 1) / frames_per_hill, x, bias, bias - offset))
        tall = height * np.exp(-v[np.abs(grid - phi[-1]).argmin()] / (gamma - 1) / KT)
        hills.append((k + 1, phi[-1], width, tall * gamma / (gamma - 1), gamma))
        v += tall * np.exp(-0.5 * (wrapped(grid - phi[-1]) / width) ** 2)
    return np.array(hills), np.array(frames)


def table(header, rows, form="%.4f"):
    return header + "\n".join(" ".join(form % x for x in row) for row in rows) + "\n"


def write():
    FOLDER.mkdir(exist_ok=True)
    period = "#! SET min_phi -pi\n#! SET max_phi pi\n"
    hills, frames = well_tempered()
    (FOLDER / "HILLS").write_text(table(f"#! FIELDS time phi sigma_phi height biasf\n{period}", hills))
    (FOLDER / "COLVAR").write_text(table(f"#! FIELDS time phi metad.bias metad.rbias\n{period}", frames))
    phi, bias = biased(N_BIASED)
    (FOLDER / "COLVAR_opes").write_text(colvar_text({"phi": phi.round(4), "opes.bias": bias.round(4)}))
    degrees = np.degrees(phi)
    time = np.arange(len(phi), dtype=float)
    (FOLDER / "phi.xvg").write_text(
        table('@ yaxis label "Angle (deg)"\n@ s0 legend "phi"\n', np.column_stack([time, degrees]), "%.2f")
    )
    np.savetxt(FOLDER / "weights.dat", np.exp(bias / KT), fmt="%.4g")
    wham, amber = [], ["file,centre_0,kappa_0"]
    for i, centre in enumerate(CENTRES):
        x = drawn(N_WINDOW, 50 + i, lambda x, c=centre: energy(x) + restraint(x, np.radians(c), KAPPA * 4.184))
        (FOLDER / f"w{i}.dat").write_text(table("", np.column_stack([time[:N_WINDOW], np.degrees(x)]), "%.1f"))
        wham.append(f"w{i}.dat {centre} {KAPPA * np.radians(1) ** 2:.8f}")
        amber.append(f"w{i}.dat,{centre},{KAPPA / 2}")
    (FOLDER / "metadata.dat").write_text("\n".join(wham) + "\n")
    (FOLDER / "amber.csv").write_text("\n".join(amber) + "\n")
    (FOLDER / "gromacs.csv").write_text(
        "file,centre_0,kappa_0\n" + "".join(f"w{i}.dat,{c},{KAPPA * 4.184:.4f}\n" for i, c in enumerate(CENTRES))
    )


if __name__ == "__main__":
    write()
