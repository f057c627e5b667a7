"""Predictions of jobs as one data frame, with their rates."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from src import analysis
from src.artifacts.frame_jobs import JOBS, named_folders
from src.artifacts.jobs import StoredJob, find_jobs

_NAMES = ("attack", "source", "target", "defence", "norm", "protocol", "variant")
_NUMBERS = ("eps_255", "index", "label", "target_label", "predicted", "confidence")
_COUNTS = ("draws", "draws_correct", "gradients", "forwards")
COLUMNS = (*_NAMES, *_NUMBERS, "true_confidence", *_COUNTS)
_WHOLE = ("target_label", "draws_correct")


def load_sweep(*folders: str | Path, **named: str | Path) -> pd.DataFrame:
    """Return all predictions of the finished jobs of one or several sweeps as one data frame.

    Jobs that differ in their images alone are one job if these are disjoint.

    Args:
        *folders: Folders of sweeps, such as `outputs/DATE`, or folders that hold such folders.
        **named: Folders by name, as in `day1="outputs/DATE"`. The name is added to a sweep's
            attacks if they cannot be told from those of another sweep; without one, the folder's.

    Returns:
        One row per job, variant, target, budget and image, with the columns

        - `attack`: the attack's label, with what distinguishes jobs of the same attack and source,
          such as ` seed=1`;
        - `source`: the model that the images were crafted on, `a+b` for an ensemble; empty for a
          job of clean images alone;
        - `target`: the model that classified them; clean images are classified by the source too;
        - `defence`: what stood before it, `none` or the defence's name;
        - `norm`: norm of the budget, `linf` or `l2`;
        - `protocol`: which images the job's own matrix counts, see `rates`;
        - `variant`: storage format, such as `float32`, or control, `noise` or `shuffled`; a job's
          primary one comes first;
        - `eps_255`: the budget in units of 1/255, 0 for clean images;
        - `index`: number of the image in the data set, or in the pooled ones;
        - `label`, `target_label`, `predicted`: classes: the true one, the one aimed at (missing
          where there is none) and the most likely one;
        - `confidence`, `true_confidence`: probabilities of the most likely and of the true class,
          in [0, 1];
        - `draws`, `draws_correct`: passes through a randomised defence, and those that predict the
          true class;
        - `gradients`, `forwards`: gradients and forward passes (those of the gradients among them)
          that the image's attack took at all budgets together, 0 for clean images and noise;
          missing where that is not known.

        The first seven are categoricals; `source` and `target` have the same categories, so that
        `frame[frame.source != frame.target]` leaves out the white boxes. `frame.attrs["jobs"]` says
        what the jobs were: their records, as plain data, with settings, budgets, digests of data
        and weights, and versions.

    Raises:
        ValueError: A folder is not there, holds no finished job, or a file in it is damaged.

    Examples:
        >>> frame = load_sweep("outputs/2026-01-31_12-00-00-000000")  # doctest: +SKIP
        >>> wrong = frame.predicted != frame.label  # doctest: +SKIP
        >>> wrong.groupby([frame.attack, frame.eps_255]).mean()  # doctest: +SKIP
    """
    return frame_of(find_jobs(named_folders(*folders, named)))


def frame_of(jobs: Sequence[StoredJob]) -> pd.DataFrame:
    """Return the predictions of jobs as the frame of `load_sweep`."""
    rows = pd.concat([part for job in jobs for part in _parts(job)], ignore_index=True)
    models = pd.CategoricalDtype(sorted({*rows["source"].unique(), *rows["target"].unique()}))
    kinds = dict.fromkeys(_NAMES, "category") | dict.fromkeys(("source", "target"), models)
    frame = rows[[*COLUMNS]].astype(kinds)
    records = [job.record.model_copy(update={"label": job.attack}) for job in jobs]
    frame.attrs[JOBS] = [record.model_dump(mode="json") for record in records]
    return frame


def rates(
    frame: pd.DataFrame,
    source: str | None = None,
    targets: Sequence[str] | None = None,
    protocol: str | None = None,
) -> pd.DataFrame:
    """Count, per target, defence and budget, the images that are still classified correctly.

    With a `source` the rows are those of one job and variant, and the result is that of
    `src.analysis.rates`. Without one they are a frame of `load_sweep` or `transfer`: the result
    has the rows of every job and variant, after the columns `attack`, `source`, `variant`, `norm`
    and `protocol`, under the protocol given or else the job's own.

    Args:
        frame: One row per (index, target, defence, eps_255), at least, without `defence` behind
            none; clean images have eps_255 = 0.
        source: Model that the images were crafted on.
        targets: Models that they were evaluated on, behind all defences; None: all.
        protocol: Images that form the denominator; None: `joint` for one job.

    Raises:
        ValueError: The frame lacks the clean rows that the protocol needs.
    """
    if source is not None:
        named = list(frame["target"].unique()) if targets is None else targets
        return analysis.rates(frame, source, named, protocol or "joint")
    keys = ["attack", "source", "variant", "norm", "protocol"]
    parts = {}
    for place, rows in frame.groupby(keys, observed=True, sort=False):
        attack, name, variant, norm, own = map(str, place)
        there = rows.loc[rows["eps_255"] > 0, "target"].unique()
        wanted = [target for target in there if targets is None or target in targets]
        if wanted:
            chosen = protocol or own
            found = analysis.rates(rows, name, wanted, chosen)
            parts[attack, name, variant, norm, chosen] = found
    if not parts:
        raise ValueError(f"targets={targets}: the frame holds no adversarial images of them.")
    return pd.concat(parts, names=keys).reset_index(keys).reset_index(drop=True)


def _parts(job: StoredJob) -> Iterator[pd.DataFrame]:
    """Yield the predictions of each variant of a job, with the columns that name the job."""
    record = job.record
    job_names = {
        "attack": job.attack,
        "source": record.source,
        "norm": record.norm,
        "protocol": record.protocol,
    }
    for variant, table in job.variants().items():
        rows = table.assign(**job_names, variant=variant)
        yield rows.astype(dict.fromkeys(_WHOLE, "Int64"))
