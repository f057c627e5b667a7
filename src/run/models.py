"""Models of a job: built, trained where weights are missing, and frozen."""

from collections.abc import Iterable, Set
from pathlib import Path

from ..cache.keys import content_key
from ..config.settings import Settings
from ..data import ImageDataset
from ..models import PixelClassifier, check_gradient, load_weights, tensors_of
from ..tracking import Tracker
from .build import build, freeze, model_parts, speed_up, with_ensemble
from .clean_accuracy import check_trained
from .data import DataSets, open_data
from .stages import Data, JobContext, Model, Planned
from .train import Trainings, training_attack

_SPARE = 2**31  # bytes of pooled weights that the current job does not need


class ModelPool:
    """The models of one command, each built and frozen once, and the command's data sets.

    Changed files are read by the next command, which has its own pool.
    """

    def __init__(self) -> None:
        self.sets = DataSets()
        self._built: dict[str, PixelClassifier] = {}  # by `_make_key`; removed when frozen
        self._frozen: dict[str, Model] = {}
        self._files: dict[str, Path] = {}  # of trained weights

    def build(self, planned: Planned, data: Data) -> dict[str, PixelClassifier]:
        """Build the models of a job, and return those that are not frozen yet.

        A model that does not fit the images or the attack is refused before hours of training.
        """
        settings, images = planned.settings, data.images
        keys = {name: _make_key(planned, name, images) for name in settings.models}
        self._make_room(set(keys.values()))
        missing = [name for name, key in keys.items() if key not in {**self._built, **self._frozen}]
        built = {name: build(settings, name, images) for name in missing}
        for name in built.keys() & set(settings.source if planned.attack else ()):
            check_gradient(name, built[name], images.image_size)
        files = Trainings(settings, images, self.sets).files(built)
        if not all(file.exists() for file in files.values()):  # trainings end with all test images
            self.sets.open(settings, "test", whole=True).digest()
            training_attack(settings.training)
        if settings.clean_accuracy_check.action == "stop":
            for name, file in files.items():
                check_trained(settings, name, file, images.num_classes)
        self._built |= {keys[name]: classifier for name, classifier in built.items()}
        return {name: self._built[key] for name, key in keys.items() if key in self._built}

    def train(
        self, planned: Planned, data: Data, names: Iterable[str], tracker: Tracker
    ) -> dict[str, Model]:
        """Return the named models of a job with their weights; train those without weights."""
        settings, images, models = planned.settings, data.images, dict[str, Model]()
        built = self.build(planned, data)
        for name in names:
            key = _make_key(planned, name, images)
            if name in built:
                classifier = built[name]
                if settings.model[name].weights is None:
                    trainings = Trainings(settings, images, self.sets)
                    classifier, self._files[key] = trainings.run(name, built, tracker)
                keep = _keeps_layers(planned, name)
                self._frozen[key] = freeze(settings, name, classifier, images, keep)
                del built[name], self._built[key]
            if key in self._files:  # each job's log warns
                check_trained(settings, name, self._files[key], images.num_classes)
            models[name] = self._frozen[key]
        return models

    def prepare(self, planned: Planned) -> tuple[JobContext, dict[str, PixelClassifier]]:
        """Return a job as it is without further trainings, and the models that lack theirs."""
        planned, data = open_data(planned, self.sets)
        settings, built = planned.settings, self.build(planned, data)
        files = Trainings(settings, data.images, self.sets).files(built)
        untrained = {name: built[name] for name, file in files.items() if not file.exists()}
        trained = [name for name in settings.models if name not in untrained]
        models = self.train(planned, data, trained, Tracker())
        for name, model in untrained.items():
            parts = model_parts(settings, name, model, "not trained")
            models[name] = Model(model, "", {**parts, "file": files[name].name})
        return JobContext(planned, data, with_ensemble(settings, models)), untrained

    def _make_room(self, needed: Set[str]) -> None:
        """Remove models that are not needed, the oldest first, if they take much memory."""
        models = {**self._built, **{key: its.classifier for key, its in self._frozen.items()}}
        sizes = {
            key: sum(value.nbytes for _, value in tensors_of(model))
            for key, model in models.items()
            if key not in needed
        }
        total = sum(sizes.values())
        for key, size in sizes.items():
            if total <= _SPARE:
                break
            total -= size
            self._built.pop(key, None)
            self._frozen.pop(key, None)


def stored_classifier(
    settings: Settings, name: str, sets: DataSets | None
) -> PixelClassifier | None:
    """Return a job's model, frozen, without training; None if it has no weights yet.

    The state of the random number generators is unchanged. Without data sets the weights alone
    decide the classes.
    """
    images = None if sets is None else sets.open(settings, "test")
    from pytorch_lightning.utilities.seed import isolate_rng  # slow to import

    with isolate_rng():
        classifier = build(settings, name, images)
    if sets is not None and images is not None and settings.model[name].weights is None:
        path = Trainings(settings, images, sets).file(name, classifier)
        if not path.exists():
            return None
        load_weights(classifier.network, path)
    image_size = 224 if images is None else images.image_size
    speed_up(settings, classifier.requires_grad_(False), image_size)
    return classifier


def _keeps_layers(planned: Planned, name: str) -> bool:
    """Return True if the attack's fit needs the model's layers as built."""
    part = planned.fitted
    return part is not None and part.as_built and name in planned.settings.source


def _make_key(planned: Planned, name: str, images: ImageDataset) -> str:
    """Return a key of everything that decides a model, provided that files do not change."""
    settings = planned.settings
    parts = settings.model_dump(include={"dataset": True, "training": True, "cache": {"dir"}})
    parts |= {"name": name, "model": settings.model[name].model_dump(), "images": images.digest()}
    parts |= {"fold_batch_norms": settings.trainer.fold_batch_norms}
    parts |= {"check": settings.clean_accuracy_check.action}
    return content_key({**parts, "as_built": _keeps_layers(planned, name)})
