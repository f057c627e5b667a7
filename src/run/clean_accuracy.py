"""Checks of clean accuracies against expected accuracies and chance."""

import logging
from functools import cache
from pathlib import Path

import pyarrow as pa

from ..analysis import format_cell, is_at_chance, wilson_interval
from ..config.settings import Settings
from ..models import PixelClassifier, weight_facts
from ..utils.model_names import ABSTAINED, TARGET_COLUMNS, ModelRef
from .preprocessing import suggest
from .stages import JobContext

log = logging.getLogger(__name__)


def check_clean_accuracies(job: JobContext, clean: pa.Table) -> None:
    """Compare clean accuracies with the expected ones; on a miss warn, or stop if settings say so.

    A model misses if the 95 % interval of its accuracy lies outside the expected accuracy plus or
    minus the tolerance. An accuracy stated by a weight file causes only a warning, and only if the
    measured one is lower: the images may differ.
    """
    frame = clean.select(["target", "defence", "label", "predicted"]).to_pandas()
    frame = frame[frame["predicted"] != ABSTAINED]
    correct = (frame["label"] == frame["predicted"]).groupby(
        [frame[name] for name in TARGET_COLUMNS]
    )
    counts = correct.agg(["sum", "count"])
    shares = ", ".join(f"{ModelRef.parse(*pair)} {k / n:.2%}" for pair, (k, n) in counts.iterrows())
    _log_once(f"{len(job.images)} clean images, correct: {shares}", job.settings.sweep)
    check = job.settings.clean_accuracy_check
    for name in job.settings.models:  # no accuracy is expected behind a defence
        k, n = (int(value) for value in counts.loc[ModelRef.parse(name).columns])
        expected = job.models[name].expected_accuracy
        if expected is None:
            continue
        low, high = (float(bound) for bound in wilson_interval(k, n))
        stated_by_user = job.settings.model[name].expected_accuracy is not None
        above = stated_by_user and low > expected + check.tolerance
        if above or high < expected - check.tolerance:
            origin = "file expects" if stated_by_user else "weights state"
            model = job.models[name].classifier
            advice = suggest(model, job.images) if isinstance(model, PixelClassifier) else ""
            message = (
                f"model {name}: clean accuracy is {k} / {n} = {k / n:.2%}, but its {origin} "
                f"{expected:.2%} +- {check.tolerance:.2%}. Likely causes are wrong preprocessing "
                f"(mean, std, input_size), weights or labels{advice}"
            )
            if stated_by_user and check.action == "stop":
                raise ValueError(f"{message}. To continue: clean_accuracy_check.action=warn.")
            log.warning("%s.", message)


@cache
def _log_once(text: str, sweep: str | None) -> None:
    """Log a line that several jobs of a sweep share."""
    log.info("%s", text)


def check_trained(settings: Settings, name: str, file: Path, num_classes: int) -> None:
    """Warn if trained weights are no better than chance, or stop if settings say so."""
    tested = weight_facts(file, name).tested
    if not is_at_chance(*tested, num_classes):
        return
    text = (
        f"model {name} is at chance: {format_cell(*tested)} test images correct after training "
        "(too few epochs or images, too high or low a learning rate, or a mix-up of labels)"
    )
    if settings.clean_accuracy_check.action == "stop":
        raise ValueError(f"{text}. Raise training.epochs, or set clean_accuracy_check.action=warn.")
    log.warning("%s.", text)
