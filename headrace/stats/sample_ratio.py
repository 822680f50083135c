"""Evidence that units do not meet the arms in the shares they should, valid however often and whenever one looks.

With counts n_i of N units in all and planned shares s_i, the likelihood ratio of a Dirichlet(c s_1, ..., c s_K) mixture
of shares against the planned ones is

    E = B(c s + n) / (B(c s) product of s_i^n_i)    with B(a) = product of Gamma(a_i) / Gamma(sum of a_i)       (1)

Source: Lindon and Malek 2022, "Anytime-valid inference for multinomial count data", section 3. The same test applies to
the feedback per arm: arms that are told unequally often cannot be compared by what they are told.

Count what was assigned: units, or requests without a unit. Requests of one unit all meet the same arm.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from headrace.stats.beta_mixture import Floats, log_gamma

CONCENTRATION = 100.0
"""c: the mixture expects deviations of about s (1 - s) / 10, five points for two equal arms."""


def log_es(counts: ArrayLike, shares: ArrayLike) -> Floats:
    """Natural logarithm of E (...), equation (1).

    Args:
        counts: (..., K).
        shares: (K) above 0, of any sum.
    """
    n, s = np.asarray(counts, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    s = s / s.sum()
    prior = CONCENTRATION * s
    found: Floats = (
        (log_gamma(prior + n) - log_gamma(prior) - n * np.log(s)).sum(axis=-1)
        - log_gamma(CONCENTRATION + n.sum(axis=-1))
        + math.lgamma(CONCENTRATION)
    )
    return found


def log_e(counts: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """Log E of the counts per arm; infinite where an arm without a share has any. Add the stages of a ramp.

    Args:
        counts: arms that are not named have 0.
        shares: weights of all arms, in any unit.

    Raises:
        ValueError: a count is negative, an arm is not among the shares, or no share is above 0.
    """
    if any(n < 0 for n in counts.values()) or not counts.keys() <= shares.keys() or not sum(shares.values()) > 0:
        raise ValueError(f"counts must be at least 0, of arms that have a share: {dict(counts)}, {dict(shares)}")
    if any(n and not shares[arm] for arm, n in counts.items()):
        return math.inf
    arms = [arm for arm, share in shares.items() if share > 0]
    return float(log_es([counts.get(arm, 0) for arm in arms], [shares[arm] for arm in arms]))
