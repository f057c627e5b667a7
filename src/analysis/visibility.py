"""Stealth of attacks: size and visibility of their perturbations."""

import numpy as np
import pandas as pd

SIZES = ("rms_255", "linf_255", "psnr", "ssim")


def mean_stealth(rows: pd.DataFrame) -> pd.DataFrame:
    """Average the rows of a table `stealth` over images.

    Returns:
        One row per budget: `eps_255`, `images`, and the means of `SIZES`; an image that is not
        changed has no PSNR, and is left out of its mean.
    """
    known = rows.replace({"psnr": {np.inf: np.nan}}).groupby("eps_255", as_index=False)
    return known.agg(images=("index", "size"), **{name: (name, "mean") for name in SIZES})
