"""Train the models of a job that have no weights; other jobs reuse the weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..cache.code_digest import code_of
from ..cache.keys import lasting_key
from ..config.attack_file import attack_settings
from ..config.attack_settings import AttackSettings
from ..config.sections import TrainingSettings
from ..config.settings import Settings
from ..data import ImageDataset
from ..images.attacker import accepted
from ..models import PixelClassifier, load_weights, network_text, tensors_of
from ..tracking import Tracker
from .attack import attack_function
from .build import build, network_settings
from .data import DataSets
from .track import publish_training

# Part of the names of weight files. Raise it if equal settings give different weights than before:
# after a change to `src.training`, to images or networks, or to a default in `TrainingSettings`.
TRAINING = 1


@dataclass(frozen=True)
class Trainings:
    """Trainings of a job's models, on the training images of its data set.

    Attributes:
        settings: Settings of the job.
        images: Images of the job.
        sets: Data sets of the command.
    """

    settings: Settings
    images: ImageDataset
    sets: DataSets

    def file(self, name: str, classifier: PixelClassifier) -> Path:
        """Return the file of the weights that a model gets from this data and recipe."""
        settings, dataset = self.settings, self.settings.dataset.name
        if not settings.dataset.has_loader:
            raise ValueError(
                f"model {name} has no weights, and a saved set has no training images. Set "
                f"model.{name}.weights=PATH or dataset=NAME."
            )
        try:
            self.sets.open_training(settings, self.images)
        except ValueError as error:
            way = f"Set model.{name}.weights=PATH, or name other models in targets"
            raise ValueError(
                f"model {name} cannot be trained on {dataset}: {error}. {way}."
            ) from error
        folder, key = Path(settings.cache.dir) / "checkpoints", self._make_key(name, classifier)
        return folder / f"{name}-{dataset}-{key}.safetensors"

    def _make_key(self, name: str, classifier: PixelClassifier) -> str:
        """Return the lasting key of a model's trained weights.

        This program's code and library versions do not count: an upgrade must not cause retraining.
        """
        settings, network = self.settings, network_settings(self.settings, name)
        images = self.sets.training_images(settings, self.images)
        shapes = {key: list(value.shape) for key, value in tensors_of(classifier.network)}
        layers, code = network_text(classifier.network), code_of(network, upgrades=False)
        others = {"device", "evaluate_on"}  # do not affect the weights
        parts = {
            "training": TRAINING,
            "network": [network, code, shapes, layers],
            "images": images.digest(),  # reads all files, so a bad one is refused
            "recipe": settings.training.model_dump(exclude=others, exclude_defaults=True),
        }
        return lasting_key(parts)

    def files(self, built: Mapping[str, PixelClassifier]) -> dict[str, Path]:
        """Return the files of trained weights by model, for all models without given weights."""
        names = [name for name in built if self.settings.model[name].weights is None]
        return {name: self.file(name, built[name]) for name in names}

    def run(
        self, name: str, built: Mapping[str, PixelClassifier], tracker: Tracker
    ) -> tuple[PixelClassifier, Path]:
        """Return a model with its trained weights, and their file; train and publish missing ones.

        `built` are the model and those that may be trained after it.
        """
        from ..training import Training  # slow to import

        settings, recipe, files = self.settings, self.settings.training, self.files(built)
        file = files.pop(name)
        train = self.sets.training_images(settings, self.images)
        test = self.sets.open(settings, "test", whole=True)
        then = [other for other, missing in files.items() if not missing.exists()]
        craft, trainer, model = training_attack(recipe), settings.trainer, built[name]
        Training(name, file, model, train, test, recipe, trainer, then, craft).run_once()
        # Built anew, as by later commands: training may have changed state that the file lacks.
        classifier = build(settings, name, self.images)
        load_weights(classifier.network, file)
        if file.with_suffix(".csv").exists():  # earlier versions wrote none
            publish_training(tracker, settings, name, train, file, classifier.digest)
        return classifier, file


def training_attack(recipe: TrainingSettings) -> Callable[..., Tensor] | None:
    """Return the attack for adversarial training; None for ordinary training."""
    if recipe.attack is None:
        return None
    try:
        attack = attack_function(settings_of_attack(recipe))
    except ValueError as error:
        raise ValueError(f"training.attack={recipe.attack}: {error}") from error
    if getattr(getattr(attack, "func", attack), "fitted", None):
        raise ValueError(f"training.attack={recipe.attack} needs a fit. Use an attack without one.")
    drawn = "seeds" in accepted(attack)

    def craft(model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor) -> Tensor:
        budgets = images.new_tensor([recipe.eps / 255])
        with torch.enable_grad():
            return attack(model, images, labels, budgets, **({"seeds": seeds} if drawn else {}))[0]

    return craft


def settings_of_attack(recipe: TrainingSettings) -> AttackSettings:
    """Return the settings of the attack used in adversarial training."""
    keywords = {} if recipe.steps is None else {"steps": recipe.steps}
    return attack_settings(str(recipe.attack), keywords)
