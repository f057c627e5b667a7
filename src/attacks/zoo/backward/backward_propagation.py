from collections.abc import Iterable
from functools import partial
from typing import Annotated

from pydantic import PositiveFloat, Strict
from torch import Tensor, finfo, nn
from torch.nn import functional

from src.attacks.define import attack
from src.attacks.zoo.backward.layers import late_relus, layers_of, replace_relu, with_gradient
from src.utils.checked_dataclass import checked


@checked
class BackwardPropagation:
    """Replace the backward pass: max-pooling by softmax over each window, late ReLUs by SiLU.

    The logits stay the same. A window with inputs z turns its gradient g into
    softmax(temperature * z) * g, and a ReLU into s(z) * (1 + z * (1 - s(z))) * g, with the logistic
    function s.

    Args:
        temperature: Temperature of the softmax; larger ones approach the maximum's own gradient.
        relus: Regular expressions for the names of the modules whose ReLUs are changed, such as
            `layer4`; None: for ResNets `layer4` and `layer3` without its first block, for Inception
            v3 `Mixed_7`, for DenseNets `denseblock4`, for others the last third of the ReLUs before
            the first linear layer.

    Reference: Wang et al. (2023), arXiv 2306.12685.

    Deviation: a window's padding has no weight (authors: that of a 0), the temperature is 10 for
    2x2 windows too (authors, for VGG-19: 1), and for VGG the last third of the ReLUs before the
    classifier change (authors: the last two).
    """

    temperature: PositiveFloat = 10.0
    relus: Annotated[tuple[str, ...], Strict(False)] | None = None

    def __call__(self, model: nn.Module) -> nn.Module:
        for layer in layers_of(model, self._find_layers, "max-pools or ReLUs"):
            if isinstance(layer, nn.MaxPool2d):
                layer.forward = partial(_pool, layer, self.temperature)  # type: ignore[method-assign]
            else:
                replace_relu(layer, _relu)
        return model

    def _find_layers(self, network: nn.Module) -> Iterable[nn.Module]:
        pools = [module for module in network.modules() if isinstance(module, nn.MaxPool2d)]
        return [*pools, *late_relus(network, self.relus)]


def _relu(z: Tensor) -> Tensor:
    return with_gradient(z.relu(), functional.silu(z))


def _pool(pool: nn.MaxPool2d, temperature: float, z: Tensor) -> Tensor:
    """Return each window's maximum, with the gradient of a mean with constant softmax weights."""
    result = nn.MaxPool2d.forward(pool, z)
    kernel, stride, padding, dilation = (
        (size, size) if isinstance(size, int) else size
        for size in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    )
    border: list[int] = []  # before and after the last axis, then the one before
    for axis in (1, 0):
        covered = stride[axis] * (result.shape[axis - 2] - 1) + dilation[axis] * (kernel[axis] - 1)
        border += [padding[axis], covered + 1 - padding[axis] - z.shape[axis - 2]]
    padded = functional.pad(z, border, value=finfo(z.dtype).min)  # has a share of 0
    windows = functional.unfold(padded, kernel, dilation, stride=stride)
    windows = windows.unflatten(1, (z.shape[1], -1))
    shares = (temperature * windows).softmax(dim=2).detach()
    return with_gradient(result, (shares * windows).sum(dim=2).view_as(result))


@attack(backward_rule=BackwardPropagation, decay=1.0, needs="ReLUs")
def bpa() -> None:
    """Smooth gradients of max-pools and late ReLUs: momentum, steps of eps / 10, not eps / 5."""
