"""Cards and files from somebody else that try to run code, crash, loop or fill the memory, each in a folder.

What they write goes into ``OWNED`` beside the card, or in the folder where the program runs: nothing may.
"""

import pickle
from pathlib import Path

import openmm

from openmm_gancl.system.library import systems_root

OWNED = "OWNED"
TOY = (systems_root() / "double_well_oscillators" / "card.toml").read_text()
BUTANE = """name = "butane"
structure = "butane.pdb"
temperature = 300.0
friction = 1.0
time_step = 0.002
force_constants = [200.0]
{potential}
[[labels]]
kind = "torsion"
name = "t"
atoms = [0, 1, 2, 3]
"""
PDB = """\
ATOM      1  C1  BUT A   1       0.000   0.000   0.000  1.00  0.00           C
ATOM      2  C2  BUT A   1       1.530   0.000   0.000  1.00  0.00           C
ATOM      3  C3  BUT A   1       2.100   1.420   0.000  1.00  0.00           C
ATOM      4  C4  BUT A   1       3.600   1.420   0.300  1.00  0.00           C
CONECT    1    2
CONECT    2    3
CONECT    3    4
"""
FORCE_FIELD = """<ForceField>
 <AtomTypes>
  <Type name="C" class="C" element="C" mass="14"/>
 </AtomTypes>
 <Residues>
  <Residue name="BUT">
   <Atom name="C1" type="C"/><Atom name="C2" type="C"/><Atom name="C3" type="C"/><Atom name="C4" type="C"/>
   <Bond from="0" to="1"/><Bond from="1" to="2"/><Bond from="2" to="3"/>
  </Residue>
 </Residues>
 <HarmonicBondForce><Bond class1="C" class2="C" length="0.153" k="224262"/></HarmonicBondForce>
 <HarmonicAngleForce><Angle class1="C" class2="C" class3="C" angle="1.95" k="520"/></HarmonicAngleForce>
 <PeriodicTorsionForce>
  <Proper class1="C" class2="C" class3="C" class4="C" periodicity1="3" phase1="0" k1="6"/>
 </PeriodicTorsionForce>
 <NonbondedForce coulomb14scale="0.8" lj14scale="0.5" useDispersionCorrection="False">
  <Atom type="C" charge="0" sigma="0.39" epsilon="0.4"/>
 </NonbondedForce>{more}
</ForceField>
"""
WRITES = f'open("{OWNED}", "w").write("code of a file ran")'


class Pickled:
    """Runs a function of Python when it is read."""

    def __reduce__(self):
        return (exec, (WRITES,))


def butane_system(*forces):
    system = openmm.System()
    for _ in range(4):
        system.addParticle(14.0)
    bonds = openmm.HarmonicBondForce()
    for i in range(3):
        bonds.addBond(i, i + 1, 0.153, 224262.0)
    for force in (bonds, *forces):
        system.addForce(force)
    return openmm.XmlSerializer.serialize(system)


def _python_force():
    text = butane_system(openmm.PythonForce(_harmless))
    start = text.index('function="') + len('function="')
    return text[:start] + pickle.dumps(Pickled()).hex() + text[text.index('"', start) :]


def _harmless(state):
    return 0.0, state.getPositions(asNumpy=True)._value * 0


def _external(expression):
    force = openmm.CustomExternalForce(expression)
    for i in range(4):
        force.addParticle(i)
    return force


def _nonbonded_of_many():
    """A mesh of 10^5 points along each axis."""
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    for _ in range(4):
        force.addParticle(0.1, 0.3, 0.1)
    force.setPMEParameters(3.0, 100_000, 100_000, 100_000)
    force.setCutoffDistance(0.9)
    return force


def _toy(**values):
    text = TOY
    for key, value in values.items():
        lines = [f"{key} = {value}" if line.startswith(f"{key} ") else line for line in text.split("\n")]
        text = "\n".join(lines)
    return {"card.toml": text}


def _energy(expression):
    head, _, tail = TOY.partition('energy = """')
    return {"card.toml": f'{head}energy = """{expression}"""{tail.partition(chr(34) * 3)[2]}'}


def _of_force_field(more="", text=FORCE_FIELD):
    card = BUTANE.format(potential='[force_field]\nfiles = ["mine.xml"]')
    return {"card.toml": card, "butane.pdb": PDB, "mine.xml": text.replace("{more}", more)}


def of_system(xml):
    card = BUTANE.format(potential='system_xml = "system.xml"')
    return {"card.toml": card, "butane.pdb": PDB, "system.xml": xml}


