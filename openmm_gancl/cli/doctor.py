"""``gancl doctor``: what works here, and what to do about what does not."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from . import options as shared
from .exit_codes import BAD_INPUT, exit_codes

PACKAGES = (
    *("openmm", "torch", "mdtraj", "numpy", "scipy", "pymbar", "networkx", "faiss-cpu"),
    *("lazy-loader", "loky", "threadpoolctl", "pydantic", "typer", "rich", "matplotlib", "jinja2", "safetensors"),
)
"""That it cannot do without."""

MIN_FREE_DISK = 1.0
"""GB."""

CHECK_TIMEOUT = 120
"""Seconds."""


@dataclass(frozen=True)
class Finding:
    """One line: what was checked, whether it is well, what was found, what to do."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    needed: bool = True


def _python() -> list[Finding]:
    found = sys.version.split()[0]
    return [Finding("Python", (3, 11) <= sys.version_info[:2] < (3, 14), found, "use Python 3.11 to 3.13")]


def _packages() -> list[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    findings = []
    for name in PACKAGES:
        try:
            findings.append(Finding(name, True, version(name)))
        except PackageNotFoundError:
            findings.append(Finding(name, False, "not installed", f"pip install {name}"))
    return findings


def _in_own_process(module: str, *arguments: str) -> tuple[str, str]:
    """What a module prints, and why it ended early, if it did; it may crash without a message."""
    command = [sys.executable, "-m", f"openmm_gancl.cli.{module}", *arguments]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_TIMEOUT)
    except subprocess.TimeoutExpired:
        return "", f"no answer in {CHECK_TIMEOUT} s"
    if finished.returncode < 0:
        return finished.stdout, f"the process crashed with signal {-finished.returncode}"
    last = finished.stderr.strip().split("\n")[-1]
    return finished.stdout, (last or f"ended with code {finished.returncode}") if finished.returncode else ""


def _platform(name: str) -> Finding:
    """Its speed; some (PoCL's OpenCL) crash the process that tries them."""
    printed, failure = _in_own_process("platform_check", name)
    if not failure:
        return Finding(f"platform {name}", True, f"{printed.strip()} us a step (alanine dipeptide)")
    remedy = "check its driver, or name another platform (--platform)"
    return Finding(f"platform {name}", False, f"does not run here ({failure})", remedy, needed=False)


def _openmm_platforms() -> list[Finding]:
    import openmm

    from ..engine.platforms import platform_names

    findings = [_platform(name) for name in platform_names()]
    if not any(finding.ok for finding in findings):
        findings.append(Finding("platforms", False, "none runs here", "pip install --force-reinstall openmm"))
    remedy = "install the driver of the card, or put the library that is missing on LD_LIBRARY_PATH"
    for message in openmm.Platform.getPluginLoadFailures():
        plugin = re.search(r"plugins.libOpenMM(CUDA|HIP|OpenCL)[.]\w+: (.*)", message)
        # that for OpenCL comes with OpenMM, also where there is no card
        if plugin and (plugin[1] != "OpenCL" or _devices()):
            findings.append(Finding(f"plugin {plugin[1]}", False, plugin[2], remedy, needed=False))
    return findings


def _openmmtorch() -> list[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    from ..engine.torch_force import why_not_torch
    from .torch_check import STAGES

    try:
        installed = version("openmmtorch")
    except PackageNotFoundError:
        remedy = "PythonForce is used instead; for TorchForce pip install 'openmm-gancl[openmmtorch]'"
        return [Finding("openmmtorch", False, "not installed", remedy, needed=False)]
    if reason := why_not_torch():
        remedy = f"{reason}: pip install 'openmm-gancl[openmmtorch]'; PythonForce is used meanwhile"
        return [Finding("openmmtorch", False, f"{installed} does not fit", remedy, needed=False)]
    remedy = "pip install --force-reinstall 'openmm-gancl[openmmtorch]', or choose backend='python' meanwhile"
    printed, failure = _in_own_process("torch_check")
    passed = printed.split("\n")
    missing = next((what for stage, what in STAGES.items() if stage not in passed), "")
    if not missing:
        return [Finding("openmmtorch", True, f"{installed}: {', '.join(STAGES)}")]
    return [Finding("openmmtorch", False, f"{installed} cannot {missing} ({failure})", remedy, needed=False)]


def _devices() -> list[str]:
    """NVIDIA's cards, as its driver lists them."""
    try:
        finished = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=CHECK_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.split(" (UUID")[0] for line in finished.stdout.splitlines() if finished.returncode == 0]


def _cuda() -> list[Finding]:
    import torch
    from openmm import version

    from ..engine.platforms import platform_names

    devices, has_platform = _devices(), "CUDA" in platform_names()
    if not devices and not has_platform:
        return [Finding("CUDA", True, "no device (not needed: small molecules run on the Reference platform)")]
    names = ", ".join(devices) or "a device"
    if not has_platform:
        wheel = f"OpenMM-CUDA-{(torch.version.cuda or '12').split('.')[0]}=={version.short_version}"
        remedy = f"pip install {wheel}, and put torch's nvidia library folders on LD_LIBRARY_PATH"
        return [Finding("CUDA", False, f"{names}, but OpenMM has no CUDA platform", remedy, needed=False)]
    if not torch.cuda.is_available():
        remedy = "install a torch with CUDA for networks on the card; they run on the CPU meanwhile"
        return [Finding("CUDA", False, f"{names}, of which torch {torch.__version__} sees none", remedy, needed=False)]
    return [Finding("CUDA", True, names)]


def _machine() -> list[Finding]:
    from ..engine.tasks import available_workers

    free = shutil.disk_usage(Path.cwd()).free / 1e9
    findings = [
        Finding("cores", True, str(available_workers())),
        Finding("free disk here", free > MIN_FREE_DISK, f"{free:.1f} GB", "free some, or work in another folder"),
    ]
    folder = tempfile.gettempdir()
    writable = os.access(folder, os.W_OK)
    findings.append(Finding("temporary folder", writable, folder, "set TMPDIR to a folder you may write"))
    return findings


def _examine(check: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return check()
    except Exception as error:
        message = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        return [Finding(check.__name__.strip("_"), False, message, "reinstall openmm-gancl and its dependencies")]


def doctor(json_: shared.Json = False, debug: shared.Debug = False) -> None:
    """Check Python, packages, OpenMM's platforms and their speed, openmmtorch, CUDA, cores and disk."""
    with exit_codes(debug):
        checks = (_python, _packages, _openmm_platforms, _openmmtorch, _cuda, _machine)
        findings = [finding for check in checks for finding in _examine(check)]
        if json_:
            typer.echo(json.dumps([asdict(finding) for finding in findings]))
        else:
            width = max(len(finding.name) for finding in findings)
            for finding in findings:
                state = "ok" if finding.ok else "problem" if finding.needed else "missing"
                remedy = "" if finding.ok else f": {finding.remedy}"
                typer.echo(f"{state:<7}  {finding.name:<{width}}  {finding.found}{remedy}")
        if any(finding.needed and not finding.ok for finding in findings):
            raise typer.Exit(BAD_INPUT)
