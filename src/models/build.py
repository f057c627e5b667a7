"""Classifiers built from entries of the model catalogue."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from src.models.pixel_classifier import ModelError, PixelClassifier
from src.models.weights import load_weights, tensors_digest
from src.utils.call_target import call_target
from src.utils.refusals import first_line


def build_classifier(
    name: str,
    network: Mapping[str, Any],
    *,
    num_classes: int | None = None,
    image_size: int = 224,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: int | None = None,
    weights: str | None = None,
    averaged: bool = True,
    feature_layer: str | None = None,
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
        weights: A file; ``included`` or None: the weights of the network as built.
        averaged: Take averaged weights if the file has others, too; False: take the others.
        feature_layer: Name of the module whose output feature-level attacks change.
    """
    file = None if weights == "included" else weights
    known = {"num_classes": num_classes, "image_size": input_size or image_size}  # as it sees them
    settings = {key: known.get(key) if value is None else value for key, value in network.items()}
    if file is not None and "pretrained" in settings:
        settings["pretrained"] = False  # the file replaces all weights: no download
    try:
        module = call_target(settings)
        defaults = getattr(module, "pretrained_cfg", None) or {}
        mean, std = mean or defaults.get("mean"), std or defaults.get("std")
        its = defaults.get("num_classes", num_classes)  # of the weights, from timm
        num_classes = num_classes or its
        if settings.get("pretrained") and weights == "included" and its != num_classes:
            way = f"name another model, or train it: model.{name}.weights=null"
            raise ValueError(f"its weights are for {its} classes, not {num_classes}; {way}")
        if mean is None or std is None:
            raise ValueError("mean or std is null, and the network's pretrained_cfg has none.")
        if file is not None:
            load_weights(module, file, averaged=averaged)
        if feature_layer is not None and feature_layer not in dict(module.named_modules()):
            raise ValueError(f"feature_layer={feature_layer} is not one of its modules.")
    except ValueError as error:
        raise ValueError(f"model {name}: {error}") from error
    classifier = PixelClassifier(module, mean, std, input_size, name).eval()
    classifier.feature_layer = feature_layer
    try:
        try_classifier(classifier, num_classes, image_size)
    except ModelError as error:
        side = input_size or image_size
        raise ValueError(f"{error} (at {side} x {side} pixels; set another input_size)") from error
    classifier.state = classifier.state or _logits_digest(classifier, image_size)
    return classifier


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


def _logits_digest(classifier: PixelClassifier, image_size: int) -> str:
    """Return the digest of the logits of two fixed images, computed on the CPU by one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            return tensors_digest([("logits", classifier(_two_images(image_size)))])
    finally:
        torch.set_num_threads(threads)


def _two_images(image_size: int) -> Tensor:
    return torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))


def are_probabilities(outputs: Tensor) -> bool:
    """Return True if all outputs are in [0, 1], up to rounding."""
    return bool(((outputs >= -1e-6) & (outputs <= 1 + 1e-6)).all())


def try_classifier(classifier: PixelClassifier, num_classes: int | None, image_size: int) -> int:
    """Classify two images to find misfits before any work; return the number of classes.

    Sets the attributes that alarms read.
    """
    images = _two_images(image_size).to(classifier.mean.device)
    try:
        with torch.no_grad():
            logits = classifier(images)
            alone = torch.cat([classifier(images[:1]), classifier(images[1:])])
    except ModelError as error:
        if _takes_grey(classifier, images):
            raise ValueError(
                f"model {classifier.name}: it takes images of one channel, but images here have "
                "three. Build it with in_chans=3, or begin it with images.mean(1, keepdim=True)."
            ) from error
        raise
    if logits.shape[1] == 1:
        raise ValueError(
            f"model {classifier.name}: it returns one logit z per image. For two classes let it "
            "return cat([0, z]): torch.cat([torch.zeros_like(z), z], dim=1)."
        )
    if num_classes is not None and logits.shape[1] != num_classes:
        raise ValueError(
            f"model {classifier.name}: it has {logits.shape[1]} classes, the data {num_classes}."
        )
    if not logits.isfinite().all():
        raise ValueError(f"model {classifier.name}: its logits are not finite (weights, std?).")
    classifier.probabilities = are_probabilities(logits)
    scale = float(logits.abs().max())
    classifier.steady = torch.allclose(logits, alone, rtol=0, atol=1e-3 * scale)
    return logits.shape[1]


def _takes_grey(classifier: PixelClassifier, images: Tensor) -> bool:
    """Return True if a network takes images of one channel."""
    try:
        with torch.no_grad():
            classifier.network(classifier.prepare(images)[:, :1])
    except Exception:  # a user's network may raise anything
        return False
    return True
