"""Size and visibility of perturbations."""

import pyarrow as pa
import torch
from torch import Tensor

from ..artifacts.tables import EPS_255, FLOAT, INDEX, column
from ..images.storage import AttackedImages
from ..utils.devices import arithmetic
from .prediction_rows import to_numpy
from .protocol import EvaluatedBatch, Measurement

SMALLEST = 11
"""Smallest side, in pixels, of images with an SSIM: that of its Gaussian window."""


class Visibility(Measurement):
    """Size and visibility of every image's perturbation at each budget, before rounding.

    `rms_255` and `linf_255` are the root mean square and the largest change, in units of 1/255.
    `psnr` is in dB for the range 1, and infinite without a change. `ssim` is NaN for images with
    sides below `SMALLEST` pixels.

    Reference:
        Wang, Bovik, Sheikh, Simoncelli: Image Quality Assessment: From Error Visibility to
        Structural Similarity (2004), for SSIM, with a Gaussian window of 11 pixels and
        deviation 1.5, K = 0.01 and 0.03, and the mean over channels and windows inside the image.
    """

    name = "visibility"
    sizes = (column("rms_255", FLOAT, 0, 255), column("linf_255", FLOAT, 0, 255))
    views = (column("psnr", FLOAT), column("ssim", FLOAT, -1.001, 1.001, nan=True))
    schema = pa.schema([INDEX, EPS_255, *sizes, *views])
    order = ("eps_255", "index")
    each_budget, by_target = True, False

    def rows(self, batch: EvaluatedBatch) -> pa.Table:
        """Return a row per image and budget."""
        return pa.concat_tables(_sizes(batch.version(eps_255)) for eps_255 in batch.budgets)


def _sizes(version: AttackedImages) -> pa.Table:
    """Return the rows of one budget."""
    change = (version.adversarial - version.clean).flatten(1)
    mse = change.double().square().mean(dim=1)
    columns = {
        "index": version.batch.index,
        "eps_255": torch.full_like(mse, version.eps_255),
        "rms_255": 255 * mse.sqrt(),
        "linf_255": (255 * change.abs().amax(dim=1)).double(),
        "psnr": -10 * mse.log10(),
        "ssim": structural_similarity(version.adversarial, version.clean).double(),
    }
    return pa.table({name: to_numpy(values) for name, values in columns.items()})


def structural_similarity(images: Tensor, others: Tensor) -> Tensor:
    """Return the SSIM of pairs of images (N, 3, H, W) in [0, 1], shape (N,)."""
    if min(images.shape[-2:]) < SMALLEST:
        return images.new_full((len(images),), torch.nan)
    # Slow to import.
    from torchmetrics.functional.image import structural_similarity_index_measure

    with arithmetic(images.device.type, "32-true"):
        _, windows = structural_similarity_index_measure(
            images.float(), others.float(), data_range=1.0, reduction="none", return_full_image=True
        )
    edge = SMALLEST // 2  # windows at the edge include mirrored pixels
    return windows[..., edge:-edge, edge:-edge].flatten(1).mean(dim=1)
