"""Predictions of finished jobs as one data frame, and the rates computed from it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from .. import analysis
from ..artifacts.frame_jobs import JOBS, SHOWS_SEED, named_folders
from ..artifacts.jobs import FinishedJob, find_jobs

_NAMES = ("attack", "source", "target", "defence", "norm", "protocol", "variant")
_NUMBERS = ("eps_255", "index", "label", "target_label", "predicted", "confidence")
_COUNTS = ("draws", "draws_correct", "gradients", "forwards")
COLUMNS = (*_NAMES, *_NUMBERS, "true_confidence", *_COUNTS)
_WHOLE = ("target_label", "draws_correct")


def load_sweep(*folders: str | Path, **named: str | Path) -> pd.DataFrame:
    """Load all predictions from the finished jobs of one or several sweeps as one data frame.

    Jobs that differ only in their images are merged into one job if the images are disjoint.

    Args:
        *folders: Folders of sweeps, such as `outputs/DATE`, or folders that contain such folders.
        **named: Folders by name, as in `day1="outputs/DATE"`. If two sweeps have attacks with the
            same label, the label gets this name, or else the name of the folder.

    Returns:
        One row per job, variant, target, budget and image, with the columns

        - `attack`: the attack's label, including what distinguishes jobs with the same attack and
          source, such as ` seed=1`;
        - `source`: the model that the images were crafted on, `a+b` for an ensemble, empty for a
          job with clean images only;
        - `target`: the model that classified the images; the source also classifies clean images;
        - `defence`: the defence in front of the target, or `none`;
        - `norm`: the norm of the budget, `linf` or `l2`;
        - `protocol`: the images that the job's own matrix counts, see `rates`;
        - `variant`: a storage format such as `float32`, or a control, `noise` or `shuffled`; the
          job's primary variant comes first;
        - `eps_255`: the budget in units of 1/255, 0 for clean images;
        - `index`: the number of the image in the data set, or in the pooled data sets;
        - `label`, `target_label`, `predicted`: the true class, the target label (missing for
          untargeted attacks) and the most likely class;
        - `confidence`, `true_confidence`: the probabilities of the most likely class and of the
          true class, in [0, 1];
        - `draws`, `draws_correct`: the number of passes through a randomised defence, and how many
          of them predict the true class;
        - `gradients`, `forwards`: how many gradients and forward passes (including those for the
          gradients) the attack needed for this image at all budgets together; 0 for clean images
          and noise, missing if unknown.

        The first seven columns are categoricals. `source` and `target` share their categories, so
        `frame[frame.source != frame.target]` leaves out the white boxes. `frame.attrs["jobs"]`
        holds the jobs' records as plain data: settings, budgets, digests of data and weights, and
        versions.

    Raises:
        ValueError: A folder does not exist or holds no finished job, or a file in it is damaged.

    Examples:
        >>> frame = load_sweep("outputs/2026-01-31_12-00-00-000000")  # doctest: +SKIP
        >>> wrong = frame.predicted != frame.label  # doctest: +SKIP
        >>> wrong.groupby([frame.attack, frame.eps_255]).mean()  # doctest: +SKIP
    """
    return frame_of(find_jobs(named_folders(*folders, named)))


def load_table(name: str, *folders: str | Path, **named: str | Path) -> pd.DataFrame:
    """Load one table, such as a diagnostic's, from the finished jobs of one or several sweeps.

    Args:
        name: Name of the table: the stem of its files.
        *folders: Folders of sweeps, as for `load_sweep`.
        **named: Folders by name.

    Returns:
        The rows of all jobs that have the table, after the columns `attack` and `source`.

    Raises:
        ValueError: As for `load_sweep`, or no job has the table.
    """
    jobs = find_jobs(named_folders(*folders, named))
    frames = [
        job.table(name).assign(attack=job.attack, source=job.record.source)
        for job in jobs
        if name in job.files
    ]
    if not frames:
        known = ", ".join(sorted({table for job in jobs for table in job.files}))
        raise ValueError(f"No job has the table {name}. There are {known}.")
    rows = pd.concat(frames, ignore_index=True)
    return rows[[*dict.fromkeys(["attack", "source", *rows])]]


def frame_of(jobs: Sequence[FinishedJob]) -> pd.DataFrame:
    """Return the predictions of jobs in the format of `load_sweep`."""
    rows = pd.concat([part for job in jobs for part in _parts(job)], ignore_index=True)
    models = pd.CategoricalDtype(sorted({*rows["source"].unique(), *rows["target"].unique()}))
    dtypes = dict.fromkeys(_NAMES, "category") | dict.fromkeys(("source", "target"), models)
    frame = rows[[*COLUMNS]].astype(dtypes)
    frame.attrs[JOBS] = [
        job.record.model_dump(mode="json") | {"label": job.row_title, SHOWS_SEED: job.shows_seed}
        for job in jobs
    ]
    return frame


def rates(
    frame: pd.DataFrame,
    source: str | None = None,
    targets: Sequence[str] | None = None,
    protocol: str | None = None,
) -> pd.DataFrame:
    """Compute rates per target, defence and budget: still correct, success, confidence, intervals.

    With a `source`, `frame` holds one job and variant, and the result is that of
    `src.analysis.rates`. Without a `source`, `frame` comes from `load_sweep` or `transfer`. Then
    the result has rows for every job and variant and begins with the columns `attack`, `source`,
    `variant`, `norm` and `protocol`.

    Args:
        frame: At least one row per (index, target, defence, eps_255). Without a column `defence`
            there is no defence; clean images have eps_255 = 0.
        source: Model that the images were crafted on.
        targets: Models that the images were evaluated on, behind all defences; None: all.
        protocol: Images that form the denominator; None: each job's own protocol or, with a
            `source`, `joint`.

    Raises:
        ValueError: The frame lacks the clean rows that the protocol needs.
    """
    if source is not None:
        named = list(frame["target"].unique()) if targets is None else targets
        return analysis.rates(frame, source, named, protocol or "joint")
    keys = ["attack", "source", "variant", "norm", "protocol"]
    parts = {}
    bare = frame.copy(deep=False)
    bare.attrs = {}  # pandas copies them in every operation
    for place, rows in bare.groupby(keys, observed=True, sort=False):
        attack, name, variant, norm, job_protocol = map(str, place)
        there = rows.loc[rows["eps_255"] > 0, "target"].unique()
        wanted = [target for target in there if targets is None or target in targets]
        if wanted:
            chosen = protocol or job_protocol
            job_rates = analysis.rates(rows, name, wanted, chosen)
            parts[attack, name, variant, norm, chosen] = job_rates
    if not parts:
        raise ValueError(f"targets={targets}: the frame has no adversarial images for them.")
    return pd.concat(parts, names=keys).reset_index(keys).reset_index(drop=True)


def _parts(job: FinishedJob) -> Iterator[pd.DataFrame]:
    """Yield the predictions of each variant of a job, with columns that identify the job."""
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
    job.forget()
