"""Mean size and visibility of perturbations."""

import numpy as np
import pandas as pd

SIZES = ("rms_255", "linf_255", "psnr", "ssim")


def mean_visibility(rows: pd.DataFrame) -> pd.DataFrame:
    """Average `SIZES` over the images at each budget (PSNR: over changed images only).

    Returns:
        One row per budget: `eps_255`, the number of `images`, and the means.
    """
    known = rows.replace({"psnr": {np.inf: np.nan}}).groupby("eps_255", as_index=False)
    return known.agg(images=("index", "size"), **{name: (name, "mean") for name in SIZES})
