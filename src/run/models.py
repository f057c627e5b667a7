"""Models of a job: built, trained where weights are missing, and frozen."""

import copy
from collections.abc import Iterable, Mapping

from pytorch_lightning.utilities.seed import isolate_rng

from src.cache.code_digest import read_code
from src.cache.keys import content_key, model_parts
from src.config.settings import Settings
from src.data import ImageDataset
from src.models import (
    Ensemble,
    PixelClassifier,
    check_gradient,
    fold_batch_norms,
    load_weights,
    network_text,
    use_channels_last,
)
from src.run.build import build, network_settings, read_facts
from src.run.clean_accuracy import check_trained
from src.run.data import forget_datasets, open_dataset
from src.run.stages import Data, Model, Planned
from src.run.train import checkpoint_path, train, trained_files, training_attack
from src.tracking import Tracker

_last_job: dict[str, Model] = {}  # models of the last job by `_make_key`


def build_models(planned: Planned, data: Data) -> dict[str, PixelClassifier]:
    """Build the models of a job, untrained, except those left from this process's last job.

    A model that does not fit the images or the attack is refused before hours of training.
    """
    settings, images = planned.settings, data.images
    keys = {_make_key(planned, name, images): name for name in settings.models}
    for key in _last_job.keys() - keys:
        del _last_job[key]
    built = {
        name: build(settings, name, images) for key, name in keys.items() if key not in _last_job
    }
    for name in built.keys() & set(settings.source if planned.attack else ()):
        check_gradient(name, built[name], images.image_size)
    files = trained_files(settings, built, images)
    if not all(file.exists() for file in files.values()):  # trainings end with all test images
        open_dataset(settings, "test", whole=True).digest()
        training_attack(settings.training)
    if settings.clean_accuracy_check.action == "stop":
        for name, file in files.items():
            check_trained(settings, name, file, images.num_classes)
    return built


def train_models(
    planned: Planned,
    data: Data,
    built: dict[str, PixelClassifier],
    names: Iterable[str],
    tracker: Tracker,
) -> dict[str, Model]:
    """Return the named models of a job with their weights; train those without weights.

    Models of this process's last job are reused. The named models are removed from `built`.
    """
    settings, images, models = planned.settings, data.images, dict[str, Model]()
    for name in names:
        key = _make_key(planned, name, images)
        if name in built:
            if settings.model[name].weights is None:
                train(name, built, settings, data, tracker)
            keep = _keeps_layers(planned, name)
            _last_job[key] = _finish(settings, name, built.pop(name), images, keep)
        models[name] = _last_job[key]
    return models


def with_ensemble(settings: Settings, models: Mapping[str, Model]) -> Mapping[str, Model]:
    """Return the models, with the ensemble added if the job has several sources."""
    if len(settings.source) < 2:
        return models
    members = [models[name] for name in settings.source]
    ensemble = Model(
        Ensemble([member.classifier for member in members], settings.ensemble).eval(),
        digest=content_key([[member.digest for member in members]]),
        parts={"members": [member.key for member in members], "ensemble": settings.ensemble},
        as_built=Ensemble(
            [member.as_built or member.classifier for member in members], settings.ensemble
        ).eval(),
    )
    return {**models, settings.source_name: ensemble}


def stored_classifier(
    settings: Settings, name: str, with_data: bool = True
) -> PixelClassifier | None:
    """Return a job's model, frozen, without training; None if it has no weights yet.

    The state of the random number generators is unchanged. With `with_data=False` the weights
    alone decide the classes.
    """
    forget_datasets()  # the current folder and its files may have changed
    read_code.cache_clear()
    images = open_dataset(settings, "test") if with_data else None
    with isolate_rng():
        classifier = build(settings, name, images)
    if images is not None and settings.model[name].weights is None:
        path = checkpoint_path(settings, name, classifier, images)
        if not path.exists():
            return None
        load_weights(classifier.network, path)
    image_size = 224 if images is None else images.image_size
    _speed_up(settings, classifier.requires_grad_(False), image_size)
    return classifier


def forget_models() -> None:
    """Clear the cache of models, so that the next job rebuilds them: files may have changed."""
    _last_job.clear()
    read_code.cache_clear()


def _keeps_layers(planned: Planned, name: str) -> bool:
    """Return True if the attack's fit needs the model's layers as built."""
    part = planned.fitted
    return part is not None and part.as_built and name in planned.settings.source


def _make_key(planned: Planned, name: str, images: ImageDataset) -> str:
    """Return a key of everything that decides a model, provided that files do not change."""
    settings = planned.settings
    parts = settings.model_dump(include={"dataset", "training", "cache_dir"})
    parts |= {"name": name, "model": settings.model[name].model_dump(), "images": images.digest()}
    parts |= {"fold_batch_norms": settings.trainer.fold_batch_norms}
    parts |= {"check": settings.clean_accuracy_check.action}
    return content_key({**parts, "as_built": _keeps_layers(planned, name)})


def _finish(
    settings: Settings,
    name: str,
    classifier: PixelClassifier,
    images: ImageDataset,
    keep_layers: bool = False,
) -> Model:
    """Freeze a model with weights, and speed up its gradients."""
    network = network_settings(settings, name)
    digest = classifier.digest
    parts = model_parts(network, digest, network_text(classifier.network), classifier.state)
    classifier.eval().requires_grad_(False)
    as_built = copy.deepcopy(classifier) if keep_layers else None
    _speed_up(settings, classifier, images.image_size)
    expected, facts = settings.model[name].expected_accuracy, read_facts(settings, name)
    if expected is None and facts.class_names == images.class_names:
        expected = facts.expected_accuracy
    return Model(classifier, digest, parts, expected, as_built)


def _speed_up(settings: Settings, classifier: PixelClassifier, image_size: int) -> None:
    """Speed up the gradients of a frozen model."""
    if settings.trainer.fold_batch_norms:
        classifier.network = fold_batch_norms(classifier.network)
    use_channels_last(classifier, image_size)
