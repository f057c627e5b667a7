"""One job from top to bottom: images, models, clean predictions, adversarial images, tables."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
from torch import nn

from src.analysis import wilson_interval
from src.attacks import takes_own_budgets
from src.config.settings import Settings, TrainerSettings
from src.data import ImageDataset
from src.diagnostics import attack_independent_tables, make_diagnostics
from src.evaluation import (
    STORED,
    AdversarialSource,
    Attacker,
    Batches,
    Diagnostic,
    Evaluation,
    SavedImages,
    SavedImagesSource,
    SavedImagesWriter,
    Transfer,
    Variants,
    evaluate,
    for_device,
    make_trainer,
    saved_dataset,
    score_clean,
)
from src.evaluation.configured_attack import attack_function, try_attack
from src.experiment.identity import crafting_key, job_key, table_path
from src.experiment.metrics import track_results
from src.experiment.models import (
    check_images,
    open_dataset,
    prepare_models,
)
from src.experiment.outputs import SAVED, clear, example_indices, finish_set, write_results
from src.experiment.provenance import record_of
from src.experiment.reuse import combined, jobs_beside, known_targets, link_set
from src.experiment.saved_set import check_weights, open_set, with_set
from src.tracking import Run, Tracker
from src.utils.processes import is_first_process

log = logging.getLogger(__name__)

_POOL = 32  # images that attacks may mix in


def run_job(settings: Settings, tracker: Tracker, run: Run, folder: Path) -> None:
    """Compute a job, write its files into a folder and log its pairs.

    Raises:
        ValueError: The data, the weights or the clean accuracy are not as the settings say.
    """
    saved = open_set(settings)
    settings = settings if saved is None else with_set(settings, saved)
    runner = make_trainer(settings.trainer, [])
    device = runner.strategy.root_device.type
    settings = _with_trainer(settings, for_device(settings.trainer, device))
    images, diagnosed = _images(settings, saved, runner.world_size)
    models = prepare_models(settings, images, tracker)
    weights = {name: model.digest for name, model in models.items()}
    if saved is not None:
        check_weights(saved, weights)
    networks = {name: model.classifier for name, model in models.items()}
    keys = {name: model.key for name, model in models.items()}
    place = partial(table_path, settings, keys, device)
    clean = None
    if saved is None or saved.read_clean is not None:
        cache = {name: place(images, "clean", [name]) for name in models}
        refresh = settings.trainer.distributed
        clean = score_clean(images, networks, settings.trainer, cache, refresh=refresh)
        check_clean_accuracies(settings, clean)
    unattacked = attack_independent_tables(settings, diagnosed, networks, place)
    pl.seed_everything(settings.seed, verbose=False)  # whatever was trained or scored before
    writer = SavedImagesWriter(folder / SAVED) if settings.save_adversarial else None
    target_keys = {name: keys[name] for name in settings.targets}
    identity = partial(crafting_key, saved=saved, model_keys=keys, images=images, device=device)
    known, earlier = _known(settings, identity(settings), target_keys, images, tracker, folder)
    result = Evaluation()
    missing = [name for name in settings.targets if name not in known]
    if settings.budgets and missing:
        source = _adversarial_source(settings, saved, images, networks)
        targets = {name: networks[name] for name in missing}
        module = _transfer(settings, source, images, targets, clean, diagnosed, writer)
        result = evaluate(
            images, module, settings.trainer, f"{settings.job} -> {', '.join(missing)}"
        )
        used = settings.trainer.model_copy(update={"batch_size": result.batch_size})
        settings = _with_trainer(settings, used)
    result = combined(known, result, settings.targets)
    result = replace(result, diagnostics=_joined(result.diagnostics, unattacked))
    if not is_first_process():
        return  # the first process of this job writes the results
    crafting = identity(settings)
    record = record_of(
        settings,
        folder,
        key=job_key(crafting, target_keys, [settings.source_name, *settings.targets]),
        crafting=crafting,
        target_keys=target_keys,
        gradients=result.gradients,
        zero_gradients=result.zero_gradients,
        weights=weights,
        device=device,
        data=images.digest(),
        images=len(images),
        class_names=images.class_names,
    )
    clear(folder)  # of an earlier job, whose rows may be this one's too
    outcome = write_results(settings, record, images, clean, result, saved, folder)
    if writer is not None and missing:
        finish_set(settings, record, images, writer, folder)
    elif earlier is not None and writer is not None:
        link_set(earlier, folder)
    if settings.budgets:
        track_results(settings, record, outcome, tracker, run)
    tracker.log_files(run, folder)


def check_job(settings: Settings) -> None:
    """Refuse a job whose attack or saved set cannot work, before any job of a command runs.

    Raises:
        ValueError: It cannot.
    """
    if settings.attack.kind == "crafted":
        try_attack(settings.attack, settings.budgets)
        own = takes_own_budgets(attack_function(settings.attack))
        if settings.diagnostics.bisection and not own:
            raise ValueError(
                f"diagnostics.bisection={settings.diagnostics.bisection} attacks each image with a "
                f"budget of its own, which attack={settings.attack.name} cannot; set it to 0."
            )
    saved = open_set(settings)
    if saved is not None:
        with_set(settings, saved)


def check_clean_accuracies(settings: Settings, clean: pa.Table) -> None:
    """Compare the clean accuracies with those that the model files expect.

    A model misses if the 95 % interval of its accuracy lies outside `expected_accuracy` plus or
    minus the tolerance, so that a small subset does not stop a job by chance.

    Raises:
        ValueError: One misses, and a miss is to stop the job.
    """
    frame = clean.select(["target", "label", "predicted"]).to_pandas()
    correct = (frame["label"] == frame["predicted"]).groupby(frame["target"], sort=False)
    counts = correct.agg(["sum", "count"])
    words = [f"{name} {k / n:.2%}" for name, (k, n) in counts.iterrows()]
    log.info("%d clean images, correct: %s", counts["count"].iloc[0], ", ".join(words))
    for name in settings.models:
        k, n = (int(value) for value in counts.loc[name])
        expected = settings.model[name].expected_accuracy
        if expected is None:
            continue
        low, high = (float(bound) for bound in wilson_interval(k, n))
        tolerance = settings.clean_accuracy_check.tolerance
        if low > expected + tolerance or high < expected - tolerance:
            message = (
                f"model {name}: clean accuracy is {k} / {n} = {k / n:.2%}, but its file expects "
                f"{expected:.2%} +- {tolerance:.2%}; check weights, mean, std and input_size."
            )
            if settings.clean_accuracy_check.action == "stop":
                raise ValueError(message)
            log.warning(message)


def _with_trainer(settings: Settings, trainer: TrainerSettings) -> Settings:
    return settings.model_copy(update={"trainer": trainer})


def _images(
    settings: Settings, saved: SavedImages | None, processes: int
) -> tuple[ImageDataset, ImageDataset]:
    """Return the job's images and those of its diagnostics, before any model is trained."""
    if saved is None:
        images = open_dataset(settings, "test")
    else:
        classes, count = settings.dataset.num_classes, settings.n_images
        images = saved_dataset(saved, num_classes=classes, n_images=count, seed=settings.seed)
    check_images(images, together=2 if settings.controls else 1)
    diagnosed = images.subset(settings.diagnostics.n_images, settings.seed)
    for each in (images, diagnosed) if settings.diagnostics.attack_independent else (images,):
        Batches(each, settings.trainer.images_per_batch, processes)  # refuses too few
    return images, diagnosed


