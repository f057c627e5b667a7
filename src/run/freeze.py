"""Freeze the models of a job, and combine its sources to an ensemble."""

import copy
from collections.abc import Mapping
from typing import Any

from ..cache.code_digest import code_of
from ..cache.keys import content_key
from ..config.settings import Settings
from ..data import ImageDataset
from ..models import Ensemble, PixelClassifier, fold_batch_norms, network_text, use_channels_last
from .build import network_settings, read_facts
from .stages import Model


def freeze(
    settings: Settings,
    name: str,
    classifier: PixelClassifier,
    images: ImageDataset,
    keep_layers: bool = False,
) -> Model:
    """Freeze a model with weights, and speed up its gradients."""
    digest = classifier.digest
    parts = model_parts(settings, name, classifier, digest)
    classifier.eval().requires_grad_(False)
    as_built = copy.deepcopy(classifier) if keep_layers else None
    speed_up(settings, classifier, images.image_size)
    expected, facts = settings.model[name].expected_accuracy, read_facts(settings, name)
    if expected is None and facts.class_names == images.class_names:
        expected = facts.expected_accuracy
    return Model(classifier, digest, parts, expected, as_built)


def model_parts(
    settings: Settings, name: str, classifier: PixelClassifier, weights: str
) -> dict[str, Any]:
    """Return the parts of a model's lasting key: everything that decides its logits.

    `weights` is the digest of its weights.
    """
    network = network_settings(settings, name)
    return {
        "network": network,
        "code": code_of(network),
        "weights": weights,
        "layers": network_text(classifier.network),
        "state": classifier.state,
    }


def speed_up(settings: Settings, classifier: PixelClassifier, image_size: int) -> None:
    """Speed up the gradients of a frozen model."""
    if settings.trainer.fold_batch_norms:
        classifier.network = fold_batch_norms(classifier.network)
    use_channels_last(classifier, image_size)


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
