"""Ctrl-C in programs of their own: while modules are imported, in long calls, and where a library swallows it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from openmm_gancl.cli.exit_codes import exit_codes
from openmm_gancl.engine.interrupts import note_interrupt

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")

COMMAND = """
import signal, sys, time, typer
from openmm_gancl.cli import interrupts
from openmm_gancl.cli.exit_codes import exit_codes
interrupts.GRACE = 0.3
interrupts.listen()
app = typer.Typer()
@app.command()
def command():
    with exit_codes(False, "go on"):
        {body}
    print("went on")
app()
"""

BODIES = {
    "waiting": "print('ready', flush=True); time.sleep(60)",
    "swallowed": """
        class Deaf:
            def __del__(self):
                print('ready', flush=True); time.sleep(60)
        deaf = Deaf(); del deaf
        while True: time.sleep(60)""",
    "lost by a library": """
        try:
            print('ready', flush=True); time.sleep(60)
        except BaseException:
            pass
        while True: time.sleep(60)""",
    "lost by a library at the end": """
        try:
            print('ready', flush=True); time.sleep(60)
        except BaseException:
            pass""",
    "answered with another exception": """
        try:
            print('ready', flush=True); time.sleep(60)
        except BaseException:
            raise ZeroDivisionError('what a library makes of it') from None""",
    "a long call": """
        import openmm
        system = openmm.System(); system.addParticle(1.0)
        context = openmm.Context(system, integrator := openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform(0))
        context.setPositions([[0, 0, 0]])
        print('ready', flush=True); integrator.step(10**9)""",
}
IGNORING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""


def interrupted(command, ready=None):
    """Exit code, output and messages of a program that is interrupted when it says so, or once it listens."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    if ready is None:
        while len(os.listdir(f"/proc/{process.pid}/task")) < 2 and process.poll() is None:
            time.sleep(0.001)
    else:
        assert process.stdout.readline() == ready
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_whatever_is_interrupted_ends_with_one_sentence(body):
    found = interrupted([sys.executable, "-c", COMMAND.format(body=body)], "ready\n")
    assert found == (130, "", "error: interrupted: go on\n")


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.3])
def test_while_modules_are_imported(moment, tmp_path):
    command = [sys.executable, "-m", "openmm_gancl.cli", "run", "bonded_chain", "-o", str(tmp_path / "run")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while len(os.listdir(f"/proc/{process.pid}/task")) < 2 and process.poll() is None:
        time.sleep(0.001)
    time.sleep(moment)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and re.fullmatch("error: interrupted: [^\n]*\n", err), err


EARLY = """
import builtins, os, signal, sys
import openmm_gancl.cli
imported = builtins.__import__
def interrupted(name, *rest):
    if name == "threading" or name.endswith("interrupts"):
        os.kill(os.getpid(), signal.SIGINT)
    return imported(name, *rest)
builtins.__import__ = interrupted
{entry}
"""


@pytest.mark.parametrize(
    ("entry", "code"), [("openmm_gancl.cli.main()", 130), ("from openmm_gancl.cli import app", -2)]
)
def test_before_what_hears_it_is_imported(entry, code):
    """The twin: without the entry point it is Python's own."""
    found = subprocess.run([sys.executable, "-c", EARLY.format(entry=entry)], capture_output=True, text=True)
    assert found.returncode == code
    assert (found.stderr == "error: interrupted: repeat the command\n") == (code == 130)


def test_python_alone_would_print_a_traceback():
    """What the sentence replaces."""
    code, _, err = interrupted([sys.executable, "-c", "import time; " + BODIES["waiting"]], "ready\n")
    assert code == -signal.SIGINT and "Traceback" in err


def test_a_program_that_is_to_ignore_it_does():
    """``nohup``, or in the background of a shell."""
    code = COMMAND.format(body="print('ready', flush=True); time.sleep(0.3)")
    assert interrupted([sys.executable, "-c", IGNORING, code], "ready\n") == (0, "went on\n", "")


def test_an_interrupt_of_an_earlier_command_is_none_of_this_one():
    """Of two in one process, where a library lost the first one's too."""
    with pytest.raises(typer.Exit) as ended, exit_codes(False):
        note_interrupt()
    assert ended.value.exit_code == 130
    with exit_codes(False):
        pass
