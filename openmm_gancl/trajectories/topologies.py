"""Topologies of trajectories, whose residues bear the numbers that their file writes."""

import gzip
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from ..coordinates.residues import set_insertion_codes
from ..errors import InputError, first_line

PDB = {".pdb", ".ent"}
PDBX = {".pdbx", ".cif", ".mmcif"}
HDF5 = {".h5", ".hdf5"}
PRMTOP = {".prmtop", ".parm7", ".prm7", ".top"}
WITHOUT_NUMBERS = {".hoomdxml", ".gsd", ".lh5"}
"""Formats that write no residue numbers: theirs count from 1."""

MDTRAJ_SUFFIXES = {".ent": ".pdb", ".top": ".prmtop", ".hdf5": ".h5", ".ncdf": ".nc"}
"""What mdtraj knows these formats by."""


def suffix_of(path: Path) -> str:
    """What a file's name ends in, in lower case, before ``.gz``."""
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


@contextmanager
def known_to_mdtraj(path: Path) -> Iterator[str]:
    """A name of the file by which mdtraj recognises its format: suffixes in upper case are none to it."""
    zipped = ".gz" if path.suffix.lower() == ".gz" else ""
    kind = suffix_of(path)
    if kind in HDF5 and find_spec("tables") is None:  # which mdtraj says in twenty lines
        raise InputError(f"{path} needs a package that is missing (tables): pip install tables")
    wanted = MDTRAJ_SUFFIXES.get(kind, kind) + zipped
    if path.name.endswith(wanted):
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="gancl-") as folder:
        name = Path(folder) / f"file{wanted}"
        name.symlink_to(path.resolve())
        yield str(name)


def _opened(path: Path) -> TextIO:
    return gzip.open(path, "rt") if path.suffix.lower() == ".gz" else path.open()


def _pdb_codes(path: Path, topology: Any) -> list[str]:
    """The insertion code of each residue of a PDB file; mdtraj reads them, but leaves them out of its topology."""
    with _opened(path) as file:
        if not any(line[26:27].strip() for line in file if line.startswith(("ATOM", "HETATM"))):
            return [""] * topology.n_residues
        file.seek(0)
        from mdtraj.formats.pdb.pdbstructure import PdbStructure

        structure = PdbStructure(file, load_all_models=False)
    codes = [residue.insertion_code for chain in structure.iter_chains() for residue in chain.iter_residues()]
    return codes if len(codes) == topology.n_residues else []


def _sections(path: Path, wanted: set[str]) -> dict[str, list[str]]:
    """Words of some sections of a prmtop file."""
    words: dict[str, list[str]] = {}
    section = ""
    with _opened(path) as file:
        for line in file:
            if line.startswith("%FLAG"):
                section = line.split()[1]
            elif section in wanted and not line.startswith("%"):
                words.setdefault(section, []).extend(line.split())
    return words


def _check_prmtop(path: Path) -> None:
    """Refuse more atoms than a file of its size can name: mdtraj makes a table of as many before it looks for them."""
    section, width = "", 8
    with path.open() as file:
        for line in file:
            if line.startswith("%FLAG"):
                section = line.removeprefix("%FLAG").strip()
            elif section == "POINTERS" and line.startswith("%FORMAT"):
                found = re.search(r"\(.*?\d+[a-zA-Z]+(\d+)", line)
                width = int(found[1]) if found else width
            elif section == "POINTERS" and line.strip() and int(line[:width]) > path.stat().st_size:
                raise InputError(
                    f"{path} tells of {int(line[:width])} atoms and has no room for them: copy it again, it is damaged"
                )


def _number_prmtop(path: Path, topology: Any) -> list[str]:
    """Number residues as `addPDB` of ParmEd wrote, or from 1, as Amber counts them; their insertion codes."""
    n = topology.n_residues
    written = _sections(path, {"RESIDUE_NUMBER", "RESIDUE_ICODE"})
    numbers = written.get("RESIDUE_NUMBER", [])
    for residue in topology.residues:
        residue.resSeq = int(numbers[residue.index]) if len(numbers) == n else residue.index + 1
    codes = written.get("RESIDUE_ICODE", [])
    return codes if len(codes) == n else [""] * n


def _numbered(path: Path, topology: Any) -> Any:
    """The topology with the residue numbers and insertion codes of its file, where they are known."""
    kind = suffix_of(path)
    codes = [""] * topology.n_residues
    if kind in PDB:
        codes = _pdb_codes(path, topology)
    elif kind in PDBX:  # mdtraj stores the code as the segment
        codes = [residue.segment_id for residue in topology.residues]
        for residue in topology.residues:
            residue.segment_id = ""
    elif kind in PRMTOP:
        codes = _number_prmtop(path, topology)
    elif kind in WITHOUT_NUMBERS:
        for residue in topology.residues:
            residue.resSeq = residue.index + 1
    elif kind in HDF5:
        return topology  # it holds what mdtraj was given, numbers or not
    if len(codes) != topology.n_residues:
        raise InputError(f"cannot tell the residues of {path} apart: give each its number, or a plain PDB file")
    return set_insertion_codes(topology, codes)


def load_topology(top: Any) -> Any:
    """The mdtraj.Topology of a structure file, of an mdtraj.Trajectory, or as it is given.

    Raises:
        InputError: there is no such file, or it holds no topology.
    """
    import mdtraj

    if isinstance(top, str | Path):
        path = Path(top)
        if not path.is_file():
            raise InputError(f"there is no file {path}: check `top`")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if suffix_of(path) in PRMTOP:
                    _check_prmtop(path)
                with known_to_mdtraj(path) as name:
                    return _numbered(path, mdtraj.load_topology(name))
        except InputError:
            raise
        except Exception as error:  # readers of text stumble over broken files in any way
            raise InputError(
                f"cannot read a topology from {path} ({first_line(error)}): give a PDB file, say"
            ) from None
    topology = getattr(top, "topology", top)
    if not isinstance(topology, mdtraj.Topology):
        raise InputError(
            f"`top` is a {type(top).__name__}: give a file's name, an mdtraj.Topology or mdtraj.Trajectory"
        )
    return topology
