"""``gancl report``: one page with everything inside, doubts first, of the run as it is now; also in a browser."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from openmm_gancl import load_surface
from openmm_gancl.cli import app
from openmm_gancl.workflow.manifest import read_manifest, write_manifest
from openmm_gancl.workflow.report import write_report

QUICK = ("--preset", "quick", "--windows", "10", "--max-evaluations", "5000", "--seed", "1", "--platform", "Reference")
BROWNIAN = ("--dynamics", "brownian", "--time-step", "0.004", "--length", "0.32", "--labels", "5", "--runs", "30")
SECTIONS = (
    "surface",
    "errors",
    "training",
    "weights",
    "modes",
    "check",
    "consistency",
    "reduced",
    "basins",
    "provenance",
)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MEASURE = """<script>
addEventListener("load", () => {
const widest = Math.max(...[...document.querySelectorAll("main *, header *")]
  .filter(part => !part.closest(".scroll") && !part.closest("svg")).map(part => part.getBoundingClientRect().right));
const text = [...document.querySelectorAll("svg text")].map(part => part.getBoundingClientRect().height);
const body = parseFloat(getComputedStyle(document.body).fontSize);
parent.document.title = JSON.stringify({page: innerWidth, widest, body,
  smallest: Math.min(...text), pictures: document.querySelectorAll("figure").length});});
