"""Survival of runs that may end before they fail: curve, intervals, median, and what no failure proves.

The product-limit estimator (Kaplan, Meier 1958, doi:10.1080/01621459.1958.10501452) with Greenwood's variance, its
interval on the scale of log(-log S), which stays within 0 and 1 (Kalbfleisch, Prentice, The Statistical Analysis of
Failure Time Data, section 1.4). Where nothing or everything has failed that variance says nothing, and the exact
binomial interval stands in (Clopper, Pearson 1934, doi:10.1093/biomet/26.4.404). Interval of the median by the times
at which the band crosses one half (Brookmeyer, Crowley 1982, doi:10.2307/2530286).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, norm

from phystrain.data.structures import Floats

LEVEL = 0.95
"""Confidence of every interval."""


class Survival(NamedTuple):
    """Fraction of runs alive after each moment at which one failed.

    Attributes:
        times: (moments,) ps, ascending; the first is 0.
        fraction: (moments,) from then on.
        low, high: (moments,) ends of its interval.
    """

    times: Floats
    fraction: Floats
    low: Floats
    high: Floats

    @property
    def median(self) -> tuple[float | None, float | None, float | None]:
        """Time (ps) after which half of the runs have failed, and the ends of its interval.

        ``None`` stands for beyond the runs: more than half are alive at the end, or just half.
        """
        return self._reached(self.fraction), self._reached(self.low), self._reached(self.high)

    def _reached(self, values: Floats) -> float | None:
        if values[-1] >= 0.5:  # half of the runs alive at the end is no median yet
            return None
        return float(self.times[int(np.argmax(values <= 0.5))])


def kaplan_meier(times: Floats, failed: npt.NDArray[np.bool_], level: float = LEVEL) -> Survival:
    """The estimate from runs that failed, or ended without.

    Args:
        times: (runs,) ps, of the failure or the end.
        failed: (runs,) whether it was a failure.
        level: confidence of the interval.
    """
    moments, deaths = np.unique(times[failed], return_counts=True)
    at_risk = np.array([np.count_nonzero(times >= moment) for moment in moments], dtype=np.float64)
    fraction = np.concatenate([[1.0], np.cumprod(1 - deaths / np.maximum(at_risk, 1))])
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.concatenate([[0.0], np.cumsum(deaths / (at_risk * (at_risk - deaths)))])
        width = norm.ppf((1 + level) / 2) * np.sqrt(variance) / np.log(fraction)
        low, high = fraction ** np.exp(-width), fraction ** np.exp(width)
    alone = ((1 - level) / 2) ** (1 / max(len(times), 1))
    low = np.where(fraction == 1, alone, np.where(fraction == 0, 0.0, low))
    high = np.where(fraction == 1, 1.0, np.where(fraction == 0, 1 - alone, high))
    return Survival(np.concatenate([[0.0], moments]), fraction, low, high)


def largest_rate(failures: int, exposure: float, level: float = LEVEL) -> float:
    """Upper end (1/ps) of what the rate of failures may be, if it is constant in time.

    Without a failure this is the rule of three: 3 over the time spent in all runs together, at 95 per cent
    (Hanley, Lippman-Hand 1983, doi:10.1001/jama.1983.03330370053031). With failures, Poisson's exact limit.

    Args:
        failures: how many runs failed.
        exposure: ps, of all runs together, each until it failed or ended.
        level: confidence.
    """
    return float(chi2.ppf(level, 2 * (failures + 1)) / 2 / max(exposure, 1e-12))
