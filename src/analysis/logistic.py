"""Logistic regression of success or failure on one number, where it has an answer."""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from statsmodels.discrete.discrete_model import Logit

FEWEST_IMAGES = 10
"""Below this no curve is fitted."""
NO_VARIATION = 1e-3
"""A predictor or a rate whose largest and smallest value are nearer than this does not vary."""


class Odds(NamedTuple):
    """What a step of the predictor multiplies the odds by: ratio, 95 % interval and p-value.

    All four are NaN where there is no answer, and `why` says why in words; else it is empty.
    """

    ratio: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    why: str = ""


def odds_ratio(
    x: NDArray[np.float64],
    success: NDArray[np.bool_],
    step: float,
    name: str = "the predictor",
    succeed: str = "succeed",
) -> Odds:
    """Fit the odds of success on one number by maximum likelihood, with Wald's interval.

    Args:
        x: Predictor of each image, shape (N,).
        success: Whether it succeeded, shape (N,).
        step: Rise of x that the ratio is told for.
        name: What `why` calls the predictor.
        succeed: What `why` says that images of `success` do, in the plural.

    Returns:
        See `Odds`. There is no answer for fewer than 10 images, numbers that are not finite, a
        predictor or an outcome that does not vary, a predictor that separates the outcomes
        completely (no finite ratio is likeliest), or a fit that does not converge.

    Reference:
        A. Albert and J. A. Anderson, On the existence of maximum likelihood estimates in
        logistic regression models, Biometrika 71 (1984), for separation.
    """
    why = _why_not(x, success, name, succeed)
    if why:
        return Odds(why=why)
    spread = x.std()  # the fit is on a standardised predictor, for the sake of the numbers
    design = np.column_stack([np.ones(len(x)), (x - x.mean()) / spread])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # what they are about is looked at below
        try:
            fit = Logit(success.astype(np.float64), design).fit(disp=0, maxiter=100)
        except np.linalg.LinAlgError:
            return Odds(why="the fit did not converge")
        slopes = np.array([fit.params[1], *fit.conf_int()[1]])
        ratio, low, high = np.exp(slopes * step / spread).tolist()
    found = Odds(ratio, low, high, float(fit.pvalues[1]))
    if not fit.mle_retvals["converged"] or not np.isfinite(found[:4]).all():
        return Odds(why="the fit did not converge")
    return found


def _why_not(x: NDArray[np.float64], success: NDArray[np.bool_], name: str, succeed: str) -> str:
    """Say why there is no likeliest curve; empty if there is one."""
    if len(x) < FEWEST_IMAGES:
        return f"fewer than {FEWEST_IMAGES} images"
    unknown = int((~np.isfinite(x)).sum())
    if unknown:
        return f"{name} of {unknown} images is not a number"
    if np.ptp(x) < NO_VARIATION:
        return f"{name} is the same for all images, or nearly so"
    if success.all() or not success.any():
        return f"it takes images that {succeed} and images that do not"
    yes, no = x[success], x[~success]
    if yes.max() <= no.min() or no.max() <= yes.min():
        return f"{name} separates the images that {succeed} from the others completely"
    return ""
