"""Features weighted by what the logit of the label owes to them."""

from pydantic import PositiveInt
from torch import Tensor, autograd, enable_grad, finfo, float32, promote_types

from src.attacks.checked import Share, checked
from src.attacks.per_image_random import PerImageRandom
from src.attacks.source import Source


@checked
class FeatureImportance:
    """Lower the features of a layer that raise the logit of the true class.

    Maximises -sum(w * f(x_t)), w = s / ||s||_2, s = sum over i of grad_f z_y(x * B_i): z_y is the
    logit of the true class, and B_i ~ Bernoulli(1 - probability) in every value, which where it is
    0 is black. The weights serve all steps and budgets.

    Args:
        masks: Number of B_i.
        probability: Share of the values that are masked.

    Reference:
        Wang et al.: Feature Importance-aware Transferable Adversarial Attacks (2021),
        arXiv 2107.14185.

    Deviation: with target labels the features that raise their logits are raised, which the paper
    does not define. Each member of an ensemble has weights of its own; the
    members' values are averaged.
    """

    masks: PositiveInt = 30
    probability: Share = 0.3

    def prepare(
        self, source: Source, images: Tensor, labels: Tensor, targeted: bool, random: PerImageRandom
    ) -> list[Tensor]:
        """Return the weights of the layer's output, one tensor a member."""
        totals: list[Tensor] = []
        for _ in range(self.masks):
            kept = random.uniform(*images.shape[1:]) >= self.probability
            source.draw(random, 1)
            members = range(len(source.members))
            found = [_gradient(source, images * kept, labels, number) for number in members]
            totals = [a + b for a, b in zip(totals, found, strict=True)] if totals else found
        return [total / _norm(total) for total in totals]

    def losses(
        self,
        source: Source,
        images: Tensor,
        labels: Tensor,
        targeted: bool,
        random: PerImageRandom,
        prepared: list[Tensor],
    ) -> Tensor:
        """Return the weighted sum of each image's features, its negative without targets."""
        pairs = zip(prepared, source.features(images.flatten(0, 1)), strict=True)
        sums = [
            (weights * output.unflatten(0, images.shape[:2])).flatten(2).sum(dim=2)
            for weights, output in pairs
        ]
        value = sum(sums[1:], sums[0]) / len(sums)
        return value if targeted else -value


def _gradient(source: Source, images: Tensor, labels: Tensor, member: int) -> Tensor:
    """Return the gradient of each label's logit at a member's layer, at least in float32."""
    outputs: list[Tensor] = []

    def begin_here(output: Tensor, member: int) -> Tensor:
        outputs.append(output.detach().requires_grad_())
        return outputs[0].clone()  # which a layer that works in place may change

    with enable_grad():
        # Of images without a gradient none would be counted.
        logits = source.logits_with(images.requires_grad_(), begin_here, member)
        (found,) = autograd.grad(logits.gather(1, labels[:, None]).sum(), outputs)
    return found.to(promote_types(found.dtype, float32))


def _norm(weights: Tensor) -> Tensor:
    """Return the Euclidean norm of each image's weights, never 0."""
    norm = weights.flatten(1).norm(dim=1).clamp_min(finfo(weights.dtype).tiny)
    return norm.view(-1, *[1] * (weights.ndim - 1))
