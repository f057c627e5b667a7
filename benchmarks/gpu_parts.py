"""Parts of `python -m benchmarks gpu` that compute in its process: networks and attacks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from src.attacks.__main__ import listed
from src.config import CONF, Settings, compose_words, read_job
from src.images.attacker import CountedModel
from src.models import (
    Ensemble,
    PixelClassifier,
    build_classifier,
    choose_layout,
    fold_batch_norms,
)
from src.run.data import DataSets
from src.run.trainer import for_device
from src.training import Training, choose_precision
from src.utils.about import About
from src.utils.call_target import call_target
from src.utils.devices import arithmetic, deterministic, is_out_of_memory
from src.utils.hydra_versions import VERSION_BASE

SIDES, CLASSES, EPS = (32, 224), 10, 8 / 255
STUDY = ("vgg16", "resnet50", "inception")
"""The networks of the daily command."""
SOURCES = {32: ("resnet_small", "vgg_small", "vit_small"), 224: ("resnet50", "resnet18", "vit")}
"""Networks that are attacked: alone, with the second in an ensemble, and a transformer."""
IMAGES = {32: 256, 224: 32}
"""Images that are attacked."""
BATCHES = {32: 512, 224: 64}
"""Images whose gradients and predictions are timed."""
RESIZED = ("inception_resized", "vit")
"""Networks that resize images of 32 pixels."""
LARGE = ("bim", "di", "ssa", "sia", "bsr", "admix", "vmi")
"""Attacks that run on large images too."""
SHORT = {
    **dict.fromkeys(("steps", "copies", "samples", "neighbours", "masks", "points"), 5),
    **{"first_steps": 5, "inner_steps": 2, "warm_up_steps": 2, "admixed": 2},
}
"""Settings that make an attack short; its cost per gradient depends little on them."""


class Row(NamedTuple):
    """A measurement of something, for images of `side` pixels, in batches of so many."""

    measured: str
    of: str
    side: int
    value: float | str
    batch: int | None = None


class Setup(NamedTuple):
    """The device, whether all is small, and the folders of results and of all else."""

    device: torch.device
    tiny: bool
    results: Path
    folder: Path

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of images in pixels."""
        return SIDES[: 1 if self.tiny else None]

    @property
    def trainer(self) -> str:
        """Value of the program's key `trainer`."""
        return "gpu" if self.device.type == "cuda" else "cpu"


def _settings(setup: Setup, name: str, *words: str) -> Settings:
    """Return the settings of a job with a model as source and only target."""
    common = (f"source={name}", f"targets=[{name}]", "dataset=cifar10_mini", "tracking=none")
    trainer = (f"trainer={setup.trainer}", "trainer.progress_bar=false")
    config = compose_words([*common, *trainer, *words])
    return for_device(read_job(config, config.hydra))


def _build(settings: Settings, side: int = 32) -> PixelClassifier:
    """Return the source of such settings for images of `side` pixels; nothing is downloaded."""
    (name,) = settings.source
    keys = settings.model[name].model_dump(exclude={"expected_accuracy", "training_of", "url"})
    if "pretrained" in keys["network"]:
        keys["network"] = {**keys["network"], "pretrained": False}
    return build_classifier(name, **keys, num_classes=CLASSES, image_size=side)


def _finish(classifier: PixelClassifier) -> PixelClassifier:
    """Return a model as the program attacks and evaluates it."""
    classifier.requires_grad_(False).network = fold_batch_norms(classifier.network)
    return classifier


def _source(setup: Setup, name: str, side: int) -> PixelClassifier:
    classifier = _finish(_build(_settings(setup, name), side)).to(setup.device)
    choose_layout(classifier, setup.device.type, "32-true")
    return classifier


def _batch(setup: Setup, side: int, count: int) -> tuple[Tensor, Tensor]:
    images = torch.rand(count, 3, side, side, device=setup.device)
    return images, torch.arange(count, device=setup.device) % CLASSES


@contextmanager
def _times_of_losses() -> Iterator[list[float]]:
    """Note the time whenever a loss is logged, which waits for the device."""
    times, log = list[float](), CSVLogger.log_metrics

    def noting(logger: Any, metrics: dict[str, Any], step: int | None = None) -> None:
        log(logger, metrics, step)
        if "train_loss" in metrics:
            times.append(time.perf_counter())

    with patch.object(CSVLogger, "log_metrics", noting):
        yield times


def training(setup: Setup) -> Iterator[Row]:
    """Train for an epoch on CIFAR-10's images in the package; the first steps do not count."""
    for name in SOURCES[32][:1] if setup.tiny else STUDY:
        yield _train(setup, name)


def _train(setup: Setup, name: str) -> Row:
    words = ["training.epochs=1", "dataset.n_test=100"]
    words += ["training.batch_size=8", "dataset.n_train=240"] if setup.tiny else []
    settings = _settings(setup, name, *words)
    recipe, trainer = settings.training, settings.trainer
    opened = DataSets()
    test = opened.open(settings, "test", whole=True)
    sets = opened.training_images(settings, test), test
    path = setup.folder / "trained" / f"{name}.safetensors"
    path.unlink(missing_ok=True)
    with _times_of_losses() as times:
        Training(name, path, _build(settings), *sets, recipe, trainer).run_once()
    images = 10 * recipe.batch_size * (len(times) - 1)  # a loss is logged every 10 steps
    chosen = choose_precision(recipe.precision, trainer.accelerator)
    rate = images / (times[-1] - times[0])
    return Row(f"training, images / s, {chosen}", name, 32, rate)