def _alike(n):
    """A residue of n atoms of one type, each bonded to all others but one: matching it tries very many orders."""
    atoms = "".join(f'<Atom name="X{i}" type="C"/>' for i in range(n))
    pairs = [(i, j) for i in range(n) for j in range(i)]
    bonds = "".join(f'<Bond from="{i}" to="{j}"/>' for i, j in pairs)
    text = FORCE_FIELD.replace("</Residues>", f'<Residue name="ALIKE">{atoms}{bonds}</Residue></Residues>')
    lines = [
        f"ATOM  {i + 1:5d}  C{i:<2d} BUT A   1    {i:8.3f}{0:8.3f}{0:8.3f}  1.00  0.00           C" for i in range(n)
    ]
    connected = [f"CONECT{i + 1:5d}{j + 1:5d}" for i, j in pairs[1:]]
    return {**_of_force_field(text=text), "butane.pdb": "\n".join(lines + connected) + "\n"}


def _with_hydrogen(more):
    """Butane whose last atom is a hydrogen."""
    types = '<Type name="H" class="C" element="H" mass="1"/></AtomTypes>'
    charges = '<Atom type="H" charge="0" sigma="0.2" epsilon="0.1"/></NonbondedForce>'
    text = FORCE_FIELD.replace("</AtomTypes>", types).replace("</NonbondedForce>", charges)
    lines = [line[:77] + "H" if " C4 " in line else line for line in PDB.split("\n")]
    return {
        "card.toml": BUTANE.format(potential=f'[force_field]\nfiles = ["mine.xml"]\n{more}'),
        "butane.pdb": "\n".join(lines),
        "mine.xml": text.replace("{more}", "").replace('"C4" type="C"', '"C4" type="H"'),
    }


XML = 'system_xml = "x.xml"'
ENTITIES = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
BOMB = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "{"x" * 50}">{ENTITIES}]><ForceField>&e11;</ForceField>'


def strangers():
    """Name to what it does to be trusted with, and the files of its folder; made when asked for."""
    script = "\n <{0}>\n" + WRITES + "\n </{0}>"
    evaluated = FORCE_FIELD.replace('"False"', f"'{WRITES.replace(chr(34), '&quot;')}'")
    comment = f"<!-- > <Force type='PythonForce' function='{pickle.dumps(Pickled()).hex()}'/> -->"
    included = _of_force_field('\n <Include file="more.xml"/>')
    more = f"<ForceField>{script.format('Script')}</ForceField>"
    return {
        "initialization script": _of_force_field(script.format("InitializationScript")),
        "script": _of_force_field(script.format("Script")),
        "included script": {**included, "more.xml": more},
        "evaluated attribute": _of_force_field(text=evaluated),
        "bomb of entities": _of_force_field(text=BOMB),
        "atoms all alike": _alike(24),
        "PythonForce": of_system(_python_force()),
        "PythonForce in a comment": of_system(butane_system().replace("<Forces>", f"<Forces>{comment}")),
        "force of a plugin": of_system(butane_system().replace("HarmonicBondForce", "PlumedForce")),
        "deep expression in a System": of_system(butane_system(_external("(" * 20_000 + "x" + ")" * 20_000))),
        "long expression in a System": of_system(butane_system(_external("+".join(["x^2"] * 40_000)))),
        "huge mesh": of_system(butane_system(_nonbonded_of_many())),
        "atom out of range": of_system(butane_system().replace('p1="0"', 'p1="2000000000"')),
        "deep list": {"card.toml": "a=" + "[" * 5000 + "]" * 5000},
        "deep expression": _energy("(" * 20_000 + "x" + ")" * 20_000),
        "long expression": _energy("+".join(["x^2"] * 40_000)),
        "huge number": _toy(temperature="9" * 5000),
        "huge hexadecimal": _toy(temperature="0x" + "f" * 200_000),
        "true for a number": _toy(temperature="true"),
        "text for a number": _toy(temperature='"300"'),
        "atom beyond integers": {"card.toml": BUTANE.format(potential="").replace("3]", "99999999999999999999]")},
        "line break in a name": _toy(name='"a\\nb"'),
        "escape in a name": _toy(name='"a\\u001b[2J"'),
        "hydrogen heavier than carbon": _with_hydrogen("hydrogen_mass = 1e6"),
        "a folder for a structure": {"card.toml": BUTANE.format(potential=XML).replace("butane.pdb", "..")},
    }


def write(files, folder):
    """The files of one of them; where its card is."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder / "card.toml"


def owned(folder):
    """Whether code of a file has run."""
    return any(Path(folder).rglob(OWNED))
