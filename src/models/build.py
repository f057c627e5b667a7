"""From one entry of the model catalogue to a ready classifier."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import Tensor, nn

from src.models.pixel_classifier import NotLogitsError, PixelClassifier
from src.models.weights import load_weights
from src.utils.checks import first_line

KEYS = ("network", "mean", "std", "input_size", "weights", "expected_accuracy")
INCLUDED = "included"


def build_classifier(
    name: str,
    config: Mapping[str, Any],
    num_classes: int,
    image_size: int | None = None,
    *,
    attacked: bool = False,
) -> PixelClassifier:
    """Build a classifier from its configuration, load its weights and try it on one image.

    Args:
        name: The catalogue's name of the model, for messages.
        config: The resolved content of one model file: ``network`` and optionally ``mean``,
            ``std``, ``input_size``, ``weights``, ``expected_accuracy``.
        num_classes: Number of classes of the data set.
        image_size: Side in pixels of the data set's images; None: what ``network.image_size`` says,
            else 32.
        attacked: Whether gradients with respect to the images will be asked of it.

    Returns:
        The classifier in evaluation mode on the CPU. With ``weights`` null it is as built.

    Raises:
        ValueError: If the configuration, the weights or the number of classes do not fit.
    """
    unknown = [key for key in config if key not in KEYS]
    if unknown:
        raise ValueError(f"model {name}: unknown key {unknown[0]!r}; known are {', '.join(KEYS)}.")
    weights = config.get("weights")
    settings = _network_settings(name, config, num_classes, image_size)
    if weights not in (None, INCLUDED):
        if not Path(weights).is_file():
            raise ValueError(
                f"model {name}: weights must be null, {INCLUDED!r} or an existing file, "
                f"not {weights}."
            )
        if str(settings["_target_"]).startswith("src.models.") and "pretrained" in settings:
            settings["pretrained"] = False  # the file replaces it all: download nothing
    network = _instantiate(name, settings)
    mean, std = (_normalisation(name, config, network, key) for key in ("mean", "std"))
    classifier = PixelClassifier(network, mean, std, config.get("input_size"), name)
    if weights not in (None, INCLUDED):
        load_weights(network, weights, num_classes)
    classifier.eval()
    if any(module.training for module in classifier.modules()):
        raise ValueError(
            f"model {name}: the network, or a part of it, stays in training mode after eval(); its "
            "method train must put it into the mode that it is given."
        )
    side = image_size or config["network"].get("image_size") or 32
    _try(name, classifier, num_classes, side, attacked)
    return classifier


def _network_settings(
    name: str, config: Mapping[str, Any], num_classes: int, image_size: int | None
) -> dict[str, Any]:
    """Return the ``network`` node, what the data set or ``input_size`` decides filled in."""
    network = config.get("network")
    if not isinstance(network, Mapping) or not network.get("_target_"):
        raise ValueError(f"model {name}: network must name a callable in network._target_.")
    settings = {str(key): value for key, value in network.items()}
    missing = [key for key, value in settings.items() if value == "???"]
    if missing:
        key = f"network.{missing[0]}"
        raise ValueError(f"model {name}: {key} must be given: model.{name}.{key}=...")
    for key, value in (("num_classes", num_classes), ("image_size", image_size)):
        if key in settings and settings[key] is None:
            settings[key] = value
    if "image_size" in settings and config.get("input_size") is not None:
        settings["image_size"] = config["input_size"]  # the network sees resized images
    return settings


def _instantiate(name: str, settings: dict[str, Any]) -> nn.Module:
    """Call the network's builder, its errors in one sentence."""
    target = settings["_target_"]
    try:
        network = instantiate(settings, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError):
            raise ValueError(f"model {name}: {cause}") from error
        if cause is None or isinstance(cause, ImportError):
            raise ValueError(f"model {name}: network._target_ {target} cannot be found.") from error
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())
        raise ValueError(f"model {name}: {target} failed with {reason}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"model {name}: {target} must return a torch.nn.Module, not {type(network).__name__}."
        )
    return network


def _normalisation(name: str, config: Mapping[str, Any], network: nn.Module, key: str) -> Any:
    """Return mean or std: the configuration's, else what the network states."""
    value = config.get(key)
    if value is None:
        stated = getattr(network, "pretrained_cfg", None)
        value = stated.get(key) if isinstance(stated, Mapping) else None
    if value is None:
        raise ValueError(
            f"model {name}: {key} is null, and the network states none in a pretrained_cfg; "
            f"give model.{name}.{key}=[red,green,blue]."
        )
    return value


def _try(
    name: str, classifier: PixelClassifier, num_classes: int, image_size: int, attacked: bool
) -> None:
    """Classify one grey image, so that what does not fit shows here and not later."""
    grey = torch.full((1, 3, image_size, image_size), 0.5)
    try:
        with torch.no_grad():
            logits = classifier(grey)
    except NotLogitsError:
        raise
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"model {name}: cannot take images of {image_size} pixels (set model.{name}.input_size "
            f"to resize them): {reason}"
        ) from error
    if logits.shape[1] != num_classes:
        raise ValueError(
            f"model {name}: the network has {logits.shape[1]} classes, the data set {num_classes}."
        )
    if attacked:
        _try_gradient(name, classifier, grey)


def _try_gradient(name: str, classifier: PixelClassifier, images: Tensor) -> None:
    """Refuse logits without a gradient with respect to the images; it may be 0 everywhere."""
    images = images.clone().requires_grad_()
    try:
        with torch.enable_grad():
            torch.autograd.grad(classifier(images).sum(), images)
    except RuntimeError as error:
        raise ValueError(
            f"model {name}: it cannot be attacked, since its logits have no gradient with respect "
            f"to the images (detach, no_grad, argmax or NumPy in the network?): {first_line(error)}"
        ) from error
