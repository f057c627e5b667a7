"""The long step of a job: attack its images and evaluate targets on them."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from torch import nn

from src.config.settings import Settings
from src.data import Batch, ImageDataset
from src.diagnostics import make_diagnostics
from src.evaluation import (
    STORED,
    AdversarialSource,
    Attacker,
    AttackError,
    Diagnostic,
    Evaluation,
    PartialRows,
    SavedImages,
    SavedImagesSource,
    SavedImagesWriter,
    Transfer,
    Variants,
    evaluate,
)
from src.evaluation.configured_attack import attack_function, try_attack
from src.experiment.identity import content_key, crafting_key
from src.experiment.models import Model, forget_models, open_dataset
from src.experiment.outputs import SAVED, example_indices

_POOL = 32  # images that attacks may mix in


@dataclass(frozen=True)
class Job:
    """A job with its data and models.

    Attributes:
        settings: Completed by what the device and a saved set decide.
        saved: Set that takes the attack's place, if one does.
        diagnosed: Images of the diagnostics.
        pool: Images that attacks may mix in; None without an attack.
        models: Source and targets, by name.
        clean: Predictions for the clean images; None where these are not at hand.
    """

    settings: Settings
    saved: SavedImages | None
    images: ImageDataset
    diagnosed: ImageDataset
    pool: Batch | None
    models: dict[str, Model]
    device: str
    clean: pa.Table | None = None

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Classifiers by name."""
        return {name: model.classifier for name, model in self.models.items()}

    @property
    def keys(self) -> dict[str, str]:
        """Keys of the models' logits, by name."""
        return {name: model.key for name, model in self.models.items()}

    @property
    def target_keys(self) -> dict[str, str]:
        """The targets' keys."""
        return {name: self.models[name].key for name in self.settings.targets}

    @cached_property
    def crafting(self) -> str:
        """Key of the adversarial images, see `crafting_key`."""
        return crafting_key(
            self.settings, self.saved, self.keys, self.images, self.pool, self.device
        )


def mixing_pool(settings: Settings) -> Batch:
    """Return the images that attacks may mix in, the same for every subset of a data set."""
    whole = open_dataset(settings, "test", whole=True)
    chosen = np.random.default_rng(settings.seed).permutation(len(whole))[:_POOL]
    return whole.__getitems__(chosen.tolist())


def attack_and_evaluate(job: Job, targets: Sequence[str], folder: Path) -> Evaluation:
    """Attack a job's images, and return what some targets predict for them.

    The adversarial images are saved in the job's folder if the settings say so. Else rows of
    finished batches are kept while the pass lasts, and a killed pass's are reused.
    """
    settings = job.settings
    keep = settings.save_adversarial
    variants = Variants(
        primary=settings.storage or STORED,
        others=settings.variants,
        controls=settings.controls,
        seed=settings.seed,
    )
    diagnostics: list[Diagnostic] = []
    if job.clean is not None:
        how = (settings.diagnostics, targets, settings.reference)
        diagnostics = make_diagnostics(*how, job.clean, settings.seed)
    module = Transfer(
        {name: job.networks[name] for name in targets},
        _adversarial_source(job),
        variants,
        example_indices(job.images, settings.report.examples),
        SavedImagesWriter(folder / SAVED) if keep else None,
        diagnostics,
        job.diagnosed.indices.tolist(),
        None if keep else PartialRows(_partial_folder(job, targets)),
        settings.seed,
    )
    label = f"{settings.job} -> {', '.join(targets)}"
    try:
        return evaluate(job.images, module, settings.trainer, label)
    except Exception as error:
        forget_models()  # which an attack may have changed
        if isinstance(error, AttackError):
            forget_partial_rows(job, targets)
            if keep:
                SavedImagesWriter(folder / SAVED).start()
        raise


def forget_partial_rows(job: Job, targets: Sequence[str]) -> None:
    """Remove the rows that a pass kept, once results are written."""
    shutil.rmtree(_partial_folder(job, targets), ignore_errors=True)


def _partial_folder(job: Job, targets: Sequence[str]) -> Path:
    keys = [job.target_keys[name] for name in targets]
    key = content_key(job.crafting, keys, job.settings.report.examples)
    return Path(job.settings.cache_dir) / "partial" / key


def _adversarial_source(job: Job) -> AdversarialSource:
    """Return the producer of adversarial images: a saved set, or the attack."""
    if job.saved is not None:
        return SavedImagesSource(job.saved)
    settings, attack = job.settings, job.settings.attack
    return Attacker(
        job.networks[settings.source_name],
        attack_function(attack),
        settings.budgets,
        norm=attack.norm,
        target_label_rule=attack.target_label,
        num_classes=job.images.num_classes,
        data_target_labels=_known_target_labels(settings, job.images),
        seed=settings.seed,
        pool=job.pool and (job.pool.images, job.pool.labels),
        max_batch=settings.trainer.max_gradient_batch,
        precision=settings.trainer.attack_precision,
        name=attack.name,
        gradients_per_image=try_attack(attack, settings.budgets) * max(1, len(settings.source)),
    )


def _known_target_labels(settings: Settings, images: ImageDataset) -> dict[int, int]:
    """Return the data set's target labels by image index, if the attack takes those."""
    if settings.attack.target_label != "data":
        return {}
    name = settings.dataset.name
    if images.target_labels is None:
        raise ValueError(
            f"attack.target_label=data, but the data set {name} names no target labels; "
            "least_likely, random and next need none."
        )
    own = images.indices[images.target_labels == images.labels]
    if len(own):
        raise ValueError(
            f"attack.target_label=data, but the target label of image {own[0]} of {name} is its "
            "true class."
        )
    return dict(zip(images.indices.tolist(), images.target_labels.tolist(), strict=True))
