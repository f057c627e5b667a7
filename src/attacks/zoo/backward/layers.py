"""Layers that backward rules change, and how: their search, hooks and gradients."""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any

from torch import Tensor, nn

from src.attacks.source import members_of

_LATE = (r"\blayer3\.(?!0\.)", r"\blayer4\.", r"\bMixed_7", r"\bdenseblock4\.")


def change_gradient(layer: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Change the gradient at a layer's output; what it is added to in place later does not matter.

    A module's own backward hooks refuse outputs that are changed in place, as torchvision's are.
    """

    def hook(layer: nn.Module, inputs: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(change)

    layer.register_forward_hook(hook)


def layers_of(
    model: nn.Module, find: Callable[[nn.Module], Iterable[nn.Module]], needs: str
) -> list[Any]:
    """Return the layers that `find` finds in each member of a source, whatever wraps it.

    Raises:
        ValueError: A network has none, and so not what it `needs`.
    """
    members = dict.fromkeys(members_of(model))  # once where a member stands twice
    found = [[*find(member)] for member in members]
    if not all(found):
        raise ValueError(f"the source must have {needs}.")
    return [layer for layers in found for layer in layers]


def with_gradient(exact: Tensor, smooth: Tensor) -> Tensor:
    """Return a tensor with the gradient of another."""
    return exact.detach() + (smooth - smooth.detach()).to(exact.dtype)


def has_relu(module: nn.Module) -> bool:
    """Tell a ReLU, or torchvision's `BasicConv2d`, which calls the function."""
    return isinstance(module, nn.ReLU) or type(module).__name__ == "BasicConv2d"


def late_relus(network: nn.Module, patterns: Sequence[str] | None) -> list[nn.Module]:
    """Return the ReLUs in whose names a pattern is found, or those that are late as published.

    Those are in `layer3` but its first block and `layer4` of ResNets, `Mixed_7` of Inception v3,
    `denseblock4` of DenseNets, and of others the last third of those before the first linear layer.
    """
    named = dict(network.named_modules(remove_duplicate=False))
    found = "|".join(_LATE if patterns is None else patterns) or "$^"
    chosen = [each for name, each in named.items() if has_relu(each) and re.search(found, name)]
    if patterns and not chosen:
        raise ValueError(f"attack.relus={list(patterns)}: no ReLU of the source has such a name.")
    if patterns is None and not chosen:
        before = takewhile(lambda each: not isinstance(each, nn.Linear), network.modules())
        early = [each for each in before if has_relu(each)]
        chosen = early[-max(1, len(early) // 3) :]
    return chosen
