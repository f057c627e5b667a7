"""Source models: members of an ensemble, outputs of layers, changed copies."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ..utils.networks import copy_network
from .per_image_random import PerImageRandom

Model = Callable[[Tensor], Tensor]
"""Function from images in [0, 1], (N, 3, H, W), to logits (N, C), or to logits (M, N, C) of M
models whose losses are averaged."""
Change = Callable[[Tensor, int], Tensor]
"""Function (layer's output, member's index) -> output that the network continues with."""


class Source:
    """Source model with access to its members and layers.

    Args:
        model: The model; an ensemble lists its models as `members`.
        layer: Name of the layer that `features` returns, or one per member; None: each member's
            `feature_layer`. The end of a name is enough: `layer2` finds `model.network.layer2`.
    """

    def __init__(self, model: Model, layer: str | Sequence[str] | None = None) -> None:
        self.model, self.layer = model, layer
        self.members: list[Model] = list(getattr(model, "members", None) or [model])
        modules = model.modules() if isinstance(model, nn.Module) else ()
        self._random_modules: list[Any] = [part for part in modules if hasattr(part, "draw")]

    def draw(self, random: PerImageRandom, budgets: int) -> None:
        """Let backward rules and defences draw random numbers for the next gradient."""
        for module in self._random_modules:
            module.draw(random, budgets)

    def logits(self, images: Tensor, member: int | None = None) -> Tensor:
        """Return logits, at least float32, for images (B, 3, H, W); of one member if it is set."""
        logits = (self.model if member is None else self.members[member])(images)
        if images.requires_grad and torch.is_grad_enabled():
            images.register_hook(finite)  # after the model's own hook, which may count
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def cleaned(self, gradient: Tensor) -> Tensor:
        """Return a gradient with 0 for NaN and infinity, which a model that counts them notes."""
        return getattr(self.model, "clean_gradient", finite)(gradient)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the layer's output for images (B, 3, H, W), one per member, from one pass."""
        outputs: dict[int, Tensor] = {}

        def store(output: Tensor, member: int) -> Tensor:
            outputs[member] = output
            return output.detach().clone()  # later layers need no gradient and may work in place

        self.logits_with(images, store)
        return [outputs[number] for number in sorted(outputs)]

    def logits_with(self, images: Tensor, change: Change, member: int | None = None) -> Tensor:
        """Return the logits of a forward pass that changes the layer's output."""
        passed: set[int] = set()

        def hook(number: int, module: nn.Module, arguments: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor) or number in passed:
                fault = "is used twice per pass" if number in passed else "returns no tensor"
                raise ValueError(f"attack.layer: {type(module).__name__} {fault}.")
            passed.add(number)
            return change(output, number)

        layers = {n: layer for n, layer in enumerate(self._find_layers()) if member in (None, n)}
        with ExitStack() as hooks:
            for number, layer in layers.items():
                hooks.enter_context(layer.register_forward_hook(partial(hook, number)))
            logits = self.logits(images, member)
        for number in layers.keys() - passed:
            raise ValueError(f"attack.layer: {type(layers[number]).__name__} is never used.")
        return logits

    def layer_gradients(
        self, images: Tensor, score: Callable[[Tensor], Tensor], member: int | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Return the layer's output and the gradient of a score of the logits at it, per member."""
        outputs: list[Tensor] = []

        def begin_here(output: Tensor, member: int) -> Tensor:
            outputs.append(output.detach().requires_grad_())
            return outputs[-1].clone()  # in-place layers may change the clone

        with torch.enable_grad():
            # The source counts gradients only for images that require one.
            variable = images.detach().requires_grad_()
            value = score(self.logits_with(variable, begin_here, member))
            gradients = torch.autograd.grad(value, outputs)
        cleaned = (self.cleaned(gradient).to(images.dtype) for gradient in gradients)
        return [*zip(outputs, cleaned, strict=True)]

    def _find_layers(self) -> list[nn.Module]:
        members = members_of(module_of(self.model, "attack.layer"))
        names = [self.layer] * len(members) if isinstance(self.layer, str | None) else self.layer
        if len(names) != len(members):
            raise ValueError(
                f"attack.layer names {len(names)} layers for {len(members)} ensemble members."
            )
        return [_find_layer(member, name) for member, name in zip(members, names, strict=True)]


def _find_layer(model: nn.Module, name: str | None) -> nn.Module:
    """Return the layer whose dotted name ends in `name`; of several, the least nested one."""
    defaults = (getattr(module, "feature_layer", None) for module in model.modules())
    name = name or next(filter(None, defaults), None)
    modules = dict(model.named_modules())
    paths = [path for path in modules if name and f".{path}".endswith(f".{name}")]
    if paths:
        return modules[min(paths, key=lambda path: path.count("."))]
    while len(children := dict(model.named_children())) == 1:  # unwrap the network
        (model,) = children.values()
    examples = ", ".join([*children][:12])
    if name:
        raise ValueError(
            f"attack.layer={name}: the source has no such layer; it has {examples}, ..."
        )
    raise ValueError(
        "attack.layer=null: the source has no feature_layer. Name one of its modules, such as "
        f"{examples}, or add feature_layer to the model's file."
    )


def module_of(model: Model, what: str) -> nn.Module:
    """Return a source that is a torch module; refuse others for `what` needs one."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"{what} needs a torch module as its source.")
    return model


def members_of(model: nn.Module) -> list[nn.Module]:
    """Return an ensemble's members, however it is wrapped, or the model alone.

    Modules of a defence are none of theirs.
    """
    for module in model.modules():
        if isinstance(network := getattr(module, "undefended", None), nn.Module):
            return members_of(network)
        if isinstance(members := getattr(module, "members", None), nn.ModuleList):
            return list(members)
    return [model]


def apply_backward_rule(model: nn.Module, rule: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Apply a backward rule to a copy that shares the model's parameters and buffers.

    Raises:
        ValueError: The rule changed a parameter.
    """
    shared = [*model.parameters(), *model.buffers()]
    before = [tensor.clone() for tensor in shared]  # a version counter does not see `.data`
    changed = rule(copy_network(model, {id(tensor): tensor for tensor in shared}))
    if not all(map(torch.equal, before, shared)):
        raise ValueError("attack.backward_rule must not change the source's weights.")
    return changed


def finite(gradient: Tensor) -> Tensor:
    """Replace NaN and infinity by 0; one such value would stop the attack on a whole image."""
    return gradient.nan_to_num(0.0, 0.0, 0.0)


def announce(model: Model, images: slice) -> None:
    """Tell a model that counts gradients per image which images of a batch come next."""
    getattr(model, "expect_images", lambda images: None)(images)


def change_gradient(layer: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Change the gradient at a layer's output, even if later code modifies the output in place.

    A module's own backward hooks refuse such outputs, which torchvision's networks have.
    """

    def hook(layer: nn.Module, inputs: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(change)

    layer.register_forward_hook(hook)


def layers_of(
    model: nn.Module, find: Callable[[nn.Module], Iterable[Any]], needs: str
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
