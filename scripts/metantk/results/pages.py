"""What the report shows of the tables: each as a page that opens in it, and the main result for its cover."""

import html
import re
from collections.abc import Iterator

import numpy as np
import pandas as pd

from metantk.results.tables import Chain, format_count, labels

# Around the best accuracies of a table, until its text is escaped.
BEST = "\x02{}\x03"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 1em; color: #222; background: #fff }}
table {{ border-collapse: collapse }}
th, td {{ padding: .25em .7em; text-align: left; border-bottom: 1px solid #ccc; white-space: nowrap }}
</style></head><body>
{table}
</body></html>
"""


def to_page(table: pd.DataFrame, title: str) -> str:
    """A table as a page of its own; what it holds is text, but for the marks of `BEST`."""
    text = table.to_html(index=False, border=0, escape=True)
    return PAGE.format(title=html.escape(title), table=text.replace("\x02", "<b>").replace("\x03", "</b>"))


def to_cover(summary: pd.DataFrame, groups: dict[tuple, list[Chain]], differences: pd.DataFrame) -> str:
    """The rows of each data set and which of them is the best, in reStructuredText.

    Args:
        summary, differences: of the functions of `metantk.results.tables`.
    """
    lines = ["Main result", "-----------", ""]
    for dataset in summary["dataset"].unique():
        own = {key: chains for key, chains in groups.items() if key[0] == dataset}
        lines += _describe(summary[summary["dataset"] == dataset], own, differences)
    return "\n".join(lines)


def _describe(summary: pd.DataFrame, groups: dict[tuple, list[Chain]], differences: pd.DataFrame) -> Iterator[str]:
    """Of one data set."""
    chains = next(iter(groups.values()))
    dataset, evaluation = chains[0].key[0], chains[0].evaluation
    seeds = sorted({len(members) for members in groups.values()})
    spread = "standard deviation over seeds" if seeds[0] > 1 else "95 % interval over episodes, one seed"
    yield f"{_plain(dataset)}: accuracy in % on {evaluation.ways} new classes at a time,"
    yield f"{evaluation.episodes} episodes for each number of examples (shots), ± {spread}."
    yield from _best_row(summary, differences)
    shots, named = sorted(summary["shots"].unique()), labels(summary)
    rows = [["Row", "Parameters", *(f"{count}-shot" for count in shots)]]
    for key, entries in summary.groupby(["backbone", "search", "learner"], sort=False):
        by_shots = entries.set_index("shots")
        rows.append([named[key], format_count(by_shots["params"].iloc[0])])
        rows[-1] += [_accuracy(by_shots.loc[count], seeds[0] > 1) for count in shots]
    yield from ("", ".. list-table::", "   :header-rows: 1", "")
    for row in rows:
        yield from (f"   {'*' if index == 0 else ' '} - {_plain(cell)}" for index, cell in enumerate(row))
    yield ""


def _accuracy(row: pd.Series, has_seeds: bool) -> str:
    spread = row["accuracy_std"] if has_seeds else row["ci95"]
    return f"{row['accuracy_mean']:.1f}" + ("" if np.isnan(spread) else f" ± {spread:.1f}")


def _best_row(summary: pd.DataFrame, differences: pd.DataFrame) -> Iterator[str]:
    """Which row is the first at most shots, and how many others it is significantly above."""
    most = summary[summary["shots"] == summary["shots"].max()]
    if len(most) < 2:
        return
    best = most.loc[most["accuracy_mean"].idxmax()]
    name = labels(summary)[best["backbone"], best["search"], best["learner"]]
    its = differences[(differences["dataset"] == best["dataset"]) & (differences["shots"] == best["shots"])]
    its = its[(its["row"] == name) | (its["other"] == name)]
    above, unknown = (int((its["significant"].str.startswith(word)).sum()) for word in ("yes", "unknown"))
    known = f"significantly above {above} of {len(its) - unknown} others"
    if unknown:
        known += f", {unknown} unknown: needs 2 seeds"
    if unknown == len(its):
        known = "whether significantly is unknown: needs 2 seeds"
    yield f"Highest at {best['shots']}-shot: {_plain(name)} ({known})."


def _plain(text: str) -> str:
    """Text without a meaning in reStructuredText."""
    return re.sub(r"([\\*`_|<>:\-+])", r"\\\1", text)
