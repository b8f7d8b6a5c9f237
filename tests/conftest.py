import os
import signal
import sys
from pathlib import Path

# before numpy is loaded, here or in a worker: test processes share the cores, and small matrices gain nothing
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import pytest  # noqa: E402
import torch  # noqa: E402

# more threads than cores slow the small networks here down, and results must not depend on their number
torch.set_num_threads(1)

# started in the background of a shell, where interrupts are ignored, tests of interrupts would wait for none
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONG = (
    "workflow/test_loop_run.py",
    "physics/test_learned_labels.py",
    "physics/test_moves.py",
    "workflow/test_learned_run.py",
    "physics/test_in_context.py",
    "test_examples.py",
    "test_pages.py",
    "physics/test_umbrella.py",
    "physics/test_sde.py",
    "physics/test_unrestrained.py",
    "physics/test_exactness.py",
    "physics/test_constraints.py",
    "physics/test_planted_faults.py",
    "workflow/test_run.py",
    "test_quality.py",
    "physics/test_windows.py",
    "test_bytes.py",
    "engine/test_random_numbers.py",
    "cli/test_cli.py",
    "physics/test_density.py",
    "generator/test_forces.py",
)
"""Files that take longest come first, so that no worker of pytest-xdist has one of them left alone at the end."""


@pytest.fixture(autouse=True)
def interrupts_are_heard():
    """A command that was interrupted ignores whatever comes after; the next test in this process hears it again."""
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def pictures():
    """Asked for by a test of pictures, in a module that goes without them."""


@pytest.fixture
def without_pictures(request, monkeypatch):
    """For tests of numbers: of a run of `gancl fes` on small files pictures take four fifths."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("openmm_gancl.free_energy.report._pictures", lambda *arguments: {})


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


def pytest_addoption(parser):
    text = "run as if openmm-torch were not installed"
    parser.addoption("--without-openmmtorch", action="store_true", help=text)


def pytest_configure(config):
    if config.getoption("--without-openmmtorch"):
        hidden = str(Path(__file__).parent / "hidden")
        sys.path.insert(0, hidden)
        # also of the processes that tests start
        os.environ["PYTHONPATH"] = os.pathsep.join([hidden, *filter(None, [os.environ.get("PYTHONPATH")])])
