"""The rank correlations of statement 7, from the table of measure_trainability.py."""

import numpy as np
import pandas as pd
from scipy import stats

from metantk.devices import numpy_generator
from metantk.theory.verdicts import CONFIDENCE, FAILS, HOLDS, UNDECIDED, Verdict

# +1 where a larger value should mean better training, −1 where a smaller one should.
CRITERIA = {"meta_ntk_condition": -1, "ntk_condition": -1, "ntk_spectral_entropy": +1, "linear_regions": +1}
OUTCOMES = {"maml_loss": -1, "rfs_accuracy": +1}
RESAMPLES = 1000


def correlate(table: pd.DataFrame) -> pd.DataFrame:
    """Kendall's τ of each criterion with each outcome, with a bootstrap interval over architectures.

    The interval is 95 % for all pairs together. Columns: `criterion`, `outcome`, `tau`, `low`, `high`; τ is
    positive where the criterion ranks architectures as the search takes it to. Infinite condition numbers rank
    last.
    """
    pairs = [(criterion, outcome) for criterion in CRITERIA for outcome in OUTCOMES]
    tail = 50 * (1 - CONFIDENCE) / len(pairs)  # percent
    rows = []
    for criterion, outcome in pairs:
        good = CRITERIA[criterion] * table[criterion].to_numpy(float)
        reached = OUTCOMES[outcome] * table[outcome].to_numpy(float)
        draws = numpy_generator("bootstrap", criterion, outcome)
        taus = []
        for _ in range(RESAMPLES):
            chosen = draws.integers(len(table), size=len(table))
            taus.append(_tau(good[chosen], reached[chosen]))
        low, high = np.nanpercentile(taus, [tail, 100 - tail])
        rows.append((criterion, outcome, _tau(good, reached), low, high))
    return pd.DataFrame(rows, columns=["criterion", "outcome", "tau", "low", "high"])


def _tau(one: np.ndarray, other: np.ndarray) -> float:
    """Kendall's τ-b; NaN where all values are equal."""
    return float(stats.kendalltau(stats.rankdata(one), stats.rankdata(other)).statistic)


def judge_correlations(correlations: pd.DataFrame, architectures: int) -> list[Verdict]:
    """Statement 7: holds where the interval lies above zero, fails where it lies below."""
    verdicts = []
    for row in correlations.itertuples():
        verdict = HOLDS if row.low > 0 else FAILS if row.high < 0 else UNDECIDED
        numbers = f"τ = {row.tau:.2f} [{row.low:.2f}, {row.high:.2f}], {architectures} architectures"
        case = f"{row.criterion.replace('_', ' ')} and {row.outcome.replace('_', ' ')}"
        verdicts.append(Verdict("7", case, verdict, numbers))
    return verdicts
