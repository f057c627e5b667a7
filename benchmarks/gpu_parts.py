"""Parts of `python -m benchmarks gpu` that compute in its process: networks and attacks."""

import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning.loggers.logger import DummyLogger
from torch import Tensor

import src.attacks
from benchmarks.gradients import gradient, seconds
from benchmarks.peers import PEERS, Files
from src.config.compose import compose_words
from src.config.read import read_job
from src.config.resolvers import CONF
from src.config.settings import Settings
from src.images.attacker import CountedModel
from src.models import Ensemble, PixelClassifier, build_classifier, fold_batch_norms
from src.run.data import open_dataset
from src.run.models import training_images
from src.run.speeds import Speeds
from src.run.trainer import for_device
from src.training import choose_precision, train_once
from src.utils.about import About
from src.utils.arithmetic import arithmetic, is_out_of_memory

SIDES, CLASSES, EPS = (32, 224), 10, 8 / 255
STUDY = ("vgg16", "resnet50", "inception")
"""The networks of the daily command."""
PLANNED = (
    *(*STUDY, "inception_resized", "resnet18", "densenet121", "mobilenet_v2", "vit", "convnext"),
    *("vgg_small", "resnet_small", "inception_small", "mobilenet_small", "vit_small"),
)
"""Files of `conf/model/` whose speeds are stored for plans."""
SOURCES = {32: ("resnet_small", "vgg_small", "vit_small"), 224: ("resnet50", "resnet18", "vit")}
"""Networks that are attacked: alone, with the second in an ensemble, and a transformer."""
IMAGES = {32: 256, 224: 32}
BATCHES = {32: (16, 64, 256, 1024), 224: (4, 16, 64, 256)}
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
    """The device, whether all is small, and where files go: others, and speeds for plans."""

    device: torch.device
    tiny: bool
    folder: Path
    speeds: Path

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
    config = compose_words(CONF, [*common, *trainer, *words])
    return for_device(read_job(config, config.hydra))


def _build(settings: Settings, side: int = 32) -> PixelClassifier:
    """Return the source of such settings for images of `side` pixels; nothing is downloaded."""
    (name,) = settings.source
    keys = settings.model[name].model_dump(exclude={"expected_accuracy", "epoch", "url", "missing"})
    if "pretrained" in keys["network"]:
        keys["network"] = {**keys["network"], "pretrained": False}
    return build_classifier(name, **keys, num_classes=CLASSES, image_size=side)


def _finish(classifier: PixelClassifier) -> PixelClassifier:
    """Return a model as the program attacks and evaluates it."""
    classifier.requires_grad_(False).network = fold_batch_norms(classifier.network)
    return classifier.to(memory_format=torch.channels_last)


def _source(setup: Setup, name: str, side: int) -> PixelClassifier:
    return _finish(_build(_settings(setup, name), side)).to(setup.device)


def _batch(setup: Setup, side: int, count: int) -> tuple[Tensor, Tensor]:
    images = torch.rand(count, 3, side, side, device=setup.device)
    return images, torch.arange(count, device=setup.device) % CLASSES


class _Clock(DummyLogger):
    """Notes the time whenever a loss is logged, which waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if "train_loss" in metrics:
            self.times.append(time.perf_counter())


def training(setup: Setup) -> Iterator[Row]:
    """Train for an epoch on CIFAR-10's images in the package; the first steps do not count."""
    for name in SOURCES[32][:1] if setup.tiny else STUDY:
        yield _train(setup, name)


def _train(setup: Setup, name: str) -> Row:
    words = ["training.epochs=1", "dataset.n_test=100"]
    words += ["training.batch_size=8", "dataset.n_train=240"] if setup.tiny else []
    settings, clock = _settings(setup, name, *words), _Clock()
    recipe, trainer = settings.training, settings.trainer
    test = open_dataset(settings, "test", whole=True)
    sets = training_images(settings, test), test
    path = setup.folder / "trained" / f"{name}.safetensors"
    path.unlink(missing_ok=True)
    train_once(name, path, _build(settings), *sets, recipe, trainer, lambda: clock)
    images = 10 * recipe.batch_size * (len(clock.times) - 1)  # a loss is logged every 10 steps
    chosen = choose_precision(recipe.precision, trainer.accelerator)
    rate = images / (clock.times[-1] - clock.times[0])
    return Row(f"training, images / s, {chosen}", name, 32, rate)


def precisions(setup: Setup) -> Iterator[Row]:
    """Time gradients and predictions, in growing batches until the memory is full."""
    for name in SOURCES[32][:1] if setup.tiny else STUDY:
        for side in setup.sides:
            network = _source(setup, name, side)
            calls: dict[str, Callable[..., object]] = {
                "gradients": partial(gradient, network),
                "predictions": partial(_predict, network),
            }
            for chosen in ("float32", "TF32", "bfloat16"):
                for what, call in calls.items():
                    with (
                        _precision(chosen, setup.device),
                        torch.set_grad_enabled(what == "gradients"),
                    ):
                        grown = _grow(setup, call, side)
                    for count, rate, megabytes in grown:
                        yield Row(f"{what} / s, {chosen}", name, side, rate, count)
                        yield Row(f"{what}, {chosen}, peak MB", name, side, megabytes, count)


