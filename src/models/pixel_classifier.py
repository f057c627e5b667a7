"""Classifiers that attacks and evaluations use: from pixels to logits, alone or as an ensemble."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from threading import RLock
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import checkpoint

from ..utils.devices import arithmetic, is_cuda, named_errors
from .state_digest import StateDigest, text_digest
from .weights import weights_digest

NORMALISATION = {
    "cifar": {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616)},
    "imagenet": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
}
"""Channel means and standard deviations, by the stem of networks that have them."""
_PATCHING = RLock()  # one of two threads would leave the patch for ever
_DIRECT = SimpleNamespace(apply=lambda run, keep_random_state, *inputs: run(*inputs))
"""Stands for a reentrant checkpoint, which refuses `torch.autograd.grad`; it is a plain call."""


class ModelError(ValueError):
    """Failure of a network, or an output that is not logits."""


class PixelClassifier(nn.Module):
    """Network with its resizing and normalisation, for images in [0, 1].

    Gradients go through both, so budgets hold for the data set's own pixels.

    Args:
        network: Module from normalised images (N, 3, H, W) to logits (N, num_classes), or to a
            mapping or object that holds them as `logits`.
        mean: Channel means of the normalisation that the network was trained with, in [0, 1] units.
        std: Channel standard deviations of the same normalisation, all positive.
        input_size: Side in pixels that images are resized to (antialiased, bilinear); None: no
            resizing.
        name: Catalogue name, for messages; None: the name of the network's class.
        channels: Order of the network's input channels, `RGB` or `BGR`; `mean` and `std` are RGB.

    Attributes:
        feature_layer: Name of the module whose output feature-level attacks change, or None.
        state: Digest of the network's state as built, except the tensors in its state dict.
        steady: True unless, in a trial, an image alone and in a batch got different logits.
        probabilities: True if all outputs of a trial were in [0, 1].
        any_layout: True if, in a trial, the network also ran with weights in channels_last.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: int | None = None,
        name: str | None = None,
        channels: str = "RGB",
    ) -> None:
        super().__init__()
        self.channels = channels
        self.network = network
        self.input_size = input_size
        self.state = StateDigest(network)
        self.steady, self.probabilities, self.any_layout = True, False, False
        self.feature_layer: str | None = None
        self.name = name or type(network).__name__
        for key, values in (("mean", mean), ("std", std)):
            tensor = torch.tensor(list(values), dtype=torch.float32).view(1, 3, 1, 1)
            # Not persistent: a saved state dict holds only the network's values.
            self.register_buffer(key, tensor, persistent=False)

    @property
    def digest(self) -> str:
        """Digest of the network's weights, whether its state dict holds them or not.

        It covers names, types, shapes and values of the tensors in the state dict, and the whole
        state if there are weights elsewhere. Folded batch norms are other tensors: where there are
        some, a classifier from `load_classifier` has another digest than a sweep's record.
        """
        digest = weights_digest(self.network)
        return text_digest(digest + self.state.text) if self.state.has_weights else digest

    def returns_probabilities(self, images: Tensor) -> bool:
        """Return True if all outputs for some images are in [0, 1], up to rounding."""
        with torch.no_grad():
            outputs = self(images.to(self.mean.device))
        return bool(((outputs >= -1e-6) & (outputs <= 1 + 1e-6)).all())

    def prepare(self, images: Tensor) -> Tensor:
        """Return the network's input: the images resized and normalised, contiguous."""
        if self.input_size is not None and images.shape[-2:] != (self.input_size, self.input_size):
            images = resize(images, self.input_size)
        normalised = (images - self.mean) / self.std
        ordered = normalised.flip(1) if self.channels == "BGR" else normalised
        return ordered.contiguous()  # the network may flatten by `view`

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of float images (N, 3, H, W) in [0, 1]."""
        with named_errors(f"model {self.name}", ModelError):
            with _PATCHING, patch.object(checkpoint, "CheckpointFunction", _DIRECT):
                output = self.network(self.prepare(images))
            logits: Any = output.get("logits") if isinstance(output, Mapping) else output
            logits = getattr(logits, "logits", logits)
        fits = torch.is_tensor(logits) and logits.ndim == 2 and len(logits) == len(images)
        if not fits or not logits.is_floating_point():
            returned = tuple(logits.shape) if torch.is_tensor(logits) else type(output).__name__
            raise ModelError(
                f"model {self.name}: the network must return floating-point logits of shape "
                f"(N, num_classes), but for N = {len(images)} images it returned {returned}."
            )
        return cast(Tensor, logits)


@arithmetic("cpu", "32-true")
def use_channels_last(classifier: PixelClassifier, image_size: int) -> None:
    """Store the weights as channels_last, faster on CPUs, if the network allows.

    Feature maps then have the same layout. A network that flattens them by `view` would fail, so
    its weights stay as they are.
    """
    if any(tensor.ndim > 4 for tensor in (*classifier.parameters(), *classifier.buffers())):
        return  # the layout is for four dimensions
    images = torch.full((2, 3, image_size, image_size), 0.5, device=classifier.mean.device)
    classifier.to(memory_format=torch.channels_last)
    try:
        with torch.no_grad():
            classifier(images)
        classifier.any_layout = True
    except ModelError:
        classifier.to(memory_format=torch.contiguous_format)


def choose_layout(model: nn.Module, device: str, precision: str) -> None:
    """Store the weights of a model's classifiers in a layout for a device and a precision.

    GPUs get channels_last for bfloat16 and TF32 alone: in float32 it is slower there. Classifiers
    that `use_channels_last` has not tried keep their layout.
    """
    contiguous = is_cuda(device) and precision == "32-true"
    layout = torch.contiguous_format if contiguous else torch.channels_last
    for part in model.modules():
        if isinstance(part, PixelClassifier) and part.any_layout:
            part.to(memory_format=layout)


def resize(images: Tensor, side: int) -> Tensor:
    """Resize images (..., H, W) to `side` x `side`, bilinearly and antialiased.

    The resizing is two matrix products: on a GPU, the gradient of `interpolate` differs between
    runs.
    """
    rows, columns = (
        _resizing_matrix(length, side, images.dtype, images.device) for length in images.shape[-2:]
    )
    with arithmetic(images.device.type, "32-true"):
        return rows @ images @ columns.mT


@lru_cache
@torch.inference_mode(False)  # later calls may need its gradient
def _resizing_matrix(length: int, side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix (side, length) that resizes columns as `interpolate`; do not modify it."""
    pixels = torch.eye(length, dtype=torch.float64)[None, None]
    matrix = functional.interpolate(pixels, (side, length), mode="bilinear", antialias=True)
    return matrix[0, 0].to(device, dtype)


