"""Cards and files from somebody else: nothing happens but a sentence."""

import gc
import os
import time
import zipfile

import numpy as np
import openmm
import pytest

from openmm_gancl import files
from openmm_gancl.engine.serialization import refuse_code
from openmm_gancl.errors import InputError
from openmm_gancl.lifting.sde import load_sde
from openmm_gancl.system.card import read_card
from openmm_gancl.system.library import copy_system, load_system, systems_root
from tests import strangers

MAX_SECONDS = 20  # of the wall, on a busy machine; 5 of the processor


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", strangers.strangers())
def test_a_stranger_gets_a_sentence(name, tmp_path, capfd):
    card, begun = strangers.write(strangers.strangers()[name], tmp_path / "theirs"), time.monotonic()
    with pytest.raises(InputError) as refused:
        load_system(card)
    assert time.monotonic() - begun < MAX_SECONDS
    text = str(refused.value)
    assert str(card) in text and ": " in text and text.isprintable() and len(text) < 700
    assert not strangers.owned(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["initialization script", "script", "included script", "evaluated attribute"])
def test_code_of_a_trusted_force_field_runs(name, tmp_path):
    """The twin: these files would do what they say."""
    card = strangers.write(strangers.strangers()[name], tmp_path / "ours")
    system = load_system(card, trust_force_field=True)
    assert system.n_atoms == 4 and strangers.owned(tmp_path)


def test_code_of_a_trusted_system_runs(tmp_path):
    card = strangers.write(strangers.strangers()["PythonForce"], tmp_path / "ours")
    load_system(card, trust_force_field=True)
    assert strangers.owned(tmp_path)


def test_the_same_system_comes_from_the_child(tmp_path):
    name = "alanine_dipeptide_gbsa"
    shipped, copied = load_system(name), load_system(copy_system(name, tmp_path / "copy"))
    assert copied.force_field_hash == shipped.force_field_hash
    np.testing.assert_array_equal(copied.positions, shipped.positions)
    atoms = list(copied.topology.atoms())
    assert all(end is atoms[end.index] for bond in copied.topology.bonds() for end in bond)


def test_files_are_looked_for_beside_the_card_and_not_where_the_program_runs(tmp_path):
    parts = strangers.strangers()["script"]
    (tmp_path / "mine.xml").write_text(parts.pop("mine.xml"))
    with pytest.raises(InputError, match=r"no file 'mine.xml' in .*theirs or of OpenMM's own"):
        load_system(strangers.write(parts, tmp_path / "theirs"), trust_force_field=True)
    assert not strangers.owned(tmp_path)


@pytest.mark.parametrize("kind", ["drift", "noise", "observed", "closures"])
def test_expressions_of_equations_are_bounded(kind, tmp_path):
    text = (systems_root() / "quadratic" / "card.toml").read_text()
    head, table, tail = text.partition(f"[sde.{kind}]\n")
    key, _, rest = tail.partition(" =")
    (tmp_path / "card.toml").write_text(f'{head}{table}{key} = "{"(" * 99}1{")" * 99}"{rest[rest.index(chr(10)) :]}')
    with pytest.raises(InputError, match=rf"sde\.{kind}.*parentheses within one another"):
        load_sde(tmp_path / "card.toml")


def test_every_force_of_openmm_but_python_is_read():
    kinds = [kind for kind in vars(openmm).values() if isinstance(kind, type) and issubclass(kind, openmm.Force)]
    for kind in {kind.__name__ for kind in kinds} - {"PythonForce"}:
        refuse_code(f'<System type="System"><Force type="{kind}"/></System>')
    with pytest.raises(InputError, match="PythonForce in it would run code"):
        refuse_code('<System type="System"><Force type="PythonForce"/></System>')


def test_a_card_larger_than_any(tmp_path):
    (tmp_path / "card.toml").write_text("# " + "x" * 2**20)
    with pytest.raises(InputError, match="larger than any card"):
        read_card(tmp_path / "card.toml")


def loop():
    while True:
        pass


def fill():
    return bytearray(2**33)


@pytest.mark.parametrize(("work", "message"), [(loop, "keeps its reader busy for more than 1 s"), (fill, "memory")])
def test_a_child_is_bounded(work, message, monkeypatch):
    monkeypatch.setattr(files, "MAX_CPU_SECONDS", 1)
    with pytest.raises(InputError, match=message):
        files.in_child(work, "it", 0)


