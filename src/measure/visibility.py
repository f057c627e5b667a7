"""Stealth: size and visibility of perturbations."""

import pyarrow as pa
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from src.measure.diagnostic import Diagnostic, DiagnosticInput
from src.measure.predictions import to_numpy

SMALLEST = 11
"""Fewest pixels of a side at which an image has an SSIM: its Gaussian window's."""


class Stealth(Diagnostic):
    """Size and visibility of every image's perturbation at each budget, before any rounding.

    Reference:
        Wang, Bovik, Sheikh, Simoncelli: Image Quality Assessment: From Error Visibility to
        Structural Similarity (2004), for SSIM, with a Gaussian window of 11 pixels and
        deviation 1.5, K = 0.01 and 0.03, and the mean over windows inside the image and channels.
    """

    table = "stealth"

    def measure(self, inputs: DiagnosticInput) -> pa.Table:
        """Return one row per image and budget.

        The columns are `index`, `eps_255`, `rms_255` and `linf_255` (root mean square and largest
        change, in units of 1/255), `psnr` (in dB of the range 1; infinite without a change) and
        `ssim` (in [-1, 1]; NaN for images below `SMALLEST` pixels).
        """
        tables = []
        for eps_255, images in zip(inputs.budgets, inputs.adversarial, strict=True):
            change = (images - inputs.clean).flatten(1)
            mse = change.double().square().mean(dim=1)
            sizes = {
                "eps_255": torch.full_like(mse, eps_255),
                "rms_255": 255 * mse.sqrt(),
                "linf_255": (255 * change.abs().amax(dim=1)).double(),
                "psnr": -10 * mse.log10(),
                "ssim": structural_similarity(images, inputs.clean).double(),
            }
            columns = {"index": inputs.batch.index, **sizes}
            tables.append(pa.table({name: to_numpy(column) for name, column in columns.items()}))
        return pa.concat_tables(tables)


def structural_similarity(images: Tensor, others: Tensor) -> Tensor:
    """Return the SSIM of pairs of images (N, 3, H, W) in [0, 1], shape (N,)."""
    if min(images.shape[-2:]) < SMALLEST:
        return images.new_full((len(images),), torch.nan)
    with torch.autocast(images.device.type, enabled=False):
        _, windows = structural_similarity_index_measure(
            images.float(), others.float(), data_range=1.0, reduction="none", return_full_image=True
        )
    edge = SMALLEST // 2  # where the window would lie on mirrored pixels
    return windows[..., edge:-edge, edge:-edge].flatten(1).mean(dim=1)
