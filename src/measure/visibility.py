"""Stealth: size and visibility of perturbations."""

import pyarrow as pa
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from src.measure.diagnostic import Diagnostic, DiagnosticInput

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

    def observe(self, inputs: DiagnosticInput) -> None:
        """Add one batch."""
        index = inputs.batch.index
        for level, images in enumerate(inputs.adversarial if len(index) else ()):
            change = (images - inputs.clean).flatten(1)
            mse = change.double().square().mean(dim=1)
            eps = torch.full_like(mse, inputs.budgets[level])
            sizes = [eps, 255 * mse.sqrt(), 255 * change.abs().amax(dim=1), -10 * mse.log10()]
            ssim = structural_similarity(images, inputs.clean)
            self.update([torch.full_like(index, level), index], [*sizes, ssim])

    def compute(self) -> pa.Table:
        """Return one row per image and budget, sorted by budget and index.

        The columns are `index`, `eps_255`, `rms_255` and `linf_255` (root mean square and largest
        change, in units of 1/255), `psnr` (in dB of the range 1; infinite without a change) and
        `ssim` (in [-1, 1]; NaN for images below `SMALLEST` pixels).
        """
        whole, real = self.rows(2)
        names = ("eps_255", "rms_255", "linf_255", "psnr", "ssim")
        return pa.table({"index": whole[:, 1], **dict(zip(names, real.T, strict=True))})


def structural_similarity(images: Tensor, others: Tensor) -> Tensor:
    """Return the SSIM of pairs of images (N, 3, H, W) in [0, 1], shape (N,)."""
    if min(images.shape[-2:]) < SMALLEST:
        return images.new_full((len(images),), torch.nan)
    with torch.autocast(images.device.type, enabled=False):
        _, each = structural_similarity_index_measure(
            images.float(), others.float(), data_range=1.0, reduction="none", return_full_image=True
        )
    edge = SMALLEST // 2  # where the window would lie on mirrored pixels
    return each[..., edge:-edge, edge:-edge].flatten(1).mean(dim=1)
