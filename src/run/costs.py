"""Costs of work: seconds on a device, and numbers of operations."""

import copy
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..cache.keys import content_key
from ..config.settings import Settings
from ..models import PixelClassifier
from .speeds import Speeds, WorkType

_ATTACK = 1.15  # time for an attack divided by the time for its gradients alone
_BATCHED = (torch.ops.aten.bmm, torch.ops.aten.baddbmm)


class Cost(NamedTuple):
    """Cost of some work.

    Attributes:
        seconds: Duration; NaN if a speed is unknown.
        tflop: Operations, in 10^12; NaN if they are unknown or were not counted.
    """

    seconds: float
    tflop: float


UNKNOWN = Cost(math.nan, math.nan)


class Costs:
    """Costs of a job's work, on this machine or at `plan.tflops`.

    Operations are counted for `plan=only` and `plan.tflops`, once per network and size of images.

    Args:
        settings: Settings of the job.
        device: Device that runs it.
        counted: Operations by network and size; receives new ones.
    """

    def __init__(
        self,
        settings: Settings,
        device: torch.device,
        counted: dict[str, dict[WorkType, float]],
    ) -> None:
        self.settings, self.counted = settings, counted
        self.tflops, self.speeds = settings.plan.tflops, Speeds(settings, device)

    @property
    def basis(self) -> str:
        """Text that says where the seconds come from."""
        return f"at {self.tflops:g} TFLOP/s" if self.tflops else f"on {self.speeds.device}"

    def of(
        self,
        work: Mapping[tuple[WorkType, str], float],
        models: Mapping[str, nn.Module],
        side: int,
    ) -> Cost:
        """Return the cost of work: numbers of images, `side` x `side`, by its type and model."""
        seconds, tflop = 0.0, 0.0 if self.settings.plan.only or self.tflops else math.nan
        for (work_type, name), images in work.items():
            model = models[name]
            assert isinstance(model, PixelClassifier)
            if images and not getattr(model.network, "label_only", False):  # it looks up its images
                if not math.isnan(tflop):
                    tflop += images * self._operations(name, model, side)[work_type] / 1e12
                if not self.tflops:
                    factor = _ATTACK if work_type == "gradient" else 1
                    speed = self.speeds.seconds(work_type, name, model, side)
                    seconds += factor * images * speed
        return Cost(tflop / self.tflops if self.tflops else seconds, tflop)

    def _operations(self, name: str, model: PixelClassifier, side: int) -> dict[WorkType, float]:
        section = self.settings.model[name].model_dump(include={"network", "input_size"})
        key = content_key([section, side])
        if key not in self.counted:
            self.counted[key] = count_operations(model, side)
        return self.counted[key]


def count_operations(model: PixelClassifier, side: int) -> dict[WorkType, float]:
    """Count a network's operations per image; a multiplication and an addition are two.

    They are those of convolutions and matrix products, as torch's flop counter has them. Nothing is
    computed: the tensors have shapes alone.

    Args:
        model: The network with its resizing.
        side: Side of the images in pixels.

    Returns:
        Operations of a prediction, a gradient with respect to the image and a training step; NaN if
        the network does not run on tensors without values.
    """
    tensors = (*model.parameters(), *model.buffers())
    empty = {id(value): nn.Parameter(value.to("meta"), requires_grad=False) for value in tensors}
    size = model.input_size or side  # resizing needs hardly any operations
    try:
        with (
            torch.device("meta"),
            torch.enable_grad(),  # without it, transformers use kernels that are not counted
            sdpa_kernel(SDPBackend.MATH),  # attention as plain matrix products
            FlopCounterMode(display=False) as counter,
        ):
            images = torch.zeros(1, 3, size, size).requires_grad_()
            copy.deepcopy(model, empty).eval()(images)
    except Exception:  # a user's network may raise anything
        return dict.fromkeys(("prediction", "gradient", "training"), math.nan)
    forward, counts = counter.get_total_flops(), counter.get_flop_counts()["Global"]
    # Backwards, a layer needs as many operations as forwards; a product of two activations, such as
    # attention, needs twice as many. The gradients of the weights need as many again as the layers.
    activations = sum(counts.get(product, 0) for product in _BATCHED)
    return {
        "prediction": forward,
        "gradient": 2 * forward + activations,
        "training": 3 * forward,
    }
