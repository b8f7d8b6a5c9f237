"""Files that fuzzing begins with, and that once broke a reader: read, or refused in one sentence."""

import sys
import time

import pytest

from openmm_gancl import files

from . import run, targets

MAX_SECONDS = 5.0


@pytest.fixture(scope="module", autouse=True)
def folder():
    yield
    targets.clean_up()


@pytest.mark.parametrize("name", targets.TARGETS)
def test_every_file_of_the_corpus_is_read_or_refused(name):
    for path in targets.corpus(name):
        begun = time.monotonic()
        error = targets.outcome(name, path.read_bytes())
        assert time.monotonic() - begun < MAX_SECONDS, path
        if path.name.startswith("whole"):  # so that nothing holds because everything is refused
            assert error is None, (path, error)
        if path.name.startswith("hostile"):
            assert error is not None, path


def test_a_reader_that_raises_something_else_is_noticed(monkeypatch):
    """The twin: what the fuzzer and the test above look for is seen."""

    def broken(path):
        raise IndexError("list index out of range")

    monkeypatch.setitem(targets.TARGETS, "dat", ("m.dat", broken))
    with pytest.raises(IndexError):
        targets.outcome("dat", b"1 2\n")
    monkeypatch.undo()
    monkeypatch.setattr(files, "limit_process", lambda *limits: (_ for _ in ()).throw(RuntimeError))
    assert "crashes" in str(targets.outcome("dcd", (targets.CORPUS / "dcd" / "whole").read_bytes()))


def test_fuzzing_without_atheris_says_what_is_missing_and_records_nothing(monkeypatch, tmp_path):
    """It once said that every reader broke."""
    minutes = run.MINUTES.read_bytes()
    monkeypatch.setitem(sys.modules, "atheris", None)
    monkeypatch.setattr(sys, "argv", ["run", "dat", "--work", str(tmp_path / "work")])
    with pytest.raises(SystemExit, match="cannot run: pip install atheris"):
        run.main()
    assert run.MINUTES.read_bytes() == minutes and not (tmp_path / "work").exists()
