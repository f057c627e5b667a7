"""Layers of a surrogate: their gradients changed on the way back, and their absence refused."""

from collections.abc import Callable, Iterable, Sequence
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
    model: nn.Module,
    find: Callable[[nn.Module], Iterable[nn.Module]],
    needs: str,
    models: Sequence[str],
) -> list[Any]:
    """Return the layers that a surrogate changes in a source, each member of an ensemble.

    Args:
        model: The source, whatever wraps it.
        find: A network to its layers.
        needs: What a network must have to have some.
        models: Names of the catalogue's models that have it.

    Raises:
        ValueError: A network has none.
    """
    found: list[Any] = []
    for member in dict.fromkeys(members_of(model)):  # once where a member stands twice
        chosen = list(find(member))
        if not chosen:
            raise ValueError(
                f"the source must have {needs}; of the catalogue {', '.join(models)} have them."
            )
        found += chosen
    return found