def _known(
    settings: Settings,
    crafting: str,
    target_keys: Mapping[str, str],
    images: ImageDataset,
    tracker: Tracker,
    folder: Path,
) -> tuple[dict[str, Evaluation], Path | None]:
    """Return what finished jobs have found of this one's targets; see `known_targets`."""
    if settings.rerun or settings.trainer.distributed or not settings.budgets:
        return {}, None  # processes would have to agree on it
    with TemporaryDirectory() as fetched:
        known, place = known_targets(
            chain(jobs_beside(folder), tracker.finished_jobs(crafting, Path(fetched))),
            crafting,
            target_keys,
            example_indices(images, settings.report.examples),
            with_set=settings.save_adversarial,
        )
    if known:
        log.info("%s: found in %s", ", ".join(known), place)
    return known, place


def _adversarial_source(
    settings: Settings,
    saved: SavedImages | None,
    images: ImageDataset,
    networks: Mapping[str, nn.Module],
) -> AdversarialSource:
    """Return what makes the adversarial images: a saved set, or the attack on the source."""
    if saved is not None:
        return SavedImagesSource(saved)
    attack = settings.attack
    whole = open_dataset(settings, "test", whole=True)  # the same pool for every subset of it
    chosen = np.random.default_rng(settings.seed).permutation(len(whole))[:_POOL]
    pool = whole.__getitems__(chosen.tolist())
    return Attacker(
        networks[settings.source_name],
        attack_function(attack),
        settings.budgets,
        norm=attack.norm,
        target_label_rule=attack.target_label,
        num_classes=images.num_classes,
        data_target_labels=_known_target_labels(settings, images),
        seed=settings.seed,
        pool=(pool.images, pool.labels),
        max_batch=settings.trainer.max_gradient_batch,
        bf16=settings.trainer.attack_precision == "bf16",
    )


def _known_target_labels(settings: Settings, images: ImageDataset) -> dict[int, int]:
    """Return the data set's target labels by image index, if the attack takes those.

    Raises:
        ValueError: The data set does not give one for every image.
    """
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


def _transfer(
    settings: Settings,
    source: AdversarialSource,
    images: ImageDataset,
    targets: Mapping[str, nn.Module],
    clean: pa.Table | None,
    diagnosed: ImageDataset,
    writer: SavedImagesWriter | None,
) -> Transfer:
    """Return the pass over the images, with its variants and diagnostics."""
    variants = Variants(
        primary=settings.storage or STORED,
        others=settings.variants,
        controls=settings.controls,
        seed=settings.seed,
    )
    diagnostics: list[Diagnostic] = []
    if clean is not None:
        how = (settings.diagnostics, list(targets), settings.reference)
        diagnostics = make_diagnostics(*how, clean, settings.seed)
    return Transfer(
        targets,
        source,
        variants,
        example_indices(images, settings.report.examples),
        writer,
        diagnostics,
        diagnosed.indices.tolist(),
    )


def _joined(first: Mapping[str, pa.Table], second: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Return all tables, those of one name below each other."""
    parts = {
        name: [each[name] for each in (first, second) if name in each]
        for name in {**first, **second}
    }
    return {name: pa.concat_tables(tables) for name, tables in parts.items()}
