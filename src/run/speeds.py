"""Speeds of networks on this device: measured once and remembered."""

import copy
import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn
from torch.nn import functional

from ..cache.keys import content_key
from ..config.settings import Settings
from ..models import choose_layout
from ..training import choose_precision
from ..utils import stopping
from ..utils.devices import arithmetic, deterministic, is_cuda, is_out_of_memory
from ..utils.files import write_text
from ..utils.processes import keep_freed_memory
from .trainer import make_trainer, on_free_gpu

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
            self.device = f"{device.type} of {platform.node()}, {torch.get_num_threads()} threads"

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
                device = make_trainer(trainer).strategy.root_device
                known[place] = self._measure(work_type, copy.deepcopy(classifier), side, device)
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
