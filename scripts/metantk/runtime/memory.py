"""How much memory this process has taken. Imports no torch."""

import resource
import sys


def peak_resident_mb() -> float:
    """Largest resident size of this process so far, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes or KiB
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
