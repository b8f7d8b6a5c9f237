"""Text tables of numbers as the field's programs write them: PLUMED, GROMACS, colvars, cpptraj, CSV, plain columns.

`read_table` asks the readers in turn which of them knows the file by its first lines: each one says how the columns are
called and divided, and what else the header tells. The numbers are read in one way for all of them.
"""

import codecs
import gzip
import itertools
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from ..errors import InputError, first_line
from ..units import FloatArray, unit_in_words
from .periods import plumed_number

MAX_LINE = 1_000_000
"""Characters of a line, and lines without numbers, beyond which a file is no table."""

LARGEST = 1e30
"""Of values, centres, force constants and energies; squares of energies made of these are finite, too."""

COUNTS = re.compile(r"#?(time|step|frame)\b.*", re.IGNORECASE)
"""Names of columns that only count, as ``Time (ps)``."""

TIME = re.compile(r"time(?: *[(\[]([fpnµu]s)[)\]])?", re.IGNORECASE)
"""Names of columns that hold the time, in ps unless they say so."""

IN_PICOSECONDS = {"fs": 1e-3, "ps": 1.0, "ns": 1e3, "us": 1e6, "µs": 1e6}

NO_BIASES = ("force2", "work", "rct", "zed", "neff", "nker", "nlker", "acc", "scale", "coeff")
"""Components that PLUMED prints beside a bias, and that are none."""

BIAS = re.compile(
    r"(.*(?<!r)bias([ _.]?(energy|potential))?|E_(metadynamics|harmonic|linear|abf|opes|alb)\w*)( *[(\[].*[)\]])?",
    re.IGNORECASE,
)
"""Names of columns of biases: of PLUMED and others, perhaps with a unit, and of colvars."""

VECTOR_MARKS = re.compile("[(),]")
"""Of a vector, ``( 1 , 2 , 3 )``."""

RESIDUE = re.compile(r"[A-Z][A-Z0-9]{1,4}-\d+")
"""As ``ALA-2``."""

PATH = re.compile(r"[A-Za-z_~/]|\.\.?/")
"""What names of files begin with, and broken numbers do not."""

DEGREES = re.compile(r"\bdeg(rees?)?\b", re.IGNORECASE)

FORTRAN = re.compile(r"(?<=[\d.])[dD](?=[+-]?\d)")
"""What is before an exponent in double precision, ``1.0D+00``."""

DECIMAL_COMMA = re.compile(r"[+-]?\d+(,\d+)?([eE][+-]?\d+)?")
"""A number with a comma for its decimals, or without any."""

NO_CURVE = re.compile(r"time|step|frame|\bt\b|\b[fpnµu]s\b|\b(phi|psi|omega|chi\d?)\b", re.IGNORECASE)
"""In the name of the first column of a series: a time, or an angle, as of ``gmx rama``."""


@dataclass(frozen=True)
class Header:
    """What the first lines of a table say.

    Attributes:
        form: whose table it is.
        names: of the columns; those without one are known by their numbers, from 1.
        delimiter: between numbers; None for blanks.
        units: of columns, where the header tells.
    """

    form: str
    names: tuple[str, ...]
    delimiter: str | None = None
    units: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TextTable:
    """Numbers with the names of their columns.

    Attributes:
        path: of the file.
        header: what its first lines say.
        rows: shape=(n, n_columns).
        settings: what PLUMED's ``#! SET`` lines say, as text.
        begins: rows before which the header is repeated.
        notes: what the user should know, one sentence each.
    """

    path: Path
    header: Header
    rows: FloatArray
    settings: dict[str, str]
    begins: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        return self.header.names

    @property
    def time(self) -> int | None:
        """The column that counts, if there is one: time, step, frame."""
        return next((i for i, name in enumerate(self.names) if COUNTS.fullmatch(name)), None)


def is_bias(name: str) -> bool:
    """Whether a column is the energy of a bias, by its name; ``rbias`` is one already undone in part."""
    return BIAS.fullmatch(name) is not None


def is_variable(name: str) -> bool:
    """Whether a column may be a collective variable, by its name: no time, and no part of a bias."""
    return (
        not (COUNTS.fullmatch(name) or is_bias(name) or name.endswith("rbias"))
        and name.rpartition(".")[2] not in NO_BIASES
    )


