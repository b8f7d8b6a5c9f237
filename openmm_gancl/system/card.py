"""The card: a TOML file that says what a system is, checked key by key."""

import difflib
import errno
import math
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from ..errors import InputError

MAX_CARD_BYTES = 2**20
"""Of a card's file."""

MAX_LABELS = 100

MAX_EXPRESSION, MAX_DEPTH = 4000, 50
"""Characters of an expression without its white space, and parentheses within one another: OpenMM reads it by
recursion, and simplifies it in a time that grows faster than its length."""


def _checked_number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("give a number, not true or false")
    if isinstance(value, int) and abs(value) > 2**53:
        raise ValueError("give a number that a computer can hold")
    return value


def _plain(name: str) -> str:
    if not name.isprintable():
        raise ValueError("a name has no line breaks or other control characters")
    return name


def _bounded(expression: str) -> str:
    depth = deepest = 0
    for sign in expression:
        depth += (sign == "(") - (sign == ")")
        deepest = max(deepest, depth)
    if len("".join(expression.split())) > MAX_EXPRESSION or deepest > MAX_DEPTH:
        raise ValueError(
            f"an expression has at most {MAX_EXPRESSION} characters, and {MAX_DEPTH} parentheses within one another"
        )
    return expression


Number = Annotated[float, Field(strict=True), BeforeValidator(_checked_number)]
AtomIndex = Annotated[int, Field(ge=0, lt=2**31, strict=True), BeforeValidator(_checked_number)]
FourAtoms = tuple[AtomIndex, AtomIndex, AtomIndex, AtomIndex]
Positive = Annotated[Number, Field(gt=0)]
Interval = tuple[Number, Number]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$", max_length=60)]
Label = Annotated[str, AfterValidator(_plain), Field(min_length=1, max_length=60)]
"""A name that files and tables may have in theirs."""

Expression = Annotated[str, AfterValidator(_bounded)]
FileName = Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$", max_length=4000)]

