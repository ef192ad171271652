"""How learning rates fall."""

import math


def cosine_rate(step: int, *, steps: int, rate: float, last: float = 0.0) -> float:
    """Half a cosine from `rate` in step (or epoch) 0 down to `last` in step `steps`."""
    return last + (rate - last) * (1 + math.cos(math.pi * step / steps)) / 2
