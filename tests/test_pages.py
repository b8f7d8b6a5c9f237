"""The pages of `docs/`: their code runs as it stands, their commands run, their cards are cards, the site is built.

Blocks of a page share names and a folder, in their order, as a reader would run them. Runs are made small by smaller
presets; a block behind the comment ``<!-- slow: why -->`` runs with ``-m slow`` alone.
"""

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openmm_gancl import load_system
from openmm_gancl.workflow import options as run_options

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if "_build" not in path.parts] + [ROOT / "README.md"]
BLOCK = re.compile(r"(<!-- (?:slow|fails|elsewhere)[^>]*-->\n+)?^```([^\n]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
SHOWN = ("text", "{eval-rst}", "{toctree}", "{math}", "{grid}", "bibtex")
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
        assert language in SHOWN, f"{path}: a block of {language or 'no language'}: python, toml, console, or text"


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Presets of a few seconds, in a folder of its own with the examples beside it."""
    loop = replace(run_options.LOOP_PRESETS["quick"], n_windows=10, frames_per_window=10, n_first=1000)
    loop = replace(loop, max_evaluations=5200, network_steps=8)
    monkeypatch.setattr(run_options, "LOOP_PRESETS", {"default": loop, "quick": loop})
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


RUN = [path for path in PAGES if any(language in ("python", "toml", "console", "bash") for _, language, _ in blocks(path))]


@pytest.mark.filterwarnings("ignore:what was learned is not to be trusted")
@pytest.mark.parametrize("path", RUN, ids=name_of)
def test_a_page_runs(path, small):
    run_page(path, with_slow=False)
