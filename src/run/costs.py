"""Costs of work: speeds on this device, measured once and remembered, and numbers of operations."""

import json
import math
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..cache.keys import content_key
from ..config.settings import Settings
from ..models import PixelClassifier, choose_layout
from ..utils import stopping
from ..utils.devices import arithmetic, deterministic, is_cuda, is_out_of_memory
from ..utils.files import write_text
from ..utils.networks import copy_network
from ..utils.processes import keep_freed_memory
from .trainer import on_free_gpu, root_device

WorkType = Literal["prediction", "gradient", "training"]
"""Work per image: classification, gradient with respect to the image, or training step."""
REMEMBERED = "speeds.json"
"""File in `cache.dir`: seconds per image by device, and by network and type of work."""
_CALLS, _LONG = 3, 0.4  # number of calls, the fastest counts; minimum seconds per call


class Speeds:
    """Seconds per image of networks on a device.

    Attributes:
        device: Name of the device.
    """

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self.settings = settings
        self.path = Path(settings.cache.dir) / REMEMBERED
        if is_cuda(device):
            self.device = torch.cuda.get_device_name(device)
        else:
            threads = torch.get_num_threads()
            plural = "s" * (threads > 1)
            self.device = f"{device.type} of {platform.node()}, {threads} thread{plural}"

    def seconds(self, work_type: WorkType, name: str, classifier: nn.Module, side: int) -> float:
        """Return a model's seconds per image of `side` x `side` pixels."""
        settings = self.settings
        keys = {"precision", "attack_precision", "fold_batch_norms", "batch_size"}
        section = settings.training if work_type == "training" else settings.trainer
        model = settings.model[name].model_dump(include={"network", "input_size"})
        key = content_key([model, side, section.model_dump(include=keys)])
        place, tables = f"{work_type} {name} {key}", self._read()
        known = tables.setdefault(self.device, {})
        if place not in known:
            with on_free_gpu(settings.trainer) as trainer:
                device = root_device(trainer)
                known[place] = self._measure(work_type, copy_network(classifier), side, device)
            write_text(self.path, json.dumps(tables, indent=1))
        return known[place]

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            return dict(json.loads(self.path.read_bytes()))
        except (OSError, ValueError):  # missing or damaged: speeds are measured again
            return {}

    def _measure(
        self, work_type: WorkType, classifier: nn.Module, side: int, device: torch.device
    ) -> float:
        """Measure a model's seconds per image; changes the model."""
        from pytorch_lightning.utilities.seed import isolate_rng  # slow to import

        from ..training import choose_precision

        trainer, training = self.settings.trainer, self.settings.training
        precision = {
            "prediction": trainer.precision,
            "gradient": trainer.attack_precision,
            "training": choose_precision(training.precision, trainer.accelerator),
        }[work_type]
        most = {
            "prediction": int(trainer.batch_size),
            "gradient": self.settings.gradient_batch(device.type, side),
            "training": training.batch_size,
        }[work_type]
        low = precision.startswith("bf16")

        @arithmetic(device.type, "32-true" if low else precision)
        def call(count: int) -> None:
            images = torch.rand(count, 3, side, side, device=device)
            images.requires_grad_(work_type == "gradient")
            with torch.autocast(device.type, torch.bfloat16, low):
                logits = classifier(images).float()
            if work_type != "prediction":
                classes = torch.zeros(count, dtype=torch.int64, device=device)
                functional.cross_entropy(logits, classes).backward()
            logits.sum().item()  # waits for the device

        choose_layout(classifier, device.type, precision)
        classifier.to(device).train(work_type == "training").requires_grad_(work_type == "training")
        keep_freed_memory()  # as jobs do
        with (
            isolate_rng(),
            torch.set_grad_enabled(work_type != "prediction"),
            deterministic(device.type, set()),
        ):
            return _time(call, most)


def _time(call: Callable[[int], None], most: int) -> float:
    """Return the seconds per image of `call(count)`, with at most `most` images per call."""

    def seconds(count: int) -> float:
        stopping.raise_if_interrupted()
        start = time.perf_counter()
        call(count)
        return time.perf_counter() - start

    seconds(2)  # the first call is slow
    count, best = 2, math.nan
    while True:  # larger batches are faster, but other processes slow down calls
        try:
            fastest = min(seconds(count) for _ in range(_CALLS))
        except RuntimeError as error:
            if is_out_of_memory(error):  # a job would halve its batches
                return best
            raise
        best = fastest / count
        if count == most or fastest > _LONG:
            return best
        count = min(most, 4 * count)


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
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

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
            copy_network(model, empty).eval()(images)
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