EXPRESSION_NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*+(?!\s*\()")
"""A variable or parameter in an OpenMM expression: neither a function nor the exponent of a number."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ForceFieldCard(_Table):
    """A System made from a structure and OpenMM force-field files."""

    files: list[FileName] = Field(
        min_length=1, max_length=100, description="OpenMM's own names, or paths relative to the card"
    )
    nonbonded: Literal["NoCutoff", "CutoffNonPeriodic", "CutoffPeriodic", "Ewald", "PME", "LJPME"] = "NoCutoff"
    cutoff: Positive = Field(1.0, description="nm")
    constraints: Literal["none", "HBonds", "AllBonds", "HAngles"] = "none"
    hydrogen_mass: Positive | None = Field(None, description="amu, taken from the heavy neighbour")


class ToyCard(_Table):
    """One particle in an external field."""

    energy: Expression = Field(description="kJ/mol, an OpenMM expression in x, y, z (nm) and the parameters")
    mass: Positive = Field(description="amu")
    start: tuple[Number, Number, Number] = Field(description="nm")
    parameters: dict[Name, Number] = Field(default_factory=dict, description="by their name in the expression")


class TorsionLabelCard(_Table):
    """A torsion as slow coordinate."""

    kind: Literal["torsion"]
    name: Label
    atoms: FourAtoms | None = Field(None, description="0-based")
    torsion: str | None = Field(
        None, pattern=r"^(phi|psi):[\w/-]+$", description="phi:RES or psi:RES, as phi:2, phi:52A, phi:B/52A"
    )

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> "TorsionLabelCard":
        if (self.atoms is None) == (self.torsion is None):
            raise ValueError("give either 'atoms' or 'torsion'")
        if self.atoms is not None and len(set(self.atoms)) < 4:
            raise ValueError("'atoms' must be four different atoms")
        return self


class CoordinateLabelCard(_Table):
    """A Cartesian component of a particle as slow coordinate."""

    kind: Literal["coordinate"]
    name: Label
    particle: AtomIndex = Field(0, description="0-based")
    axis: Literal["x", "y", "z"]
    domain: Interval = Field(description="nm, the interval of interest")

    @model_validator(mode="after")
    def _ordered(self) -> "CoordinateLabelCard":
        if self.domain[0] >= self.domain[1]:
            raise ValueError("'domain' must be [low, high] with low < high")
        return self


LabelCard = Annotated[TorsionLabelCard | CoordinateLabelCard, Field(discriminator="kind")]


class FlatBottomCard(_Table):
    """A flat-bottomed torsion restraint: stiffness max(0, d - width)^2, d the distance to the centre."""

    atoms: FourAtoms = Field(description="0-based")
    centre: Number = Field(description="rad")
    width: Positive = Field(description="rad, half the width of the bottom")
    stiffness: Positive = Field(description="kJ/mol/rad^2")

    @model_validator(mode="after")
    def _in_radians(self) -> "FlatBottomCard":
        if abs(self.centre) > 2 * math.pi or self.width > math.pi:
            raise ValueError("'centre' is at most 2 pi, and 'width' at most pi: give radians")
        return self


class StateCard(_Table):
    """What must stay as it is in the structure."""

    chirality: Literal["L", "structure", "none"] = "L"
    trans_peptides: bool | Literal["auto"] = True
    flat_bottom: list[FlatBottomCard] = Field(default_factory=list)


class BasinCard(_Table):
    """A named union of boxes in the labels."""

    name: Label
    boxes: list[list[Interval]] = Field(
        min_length=1, description="per box one [low, high] a label; low > high wraps around"
    )


class SystemCard(_Table):
    """A whole card."""

    name: Label
    description: str = ""
    temperature: Positive = Field(description="K")
    friction: Positive = Field(description="1/ps")
    time_step: Positive = Field(description="ps")
    structure: FileName | None = Field(None, description="PDB, mmCIF or topology file, relative to the card")
    state_xml: FileName | None = Field(
        None, description="serialized OpenMM State, relative to the card: positions in place of the structure's"
    )
    force_field: ForceFieldCard | None = None
    system_xml: FileName | None = Field(None, description="serialized OpenMM System, relative to the card")
    toy: ToyCard | None = None
    molecule: AtomIndex | None = Field(
        None, description="an atom (0-based) of the molecule that is sampled, where there are others, held as they are"
    )
    labels: list[LabelCard] = Field(min_length=1, max_length=MAX_LABELS)
    force_constants: list[Positive] = Field(
        # what older cards call it
        validation_alias=AliasChoices("force_constants", "restraint"),
        description="one a label: kJ/mol (torsions), kJ/mol/nm^2 (coordinates)",
    )
    wide: list[str] | None = Field(
        None, description="coordinates with several modes that are no labels, in place of those found: chi1:2, ..."
    )
    not_wide: list[str] | None = Field(None, description="or those of the found ones that are not to be")
    state: StateCard = Field(default_factory=StateCard)
    basins: list[BasinCard] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_potential(self) -> "SystemCard":
        given = [key for key in ("force_field", "system_xml", "toy") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of 'force_field', 'system_xml' and 'toy' "
                f"({'none' if not given else ' and '.join(given)} given)"
            )
        if (self.structure is None) != (self.toy is not None):
            raise ValueError("a toy has no 'structure': remove it" if self.toy else f"{given[0]} needs a 'structure'")
        if self.toy is not None and self.state_xml is not None:
            raise ValueError("a toy has no 'state_xml': remove it, and give its 'start'")
        if self.toy is not None and self.molecule is not None:
            raise ValueError("a toy is one particle: remove 'molecule'")
        return self

    @model_validator(mode="after")
    def _labels_of_one_kind(self) -> "SystemCard":
        if len({label.kind for label in self.labels}) > 1:
            raise ValueError("'labels' must be all torsions or all coordinates")
        return self


class SDETable(_Table):
    """Ito's equations, one a variable: d(variable) = drift dt + noise dW, in expressions of OpenMM's syntax."""

    variables: list[Name] = Field(min_length=1, max_length=3)
    slow: list[Name] = Field(min_length=1, description="those of the variables that are labels")
    parameters: dict[Name, Number] = Field(default_factory=dict, description="by their name in the expressions")
    drift: dict[str, Expression] = Field(description="by variable, in variables and parameters")
    noise: dict[str, Expression] = Field(
        description="by variable, in variables and parameters; independent of each other"
    )
    start: dict[str, Number] = Field(description="by variable")
    time_step: Positive = Field(description="in the equations' own time")
    relaxation_time: Positive = Field(description="of the slowest of the fast variables, in the same time")
    observed: dict[Name, Expression] = Field(min_length=1, description="by name, in variables and parameters")
    closures: dict[str, Expression] = Field(
        default_factory=dict, description="by name in 'observed': its exact mean given the slow variables"
    )
    domain: dict[str, Interval] = Field(description="by slow variable, the interval of interest")

    @model_validator(mode="after")
    def _names(self) -> "SDETable":
        for key in ("variables", "slow"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"'{key}' holds a name twice")
        if not set(self.slow) < set(self.variables):
            raise ValueError("'slow' must be some of the 'variables', not all and no others")
        if set(self.variables) & set(self.parameters):
            raise ValueError("a variable and a parameter share a name")
        wanted = {"drift": self.variables, "noise": self.variables, "start": self.variables, "domain": self.slow}
        if self.closures:
            wanted["closures"] = list(self.observed)
        for key, names in wanted.items():
            if set(getattr(self, key)) != set(names):
                raise ValueError(f"'{key}' must have exactly the keys {', '.join(names)}")
        for name, (low, high) in self.domain.items():
            if low >= high:
                raise ValueError(f"'domain.{name}' must be [low, high] with low < high")
        return self

    @model_validator(mode="after")
    def _expressions(self) -> "SDETable":
        for key in ("drift", "noise", "observed", "closures"):
            variables = self.slow if key == "closures" else self.variables
            for name, expression in getattr(self, key).items():
                unknown = set(EXPRESSION_NAME.findall(expression)) - {*variables, *self.parameters}
                if unknown:
                    kind = "slow variable" if key == "closures" else "variable"
                    raise ValueError(f"'{key}.{name}' holds '{min(unknown)}', which is no {kind} and no parameter")
                if ";" in expression:
                    raise ValueError(f"'{key}.{name}' holds a semicolon: write one expression")
        return self


class SDECard(_Table):
    """A whole card of a stochastic differential equation."""

    name: Label
    description: str = ""
    sde: SDETable


MAX_QUOTED = 60
"""Characters of a wrong value that a message shows."""

_TABLES: dict[type[BaseModel], list[type[BaseModel]]] = {
    SystemCard: [ForceFieldCard, ToyCard, TorsionLabelCard, CoordinateLabelCard, StateCard, FlatBottomCard, BasinCard],
    SDECard: [SDETable],
}


def _known_keys(card: type[BaseModel]) -> set[str]:
    return {"sde"} | {key for table in (card, *_TABLES[card]) for key in table.model_fields}


def _key(location: tuple[int | str, ...]) -> str:
    """``labels[0].atoms`` for ("labels", 0, "torsion", "atoms"), whose third part is pydantic's tag."""
    if location[:1] == ("labels",):
        location = location[:2] + location[3:]
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return key


def _sentence(error: Any, card: type[BaseModel]) -> str:
    """One sentence for one of pydantic's errors."""
    location = error["loc"]
    key = _key(location)
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(location[-1]), _known_keys(card), n=1)
        remedy = f"did you mean '{close[0]}'?" if close else "remove it"
        return f"unknown key '{key}': {remedy}"
    if error["type"] == "missing":
        return f"key '{key}' is missing: add it"
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    shown = isinstance(error["input"], str | float) or (isinstance(error["input"], int) and error["input"] < 2**99)
    text = repr(error["input"]) if shown else ""
    text = text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}..."
    value = f" (it is {text})" if shown else ""
    return f"key '{key}': {message}{value}" if key else message


def read_card(path: Path) -> SystemCard | SDECard:
    """Read and check a card; one with a table 'sde' is a stochastic differential equation.

    Args:
        path: the TOML file.

    Raises:
        InputError: a missing file, a TOML error (with its line), an unknown, missing or wrong key.
    """
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise OSError(errno.EFBIG, "larger than any card")
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the card ({error.strerror}): check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: the card is not UTF-8 text: give a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise InputError(f"{path}: tables or lists within one another are too deep: write a simpler card") from None
    except ValueError:  # of Python's integers, which may have 4,300 digits
        raise InputError(f"{path}: a number has too many digits: write it shorter") from None
    card: type[SystemCard | SDECard] = SDECard if "sde" in content else SystemCard
    try:
        return card.model_validate(content)
    except ValidationError as error:
        # A misspelt key is also a missing one: the misspelling says more.
        errors = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        raise InputError(f"{path}: {'; '.join(_sentence(error, card) for error in errors)}") from None
