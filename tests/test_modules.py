"""The package's shape: folders in the order in which data flow, light to import, with names that resolve."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import openmm_gancl

PACKAGE = Path(openmm_gancl.__file__).parent
ORDER = (
    "errors < units < files < coordinates < trajectories | engine < system < reference < sampling "
    "< free_energy | generator < learning < lifting < closures < workflow < moves < cli"
)
"""A folder, or a module next to the folders, imports only from those before it; ``|`` is side by side."""

RANKS = {name: rank for rank, names in enumerate(ORDER.split(" < ")) for name in names.split(" | ")}
MAX_FUNCTION_LINES = 60

Graph = dict[str, set[str]]


def dotted(path, package):
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def type_checking(tree):
    """Statements that only a type checker reads."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {child for block in blocks for node in block.body for child in ast.walk(node)}


def imported_modules(tree, name, is_folder, modules, with_types=True):
    """Modules of this package that a module imports, inside functions too."""
    found, skipped = set(), set() if with_types else type_checking(tree)
    parts = name.split(".") if name else []
    here = parts if is_folder else parts[:-1]
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found |= {name.removeprefix("openmm_gancl.") for name in names if name.startswith("openmm_gancl.")}
        elif isinstance(node, ast.ImportFrom):
            origin = (node.module or "").split(".") if node.module else []
            if node.level:
                base = ".".join([*here[: len(here) + 1 - node.level], *origin])
            elif origin[:1] == ["openmm_gancl"]:
                base = ".".join(origin[1:])
            else:
                continue
            for alias in node.names:
                child = f"{base}.{alias.name}".lstrip(".")
                found.add(child if child in modules else base)
    return found - {""}


def import_graph(with_types=True) -> Graph:
    """Of the package; its own ``__init__`` left out, which names what is public."""
    paths = {dotted(path, PACKAGE): path for path in PACKAGE.rglob("*.py")}
    return {
        name: imported_modules(ast.parse(path.read_text()), name, path.name == "__init__.py", paths, with_types)
        for name, path in paths.items()
        if name
    }


def upward(graph: Graph):
    """Imports from a folder that is not before the importer's."""
    return [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in sorted(others)
        if name.split(".")[0] != other.split(".")[0] and RANKS[other.split(".")[0]] >= RANKS[name.split(".")[0]]
    ]


def circles(graph: Graph):
    """Modules that import one another, over however many others."""
    found, begun, finished = [], [], set()

    def visit(name):
        if name in begun:
            found.append([*begun[begun.index(name) :], name])
        elif name not in finished:
            begun.append(name)
            for other in sorted(graph.get(name, ())):
                visit(other)
            finished.add(begun.pop())

    for name in graph:
        visit(name)
    return found


def with_import(name, other):
    """The graph of the package with one import more."""
    graph = import_graph()
    assert {name, other} <= set(graph)
    return graph | {name: graph[name] | {other}}


def test_the_order_names_every_folder_and_module_once():
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert len(RANKS) == ORDER.count("<") + ORDER.count("|") + 1
    assert set(RANKS) == there - {"__init__"}
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 6


def test_a_module_imports_only_from_folders_before_its_own():
    assert not upward(import_graph())


@pytest.mark.parametrize(
    ("name", "other"), [("sampling.langevin", "lifting.lifter"), ("generator.model", "free_energy.surface")]
)
def test_an_import_upward_or_sideways_shows(name, other):
    assert upward(with_import(name, other)) == [f"{name} imports {other}"]


def test_no_modules_import_one_another():
    assert not circles(import_graph(with_types=False))


def test_a_circle_shows():
    graph = with_import("errors", "lifting.lifter")
    assert circles(graph)
    assert all("errors" in circle for circle in circles(graph))


def test_only_the_command_line_knows_the_command_line():
    for name, others in import_graph().items():
        if name.split(".")[0] != "cli":
            assert not any(other.split(".")[0] == "cli" for other in others), name


@cache
def loaded_modules(statement):
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(finished.stdout.split())


@pytest.mark.parametrize("heavy", ["torch", "openmm", "mdtraj", "pymbar", "matplotlib", "faiss"])
def test_importing_the_package_loads_nothing_heavy(heavy):
    assert heavy not in loaded_modules("import openmm_gancl")


@pytest.mark.parametrize(
    ("statement", "absent", "most"),
    [
        ("import openmm_gancl.trajectories", {"torch", "openmm"}, 12),
        ("from openmm_gancl.trajectories import read", {"torch", "openmm"}, 12),
        ("import openmm_gancl.sampling", {"torch"}, 25),
        ("from openmm_gancl.sampling import sample_windows", {"torch"}, 32),
        ("import openmm_gancl.free_energy", {"torch"}, 35),
        ("from openmm_gancl.free_energy import analyse, analyse_trajectories", {"torch", "openmm"}, 39),
    ],
)
def test_what_an_import_loads(statement, absent, most):
    loaded = loaded_modules(statement)
    ours = sorted(name for name in loaded if name.split(".")[0] == "openmm_gancl")
    assert not absent & loaded and len(ours) <= most, (len(ours), ours)


def test_loading_a_system_loads_no_torch():
    loaded = loaded_modules("from openmm_gancl import load_system\nload_system('double_well_oscillators')")
    assert "torch" not in loaded


TRAINED = """
import openmm_gancl as gancl
from openmm_gancl.lifting import LoopOptions, learn
from openmm_gancl.sampling.short_windows import ShortWindows
system = gancl.load_system("double_well_oscillators")
frames = gancl.sample_windows(system, n_windows=8, steps_per_window=50, frames_per_window=5, platform="Reference")
gancl.train(system, frames, seed=1, options=gancl.TrainingOptions(generator_steps=2))
learn(system, seed=1, max_evaluations=4000, options=LoopOptions(ShortWindows(n=10), n_first=500))
"""


def test_training_and_learning_load_no_compiler():
    """torch's, whose import takes seconds, and which some of its functions load only to leave it alone."""
    loaded = loaded_modules(TRAINED)
    assert "torch" in loaded and not {"torch._dynamo", "torch._inductor", "sympy"} & loaded


def test_every_public_name_resolves():
    assert len(set(openmm_gancl.__all__)) == len(openmm_gancl.__all__)
    for name in openmm_gancl.__all__:
        value = getattr(openmm_gancl, name)
        assert value.__name__ == name or name in str(value)
        assert value.__doc__, name


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="attribute nonsense"):
        openmm_gancl.nonsense  # noqa: B018  # the access is the test


def long_functions(tree):
    """Names of functions, decorators left out, that are longer than allowed."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {node.name for node in functions if node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES}


def test_functions_are_short():
    found = {
        f"{dotted(path, PACKAGE)}.{name}"
        for path in PACKAGE.rglob("*.py")
        for name in long_functions(ast.parse(path.read_text()))
    }
    assert not found


def test_a_long_function_shows():
    lines = ["def long():", *["    pass"] * MAX_FUNCTION_LINES]
    assert long_functions(ast.parse("\n".join(lines))) == {"long"}
    assert not long_functions(ast.parse("\n".join(lines[:-1])))
