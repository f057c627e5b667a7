"""Stealth of attacks: size and visibility of their perturbations."""

import numpy as np
import pandas as pd

SIZES = ("rms_255", "linf_255", "psnr", "ssim")


def mean_stealth(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `eps_255`, `images` and the means of `SIZES` (PSNR: of changed images) per budget."""
    known = rows.replace({"psnr": {np.inf: np.nan}}).groupby("eps_255", as_index=False)
    return known.agg(images=("index", "size"), **{name: (name, "mean") for name in SIZES})
