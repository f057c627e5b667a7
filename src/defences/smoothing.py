from typing import Annotated

import torch
from annotated_types import Gt, Le
from pydantic import PositiveInt
from scipy.special import bdtrc
from torch import Tensor, nn
from torch.nn import functional

from src.attacks import Philox
from src.utils.checked_dataclass import checked


@checked
class Smoothing:
    """Majority vote over noisy copies, which may leave [0, 1] as in the paper.

    It abstains if a two-sided binomial test cannot separate the two most frequent classes.

    Args:
        sigma: Standard deviation of the Gaussian noise, in [0, 1] units.
        copies: Number of votes.
        alpha: Significance level of the test; 1: no abstentions.

    Reference: Cohen, Rosenfeld, Kolter (2019), arXiv 1902.02918, PREDICT.
    """

    sigma: Annotated[float, Gt(0), Le(2)] = 0.25
    copies: PositiveInt = 100
    alpha: Annotated[float, Gt(0), Le(1)] = 0.001

    def __call__(self, images: Tensor, random: Philox) -> Tensor:
        return images + (self.sigma * random.normal(*images.shape[1:])).to(images.dtype)

    def classify(self, classifier: nn.Module, images: Tensor, random: Philox) -> Tensor:
        """Return the logarithms of vote shares, (N, C), at least -87.4; abstentions are NaN."""
        votes = torch.tensor(0, device=images.device)
        for _ in range(self.copies):
            logits = classifier(self(images, random))
            if not bool(logits.isfinite().all()):
                raise ValueError("the network returns NaN or infinity for a noisy copy")
            votes = votes + functional.one_hot(logits.argmax(dim=1), logits.shape[1])
        first, second = votes.topk(2).values.T.cpu().numpy()
        p_value = (2 * torch.from_numpy(bdtrc(first - 1, first + second, 0.5))).clamp_max(1)
        shares = (votes / self.copies).clamp_min(torch.finfo(torch.float32).tiny).log()
        return shares.masked_fill((p_value > self.alpha).to(images.device)[:, None], torch.nan)