class Ensemble(nn.Module):
    """Classifiers whose predictions or losses are averaged.

    Args:
        members: Modules from images in [0, 1], shape (N, 3, H, W), to logits of shape (N, C).
        average: `logits`; `probabilities`; or `loss`: an attack then maximises the mean of
            the members' losses, and the ensemble itself predicts the mean of the log-probabilities.

    Reference: Liu et al. (2017), arXiv 1611.02770 (probabilities); Dong et al. (2018),
    arXiv 1710.06081 (all three).
    """

    def __init__(self, members: Sequence[nn.Module], average: str) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.average = average

    def forward(self, images: Tensor) -> Tensor:
        """Return the ensemble's logits, shape (N, C)."""
        logits = self.member_logits(images)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.average == "logits":
            return logits.mean(dim=0)
        logarithms = logits.log_softmax(dim=-1)
        if self.average == "probabilities":
            return logarithms.logsumexp(dim=0)  # a constant summand changes no softmax
        return logarithms.mean(dim=0)

    def attacked(self, images: Tensor) -> Tensor:
        """Return the logits to differentiate: (N, C), or (M, N, C) to average the losses."""
        return self.member_logits(images) if self.average == "loss" else self(images)

    def member_logits(self, images: Tensor) -> Tensor:
        """Return the members' logits, shape (M, N, C)."""
        return torch.stack([member(images) for member in self.members])
