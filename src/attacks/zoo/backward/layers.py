"""Functions that find the layers of backward rules and change their gradients."""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, takewhile
from typing import Any

from torch import Tensor, nn

from src.attacks.source import members_of

_LATE = (r"\blayer3\.(?!0\.)", r"\blayer4\.", r"\bMixed_7", r"\bdenseblock4\.")


def change_gradient(layer: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Change the gradient at a layer's output, even if later code modifies the output in place.

    A module's own backward hooks refuse such outputs, which torchvision's networks have.
    """

    def hook(layer: nn.Module, inputs: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(change)

    layer.register_forward_hook(hook)


def layers_of(
    model: nn.Module, find: Callable[[nn.Module], Iterable[nn.Module]], needs: str
) -> list[Any]:
    """Return the layers that `find` finds in each member of a source.

    Raises:
        ValueError: A member has no such layer; the message names what the attack `needs`.
    """
    members = dict.fromkeys(members_of(model))  # a repeated member counts once
    layers = [[*find(member)] for member in members]
    if not all(layers):
        raise ValueError(f"the source must have {needs}.")
    return [*chain.from_iterable(layers)]


def with_gradient(exact: Tensor, smooth: Tensor) -> Tensor:
    """Return the values of `exact` with the gradient of `smooth`."""
    return exact.detach() + (smooth - smooth.detach()).to(exact.dtype)


def has_relu(module: nn.Module) -> bool:
    """Return True for `nn.ReLU` and for torchvision's `BasicConv2d`, which calls `F.relu`."""
    return isinstance(module, nn.ReLU) or type(module).__name__ == "BasicConv2d"


def replace_relu(layer: Any, relu: Callable[[Tensor], Tensor]) -> None:
    """Replace the ReLU of a layer for which `has_relu` is True."""
    plain = isinstance(layer, nn.ReLU)
    layer.forward = relu if plain else lambda images: relu(layer.bn(layer.conv(images)))


def late_relus(network: nn.Module, patterns: Sequence[str] | None) -> list[nn.Module]:
    """Return the ReLUs whose names match a pattern; None: the default of `BackwardPropagation`."""
    named = network.named_modules(remove_duplicate=False)
    pattern = "|".join(_LATE if patterns is None else patterns) or "$^"
    chosen = [module for name, module in named if has_relu(module) and re.search(pattern, name)]
    if patterns and not chosen:
        raise ValueError(f"attack.relus={list(patterns)}: no ReLU of the source has such a name.")
    if patterns is None and not chosen:
        before = takewhile(lambda module: not isinstance(module, nn.Linear), network.modules())
        early = [module for module in before if has_relu(module)]
        chosen = early[-max(1, len(early) // 3) :]
    return chosen
