"""Chains of alanine from their torsions, and the files that programs of the field write of them."""

from dataclasses import dataclass

import mdtraj
import numpy as np

NAMES = ("N", "CA", "C", "O", "CB")
SYMBOLS = {"N": "N", "CA": "C", "C": "C", "O": "O", "CB": "C"}


def _placed(a, b, c, length, angle, torsion):
    """An atom after three others, of every frame."""
    axis = (c - b) / np.linalg.norm(c - b, axis=-1, keepdims=True)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    side = np.cross(normal, axis)
    torsion = np.asarray(torsion)[:, None]
    return c + length * (
        -np.cos(angle) * axis + np.sin(angle) * np.cos(torsion) * side + np.sin(angle) * np.sin(torsion) * normal
    )


def chain_positions(phi, psi, shift=(0.0, 0.0, 0.0)):
    """Positions of a chain, shape=(n_frames, 5 n_residues, 3), nm; phi and psi of shape=(n_frames, n_residues)."""
    n_frames, n_residues = phi.shape
    flat = np.full(n_frames, np.pi)
    previous = [
        np.tile(place, (n_frames, 1)) for place in ([0.0, 0.1, -0.1], [0.05, 0.05, 0.05], [0.0, 0.0, 0.0])
    ]  # of what would come before
    atoms = []
    for i in range(n_residues):
        n = _placed(*previous, 0.1335, np.radians(116.6), psi[:, i - 1] if i else flat)
        ca = _placed(*previous[1:], n, 0.1449, np.radians(121.9), flat)
        c = _placed(previous[2], n, ca, 0.1522, np.radians(110.0), phi[:, i])
        o = _placed(n, ca, c, 0.1229, np.radians(120.4), psi[:, i] + np.pi)
        cb = _placed(c, n, ca, 0.1526, np.radians(109.7), flat * 2 / 3)
        atoms += [n, ca, c, o, cb]
        previous = [n, ca, c]
    return np.stack(atoms, axis=1) + np.asarray(shift)


@dataclass(frozen=True)
class Residue:
    """As files name it."""

    number: int
    chain: str = "A"
    code: str = ""
    name: str = "ALA"


def pdb_text(residues, positions, breaks=(), box=None):
    """A PDB file; positions of shape=(n_atoms, 3), nm; a TER after the residues in ``breaks``."""
    lines = [] if box is None else [f"CRYST1{box:9.3f}{box:9.3f}{box:9.3f}  90.00  90.00  90.00 P 1           1"]
    for i, (residue, atoms) in enumerate(zip(residues, 10 * positions.reshape(-1, 5, 3), strict=True)):
        for j, (name, place) in enumerate(zip(NAMES, atoms, strict=True)):
            x, y, z = place
            lines.append(
                f"ATOM  {5 * i + j + 1:5d}  {name:<3s} {residue.name:3s} {residue.chain:1s}{residue.number:4d}"
                f"{residue.code:1s}   {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           {SYMBOLS[name]}"
            )
        if i in breaks:
            lines.append("TER")
    return "\n".join([*lines, "END", ""])


def gro_text(residues, positions):
    """A GRO file without a box: no chains."""
    lines = ["chain", str(5 * len(residues))]
    for i, (residue, atoms) in enumerate(zip(residues, positions.reshape(-1, 5, 3), strict=True)):
        for j, (name, (x, y, z)) in enumerate(zip(NAMES, atoms, strict=True)):
            number = residue.number % 100000
            lines.append(
                f"{number:5d}{residue.name:<5s}{name:>5s}{(5 * i + j + 1) % 100000:5d}{x:8.3f}{y:8.3f}{z:8.3f}"
            )
    return "\n".join([*lines, "   0.00000   0.00000   0.00000", ""])


def bonds_of(residues, breaks=()):
    """Pairs of atoms, of chains that end after the residues in ``breaks``."""
    pairs = []
    for i in range(len(residues)):
        pairs += [(5 * i + a, 5 * i + b) for a, b in ((0, 1), (1, 2), (2, 3), (1, 4))]
        if i and i - 1 not in breaks:
            pairs.append((5 * i - 3, 5 * i))
    return pairs


def psf_text(residues, breaks=()):
    """A PSF file: segments in place of chains."""
    masses = {"N": 14.007, "C": 12.011, "O": 15.999}
    lines = ["PSF EXT XPLOR", "", "         1 !NTITLE", "REMARK", "", f"{5 * len(residues):10d} !NATOM"]
    for i, residue in enumerate(residues):
        for j, name in enumerate(NAMES):
            lines.append(
                f"{5 * i + j + 1:10d} PRO{residue.chain:5s} {residue.number:<8d} {residue.name:8s} {name:8s} {name:6s} "
                f"{0.0:14.6f}{masses[SYMBOLS[name]]:14.4f}           0"
            )
    pairs = bonds_of(residues, breaks)
    lines += ["", f"{len(pairs):10d} !NBOND: bonds"]
    flat = [index + 1 for pair in pairs for index in pair]
    lines += ["".join(f"{index:10d}" for index in flat[i : i + 8]) for i in range(0, len(flat), 8)]
    return "\n".join([*lines, "", "         0 !NTHETA: angles", "", ""])


def prmtop_text(residues, breaks=(), numbered=False):
    """An Amber topology, which writes no residue numbers unless `addPDB` did."""
    n = 5 * len(residues)
    bonds = [number for a, b in bonds_of(residues, breaks) for number in (3 * a, 3 * b, 1)]
    sections = {
        "ATOM_NAME": ("20a4", [f"{name:<4s}" for _ in residues for name in NAMES]),
        "ATOMIC_NUMBER": ("10I8", [f"{7 if s == 'N' else 8 if s == 'O' else 6:8d}" for _ in residues for s in NAMES]),
        "POINTERS": ("10I8", [f"{n if i == 0 else len(residues) if i == 11 else 0:8d}" for i in range(31)]),
        "RESIDUE_LABEL": ("20a4", [f"{residue.name:<4s}" for residue in residues]),
        "RESIDUE_POINTER": ("10I8", [f"{5 * i + 1:8d}" for i in range(len(residues))]),
        "BONDS_INC_HYDROGEN": ("10I8", []),
        "BONDS_WITHOUT_HYDROGEN": ("10I8", [f"{number:8d}" for number in bonds]),
    }
    if numbered:
        sections["RESIDUE_NUMBER"] = ("20I4", [f"{residue.number:4d}" for residue in residues])
    lines = ["%VERSION  VERSION_STAMP = V0001.000  DATE = 01/01/20  00:00:00"]
    for flag, (form, items) in sections.items():
        per_line = int(form[:2])
        lines += [f"%FLAG {flag}", f"%FORMAT({form})"]
        lines += ["".join(items[i : i + per_line]) for i in range(0, len(items), per_line)] or [""]
    return "\n".join([*lines, ""])


def trajectory(positions, box=None, angles=(90.0, 90.0, 90.0)):
    """Frames without names, in a box of this size, nm."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(positions.shape[1]):
        topology.add_atom("X", None, topology.add_residue("X", chain))
    n = len(positions)
    cell = {} if box is None else {"unitcell_lengths": np.full((n, 3), box), "unitcell_angles": np.tile(angles, (n, 1))}
    return mdtraj.Trajectory(positions.astype(np.float32), topology, **cell)