def _predict(network: PixelClassifier, images: Tensor, labels: Tensor) -> Tensor:
    return network(images)


@contextmanager
def _precision(name: str, device: torch.device) -> Iterator[None]:
    with arithmetic(device.type, {"float32": "32-true", "TF32": "tf32", "bfloat16": "bf16"}[name]):
        yield


def _grow(setup: Setup, call: Callable[..., object], side: int) -> list[tuple[int, float, float]]:
    """Return batches with images per second and the peak of the memory in megabytes."""
    found, cuda = [], setup.device.type == "cuda"
    for count in (2, 4) if setup.tiny else BATCHES[side]:
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        images, labels = _batch(setup, side, count)
        try:
            rate = count / seconds(call, (images,), (labels,))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else resident
        found.append((count, rate, peak))
    return found


def plan_speeds(setup: Setup) -> Iterator[Row]:
    """Store the speeds that `plan_device=DEVICE` reads, as plans on the device measure them."""
    setup.speeds.unlink(missing_ok=True)
    for name in SOURCES[32][:1] if setup.tiny else PLANNED:
        for lowered in ("32-true", "bf16"):
            words = [f"trainer.attack_precision={lowered}", "training=full"]
            settings = _settings(setup, name, *words, f"plan_device={setup.speeds.stem}")
            speeds, classifier = Speeds(settings, setup.device), _build(settings)
            speeds.measured, speeds.path = True, setup.speeds
            trained = speeds.seconds("training", name, classifier, 32)
            attacked = speeds.seconds("gradient", name, _finish(classifier), 32)
            predicted = speeds.seconds("prediction", name, classifier, 32)
        rates = {"training": trained, "gradients, bf16": attacked, "predictions": predicted}
        for what, each in rates.items():
            yield Row(f"plan: {what}, images / s", name, 32, 1 / each)


def attacks(setup: Setup) -> Iterator[Row]:
    """Time every native attack beside the gradients that it takes."""
    sections, source = _sections(), cache(partial(_source, setup))
    for name in ("bim", "sia") if setup.tiny else sections:
        about = About(**sections[name]["about"])
        for side in setup.sides:
            plain, second, transformer = SOURCES[side]
            model: Any = source(transformer if "attention" in about.needs else plain, side)
            if about.members > 1:
                model = Ensemble([model, source(second, side)], "logits").eval()
            batch = _batch(setup, side, 2 if setup.tiny else IMAGES[side])
            with arithmetic(setup.device.type, "32-true"):
                ratio = _ratio(_call(sections[name]), model, *batch)
            yield Row("attack, seconds / those of its gradients", name, side, ratio)


def _sections() -> dict[str, Any]:
    """Return the resolved sections of this program's attacks that need no fit, by name."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        sections: dict[str, Any] = {
            file.stem: OmegaConf.to_container(compose(f"attack/{file.stem}").attack, resolve=True)
            for file in sorted((CONF / "attack").glob("*.yaml"))
            if file.stem not in ("none", "saved", "torchattacks", "foolbox")
        }
    return {n: each for n, each in sections.items() if each["about"]["category"] != "fitted"}


def _call(section: dict[str, Any]) -> Callable[..., Tensor]:
    """Return a short version of an attack, of a model, images and labels."""
    others = ("name", "target_label", "about")
    words = {key: SHORT.get(key, value) for key, value in section.items() if key not in others}
    attack = instantiate(words, _partial_=True, _convert_="all")
    return partial(attack, eps=EPS, targeted=section["target_label"] is not None)


def _ratio(attack: Callable[..., Tensor], source: Any, images: Tensor, labels: Tensor) -> float:
    """Return an attack's time over that of as many gradients, taken alone."""
    counted, bare = CountedModel(source), CountedModel(source)
    attack(counted, images, labels)
    gradient(bare, images, labels)
    taken = counted.counts.gradients / bare.counts.gradients
    whole = seconds(partial(attack, source), (images,), (labels,), repeats=1)
    return whole / (taken * seconds(partial(gradient, source), (images,), (labels,)))


def torchattacks(setup: Setup) -> Iterator[Row]:
    """Time torchattacks beside this program's attacks, with the same steps in this process."""
    for side in setup.sides:
        network = _source(setup, SOURCES[side][0], side)
        images, labels = _batch(setup, side, 2 if setup.tiny else IMAGES[side])
        for name in ("fgsm",) if setup.tiny else ("fgsm", "bim", "mi"):
            files = Files(images, labels, CLASSES, {})
            peer = PEERS["torchattacks"].build(network, name, files, len(images))
            ours = partial(getattr(src.attacks, name), network, eps=EPS)
            with arithmetic(setup.device.type, "32-true"):
                theirs = seconds(lambda x, y, p=peer: p.craft(x, y, [EPS]), (images,), (labels,))
                ratio = theirs / seconds(ours, (images,), (labels,))
            yield Row("torchattacks, seconds / ours", name, side, ratio)
