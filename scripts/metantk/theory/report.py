"""theory.md: one line per statement, then every case with the numbers that it was judged by."""

import pandas as pd

from metantk.theory.verdicts import Verdict, combine

# What each statement says, and what was measured for it.
STATEMENTS = {
    "1": (
        "The kernel tends to a deterministic one (Eq. 5, Lemma 3)",
        "relative distance of the NTK and MetaNTK from those of infinite width; slope −1/2 or steeper",
    ),
    "2": (
        "The kernel is composite (Definition 2, Eqs. 10-11, last term transposed)",
        "relative error of Eq. 11 from Eq. 4 (Jacobian of the meta-output) against the width; falls",
    ),
    "2, as printed": (
        "The same with Eq. 11 as printed",
        "asymmetry of the kernel in the limit; none",
    ),
    "3": (
        "Theorem 1: linear convergence to zero loss",
        "loss at every step under the bound of Eq. 6 with R the loss at the start, all seeds",
    ),
    "3, slow rate": (
        "Theorem 1 for a rate far below η₀, as its text allows",
        "the same at the largest width",
    ),
    "4": (
        "Theorem 2 (Eq. 12), infinitesimal rates, networks that start at zero",
        "relative error on test tasks against the width; falls",
    ),
    "4, against wrong predictions": (
        "Theorem 2 is told from wrong predictions: Eq. 12 without G, and G alone (no meta-training)",
        "their relative error less that of Eq. 12, by seed, at the largest width; above zero",
    ),
    "4, finite rates": (
        "The same with one inner step and η near η₀, against (I − ηΦ)^t",
        "relative error on test tasks against the width; falls",
    ),
    "4, finite rates against the limit's decay": (
        "The same against exp(−ηtΦ), as Eq. 12 has it",
        "relative error on test tasks against the width; falls",
    ),
    "4, outputs as drawn": (
        "Theorem 2 to the letter: Eq. 12 for networks as drawn, whose initial outputs are not zero",
        "relative error on test tasks against the width; falls",
    ),
    "4, outputs as drawn against Eq. 8": (
        "The same against Eq. 8, which starts from the network's own F_0",
        "relative error on test tasks against the width; falls",
    ),
    "5": (
        "MAML as kernel regression, used",
        "accuracy of Eq. 12 on test tasks less chance, and less the meta-trained network's and G's; above zero",
    ),
    "6": (
        "ANIL's kernel: Eq. 11 with the NNGP in the inner loop",
        "relative error of Eq. 11 from Eq. 4 against the width; falls",
    ),
}

RULES = """\
How verdicts are reached: a slope is that of log error against log width, one point per width and seed, with its
confidence interval. *Falls* means that the interval lies below zero; *slope −1/2 or steeper* that it does and
reaches −1/2. Where this is so only without the smallest widths, the verdict is *holds from width N*. Intervals are
95 % for all cases of a statement and all such choices of widths together: of flat data, a statement holds in any
case with a probability of 2.5 % at most. Only for −1/2 the interval is not widened for the choices, which would
make it easier. Where nothing holds but the interval over all widths reaches −1/2, or an error that is not finite
leaves no slope, the verdict is *undecided*. An error that falls is weak evidence alone: that of a wrong prediction
may fall, too, while networks are far from all of them. *Above zero*: the interval of the mean difference lies
above; where it lies below, the statement does not hold, else it is *undecided*. Bounds hold at a width if no seed
exceeds them at any step; one that ends near 1 asks for little. Networks are in NTK parametrisation: the 1/l of Eq.
4 and of Theorem 1's rates is part of the network.
"""


def write_report(verdicts: list[Verdict]) -> str:
    """The text of theory.md, statements in the order of `STATEMENTS`."""
    by_statement = {name: [v for v in verdicts if v.statement == name] for name in STATEMENTS}
    judged = {name: cases for name, cases in by_statement.items() if cases}
    summary = pd.DataFrame(
        {
            "": name,
            "Statement": STATEMENTS[name][0],
            "Measured": STATEMENTS[name][1],
            "Verdict": f"**{combine(cases)}**",
            "Numbers": _in_short(cases),
        }
        for name, cases in judged.items()
    )
    details = pd.DataFrame(verdict._asdict() for cases in judged.values() for verdict in cases)
    return (
        f"# The theorems in numbers\n\n{_to_markdown(summary)}\n{RULES}\n## Every case\n\n"
        f"{_to_markdown(details.rename(columns=str.capitalize))}"
    )


def _to_markdown(table: pd.DataFrame) -> str:
    return table.to_markdown(index=False, disable_numparse=True) + "\n"


def _in_short(cases: list[Verdict]) -> str:
    """The numbers of the first case and how many more there are."""
    more = f" (and {len(cases) - 1} more below)" if len(cases) > 1 else ""
    return f"{cases[0].case}: {cases[0].numbers}{more}"
