"""Layers of a surrogate: their gradients changed on the way back, and their absence refused."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from src.attacks.source import members_of


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
