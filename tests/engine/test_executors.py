"""Executors of other libraries, by the conformance test of our own: ``pytest -m executors``, with their extra."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openmm_gancl.engine.clusters import dask_executor
from openmm_gancl.errors import InputError
from tests.engine.test_tasks import check_conformance

PAGE = (Path(__file__).parents[2] / "docs" / "many_machines.md").read_text()
RUN = ("run", "double_well_oscillators", "--preset", "quick", "--generator", "product", "--platform", "Reference")
FILES = ("fes.npz", "lifts.npz", "reverse.npz", "model.safetensors")

MPI_SCRIPT = """
import sys
from mpi4py.futures import MPIPoolExecutor
from tests.engine.test_tasks import check_conformance

if __name__ == "__main__":
    check_conformance(MPIPoolExecutor(), sys.argv[1])
    print("conforms")
"""


@pytest.fixture
def cluster(tmp_path):
    """The file of a scheduler, and its three workers."""
    pytest.importorskip("distributed")
    file, started = tmp_path / "scheduler.json", []

    def start(*command):
        with open(tmp_path / "dask.log", "a") as log:
            started.append(subprocess.Popen([sys.executable, "-m", *command], stdout=log, stderr=log))
        return started[-1]

    where = ("--scheduler-file", str(file), "--no-dashboard")
    start("distributed.cli.dask_scheduler", *where, "--host", "127.0.0.1", "--port", "0")
    one = ("--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
    workers = [start("distributed.cli.dask_worker", *where, *one) for _ in range(3)]
    while not file.exists():
        time.sleep(0.05)
    yield str(file), workers
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.executors
def test_dask(cluster, tmp_path):
    with dask_executor(cluster[0]) as executor:
        check_conformance(executor, tmp_path, lost=1)


@pytest.mark.executors
def test_parsl(tmp_path):
    pytest.importorskip("parsl")
    from parsl import Config, HighThroughputExecutor
    from parsl.concurrent import ParslPoolExecutor

    site = HighThroughputExecutor(max_workers_per_node=2, encrypted=False, address="127.0.0.1")
    with ParslPoolExecutor(Config([site], run_dir=str(tmp_path / "parsl"), usage_tracking=0)) as executor:
        check_conformance(executor, tmp_path, lost=1)


@pytest.mark.executors
def test_mpi(tmp_path):
    """A killed MPI process ends all of them, as MPI has it: none is killed here."""
    pytest.importorskip("mpi4py")
    script = tmp_path / "main.py"
    script.write_text(MPI_SCRIPT)
    mpiexec = os.path.join(os.path.dirname(sys.executable), "mpiexec")
    command = [mpiexec, "-n", "3", sys.executable, "-m", "mpi4py.futures", str(script), str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0 and finished.stdout == "conforms\n", finished.stderr


@pytest.mark.executors
def test_a_run_gives_the_same_bytes_wherever_it_runs(cluster, tmp_path):
    """In this process, in two, and on three workers of Dask, one of which is killed midway."""
    file, workers = cluster
    command = [sys.executable, "-m", "openmm_gancl.cli", *RUN]
    for place in (("--workers", "1"), ("--workers", "2")):
        subprocess.run([*command, "-o", str(tmp_path / place[1]), *place], check=True, capture_output=True)
    process = subprocess.Popen([*command, "-o", str(tmp_path / "3"), "--scheduler", file], stderr=subprocess.PIPE)
    while not (tmp_path / "3" / "train").exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    workers[1].send_signal(signal.SIGKILL)
    assert process.poll() is None, "the run had ended before the worker was killed"
    process.communicate()
    assert process.returncode == 0
    for name in FILES:
        found = {(tmp_path / place / name).read_bytes() for place in "123"}
        assert len(found) == 1, name


def code_of(name):
    """The block of code on the page that imports a module."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (code,) = [block for block in blocks if f"from {name} import" in block]
    return code


@pytest.mark.executors
@pytest.mark.parametrize("name", ["distributed", "parsl"])
def test_the_code_of_the_page_runs(name, tmp_path):
    pytest.importorskip(name)
    script = tmp_path / "script.py"
    script.write_text(code_of(name).replace("max_workers_per_node=16", "max_workers_per_node=2"))
    finished = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, timeout=200)
    assert finished.returncode == 0, finished.stderr
    assert name != "distributed" or re.fullmatch(r"\d+ frames\n", finished.stdout)


@pytest.mark.executors
def test_jobs_of_slurm_have_workers_of_one_thread(monkeypatch):
    jobqueue = pytest.importorskip("dask_jobqueue")
    monkeypatch.setattr(jobqueue.SLURMCluster, "scale", lambda self, jobs: None)
    exec(code_of("dask_jobqueue"), names := {})
    script = names["cluster"].job_script()
    names["cluster"].close()
    assert "--nthreads 1" in script and "--nworkers 16" in script and "source ~/gancl/bin/activate" in script


def test_without_dask_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"needs Dask: pip install 'openmm-gancl\[dask\]'"), dask_executor("tcp://a:1"):
        pass


def test_a_scheduler_is_an_address_or_a_file():
    with (
        pytest.raises(InputError, match=r"`scheduler` scheduler.jsn is no file and no"),
        dask_executor("scheduler.jsn"),
    ):
        pass


@pytest.mark.executors
def test_a_scheduler_that_does_not_answer(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("openmm_gancl.engine.clusters.CONNECTING", 0.5)
    broken = tmp_path / "scheduler.json"
    broken.write_text("{}")
    for scheduler in ("tcp://127.0.0.1:9", "nonsense://x", str(broken)):
        with pytest.raises(InputError, match="no Dask scheduler answers at"), dask_executor(scheduler):
            pass


def test_the_command_line_takes_one_kind_of_workers(tmp_path):
    command = [sys.executable, "-m", "openmm_gancl.cli", *RUN, "-o", str(tmp_path / "run")]
    finished = subprocess.run([*command, "--workers", "2", "--scheduler", "x"], capture_output=True, text=True)
    assert finished.returncode == 2 and "give one of them" in finished.stderr
    assert not (tmp_path / "run").exists()
