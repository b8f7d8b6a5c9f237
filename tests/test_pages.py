"""The pages of `docs/`: their code runs as it stands, their commands run, their cards are cards, the site is built.

Blocks of a page share names and a folder, in their order, as a reader would run them. Runs are made small by smaller
presets; a block behind the comment ``<!-- slow: why -->`` runs with ``-m slow`` alone.
"""

import importlib
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from openmm_gancl import load_system
from openmm_gancl.workflow import options as run_options

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if "_build" not in path.parts] + [ROOT / "README.md"]
BLOCK = re.compile(
    r"(<!-- (?:slow|fails|elsewhere)[^>]*-->\n+)?^```([^\n]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE
)
OWN_TESTS = {"other_programs": "test_docs.py", "many_machines": "engine/test_executors.py, with clusters"}
"""Pages that are run elsewhere."""

SHOWN = ("", "text", "{eval-rst}", "{toctree}", "{math}", "{grid}", "bibtex")
"""Languages of blocks that nobody runs."""


def blocks(path):
    """Mark, language and text of each block of a page."""
    return [(mark.split()[1].rstrip(":") if mark else "", *rest) for mark, *rest in BLOCK.findall(path.read_text())]


def commands(text):
    """What follows the prompt, or every line of a block without prompts; lines that end in a backslash go on."""
    lines = text.replace("\\\n", " ").splitlines()
    asked = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")] or lines
    return [line for line in asked if line.startswith("gancl ")]


def name_of(path):
    return path.relative_to(ROOT).with_suffix("").as_posix()


def run_card(text):
    Path("mine.toml").write_text(text)
    shutil.copy(ROOT / "examples" / "alanine_dipeptide_c7eq.pdb", "mine.pdb")
    assert load_system("mine.toml").slow.names


def run_commands(text):
    from openmm_gancl.cli import app

    for command in commands(text):
        arguments = shlex.split(command.split(" #")[0])[1:]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code in (0, 3), (command, result.output, result.exception)


def run_block(language, text, path, names):
    if language == "python":
        # from a file of its own, where torch looks for the source of what it scripts
        file = Path(f"{path.stem}_{len(list(Path().glob('*_block.py')))}_block.py").absolute()
        file.write_text(text)
        exec(compile(text, str(file), "exec"), names)
    elif language == "toml":
        run_card(text)
    elif language in ("bash", "console"):
        run_commands(text)
    else:
        assert language in SHOWN, f"{path}: a block of {language}: give python, toml, console or text"


