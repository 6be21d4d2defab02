"""Low-rank factorization: one layer becomes two to four thinner ones.

    dense  [O, I]         svd r          dense [r, I]  -> dense [O, r]
    conv   [O, I, 1, 1]   svd r          1x1 [r, I]    -> 1x1 [O, r]
    conv   [O, I, k, k]   tucker2 (p, q) 1x1 [p, I]    -> k x k [q, p]   -> 1x1 [O, q]
                          spatial r      k x 1 [r, I]  -> 1 x k [O, r]
                          cp r           1x1 [r, I]    -> k x 1, 1 x k depthwise -> 1x1 [O, r]

With calibration data every one of them is fitted to the layer's outputs instead of its weights.
"""

from edgecompress.compress.lowrank.bounds import (
    Layer,
    factored_macs,
    factored_weights,
    largest_ranks,
    methods_of,
)
from edgecompress.compress.lowrank.factorize import FACTOR_ENDINGS, factorize, factors_of
from edgecompress.compress.lowrank.moments import Moments
from edgecompress.compress.lowrank.ranks import (
    choose_ranks,
    observe_all,
    rank_for_energy,
    ranks_at_energies,
)

__all__ = [
    "FACTOR_ENDINGS",
    "Layer",
    "Moments",
    "choose_ranks",
    "factored_macs",
    "factored_weights",
    "factorize",
    "factors_of",
    "largest_ranks",
    "methods_of",
    "observe_all",
    "rank_for_energy",
    "ranks_at_energies",
]