def column_of(names: Sequence[str], name: str, where: str | Path) -> int:
    """The place of a column by its name, or by its number from 1 where none is called so."""
    if name in names:
        return names.index(name)
    alike = [i for i, other in enumerate(names) if other.lower() == name.lower()]
    if len(alike) == 1:
        return alike[0]
    if name.isdecimal() and 1 <= int(name) <= len(names):
        return int(name) - 1
    raise InputError(f"{where} has no column {name}: it has {', '.join(names)}")


def period_of(settings: dict[str, str], name: str, where: str | Path) -> tuple[float, float] | None:
    """Where PLUMED's header says that a column begins and ends; None if it has no period."""
    texts = [settings.get(f"{end}_{name}") for end in ("min", "max")]
    if texts[0] is None or texts[1] is None:
        return None
    low, high = (plumed_number(text) for text in texts if text is not None)
    if not (np.isfinite([low, high]).all() and low < high):
        raise InputError(
            f"{where}: the range of {name}, {texts[0]} to {texts[1]}, is not understood: "
            "give numbers or multiples of pi in its SET lines"
        )
    return low, high


def _float(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _are_numbers(words: Sequence[str]) -> bool:
    return bool(words) and all(_float(word) is not None for word in words)


def _numbered(n: int) -> tuple[str, ...]:
    return tuple(str(i + 1) for i in range(n))


def _plumed(comments: Sequence[str], row: str) -> Header | None:
    for line in comments:
        words = line.split()
        if words[:2] == ["#!", "FIELDS"] and words[2:]:
            return Header("PLUMED", tuple(words[2:]))
    return None


def _xvg(comments: Sequence[str], row: str) -> Header | None:
    """GROMACS: ``@ s0 legend "phi"`` names the second column, the x axis the first."""
    if not any(line.startswith("@") for line in comments):
        return None
    legends: dict[int, str] = {}
    axes = {"x": "time", "y": ""}
    for line in comments:
        if found := re.match(r'@\s*s(\d+)\s+legend\s+"(.*)"', line):
            legends[int(found[1])] = found[2].strip()
        elif found := re.match(r'@\s*([xy])axis\s+label\s+"(.*)"', line):
            axes[found[1]] = found[2].strip()
    n = len(row.split())
    x = "time" if axes["x"].lower() in ("", "time", "time (ps)") else axes["x"]
    names = (x, *(legends.get(i, str(i + 2)) for i in range(n - 1)))
    unit = "degrees" if DEGREES.search(axes["y"]) else "" if axes["y"].count("(") > 1 else unit_in_words(axes["y"])
    return Header("GROMACS", names, units=dict.fromkeys(names[1:], unit) if unit else {})


def _delimiter(row: str) -> str | None:
    return next((mark for mark in (";", ",") if mark in row), None)


def _in_points(line: str) -> Callable[[str], str] | None:
    """What makes numbers of a row in Fortran's double precision, or with decimal commas; None for others."""
    words = line.split()
    if len(words) > 1 and "," in line and all(map(DECIMAL_COMMA.fullmatch, words)):
        return lambda text: text.replace(",", ".")
    if FORTRAN.search(line) and _are_numbers(_cells(FORTRAN.sub("e", line), _delimiter(line))):
        return lambda text: FORTRAN.sub("e", text)
    return None


def _cells(line: str, delimiter: str | None) -> tuple[str, ...]:
    return tuple(cell.strip().strip('"').strip() for cell in line.strip().split(delimiter))


def _commented(comments: Sequence[str], row: str) -> Header | None:
    """The last comment with a word for each column: colvars, cpptraj, numpy.savetxt."""
    delimiter = _delimiter(row)
    n = len(_cells(row, delimiter))
    for line in reversed(comments):
        names = _cells(line.lstrip("#"), delimiter)
        if len(names) == n and not any(_float(name) is not None for name in names):
            kind = {"step": "colvars", "frame": "cpptraj"}.get(names[0].lower(), "columns")
            return Header(kind, names, delimiter)
    return None


def _headed(comments: Sequence[str], row: str) -> Header | None:
    """The first line names the columns: CSV."""
    delimiter = _delimiter(row)
    names = _cells(row, delimiter)
    return None if any(_float(name) is not None for name in names) else Header("CSV", names, delimiter)


def _plain(comments: Sequence[str], row: str) -> Header | None:
    delimiter = _delimiter(row)
    cells = _cells(row, delimiter)
    return Header("columns", _numbered(len(cells)), delimiter) if _are_numbers(cells) else None


READERS: tuple[Callable[[Sequence[str], str], Header | None], ...] = (_plumed, _xvg, _commented, _headed, _plain)
"""Each takes the comments before the first row, and that row; the first that knows the table reads it."""


def expanded(paths: Sequence[str | Path]) -> list[Path]:
    """Files by their names, wildcards resolved in the order of the numbers in them.

    Raises:
        InputError: nothing matches.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.exists() or not any(mark in path.name for mark in "*?["):
            found.append(path)
            continue
        matches = [match for match in path.parent.glob(path.name) if match.is_file()]
        if not matches:
            raise InputError(f"no file matches {path}: check its name")
        found += sorted(matches, key=lambda match: [int(x) if x.isdecimal() else x for x in _parts(match.name)])
    return found


def _parts(name: str) -> list[str]:
    """Text and numbers in turn, so that w2 comes before w10."""
    return re.split(r"(\d+)", name)


def opened(path: Path) -> IO[str]:
    """A text file to read, unpacked if it is gzipped, without a byte order mark."""
    if not path.is_file():
        raise InputError(f"there is no file {path}: check its name")
    with path.open("rb") as file:
        begin = file.read(4096)
    packed = begin[:2] == b"\x1f\x8b"
    wide = begin[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # spreadsheets' "Unicode text"
    if not (packed or wide) and b"\0" in begin[:-64]:  # zeros at the end are of a disk that failed
        raise InputError(f"{path} is no text file: give a table of numbers")
    binary: Any = gzip.open(path, "rb") if packed else path.open("rb")  # noqa: SIM115  # closed with its wrapper
    # numbers are ASCII; a unit in another encoding, as the ring of an angstrom, does no harm
    return TextIOWrapper(cast(IO[bytes], binary), encoding="utf-16" if wide else "utf-8-sig", errors="replace")


def _sizes(row: str) -> list[int]:
    """How many numbers each column of a row holds: colvars writes a vector as ``( 1 , 2 , 3 )``."""
    return [part.count(",") + 1 if part.startswith("(") else 1 for part in re.findall(r"\([^()]*\)|[^\s()]+", row)]


def _plain_row(row: str) -> str:
    """Without the marks of vectors; as it is if what is left are not numbers."""
    plain = VECTOR_MARKS.sub(" ", row) if "(" in row else row
    return plain if _are_numbers(plain.split()[:1]) else row


def _with_components(comment: str, sizes: Sequence[int]) -> str:
    """Names of columns, those of vectors once a component: com_1, com_2, com_3."""
    words = comment.lstrip("#").split()
    if not comment.startswith("#") or len(words) != len(sizes):
        return comment
    names = [[name] if n == 1 else [f"{name}_{i + 1}" for i in range(n)] for name, n in zip(words, sizes, strict=True)]
    return "# " + " ".join(itertools.chain(*names))


class _Lines:
    """The rows of a file, one held back to see whether the last is whole, and the comments between them."""

    def __init__(self, file: IO[str], path: Path):
        self.file, self.path = file, path
        self.comments: list[tuple[int, str]] = []
        self.count, self.numbers, self.cut = 0, 0, 0
        self.held = self.previous = ""
        self.vectors: list[int] = []
        self.in_points: Callable[[str], str] | None = None

    def _raw(self) -> Iterator[str]:
        while line := self.file.readline(MAX_LINE):
            self.numbers += 1
            if len(line) == MAX_LINE:
                raise InputError(f"{self.path}, line {self.numbers} is too long for a table: give a text file")
            row, mark, comment = line.partition("#")
            if "(" in row and row.lstrip()[:1] not in ("@", "&") and (plain := _plain_row(row)) != row:
                self.vectors = self.vectors or _sizes(row)
                line = row = plain
            if self.count < 3 and self.in_points is None and row.lstrip()[:1] not in ("@", "&"):
                self.in_points = _in_points(row)
            if self.in_points is not None:
                line, row = self.in_points(line), self.in_points(row)
            if mark and row.strip():  # a run that was killed within a line, and went on
                yield f"{row.rstrip()}\n"
                yield f"#{comment}"
            else:
                yield line

    def __iter__(self) -> Iterator[str]:
        idle = 0
        for line in self._raw():
            text = line.strip()
            if not text or text[0] in "#@&":
                idle += 1
                if idle > MAX_LINE:
                    raise InputError(f"{self.path} holds {idle} lines without a number: give a table")
                if text:
                    self._comment(text)
                continue
            self.count += 1
            if self.held:
                self.previous = self.held
                yield self.held
            self.held = line

    def _comment(self, text: str) -> None:
        # the next run appends its header to what the last one left
        if self.previous and text.startswith("#! FIELDS") and len(self.held.split()) < len(self.previous.split()):
            self.held, self.cut, self.count = "", self.cut + 1, self.count - 1
        self.comments.append((self.count, text))


def _broken(lines: _Lines, header: Header) -> InputError:
    """What is wrong with a row, found in a second look."""
    n, path = len(header.names), lines.path
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            line = line.partition("#")[0]
            if not line.strip() or line.lstrip()[0] in "@&":
                continue
            line = _plain_row(line)
            cells = _cells(line if lines.in_points is None else lines.in_points(line), header.delimiter)
            if header.form == "CSV" and cells == header.names:
                continue
            if not _are_numbers(cells):
                if header.names[:1] == ("file",):
                    return InputError(f"{path} is a table of windows: give it by `windows`")
                if _names_files(line):
                    return InputError(f"{path} {_refusal(line)}")
                word = next(cell for cell in cells if _float(cell) is None)
                if RESIDUE.fullmatch(word):
                    return InputError(
                        f"{path}, line {number}, names a residue, {word}, as gmx rama does: write the rows of one "
                        "residue into a file of their own, without that column"
                    )
                if word.strip("*") == "":
                    return InputError(
                        f"{path}, line {number}: a number was wider than its column ({word[:12]}): write it in a wider "
                        "format, or remove that line"
                    )
                return InputError(f"cannot read {path}, line {number}: {word[:40]!r} is no number; remove that line")
            if len(cells) != n:
                return InputError(
                    f"{path} names {n} columns but holds {len(cells)} in line {number}: give the file as it was written"
                )
    return InputError(f"cannot read {path}: give a table of numbers")


def _whole(lines: _Lines, header: Header) -> list[float] | None:
    """The numbers of the last line, or None if it was cut while it was written."""
    last, before = (_cells(line.rstrip("\0"), header.delimiter) for line in (lines.held, lines.previous))
    ended = lines.held.endswith("\n")
    if len(last) < len(header.names) or (not ended and not _are_numbers(last)):
        return None
    # a last number without its end may have lost digits
    decimals = [len(cells[-1].partition(".")[2]) for cells in (last, before or last)]
    if not ended and decimals[0] < decimals[1]:
        return None
    if len(last) != len(header.names) or not _are_numbers(last):
        raise _broken(lines, header)
    return [float(cell) for cell in last]


def _numbers(body: Iterator[str], lines: _Lines, header: Header) -> tuple[FloatArray, list[str]]:
    """All rows, and notes on one that was cut."""
    path, n = lines.path, len(header.names)
    commas = header.delimiter == ";"  # of the decimals, where a spreadsheet divides cells by semicolons
    body = (line.replace(",", ".") for line in body) if commas else body
    try:
        first = next(body, None)
        rows = np.empty((0, n))
        if first is not None:
            rows = np.loadtxt(itertools.chain([first], body), comments=None, delimiter=header.delimiter, ndmin=2)
    except ValueError:
        raise _broken(lines, header) from None
    if len(rows) and rows.shape[1] != n:
        raise _broken(lines, header)
    if commas:
        lines.held = lines.held.replace(",", ".")
    cuts, whole = lines.cut, None
    if lines.held:
        whole = _whole(lines, header)
        cuts += whole is None
    if whole is None and not len(rows):
        raise _broken(lines, header)
    rows = rows if whole is None else np.concatenate([rows, [whole]])
    notes = [f"a line of {path} that was cut while it was written is left out"] * (cuts == 1)
    return rows, notes or [f"{cuts} lines of {path} that were cut while they were written are left out"] * (cuts > 1)


def _settings(comments: Sequence[tuple[int, str]], header: Header, path: Path) -> tuple[dict[str, str], list[int]]:
    """What PLUMED's SET lines say, and before which rows its header stands again."""
    settings: dict[str, str] = {}
    begins: list[int] = []
    for row, line in comments:
        words = line.split()
        if words[:2] == ["#!", "FIELDS"]:
            if tuple(words[2:]) != header.names:
                raise InputError(f"{path} changes its columns within the file: cut it there")
            begins.append(row)
        elif words[:2] == ["#!", "SET"] and len(words) == 4:
            name, before = words[2], settings.get(words[2])
            if name[:4] in ("min_", "max_") and before not in (None, words[3]):
                old, new = plumed_number(str(before)), plumed_number(words[3])
                if not np.isclose(old, new):
                    raise InputError(f"{path} changes {name} from {before} to {words[3]} within the file: cut it there")
            settings[name] = words[3]
    return settings, [row for row in begins if row]


def _header(lines: _Lines, early: str | None) -> Header:
    """From the reader that knows the table."""
    path, first = lines.path, early if early is not None else lines.held
    comments = [_with_components(line, lines.vectors) for row, line in lines.comments if not row]
    if not first:
        raise InputError(f"{path} holds no row: give the COLVAR of a run, or a table of numbers")
    if "\0" in first[:1000]:
        raise InputError(f"{path} is no text file: give a table of numbers")
    header = next((found for reader in READERS if (found := reader(comments, first))), None)
    if header is None:
        raise InputError(f"{path} {_refusal(first)}")
    if header.form == "CSV" and early is None:
        raise InputError(f"{path} holds no row: give the table of a run")
    return header


def _distinct(names: tuple[str, ...], rows: FloatArray) -> tuple[str, ...]:
    """Names of which none stands for two columns of unlike numbers: such columns have their numbers in their names."""
    found = list(names)
    for name in {name for name in names if names.count(name) > 1}:
        columns = [i for i, other in enumerate(names) if other == name]
        alike = np.equal(rows[:, columns], rows[:, columns[:1]]) | np.isnan(rows[:, columns])
        for i in columns[1:] if alike.all() else columns:
            found[i] = f"{name} (column {i + 1})"
    return tuple(found)


def _read(file: IO[str], path: Path) -> TextTable:
    lines = _Lines(file, path)
    rows = iter(lines)
    early = next(rows, None)  # the last row is held back, and may be the only one
    header = _header(lines, early)
    body = rows if early is None or header.form == "CSV" else itertools.chain([early], rows)
    numbers, notes = _numbers(body, lines, header)
    if any(text[0] == "&" and row < lines.count for row, text in lines.comments):
        raise InputError(f"{path} holds several sets of data: give one a file")
    settings, begins = _settings(lines.comments, header, path) if header.form == "PLUMED" else ({}, [])
    names = _distinct(header.names, numbers)
    units = {name: unit for name in names if (unit := header.units.get(name) or unit_in_words(name))}
    header = replace(header, names=names, units=units)
    return TextTable(path, header, numbers, settings, tuple(begins), tuple(notes))


def read_table(path: str | Path) -> TextTable:
    """Read a text table, whoever wrote it; gzipped or not.

    Args:
        path: PLUMED's files, GROMACS's xvg, colvars' traj, cpptraj's dat, CSV, or plain columns.

    Raises:
        InputError: no such file, no text, no table, or a broken row that is not the last.
    """
    path = Path(path)
    try:
        with opened(path) as file:
            return _read(file, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"cannot read {path} ({first_line(error)}): give the file as it was written") from None


def _names_files(row: str) -> bool:
    """Whether it is a row of a table of windows: a name, and numbers."""
    words = row.split()
    return len(words) >= 3 and _float(words[0]) is None and bool(PATH.match(words[0])) and _are_numbers(words[1:])


def _refusal(first: str) -> str:
    if _names_files(first):
        return "names files with numbers, as a table of windows does: give it by `windows`"
    return f"is no table, which begins with {first.strip()[:40]!r}: give a COLVAR file, or columns of numbers"


def check_series(table: TextTable) -> None:
    """Refuse a table that is no series of collective variables, and say what it is and where it belongs."""
    names, path = table.names, table.path
    if "height" in names and any(name.startswith("sigma_") for name in names):
        if table.settings.get("action", "").startswith("OPES") or "logweight" in names:
            raise InputError(f"{path} holds the kernels of OPES, no series: give it by `opes`, and a COLVAR file here")
        raise InputError(f"{path} holds the hills of metadynamics, no series: give it by `hills`")
    grid = any(name.startswith("nbins_") for name in table.settings)
    if grid or any(name.startswith("der_") or name.lower() in ("file.free", "free") for name in names):
        raise InputError(f"{path} holds a surface or a bias on a grid, no series: give the COLVAR file of the run")
    if table.header.form == "GROMACS" and not NO_CURVE.search(names[0]):
        raise InputError(
            f"{path} holds a curve over {names[0]}, no series in time: give the series that it was made of"
        )
    if "file" in names:
        raise InputError(f"{path} is a table of windows: give it by `windows`")