@pytest.mark.parametrize("kept", [True, False])
def test_a_child_collects_no_context_of_its_parent(kept, monkeypatch):
    """Nobody's Context, as an error's traceback leaves one: its threads are not there to be waited for."""
    monkeypatch.setattr(files, "PATIENCE", 1.0)
    if not kept:
        monkeypatch.setattr(files.gc, "freeze", lambda: None)
    system, force = openmm.System(), openmm.NonbondedForce()
    for _ in range(50):
        system.addParticle(1.0)
        force.addParticle(0.0, 0.1, 0.1)
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions([openmm.Vec3(0.3 * i, 0, 0) for i in range(50)])
    context.getState(energy=True)
    gc.disable()
    try:
        circle = {"context": context}
        circle["itself"] = circle
        del circle, context
        if kept:
            files.in_child(gc.collect, "it", 0)
        else:
            with pytest.raises(InputError, match="its reader"):
                files.in_child(gc.collect, "it", 0)
    finally:
        gc.enable()


class OfTheParent:
    """In a circle, so that only a collection ends it; a child that does so dies."""

    def __init__(self):
        self.itself, self.process = self, os.getpid()

    def __del__(self):
        if os.getpid() != self.process:
            os._exit(1)


forking = {"allocates": False}
os.register_at_fork(after_in_child=lambda: forking["allocates"] and [[i] for i in range(10**5)])


@pytest.mark.parametrize("kept", [True, False])
def test_nothing_is_collected_before_a_child_is_begun(kept, monkeypatch):
    """What libraries run in it after a fork allocates, and would have the parent's objects collected."""
    monkeypatch.setitem(forking, "allocates", True)
    if not kept:
        monkeypatch.setattr(files.gc, "disable", lambda: None)
    gc.collect()
    assert gc.isenabled()
    for _ in range(3):
        OfTheParent()
    if kept:
        assert files.in_child(lambda: 3, "it", 0) == 3
    else:
        with pytest.raises(InputError, match="crashes its reader"):
            files.in_child(lambda: 3, "it", 0)
    assert gc.isenabled()


def test_a_child_hands_over_what_it_made_and_why_it_did_not(tmp_path):
    assert files.in_child(lambda: {"a": np.arange(10**6)}, "it", 0)["a"].sum() == 499999500000

    def fails():
        raise KeyError("mass")

    with pytest.raises(InputError, match="'mass'"):
        files.in_child(fails, "it", 0)
    with pytest.raises(InputError, match="crashes its reader"):
        files.in_child(crash, "it", 0)


def test_without_children_it_is_run_here(monkeypatch):
    monkeypatch.delattr(os, "fork")
    assert files.in_child(os.getpid, "it", 0) == os.getpid()


def crash():
    import ctypes

    ctypes.string_at(0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file .*a.json: check its name"),
        (b'{"a": ', "cannot read .*a.json .*: give the file as it was written"),
        (b"\xff\xfe", "cannot read .*a.json"),
        (b"[" * 10**5, "cannot read .*a.json .*recursion"),
        (b" " * 2049, "cannot read .*a.json .it is larger than 0 MiB"),
    ],
)
def test_what_is_no_json(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 2048 if content and content.isspace() else 2**20)
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        files.load_json(tmp_path / "a.json")


def test_arrays_that_are_larger_than_any_of_ours(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", a=np.zeros(100))
    assert files.load_arrays(tmp_path / "a.npz")["a"].shape == (100,)
    monkeypatch.setattr(files, "MAX_ARRAY_BYTES", 500)
    with pytest.raises(InputError, match=r"a.npz holds more than 0 GiB: give a smaller file"):
        files.load_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("dtype", ["complex64", "0F,", "f8,c16", "M8[s]"])
def test_arrays_of_other_than_real_numbers(tmp_path, dtype):
    """Complex ones would lose their imaginary parts."""
    np.savez(tmp_path / "a.npz", a=np.ones(3), b=np.zeros(3, dtype=dtype))
    np.save(tmp_path / "a.npy", np.zeros(3, dtype=dtype))
    for name in ("a.npz", "a.npy"):
        with pytest.raises(InputError, match=f"{name} holds what is no array of real numbers"):
            files.load_arrays(tmp_path / name)


def test_an_archive_with_another_file_in_it(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("energy", b"no array")
    with pytest.raises(InputError, match=r"a\.npz holds what is no array"):
        files.load_arrays(tmp_path / "a.npz")


def test_an_archive_that_unpacks_to_far_more_than_it_is(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(2**21))
    assert (tmp_path / "a.npz").stat().st_size < 2**15
    assert files.load_arrays(tmp_path / "a.npz")["a"].shape == (2**21,)
    monkeypatch.setattr(files, "FREE_ARRAY_BYTES", 2**20)
    with pytest.raises(InputError, match=r"would unpack to 16 MiB"):
        files.load_arrays(tmp_path / "a.npz")