</script>"""


def gancl(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "run"
    assert gancl("run", "double_well_oscillators", *QUICK, "-o", path).exit_code in (0, 3)
    return path


@pytest.fixture(scope="module")
def page(folder):
    assert gancl("closures", folder, *BROWNIAN).exit_code == 0
    result = gancl("report", folder)
    assert result.exit_code == 0 and result.stdout.endswith(f"report: {folder / 'report.html'}\n")
    return (folder / "report.html").read_text()


class Resources(HTMLParser):
    """What a page loads, and the elements and names that it has."""

    def __init__(self, page):
        super().__init__()
        self.loaded, self.tags, self.names = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "srcset", "data", "poster", "background", "action") or name.endswith("href"):
                self.loaded.append(value)
            if name == "id":
                self.names.append(value)


def external(page):
    """Whatever is not inside of the page."""
    found = [place for place in Resources(page).loaded if not place.startswith(("#", "data:image/png;base64,"))]
    found += [place for place in re.findall(r"url\((.*?)\)", page) if not place.startswith("#")]
    return found + re.findall(r"@import|https?://", page)


def test_nothing_is_outside_and_every_picture_inside(page):
    parts = Resources(page)
    assert not external(page)
    assert parts.tags.count("figure") >= 8 and parts.tags.count("svg") + parts.tags.count("img") >= 8
    assert len(parts.names) == len(set(parts.names)), "two pictures share a name"
    references = {place[1:] for place in parts.loaded if place.startswith("#")} | set(
        re.findall(r"url\(#(.*?)\)", page)
    )
    assert references <= set(parts.names)
    assert "script" not in parts.tags and "prefers-color-scheme: dark" in page and "@media print" in page


@pytest.mark.parametrize(
    "planted",
    ['<img src="fes.png">', "<link href='https://example.org/style.css'>", "<style>p {background: url(a.png)}</style>"],
)
def test_something_outside_would_show(page, planted):
    assert external(page.replace("</main>", planted + "</main>"))


def test_sections_in_order_after_the_doubts(page):
    places = [page.index(f'id="{name}"') for name in ("doubts", *SECTIONS)]
    assert places == sorted(places) and "A trial (preset quick), not to be trusted" in page
    doubts = page[page.index('id="doubts"') : page.index("</ul>")]
    assert "raise <code>max_evaluations</code>" in doubts and "`" not in doubts
    assert "Committor from left to right, of the reduced model in the limit of high friction (overdamped)" in page
    assert "between the cores of basins, of the overdamped model" in page and "not the one in use" not in page
    assert "frames, half against half" in page and "Checksums (SHA-256)" in page and "nan" not in page.lower().split()


def test_a_report_says_what_the_files_say(page, folder):
    summary = json.loads((folder / "surface" / "summary.json").read_text())
    (left, right) = summary["basins"]
    assert f"{left['population']:.4f} ± {left['population_error']:.4f}" in page
    assert f"{right['free_energy']:.2f} ± {right['free_energy_error']:.2f}" in page
    # rounds hold kJ/mol, the table of them kT
    error, kT = summary["rounds"][-1]["median_error"], 8.314462618e-3 * load_surface(folder / "fes.npz").temperature
    assert f">{error / kT:.3f}<" in page and f"{error:.3f}" != f"{error / kT:.3f}"
    # what closures cost is no redone work of the run
    assert f"{summary['force_evaluations']:,}, and {summary['check_evaluations']:,} of the check<" in page
    closures = json.loads((folder / "closures.json").read_text())
    assert f"{closures['consistency']['rows'][0]['distance']:.2g}" in page


def test_closures_of_other_lifts_are_not_shown_and_markup_is_text(page, folder, tmp_path):
    """Files of these closures still lie at the top of the folder."""
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    manifest = read_manifest(copy)
    manifest["stages"]["closures"] |= {"done": False, "checksums": {}}
    manifest["system"]["card"]["description"] = "<script>alert(1)</script>"
    write_manifest(copy, manifest)
    assert (copy / "closures.json").is_file()
    write_report(copy, tmp_path / "other.html")
    found = (tmp_path / "other.html").read_text()
    assert "<script>" not in found and "&lt;script&gt;" in found
    assert "frames, half against half" not in found and found.count("Not computed for these lifts: gancl closures") == 2


def test_a_file_that_has_changed_is_refused(page, folder, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    with open(copy / "surface" / "summary.json", "a") as stream:
        stream.write(" ")
    result = gancl("report", copy)
    assert result.exit_code == 2 and "has changed since it was written" in result.stderr.replace("\n", " ")


def test_a_run_that_is_not_to_be_trusted_says_so_first(page, folder, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    summary = json.loads((copy / "surface" / "summary.json").read_text())
    (copy / "surface" / "summary.json").write_text(json.dumps(summary | {"preset": "default", "pareto_index": 0.9}))
    manifest = read_manifest(copy)
    manifest["stages"]["surface"]["checksums"] = {}
    write_manifest(copy, manifest)
    result = gancl("report", copy)
    assert result.exit_code == 3 and result.stdout.startswith("not to be trusted: ")
    assert "a few weights decide" in result.stdout
    found = (copy / "report.html").read_text()
    assert found.index("Not to be trusted:") < found.index("a few weights decide") < found.index("<main>")


def test_bad_input_is_one_sentence(folder, tmp_path):
    assert "is not a run folder" in gancl("report", tmp_path).stderr
    result = gancl("report", folder, "-o", tmp_path / "nowhere" / "page.html")
    assert result.exit_code == 2 and "there is no folder" in result.stderr


def in_browser(page, path, width):
    """What a browser measures, and its console's lines."""
    inner = html.escape(page.replace("</body>", MEASURE + "</body>"))
    # a window of its own has a least width
    path.write_text(f'<title></title><iframe srcdoc="{inner}" style="width: {width}px; height: 900px; border: 0">')
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1400,900")
    command = [BROWSER, *options, "--dump-dom", path.as_uri()]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"<title>(\{.*?\})</title>", finished.stdout)
    return json.loads(found[1]), [line for line in finished.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no browser")
@pytest.mark.parametrize("width", [390, 1280])
def test_it_is_readable(page, tmp_path, width):
    found, messages = in_browser(page, tmp_path / "page.html", width)
    assert not messages, messages
    assert found["page"] == width and found["widest"] <= width, found
    assert found["body"] >= 16 and found["smallest"] > 8 and found["pictures"] >= 8, found


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no browser")
def test_a_script_error_and_too_wide_a_page_would_show(page, tmp_path):
    planted = '<p style="width: 500px; max-width: none">wide</p><script>nothing.here();</script></main>'
    found, messages = in_browser(page.replace("</main>", planted), tmp_path / "page.html", 390)
    assert found["widest"] > 390 and any("nothing is not defined" in line for line in messages)