@pytest.fixture
def small(monkeypatch, tmp_path, request):
    """Presets of a few seconds, in a folder of its own with the examples beside it."""
    path = getattr(request.node, "callspec", None) and request.node.callspec.params["path"]
    # a network takes some to train, and a Simulation with a seed of its own begins anywhere
    more = path and any(word in path.read_text() for word in ("$ gancl run", "learn_move(simulation"))
    evaluations = 5200 if more else 3300
    loop = replace(run_options.LOOP_PRESETS["quick"], n_windows=10, frames_per_window=10, n_first=1000)
    loop = replace(loop, max_evaluations=evaluations, network_steps=8, check_evaluations=600)
    monkeypatch.setattr(run_options, "LOOP_PRESETS", {"default": loop, "quick": loop})
    # which tests of pictures are there for
    monkeypatch.setattr("openmm_gancl.free_energy.report._pictures", lambda *arguments: {})
    of_run = SimpleNamespace(figure=SimpleNamespace(savefig=lambda path, dpi: Path(path).touch()))
    monkeypatch.setattr("openmm_gancl.workflow.stages.surface.plot_surface", lambda surface, basins: of_run)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copytree(ROOT / "tests" / "data" / "tables", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_page(path, with_slow):
    names = {"__name__": "__main__"}
    for mark, language, text in blocks(path):
        if mark == "elsewhere" or (mark == "slow" and not with_slow):
            continue
        if mark == "fails":
            with pytest.raises(Exception):  # noqa: B017 - which one the page says
                run_block(language, text, path, names)
        else:
            run_block(language, text, path, names)


RUNNABLE = {"python", "toml", "console", "bash"}
RUN = [
    path for path in PAGES if path.stem not in OWN_TESTS and RUNNABLE & {language for _, language, _ in blocks(path)}
]


@pytest.mark.filterwarnings("ignore:what was learned is not to be trusted")
@pytest.mark.parametrize("path", RUN, ids=name_of)
def test_a_page_runs(path, small):
    run_page(path, with_slow=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:what was learned is not to be trusted")
@pytest.mark.parametrize("path", [path for path in RUN if "<!-- slow" in path.read_text()], ids=name_of)
def test_a_page_runs_with_what_is_slow(path, small):
    run_page(path, with_slow=True)


def test_a_wrong_block_fails(small):
    """The twins: of code, of a command, of a card, of a language that nobody runs."""
    page = small / "page.md"
    for language, text in (
        ("python", "assert False"),
        ("console", "$ gancl run nothing_of_this_name"),
        ("toml", 'name = "mine"'),
        ("pythn", "1 + 1"),
    ):
        page.write_text(f"# Page\n\n```{language}\n{text}\n```\n")
        with pytest.raises((AssertionError, ValueError)):
            run_page(page, with_slow=False)


OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
COMMAND = re.compile(r"`(gancl [^`]*)`|^\$ (gancl .*)$", flags=re.MULTILINE)
NAME = re.compile(r"\b(?:openmm_)?gancl\.[A-Za-z_][\w.]*\w(?!\.?(?:md|py)\b)")


def options_of():
    """Of each command of gancl."""
    from typer.main import get_command

    from openmm_gancl.cli import app

    commands = get_command(app).commands.items()
    return {name: {option for one in command.params for option in one.opts} for name, command in commands}


def without_that_name(text):
    """Options that no command of this text has, and names that the package has not."""
    of, missing = options_of(), []
    for command in map("".join, COMMAND.findall(text)):
        name = command.split()[1]
        if name in of:
            missing += [f"{name} {option}" for option in OPTION.findall(command) if option not in of[name] | {"--help"}]
    for found in set(NAME.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))):
        try:
            pkgutil.resolve_name(re.sub("^gancl", "openmm_gancl", found))
        except (AttributeError, ImportError):
            missing.append(found)
    return missing


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_options_and_names_of_a_page_exist(path):
    """Alone options are of any command, or of a script that the page names."""
    text = path.read_text()
    assert not without_that_name(text)
    scripts = [ROOT / f"{name.replace('.', '/')}.py" for name in re.findall(r"python -m (tests\.[\w.]+)", text)]
    scripts += [ROOT / name for name in re.findall(r"python ((?:tests|examples)/[\w/]+\.py)", text)]
    known = set.union(*options_of().values()).union(*(OPTION.findall(script.read_text()) for script in scripts))
    alone = {option for code in re.findall(r"`(--[^`]*)`", text) for option in OPTION.findall(code)}
    assert alone <= known | {"--help"}, alone - known


def test_a_name_that_is_gone_shows():
    """The twins: an option of another command, a function, a module."""
    assert without_that_name("`gancl report RUN --lifts 5`") == ["report --lifts"]
    assert without_that_name("`gancl.lern(system)`") == ["gancl.lern"]
    assert without_that_name("`openmm_gancl.lifting.checks`") == ["openmm_gancl.lifting.checks"]
    assert not without_that_name("`gancl lift RUN --lifts 5`, `gancl.learn`, `openmm_gancl.system.one_molecule`")


def public_names(folder):
    return set(importlib.import_module(f"openmm_gancl.{folder}").__all__)


FOLDERS = sorted(path.parent.name for path in (ROOT / "openmm_gancl").glob("*/__init__.pyi"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_public_name_has_its_place_and_an_example_that_runs(folder):
    """Of the section that documents a name the code uses it."""
    sections = re.split(r"^## ", (DOCS / "api" / f"{folder}.md").read_text(), flags=re.MULTILINE)[1:]
    found = set()
    for section in sections:
        code = "\n".join(text for _, language, text in BLOCK.findall(section) if language == "python")
        for name in re.findall(r"^\.\. auto\w+:: openmm_gancl\.(?:\w+\.)?(\w+)$", section, flags=re.MULTILINE):
            assert re.search(rf"\b{name}\b", code), f"{name}: its section has no example of it"
            found.add(name)
    assert found == public_names(folder)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built strict: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", DOCS, folder]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return folder


def test_the_site_is_built_and_needs_no_network(site):
    """Nothing that a browser would fetch has an address of its own."""
    pages = sorted(site.rglob("*.html"))
    assert len(pages) >= len(PAGES) - 1
    fetched = r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(?:https?:)?//[^"]*"'
    for page in pages:
        assert not re.findall(fetched, page.read_text()), page.name
    assert "<math" in (site / "how_it_works.html").read_text()
    # a docstring's "K." is a unit, and no list from K on
    assert not [page.name for page in (site / "api").glob("*.html") if "<ol" in page.read_text()]


def test_a_new_page_is_in_the_navigation(site):
    navigation = (site / "index.html").read_text()
    for page in DOCS.glob("*.md"):
        assert f'href="{page.stem}.html"' in navigation or page.stem == "index", page


def test_pictures_are_small():
    for picture in [*(DOCS / "images").iterdir(), DOCS / "efficiency.png"]:
        assert picture.stat().st_size <= 150_000, picture
