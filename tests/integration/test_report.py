"""The report as a person opens it: in a browser, without a network; and how far a finished workflow is."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from metantk.options.config import parse_config
from metantk.results import status

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MEGABYTES = 30
# Of a campaign of the paper's size: 2 data sets × 2 depths × 10 searches × 3 seeds.
SEARCHES = 120
# Before anything else of the page: what goes wrong is written down, and told once the page has settled.
LISTEN = """<script>
window.problems = [];
addEventListener("error", event => problems.push(String(event.message || event.target.outerHTML)), true);
addEventListener("unhandledrejection", event => problems.push(String(event.reason)));
const plain = console.error;
console.error = (...said) => { problems.push(said.join(" ")); plain(...said); };
addEventListener("load", () => setTimeout(() => {
  const told = {
    problems,
    requests: performance.getEntriesByType("resource").map(entry => entry.name),
    results: Object.entries(results).map(([path, result]) => [path, result.data_uri.slice(0, 40)]),
    text: document.body.innerText,
  };
  const place = document.createElement("pre");
  place.textContent = "TOLD" + btoa(unescape(encodeURIComponent(JSON.stringify(told)))) + "END";
  document.body.append(place);
}, 2000));
</script>"""


@pytest.fixture(scope="module")
def report(finished_run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    run = finished_run.snakemake("--cores", 1, "--report", path)
    assert run.returncode == 0, run.stderr
    return path


@pytest.fixture(scope="module")
def visit(report, tmp_path_factory):
    """What the page has told of itself, opened without a network."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    folder = tmp_path_factory.mktemp("browser")
    page = folder / "report.html"
    html = report.read_text(encoding="utf-8")
    assert "<head>" in html
    page.write_text(html.replace("<head>", f"<head>{LISTEN}", 1), encoding="utf-8")
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}"]
    command += ["--virtual-time-budget=20000", "--dump-dom", page.as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    told = re.search("TOLD([A-Za-z0-9+/=]+)END", run.stdout)
    assert told, run.stderr[-2000:]
    return json.loads(base64.b64decode(told[1]))


def test_the_page_shows_itself_without_errors(visit):
    assert visit["problems"] == []
    for category in ("Cells", "Searches", "Tables", "Training and evaluation", "Data"):
        assert category in visit["text"]


def test_no_request_leaves_the_machine(visit):
    assert [name for name in visit["requests"] if not name.startswith(("data:", "blob:", "file:"))] == []


def test_tables_and_figures_are_inside(visit):
    inside = dict(visit["results"])
    tables, figures = ("table1.html", "table2.html", "costs.html"), ("training.svg", "contact_sheet.png")
    for name in (*tables, *figures, "cells_metantk_seed0.svg", "search_metantk_seed0.svg"):
        paths = [path for path in inside if path.endswith(name)]
        assert len(paths) == 1, name
        kind = "data:text/html" if name in tables else "data:"  # pages open, other files are downloaded
        assert inside[paths[0]].startswith(kind), name
    assert not [path for path in inside if "published" in path]  # it would be empty


def test_a_large_campaigns_report_is_small(report, finished_run):
    """By the size of what a search adds, in the mean of prunings by two criteria, by one, and none."""
    figures = finished_run.path / "results" / "figures" / "glyphs" / "3cells-2ch"
    sizes = [path.stat().st_size for path in figures.glob("*.svg")]
    assert len(sizes) == 2 * 3
    assert (report.stat().st_size + SEARCHES * 4 / 3 * sum(sizes) / 3) / 1e6 < MEGABYTES


def test_the_cover_names_data_sets_rows_and_seeds(report):
    html = report.read_text(encoding="utf-8")
    assert "Data sets: glyphs. Seeds: 0." in html
    assert "3cells-2ch; metantk, linear-regions, random; rfs" in html


def test_the_cover_has_the_main_result(visit, finished_run):
    summary = pd.read_csv(finished_run.path / "results" / "tables" / "summary.csv")
    assert "Main result" in visit["text"]
    for mean in summary["accuracy_mean"]:
        assert f"{mean:.1f} ± " in visit["text"]


def test_figures_are_labelled_by_search_and_seed(report):
    html = report.read_text(encoding="utf-8")
    assert re.search(r'"search":\s*"metantk"', html)
    assert re.search(r'"seed":\s*"0"', html)


def test_a_finished_workflow_has_nothing_left(finished_run, monkeypatch):
    monkeypatch.chdir(finished_run.path)
    config = parse_config(finished_run.configuration)
    seen = status.look(config)
    assert (seen.running, seen.left) == ([], [])
    assert all(job.benchmark.is_file() and job.log.is_file() for job in seen.done)