def precisions(setup: Setup) -> Iterator[Row]:
    """Time gradients and predictions of the study's networks in all precisions and layouts.

    Operations are those of torch's flop counter; a multiplication and an addition are two.
    """
    layouts = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
    for name in SOURCES[32][:1] if setup.tiny else STUDY:
        for side in setup.sides:
            network, count = _source(setup, name, side), 2 if setup.tiny else BATCHES[side]
            images, labels = _batch(setup, side, count)
            calls: dict[str, Callable[..., object]] = {
                "gradients": partial(gradient, network),
                "predictions": partial(_predict, network),
            }
            with FlopCounterMode(display=False) as counter:
                _predict(network, images, labels)
            forward = counter.get_total_flops()
            operations = {"predictions": forward, "gradients": 2 * forward}  # of frozen networks
            for layout, memory_format in layouts.items():
                network.to(memory_format=memory_format)
                batch = images.contiguous(memory_format=memory_format)
                for chosen, (what, call) in product(("float32", "TF32", "bfloat16"), calls.items()):
                    with _precision(chosen, setup.device):
                        rate = count / seconds(call, batch, labels)
                    of = f"{name}, {chosen}, {layout}"
                    yield Row(f"{what} / s", of, side, rate, count)
                    teraflops = rate / count * operations[what] / 1e12
                    yield Row(f"{what}, TFLOP / s", of, side, teraflops, count)
            if setup.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
                gradient(network, images, labels)
                megabytes = torch.cuda.max_memory_allocated() / 2**20
                yield Row("gradients, peak MiB", f"{name}, float32", side, megabytes, count)


def gradient(network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the summed cross-entropy with respect to images."""
    images = images.clone().requires_grad_()
    loss = functional.cross_entropy(network(images), labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


def seconds(call: Callable[..., object], *batch: Tensor, repeats: int = 3) -> float:
    """Return the median time of a call, after one that does not count."""
    call(*batch)
    passes = []
    for _ in range(repeats):
        _synchronise(batch[0])
        start = time.perf_counter()
        call(*batch)
        _synchronise(batch[0])
        passes.append(time.perf_counter() - start)
    return median(passes)


def _synchronise(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize()


@torch.no_grad()
def _predict(network: PixelClassifier, images: Tensor, labels: Tensor) -> Tensor:
    return network(images)


@contextmanager
def _precision(name: str, device: torch.device) -> Iterator[None]:
    with arithmetic(device.type, {"float32": "32-true", "TF32": "tf32", "bfloat16": "bf16"}[name]):
        yield


def attacks(setup: Setup) -> Iterator[Row]:
    """Run every native attack twice: are the images equal, and what does it cost?"""
    sections, source = _sections(), cache(partial(_source, setup))
    for name in ("bim", "sia") if setup.tiny else sections:
        about = About(**sections[name]["about"])
        plain, second, transformer = SOURCES[32]
        model: Any = source(transformer if "attention" in about.needs else plain, 32)
        if about.members > 1:
            model = Ensemble([model, source(second, 32)], "logits").eval()
        yield from _run_twice(setup, name, _call(sections[name]), model, 32)
    for name in RESIZED[: 0 if setup.tiny else None]:  # resizing has kernels of its own
        yield from _run_twice(setup, f"bim of {name}", _call(sections["bim"]), source(name, 32), 32)
    for name in LARGE[: 0 if setup.tiny else None]:
        yield from _run_twice(setup, name, _call(sections[name]), source(SOURCES[224][0], 224), 224)


def _run_twice(
    setup: Setup, of: str, attack: Callable[..., Tensor], source: Any, side: int
) -> Iterator[Row]:
    batch = _batch(setup, side, 2 if setup.tiny else IMAGES[side])
    device = setup.device.type
    with arithmetic(device, "32-true"), deterministic(device, set()):
        try:
            images = [attack(source, *batch) for _ in range(2)]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            yield Row("attack", of, side, "out of memory")
            return
        unlike = int((images[0] != images[1]).flatten(1).any(1).sum())
        yield Row("images unlike those of a second run", of, side, unlike)
        ratio, per_gradient = _ratio(attack, source, *batch)
    yield Row("attack, seconds / those of its gradients", of, side, ratio)
    yield Row("attack, ms per gradient of the batch", of, side, per_gradient)


def _sections() -> dict[str, Any]:
    """Return the resolved sections of this program's attacks that need no fit, by name."""
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        return {
            name: OmegaConf.to_container(compose(f"attack/{name}").attack, resolve=True)
            for name, _, about in listed()
            if about.category not in ("fitted", "library")
        }


def _call(section: dict[str, Any]) -> Callable[..., Tensor]:
    """Return a short version of an attack, of a model, images and labels."""
    others = ("name", "target_label", "about")
    words = {key: SHORT.get(key, value) for key, value in section.items() if key not in others}
    attack = call_target({**words, "_partial_": True})
    return partial(attack, eps=EPS, targeted=section["target_label"] is not None)


def _ratio(
    attack: Callable[..., Tensor], source: Any, images: Tensor, labels: Tensor
) -> tuple[float, float]:
    """Return an attack's time over that of as many gradients, and its milliseconds for each."""
    counted, bare = CountedModel(source), CountedModel(source)
    attack(counted, images, labels)
    gradient(bare, images, labels)
    taken = counted.counts.gradients / bare.counts.gradients
    whole = seconds(partial(attack, source), images, labels, repeats=1)
    alone = seconds(partial(gradient, source), images, labels)
    return whole / (taken * alone), 1000 * whole / taken
