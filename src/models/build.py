"""Classifiers built from entries of the model catalogue."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from ..utils.call_target import call_target
from ..utils.devices import arithmetic, named_errors
from ..utils.refusals import first_line
from .pixel_classifier import ModelError, PixelClassifier
from .weights import MisfitError, load_weights


@arithmetic("cpu", "32-true")
def build_classifier(
    name: str,
    network: Mapping[str, Any],
    *,
    num_classes: int | None = None,
    image_size: int = 224,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: int | None = None,
    channels: str = "RGB",
    weights: str | None = None,
    averaged: bool = True,
    feature_layer: str | None = None,
    tried: bool = True,
) -> PixelClassifier:
    """Build an evaluation-mode classifier on the CPU, load its weights and try it on two images.

    Args:
        name: Catalogue name, for messages.
        network: ``_target_``, a callable that returns a module from normalised images to logits,
            and its keyword arguments; ``num_classes`` and ``image_size`` are filled in if null.
        num_classes: Number of classes of the data set; None: of the network.
        image_size: Side in pixels of the data set's images.
        mean: Channel means of the normalisation; None: from the network's ``pretrained_cfg``.
        std: Channel standard deviations; None: likewise.
        input_size: Side in pixels that images are resized to; None: no resizing.
        channels: Order of the network's input channels, ``RGB`` or ``BGR``.
        weights: A file; ``included`` or None: the weights of the network as built.
        averaged: Take averaged weights if the file has others, too; False: take the others.
        feature_layer: Name of the module whose output feature-level attacks change.
        tried: False: check the names and shapes of the weights alone, on a network without values
            where its code allows that, and classify nothing.
    """
    file = None if weights == "included" else weights
    sizes = {"num_classes": num_classes, "image_size": input_size or image_size}  # as it sees them
    settings = {key: sizes.get(key) if value is None else value for key, value in network.items()}
    if file is not None and "pretrained" in settings:
        settings["pretrained"] = False  # the file replaces all weights: no download
    with named_errors(f"model {name}"):
        module = call_target(settings) if tried else _outline(settings)
        defaults = getattr(module, "pretrained_cfg", None) or {}
        mean, std = mean or defaults.get("mean"), std or defaults.get("std")
        classes = defaults.get("num_classes", num_classes)  # of the weights, from timm
        num_classes = num_classes or classes
        if settings.get("pretrained") and weights == "included" and classes != num_classes:
            way = f"name another model, or train it: model.{name}.weights=null"
            raise MisfitError(f"its weights are for {classes} classes, not {num_classes}; {way}")
        if mean is None or std is None:
            way = "For images in [0, 1] write mean: [0, 0, 0] and std: [1, 1, 1]"
            raise ValueError(
                f"mean or std is null, and the network's pretrained_cfg has none. {way}."
            )
        if file is not None:
            load_weights(module, file, averaged=averaged)
        if feature_layer is not None and feature_layer not in dict(module.named_modules()):
            raise ValueError(f"feature_layer={feature_layer} is not one of its modules.")
    classifier = PixelClassifier(module, mean, std, input_size, name, channels).eval()
    classifier.feature_layer = feature_layer
    if getattr(module, "label_only", False) or not tried:
        return classifier
    try:
        try_classifier(classifier, num_classes, image_size)
    except ModelError as error:
        side = input_size or image_size
        raise ValueError(f"{error} (at {side} x {side} pixels; set another input_size)") from error
    except RuntimeError as error:  # others are a `ModelError`
        raise ValueError(f"model {name}: two images need too much memory") from error
    return classifier


def _outline(settings: Mapping[str, Any]) -> Any:
    """Return a network without values, on the meta device; with values if its code needs them."""
    with suppress(Exception), torch.device("meta"):  # a user's code may raise anything
        return call_target(settings)
    return call_target(settings)


@arithmetic("cpu", "32-true")
def check_gradient(name: str, classifier: nn.Module, image_size: int) -> None:
    """Raise ValueError if a classifier's logits have no gradient; a zero gradient is allowed."""
    grey = torch.full((1, 3, image_size, image_size), 0.5).requires_grad_()
    try:
        with torch.enable_grad():
            torch.autograd.grad(classifier(grey).sum(), grey)
    except RuntimeError as error:
        raise ValueError(
            f"model {name}: its logits have no gradient with respect to the images (detach, "
            f"no_grad, argmax or NumPy in the network?): {first_line(error)}"
        ) from error


def try_classifier(classifier: PixelClassifier, num_classes: int | None, image_size: int) -> Tensor:
    """Classify two fixed images to find misfits before any work.

    Returns their logits. Sets the attributes that alarms read.
    """
    images = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    images = images.to(classifier.mean.device)
    try:
        with torch.no_grad():
            logits = classifier(images)
            alone = torch.cat([classifier(images[:1]), classifier(images[1:])])
    except ModelError as error:
        floats = filter(torch.is_floating_point, classifier.parameters())
        others = {value.dtype for value in floats} - {torch.float32}
        if others and "type" in str(error.__cause__):  # torch says so
            way = f"Its weights are {others.pop()}: add .float() where it is built"
            raise ValueError(f"{error}. {way}.") from error
        grey = None
        with suppress(Exception), torch.no_grad():  # a user's network may raise anything
            grey = classifier.network(classifier.prepare(images)[:, :1])
        if grey is not None and error.__cause__ is not None:
            way = "Build it with in_chans=3, or let it begin with images.mean(1, keepdim=True)"
            raise ValueError(f"model {classifier.name}: it takes one channel. {way}.") from error
        raise
    if logits.shape[1] == 1:
        way = "For two classes return cat([0, z]), that is torch.cat([torch.zeros_like(z), z], 1)"
        raise ValueError(f"model {classifier.name}: it returns one logit z per image. {way}.")
    if num_classes is not None and logits.shape[1] != num_classes:
        way = " If its first class is the background, let it return logits[:, 1:]."
        raise MisfitError(
            f"model {classifier.name}: it has {logits.shape[1]} classes, the data {num_classes}."
            f"{way * (logits.shape[1] == num_classes + 1)}",
            logits.shape[1],
        )
    if not logits.isfinite().all():
        raise ValueError(f"model {classifier.name}: its logits are not finite (weights, std?).")
    classifier.probabilities = classifier.returns_probabilities(images)
    scale = float(logits.abs().max())
    classifier.steady = torch.allclose(logits, alone, rtol=0, atol=1e-3 * scale)
    return logits
