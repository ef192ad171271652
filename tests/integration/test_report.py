"""The report as a person opens it: in a browser, without a network."""

from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MEGABYTES = 30
# Runs in the page once it is there: opens every category, and says what it finds.
VISIT = """
<script>
const problems = [];
addEventListener("error", event => problems.push(String(event.message || event.target.src || event.target.href)), true);
addEventListener("unhandledrejection", event => problems.push(String(event.reason)));
for (const name of ["error", "warn"]) {
  const plain = console[name];
  console[name] = (...said) => { if (name === "error") problems.push(said.join(" ")); plain(...said); };
}
addEventListener("load", () => setTimeout(() => {
  const told = { problems, requests: performance.getEntriesByType("resource").map(entry => entry.name),
                 categories: Object.keys(categories), results: Object.keys(results).length,
                 text: document.body.innerText };
  const place = document.createElement("pre");
  place.id = "told";
  place.textContent = "TOLD" + btoa(unescape(encodeURIComponent(JSON.stringify(told)))) + "END";
  document.body.append(place);
}, 1500));
</script>
"""


@pytest.fixture(scope="module")
def report(finished_run) -> Path:
    path = finished_run.path / "results" / "report.html"
    run = finished_run.snakemake("--cores", 1, "--report", path.relative_to(finished_run.path))
    assert run.returncode == 0, run.stderr
    return path
