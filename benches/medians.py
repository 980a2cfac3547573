"""Medians, and how far they can be trusted."""

import math
import statistics


def interval(values):
    """The median and a 95 % confidence interval of it from order statistics (sign test); no assumption of shape."""
    ordered, count = sorted(values), len(values)
    rank, below = 0, 0.0
    while rank < count // 2:
        below += math.comb(count, rank) / 2**count
        if below > 0.025:
            break
        rank += 1
    low = max(rank - 1, 0)
    return statistics.median(ordered), ordered[low], ordered[count - 1 - low]
