"""The card: a TOML file that says what a system is, checked key by key."""

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import InputError

AtomIndex = Annotated[int, Field(ge=0)]
FourAtoms = tuple[AtomIndex, AtomIndex, AtomIndex, AtomIndex]
Positive = Annotated[float, Field(gt=0)]
Interval = tuple[float, float]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ForceFieldCard(_Table):
    """A System made from a structure and OpenMM force-field files."""

    files: list[str] = Field(min_length=1, description="OpenMM's own names, or paths relative to the card")
    nonbonded: Literal["NoCutoff", "CutoffNonPeriodic", "CutoffPeriodic", "Ewald", "PME", "LJPME"] = "NoCutoff"
    cutoff: Positive = Field(1.0, description="nm")
    constraints: Literal["none", "HBonds", "AllBonds", "HAngles"] = "none"
    hydrogen_mass: Positive | None = Field(None, description="amu, taken from the heavy neighbour")


class ToyCard(_Table):
    """One particle in an external field."""

    energy: str = Field(description="kJ/mol, an OpenMM expression in x, y, z (nm) and the parameters")
    mass: Positive = Field(description="amu")
    start: tuple[float, float, float] = Field(description="nm")
    parameters: dict[str, float] = Field(default_factory=dict, description="by their name in the expression")


class TorsionLabelCard(_Table):
    """A torsion as slow coordinate."""

    kind: Literal["torsion"]
    name: str
    atoms: FourAtoms | None = Field(None, description="0-based")
    torsion: str | None = Field(
        None, pattern=r"^(phi|psi):-?\w+$", description="phi:RES or psi:RES, the residue number"
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
    name: str
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
    centre: float = Field(description="rad")
    width: Positive = Field(description="rad, half the width of the bottom")
    stiffness: Positive = Field(description="kJ/mol/rad^2")


class StateCard(_Table):
    """What must stay as it is in the structure."""

    chirality: Literal["L", "structure", "none"] = "L"
    trans_peptides: bool = True
    flat_bottom: list[FlatBottomCard] = Field(default_factory=list)


class BasinCard(_Table):
    """A named union of boxes in the labels."""

    name: str
    boxes: list[list[Interval]] = Field(
        min_length=1, description="per box one [low, high] a label; low > high wraps around"
    )


class SystemCard(_Table):
    """A whole card."""

    name: str = Field(min_length=1)
    description: str = ""
    temperature: Positive = Field(description="K")
    friction: Positive = Field(description="1/ps")
    time_step: Positive = Field(description="ps")
    structure: str | None = Field(None, description="PDB or mmCIF file, relative to the card")
    force_field: ForceFieldCard | None = None
    system_xml: str | None = Field(None, description="serialized OpenMM System, relative to the card")
    toy: ToyCard | None = None
    labels: list[LabelCard] = Field(min_length=1)
    restraint: list[Positive] = Field(description="one a label: kJ/mol (torsions), kJ/mol/nm^2 (coordinates)")
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
        return self

    @model_validator(mode="after")
    def _labels_of_one_kind(self) -> "SystemCard":
        if len({label.kind for label in self.labels}) > 1:
            raise ValueError("'labels' must be all torsions or all coordinates")
        return self


def _known_keys() -> set[str]:
    tables: list[type[BaseModel]] = [
        SystemCard,
        ForceFieldCard,
        ToyCard,
        TorsionLabelCard,
        CoordinateLabelCard,
        StateCard,
        FlatBottomCard,
        BasinCard,
    ]
    return {key for table in tables for key in table.model_fields}


def _key(location: tuple[int | str, ...]) -> str:
    """``labels[0].atoms`` for ("labels", 0, "torsion", "atoms"), whose third part is pydantic's tag."""
    if location[:1] == ("labels",):
        location = location[:2] + location[3:]
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return key


def _sentence(error: Any) -> str:
    """One sentence for one of pydantic's errors."""
    location = error["loc"]
    key = _key(location)
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(location[-1]), _known_keys(), n=1)
        remedy = f"did you mean '{close[0]}'?" if close else "remove it"
        return f"unknown key '{key}': {remedy}"
    if error["type"] == "missing":
        return f"key '{key}' is missing: add it"
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    value = f" (it is {error['input']!r})" if isinstance(error["input"], str | int | float) else ""
    return f"key '{key}': {message}{value}" if key else message


def read_card(path: Path) -> SystemCard:
    """Read and check a card.

    Args:
        path: the TOML file.

    Raises:
        InputError: a missing file, a TOML error (with its line), an unknown, missing or wrong key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the card ({error.strerror}): check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: the card is not UTF-8 text: give a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    try:
        return SystemCard.model_validate(content)
    except ValidationError as error:
        # A misspelt key is also a missing one: the misspelling says more.
        errors = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise InputError(f"{path}: {_sentence(errors[0])}{more}") from None
