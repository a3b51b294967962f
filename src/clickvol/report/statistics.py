"""How sure a mean is, and whether two models differ, when scans of one patient are not independent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement
from math import factorial

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize, stats

RESAMPLES = 10_000
"""Bootstrap resamples where not all are counted; from seed to seed the ends of an interval then move by
.7 % of its width (standard deviation; measured with 9 to 34 patients and normal scores)."""

# With so many patients there are 6435 different resamples, all counted; with one more, 24310 (chosen).
_MOST_COUNTED = 8

# Least variance of what no factor explains, below which a factor has none, in parts of the whole (chosen).
_LEAST_REST = 1e-6

# Scores are at most millions with noise in the 16th digit; what differs by less is equal (chosen).
_DECIMALS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTests:
    """Whether the mean of differences is zero.

    Attributes:
        t_p: two-tailed paired t-test. None for fewer than two pairs, or where all differences are the same
            and not zero (nothing to estimate a spread from).
        wilcoxon_p: two-tailed Wilcoxon signed-rank test, differences of zero left out. None for fewer than
            two pairs.
    """

    pairs: int
    t_p: float | None
    wilcoxon_p: float | None


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.float64],
    groups: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of (n,) values, by the percentile bootstrap over groups.

    Whole groups, patients, are drawn, with replacement and as many as there are; the mean is that of all their
    values. Scans of one patient, and clicks of several users on one scan, so never count as independent. Up to
    8 groups every possible draw is counted with its chance: the interval is exact, and no seed matters. None
    for fewer than two groups.
    """
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < 2:
        return None
    sums = np.bincount(member, weights=np.asarray(values, dtype=np.float64))
    counts = np.bincount(member).astype(np.float64)
    if len(names) <= _MOST_COUNTED:
        all_drawn, chances = _all_draws(len(names))
        means = (all_drawn @ sums) / (all_drawn @ counts)
        order = np.argsort(means, kind="stable")
        reached = np.cumsum(chances[order])
        first, last = (means[order[np.searchsorted(reached, share)]] for share in (0.025, 0.975))
        return float(first), float(last)
    shares = np.full(len(names), 1 / len(names))
    drawn = np.random.default_rng(seed).multinomial(len(names), shares, size=resamples)
    low, high = np.percentile((drawn @ sums) / (drawn @ counts), [2.5, 97.5])
    return float(low), float(high)


