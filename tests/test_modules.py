"""The package's shape: modules that read from top to bottom, light to import, small, with names that resolve."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import openmm_gancl

PACKAGE = Path(openmm_gancl.__file__).parent
ORDER = [
    "errors",
    "files",
    "units",
    "execution",
    "packed",
    "slow",
    "static_bias",
    "module_force",
    "torch_check",
    "slow_force",
    "system_xml",
    "grid",
    "label_prior",
    "surfaces",
    "constraints",
    "state",
    "card",
    "card_system",
    "system",
    "simulation",
    "zmatrix",
    "chart",
    "reference",
    "relax",
    "packed_relax",
    "sampling",
    "steering",
    "networks",
    "cgan",
    "model",
    "training",
    "held",
    "lifts",
    "proposals",
    "exactness",
    "lift",
    "swarms",
    "torch_modules",
    "model_forces",
    "in_context",
    "user_simulation",
    "lift_source",
    "moves",
    "openmmtools_move",
    "sde",
    "diagnostics",
    "encoder",
    "basins",
    "cox_process",
    "lift_surfaces",
    "placement",
    "collective_variables",
    "features",
    "torch_features",
    "neighbours",
    "eigenvectors",
    "diffusion_map",
    "torch_diffusion_map",
    "distillation",
    "selection",
    "slow_report",
    "slow_learning",
    "trajectory_files",
    "trajectories",
    "colvar",
    "umbrella",
    "observations",
    "mbar",
    "density",
    "weighing",
    "block_counts",
    "populations",
    "trajectory_surfaces",
    "windows",
    "structures",
    "run_folder",
    "run_options",
    "plotting",
    "slow_plots",
    "summary",
    "run_context",
    "stages",
    "slow_stage",
    "plans",
    "rounds",
    "pipeline",
    "cli",
]
"""A module imports only from modules before it: the order in which the package is read, and in which data flow."""

LONGEST_MODULE = 400
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def imported_modules(path):
    """Modules of this package that a module imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("openmm_gancl."):
            names.add(node.module.split(".")[1])
    return names


def test_the_order_names_every_module_once():
    assert sorted(ORDER) == sorted([*MODULES, "cli"])


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_modules_before_it(module):
    before = set(ORDER[: ORDER.index(module)])
    assert imported_modules(PACKAGE / f"{module}.py") <= before


def test_only_the_command_line_knows_the_command_line():
    for path in PACKAGE.glob("*.py"):
        assert "cli" not in imported_modules(path), path.name


def loaded_modules(statement):
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(finished.stdout.split())


@pytest.mark.parametrize("heavy", ["torch", "openmm", "mdtraj", "pymbar", "matplotlib", "faiss"])
def test_importing_the_package_loads_nothing_heavy(heavy):
    assert heavy not in loaded_modules("import openmm_gancl")


def test_loading_a_system_loads_no_torch():
    loaded = loaded_modules("from openmm_gancl import load_system\nload_system('double_well_oscillators')")
    assert "torch" not in loaded


def test_every_public_name_resolves():
    assert len(set(openmm_gancl.__all__)) == len(openmm_gancl.__all__)
    for name in openmm_gancl.__all__:
        value = getattr(openmm_gancl, name)
        assert value.__name__ == name or name in str(value)
        assert value.__doc__, name


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        openmm_gancl.nonsense  # noqa: B018  # the access is the test


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_are_short(path):
    assert len(path.read_text().splitlines()) < LONGEST_MODULE
