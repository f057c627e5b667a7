"""The quantities of a job: how each is computed, its format, its definition and where it shows.

A new quantity is an entry in `QUANTITIES` and, if it depends on predictions, a function of their
`JobOutcomes`. Tables, charts, MLflow and the definitions follow the entry.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .definitions import TERMS
from .intervals import FEWEST_IMAGES
from .outcomes import JobOutcomes, Mask, Values, ratio, under

COUNT, SHARE = "{:,.0f}", "{:.1%}"


@dataclass(frozen=True)
class Quantity:
    """A number for each target and budget of a job.

    Attributes:
        column: Its column in tables of rates.
        title: The start of the caption of a table that shows it, with the unit.
        form: Python's format of its values.
        term: Its term in the definitions; empty: the title says enough.
        definition: Definition of the term, if `TERMS` lacks it.
        compute: Function from outcomes to values, shape (T, K); None: a share of `count`, or not
            computed from predictions.
        count: Column with the count of which this is the share of `of`. The share has a 95 %
            Wilson interval, in the columns with `_low` and `_high`.
        of: Column with the number of images that the share is of.
        fewest: Fewest such images; the share of fewer is NaN.
        page_name: What the page calls it where a reader chooses what to show; its last word stands
            where space is short. Only for shares; empty: it cannot be chosen.
        value: Its name in `table(value=NAME)`; empty: tables do not show it.
        metric: `reference`: an MLflow metric at the reference budget; `curve`: also over budgets.
    """

    column: str
    title: str
    form: str = SHARE
    term: str = ""
    definition: str = ""
    compute: Callable[[JobOutcomes], NDArray[Any]] | None = None
    count: str = ""
    of: str = "denominator"
    fewest: int = 0
    page_name: str = ""
    value: str = ""
    metric: Literal["", "reference", "curve"] = ""

    @property
    def short(self) -> str:
        """Short name for the page."""
        return self.page_name.rpartition(" ")[2]

    @property
    def of_predictions(self) -> bool:
        """True if it is computed from predictions, of which a protocol counts some."""
        return self.compute is not None or bool(self.count)


def _count(column: str, title: str, term: str, images: Callable[[JobOutcomes], Mask]) -> Quantity:
    """Return the quantity that counts the images of a mask, (T, N, K) to (T, K)."""
    return Quantity(
        column,
        title,
        COUNT,
        term,
        compute=lambda outcome: np.count_nonzero(images(outcome), axis=1),
    )


def _mean(values: Values, mask: Mask) -> Values:
    """Average the values of some images, (T, N, K) to (T, K); NaN without images."""
    # A NaN outside the mask must not leak in, while a NaN inside it must show: not a product.
    return ratio(np.where(mask, values, 0.0).sum(axis=1), np.count_nonzero(mask, axis=1))


def _clean_accuracy(outcome: JobOutcomes) -> Values:
    """Compute the accuracy on all clean images, the same at all budgets."""
    accuracy = ratio(outcome.target_clean.sum(axis=1), outcome.present[:, :, 0].sum(axis=1))
    return np.repeat(accuracy[:, None], len(outcome.eps_255), axis=1)


def _source_fooled(outcome: JobOutcomes) -> Mask:
    """Return the mask (T, N, K) of `joint` images that fool the source; none on its own network."""
    if outcome.source_clean is None:
        return np.zeros_like(outcome.present)
    others = np.array([not outcome.source.includes(target) for target in outcome.targets])
    return under(outcome, "joint").denominator & outcome.source_fooled & others[:, None, None]


_RATE, _CONDITIONAL, _CONFIDENCE = "fooled, correct, k / n", "conditional success", "confidence"

_ENTRIES = (
    _count("denominator", "Images counted", _RATE, lambda outcome: outcome.denominator),
    Quantity(
        "clean_accuracy",
        "Accuracy on clean images in %",
        term="defence",
        compute=_clean_accuracy,
        metric="reference",
    ),
    _count(
        "abstained",
        "Images without a prediction",
        "defence",
        lambda outcome: outcome.abstained & outcome.counted[:, :, None],
    ),
    _count(
        "still_correct",
        "Images still classified correctly",
        _RATE,
        lambda outcome: outcome.denominator & outcome.correct,
    ),
    Quantity(
        "robust_accuracy",
        "Robust accuracy in %",
        term=_RATE,
        count="still_correct",
        page_name="still correct",
        value="accuracy",
        metric="curve",
    ),
    _count("success", "Successes", _RATE, lambda outcome: outcome.denominator & outcome.success),
    Quantity(
        "success_rate",
        "Success rates in %",
        term=_RATE,
        count="success",
        page_name="fooled",
        value="success",
        metric="curve",
    ),
    _count("conditional_images", "Images that fool the source", _CONDITIONAL, _source_fooled),
    _count(
        "conditional_success",
        "Images that fool source and target",
        _CONDITIONAL,
        lambda outcome: _source_fooled(outcome) & outcome.success,
    ),
    Quantity(
        "conditional",
        "Conditional success rates in % (of joint images that fool the source)",
        term=_CONDITIONAL,
        count="conditional_success",
        of="conditional_images",
        fewest=FEWEST_IMAGES,
        value="conditional",
        metric="reference",
    ),
    Quantity(
        "confidence",
        "Mean confidence in %",
        term=_CONFIDENCE,
        compute=lambda outcome: _mean(outcome.confidence, outcome.denominator),
        value="confidence",
        metric="curve",
    ),
    Quantity(
        "success_confidence",
        "Mean confidence in %, if fooled",
        term=_CONFIDENCE,
        compute=lambda outcome: _mean(outcome.confidence, outcome.denominator & outcome.success),
        value="success_confidence",
    ),
    Quantity(
        "true_confidence",
        "Mean probability of the true class in %",
        term=_CONFIDENCE,
        compute=lambda outcome: _mean(outcome.true_confidence, outcome.denominator),
        metric="curve",
    ),
    Quantity(
        "draws_correct",
        "Draws of the defence that are classified correctly in %",
        term=_RATE,
        compute=lambda outcome: _mean(outcome.draws_correct, outcome.denominator),
    ),
    Quantity(
        "gradients_per_image",
        "Gradients per image, at all budgets together",
        COUNT,
        value="gradients",
    ),
    Quantity(
        "forwards_per_image",
        "Forward passes per image, at all budgets together",
        COUNT,
    ),
    Quantity("rms_255", "Root-mean-square change in 1/255", "{:.2f}", "visibility", value="rms"),
    Quantity("psnr", "PSNR in dB", "{:.1f}", "visibility", value="psnr"),
    Quantity("ssim", "SSIM", "{:.3f}", "visibility", value="ssim"),
)
QUANTITIES = {quantity.column: quantity for quantity in _ENTRIES}
"""All quantities by column, in the order of the columns of `rates`."""
COUNTED = {name for name, entry in QUANTITIES.items() if entry.form == COUNT and entry.compute}
"""Columns of counts of images, which are never averaged over sources or targets."""


@dataclass(frozen=True)
class Statistic:
    """A column of the rankings; their definition is the term `ranking, mean of sources`.

    Attributes:
        column: Its name.
        of: Rankings that have it: of attacks, of sources or of both.
        cost: True: it comes from the costs of the jobs, not from outcomes.
        on_page: True: the page's charts have it.
    """

    column: str
    of: tuple[str, ...] = ("attack", "source")
    cost: bool = False
    on_page: bool = False


STATISTICS = (
    Statistic("sources", of=("attack",)),
    Statistic("attacks", of=("source",)),
    Statistic("targets", on_page=True),
    Statistic("images", on_page=True),
    Statistic("mean", on_page=True),
    Statistic("low", of=("attack",), on_page=True),
    Statistic("high", of=("attack",), on_page=True),
    Statistic("extrapolated", of=("source",)),
    Statistic("rank", on_page=True),
    Statistic("difference", on_page=True),
    Statistic("difference_low", on_page=True),
    Statistic("difference_high", on_page=True),
    Statistic("p", on_page=True),
    Statistic("undecided"),
    Statistic("discordance"),
    Statistic("detectable"),
    Statistic("depends_on"),
    Statistic("lacks"),
    Statistic("gradients", of=("attack",), cost=True, on_page=True),
    Statistic("fit_gradients", of=("attack",), cost=True, on_page=True),
)
"""The statistics of rankings, in the order of their columns."""


def statistics_of(ranking: str) -> list[str]:
    """Return the columns of the statistics of outcomes in a ranking of `attack` or `source`."""
    return [entry.column for entry in STATISTICS if ranking in entry.of and not entry.cost]


def definitions() -> Mapping[str, str]:
    """Return the definitions of the report by term, in its order."""
    return TERMS | {
        entry.term: entry.definition for entry in QUANTITIES.values() if entry.definition
    }
