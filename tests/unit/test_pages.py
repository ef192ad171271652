"""Pages of the tables and the report's cover: what they hold is text, whatever it looks like."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from docutils.core import publish_parts
from jinja2 import Template
from small_chain import write_chain

from metantk.results import pages, tables

UNKNOWN = "whether significantly is unknown: needs 2 seeds"


def cover(root, rows, seeds):
    folders = [write_chain(root, name, seed, shift=shift) for name, shift in rows.items() for seed in seeds]
    groups = tables.group_chains(map(tables.read_chain, folders))
    summary = tables.summarise(groups, tables.Titles(searches={"random": "Random_ *cell*"}))
    return pages.to_cover(summary, groups, tables.differences(summary, groups)), summary


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_the_cover_has_all_rows_and_the_best(tmp_path, seeds):
    text, summary = cover(tmp_path, {"metantk": 9.0, "random": 0.0}, seeds)
    page = publish_parts(text, writer_name="html", settings_overrides={"halt_level": 2})["html_body"]
    assert page.count("<tr>") == 3
    assert "Random_ *cell*" in page
    for row in summary.itertuples():
        spread = row.ci95 if len(seeds) == 1 else row.accuracy_std
        assert f"<td>{row.accuracy_mean:.1f} ± {spread:.1f}</td>" in page
    known = "significantly above 1 of 1 others" if len(seeds) > 1 else UNKNOWN
    assert f"Highest at 5-shot: metantk ({known})." in page


def test_the_cover_counts_what_is_unknown_apart(tmp_path):
    folders = [
        write_chain(tmp_path, name, seed, shift=shift)
        for name, shift, seeds in (("metantk", 9.0, 3), ("random", 0.0, 3), ("te-nas", 0.0, 1))
        for seed in range(seeds)
    ]
    groups = tables.group_chains(map(tables.read_chain, folders))
    summary = tables.summarise(groups, tables.Titles())
    text = pages.to_cover(summary, groups, tables.differences(summary, groups))
    assert "significantly above 1 of 1 others, 1 unknown: needs 2 seeds" in text


def test_a_page_marks_the_best_and_shows_markup_as_text():
    table = pd.DataFrame({"Model": ["<script>", "b"], "1-shot": [pages.BEST.format("51.0 ± 1.0"), "2"]})
    page = pages.to_page(table, "a & b")
    assert "<td>&lt;script&gt;</td>" in page
    assert "<td><b>51.0 ± 1.0</b></td>" in page
    assert "<title>a &amp; b</title>" in page


@pytest.mark.parametrize("is_finished", [True, False])
def test_the_report_begins_with_the_cover_where_there_are_tables(tmp_path, monkeypatch, repository, is_finished):
    """As Snakemake renders it: with the configuration and the records of what is in the report."""
    monkeypatch.chdir(tmp_path)
    folder = Path("results", "tables")
    folder.mkdir(parents=True)
    text, _ = cover(tmp_path / "results", {"metantk": 9.0, "random": 0.0}, (0,))
    (folder / "cover.rst").write_text(text)
    record = SimpleNamespace(path=folder / "table1.html")
    config = {"datasets": {"glyphs": {}}, "seeds": [0], "rows": [{"backbone": "conv4", "learner": "rfs"}]}
    template = (repository / "workflow/report/workflow.rst").read_text()
    categories = {"Tables": {"": [record] if is_finished else []}}
    rst = Template(template, trim_blocks=True, lstrip_blocks=True).render(
        snakemake=SimpleNamespace(config=config), categories=categories
    )
    page = publish_parts(rst, writer_name="html", settings_overrides={"halt_level": 2})["html_body"]
    assert "Data sets: glyphs. Seeds: 0." in page
    assert ("Main result" in page) == is_finished
    assert ("Highest at 5-shot: metantk" in page) == is_finished
