"""Stealth of attacks beside their success."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from src.analysis.matrices import TRANSFER, relation
from src.analysis.summary import JobSummary

SIZES = ("rms_255", "linf_255", "psnr", "ssim")


def mean_stealth(rows: pd.DataFrame) -> pd.DataFrame:
    """Average the rows of a table `stealth` over images.

    Returns:
        One row per budget: `eps_255`, `images`, and the means of `SIZES`; an image that is not
        changed has no PSNR, and is left out of its mean.
    """
    known = rows.replace({"psnr": {np.inf: np.nan}}).groupby("eps_255", as_index=False)
    return known.agg(images=("index", "size"), **{name: (name, "mean") for name in SIZES})


def success_over_stealth(jobs: Sequence[JobSummary]) -> pd.DataFrame:
    """Return the stealth and the mean success of jobs that measured it, at their reference budgets.

    Returns:
        One row per job: `attack`, `source`, `norm`, `eps_255`, the `images` measured, the number
        of other `targets` behind no defence, `success`, the mean of their success rates, NaN
        without one, and the means of `SIZES`, see `mean_stealth`.
    """
    found = []
    for one in (each for each in jobs if "stealth" in each.job.files):
        job, record, rates = one.job, one.job.record, one.own
        kinds = [relation(record.source, target) for target in rates["target"]]
        other = rates[np.array(kinds) == TRANSFER]
        other = other[(other["eps_255"] == record.reference) & (other["defence"] == "none")]
        means = mean_stealth(job.table("stealth")).assign(
            attack=job.attack,
            source=record.source,
            norm=record.norm,
            targets=len(other),
            success=other["success_rate"].mean(),
        )
        found.append(means[means["eps_255"] == record.reference])
    names = ["attack", "source", "norm", "eps_255", "images", "targets", "success", *SIZES]
    return pd.concat(found, ignore_index=True)[names] if found else pd.DataFrame(columns=names)