@lru_cache(maxsize=_MOST_COUNTED)
def _all_draws(number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how often each group is in each different draw, (draws, number), and its chance, (draws,)."""
    drawn = np.array(
        [np.bincount(draw, minlength=number) for draw in combinations_with_replacement(range(number), number)]
    )
    orders = [factorial(number) / np.prod([factorial(n) for n in row]) for row in drawn.tolist()]
    return drawn.astype(np.float64), np.array(orders) / float(number) ** number


def paired_tests(differences: Sequence[float] | NDArray[np.float64]) -> PairedTests:
    """Test whether (n,) paired differences, one per independent unit, a patient, are zero in the mean.

    Differences that are all zero show no difference: p is 1.
    """
    rounded = np.round(np.asarray(differences, dtype=np.float64), _DECIMALS)
    pairs = len(rounded)
    if pairs < 2:
        return PairedTests(pairs=pairs, t_p=None, wilcoxon_p=None)
    if not rounded.any():
        return PairedTests(pairs=pairs, t_p=1.0, wilcoxon_p=1.0)
    constant = bool((rounded == rounded[0]).all())
    return PairedTests(
        pairs=pairs,
        t_p=None if constant else float(stats.ttest_1samp(rounded, 0.0).pvalue),
        wilcoxon_p=float(stats.wilcoxon(rounded[rounded != 0]).pvalue),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomEffectsMean:
    """A mean whose values have several things in common; its standard error; Satterthwaite's degrees."""

    mean: float
    error: float
    degrees: float

    @property
    def p(self) -> float:
        """Two-tailed p value of a mean of zero."""
        return float(2 * stats.t.sf(abs(self.mean) / self.error, self.degrees))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        reach = float(stats.t.ppf(0.975, self.degrees)) * self.error
        return self.mean - reach, self.mean + reach


def random_effects_mean(
    values: Sequence[float] | NDArray[np.float64], *factors: Sequence[object]
) -> RandomEffectsMean | None:
    """Estimate a mean with a random effect for each level of each factor, by restricted maximum likelihood.

    value = mean + effect of its patient + effect of its training + rest: so a difference that one training made
    by luck for all its patients is not taken for one that the next training would make, too. Factors (n,) say
    what a value belongs to. None for fewer than three values, or values without any spread.
    """
    y = np.asarray(values, dtype=np.float64)
    spread = float(y.var()) if len(y) else 0.0
    if len(y) < 3 or spread < 10.0**-_DECIMALS:
        return None
    levels = [np.unique([str(name) for name in factor], return_inverse=True)[1] for factor in factors]
    # A factor with one level, or with one for each value, has nothing of its own.
    shared = [np.equal.outer(one, one).astype(float) for one in levels if 0 < one.max() < len(y) - 1]
    parts = np.array([*shared, np.eye(len(y))])

    def fitted(variances: NDArray[np.float64], parts: NDArray[np.float64]) -> tuple[float, float, float]:
        """Return the mean, its variance and the deviance."""
        cover = np.tensordot(variances, parts, axes=1)
        factor = linalg.cho_factor(cover)
        solved = linalg.cho_solve(factor, np.stack([np.ones_like(y), y], axis=1))
        weight = float(solved[:, 0].sum())
        mean = float(solved[:, 1].sum()) / weight
        rest = y - mean
        fit = float(rest @ (solved[:, 1] - mean * solved[:, 0]))
        return mean, 1 / weight, 2 * float(np.log(factor[0].diagonal()).sum()) + float(np.log(weight)) + fit

    start = np.full(len(parts), spread / len(parts))
    # Without any rest there would be no likelihood; trainings may agree to the last digit.
    bounds = [(0.0, None)] * len(shared) + [(_LEAST_REST, None)]
    options = {"ftol": 1e-14, "gtol": 1e-10, "maxiter": 1000}
    # In units of the spread, so that steps and limits fit whatever the scale.
    best = optimize.minimize(
        lambda v: fitted(v * spread, parts)[2], start / spread, bounds=bounds, options=options
    )
    variances = best.x * spread
    there = np.flatnonzero(best.x >= [*[_LEAST_REST] * len(shared), 0.0])
    mean, error_squared, _ = fitted(variances[there], parts[there])
    gradient, curvature = _derivatives(lambda v: fitted(v, parts[there])[1:], variances[there])
    # The components' covariance is the inverse of half the curvature; along a flat direction nothing is known.
    bends, axes = linalg.eigh(curvature / 2)
    along = (axes.T @ gradient)[bends > 0]
    uncertainty = float((along**2 / bends[bends > 0]).sum())
    degrees = 2 * error_squared**2 / uncertainty if uncertainty > 0 else len(y) - 1.0
    return RandomEffectsMean(mean=mean, error=error_squared**0.5, degrees=max(1.0, min(degrees, len(y) - 1.0)))


def _derivatives(
    function: Callable[[NDArray[np.float64]], tuple[float, float]], at: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the (n,) gradient of a function's first value, and the (n, n) curvature of its second."""
    steps = np.diag(1e-3 * at)
    size = len(at)
    gradient = np.array([(function(at + s)[0] - function(at - s)[0]) for s in steps]) / (2 * steps.diagonal())
    curvature = np.empty((size, size))
    for i, j in np.ndindex(size, size):
        corners = [function(at + a * steps[i] + b * steps[j])[1] * a * b for a in (1, -1) for b in (1, -1)]
        curvature[i, j] = sum(corners) / (4 * steps[i, i] * steps[j, j])
    return gradient, curvature


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values of one family corrected by Holm's step-down method; None, where there was no test, stays.

    The k-th smallest of m (k from 0) is multiplied by m - k; none becomes smaller than one before it,
    and none larger than 1 (S. Holm, A simple sequentially rejective multiple test procedure, 1979).
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[index] = largest
    return corrected
