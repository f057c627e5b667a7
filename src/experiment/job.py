"""One job from config to files: data, models, clean answers, attack, rates, figures, tracking."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from torch import nn

from src.analysis import wilson_interval
from src.config.read import Job, content_key
from src.config.settings import TrainerSettings
from src.data import ImageDataset
from src.diagnostics import make_diagnostics
from src.evaluation import (
    AdversarialSource,
    Attacker,
    SavedImagesSource,
    SavedImagesWriter,
    evaluate,
    make_trainer,
    saved_dataset,
    score_clean,
    write_table,
)
from src.experiment.identity import code_of
from src.experiment.metrics import track_results
from src.experiment.models import Model, check_images, open_dataset, prepare_models
from src.experiment.outputs import SET, save_set, write_results
from src.experiment.provenance import HEADLINE, JobRecord, plain_config, with_record
from src.score_job import check_weights, report_breaches
from src.tracking import Run, Tracker
from src.utils.files import write_text
from src.utils.processes import is_first_process

log = logging.getLogger(__name__)

_POOL = 32  # images that attacks may mix in
_COLUMNS = 2  # version of the table of predictions, in the names of cached ones


def run_job(job: Job, tracker: Tracker, run: Run, folder: Path) -> None:
    """Compute a job, write its files into a folder and log its pairs.

    Raises:
        ValueError: The data, the weights or the clean accuracy are not as the config says.
    """
    trainer = TrainerSettings(**job.section("trainer"))
    runner = make_trainer(trainer, [])
    dataset = _dataset(job)
    check_images(dataset, together=2 if job.forms.controls else 1)
    known = _known_aims(job, dataset)
    job = job.with_data(dataset.num_classes, dataset.image_size)
    device = runner.strategy.root_device.type
    models = prepare_models(job, dataset, tracker)
    if job.stored is not None:
        check_weights(job.stored, {name: model.digest for name, model in models.items()})
    networks = {name: model.classifier for name, model in models.items()}
    cache = {name: _clean_cache(job, model, dataset, device) for name, model in models.items()}
    clean = None
    if job.stored is None or job.stored.read_clean is not None:
        clean = score_clean(dataset, networks, trainer, cache, refresh=job.distributed)
        _gate(job, models, clean)
    if not job.budgets:
        _finish_exploration(job, clean, _record(job, models, dataset, device, folder), folder)
        tracker.log_files(run, folder)
        return
    pl.seed_everything(job.seed, verbose=False)  # whatever was trained or scored before
    writer = SavedImagesWriter(folder / SET) if job.save else None
    result = evaluate(
        dataset,
        {name: networks[name] for name in job.targets},
        trainer,
        label=f"{job.name} -> {', '.join(job.targets)}",
        adversarial_source=_adversarial_source(job, dataset, networks, known),
        variants=job.forms,
        examples=_examples(dataset, job.config.report.examples),
        writer=writer,
        diagnostics=make_diagnostics(
            job.diagnostics, job.targets, job.reference, _gradient_batch(job), job.seed
        ),
    )
    if not is_first_process():
        return  # the first process of this job writes the results
    record = _record(job, models, dataset, device, folder)
    outcome = write_results(job, dataset, clean, result, folder, record)
    if writer is not None:
        weights = {name: models[name].digest for name in job.sources}
        save_set(job, dataset, weights, writer, folder)
    track_results(job, record, outcome, tracker, run)
    if job.stored is not None:
        tracker.log_metrics(run, report_breaches(job.stored))
    tracker.log_files(run, folder)


def _finish_exploration(job: Job, clean: pa.Table | None, record: JobRecord, folder: Path) -> None:
    """Write what the models say of the clean images, of a job that attacks nothing."""
    if clean is not None and is_first_process():
        write_text(folder / "config.yaml", OmegaConf.to_yaml(job.stored_config(), resolve=False))
        write_table(with_record(clean, HEADLINE, record), folder / f"{HEADLINE}.parquet")


def _dataset(job: Job) -> ImageDataset:
    """Return the images: those of the saved set, or those of the data set."""
    if job.stored is None:
        return open_dataset(job, "test")
    config = job.config
    known = config.dataset.num_classes
    return saved_dataset(job.stored, num_classes=known, n_images=config.n_images, seed=job.seed)


def _adversarial_source(
    job: Job,
    dataset: ImageDataset,
    networks: Mapping[str, nn.Module],
    known: Mapping[int, int],
) -> AdversarialSource:
    """Return what makes the adversarial images: a stored set, or the attack on the source."""
    if job.stored is not None:
        return SavedImagesSource(job.stored)
    whole = open_dataset(job, "test", whole=True)  # the same pool for every subset of it
    chosen = np.random.default_rng(job.seed).permutation(len(whole))[:_POOL]
    pool = whole.__getitems__(chosen.tolist())
    return Attacker(
        networks[job.source],
        job.attack.function,
        job.budgets,
        norm=job.attack.norm,
        target_label_rule=job.attack.aim,
        num_classes=dataset.num_classes,
        data_target_labels=known,
        seed=job.seed,
        pool=(pool.images, pool.labels),
        max_batch=_gradient_batch(job),
    )


def _gradient_batch(job: Job) -> int:
    """Return how many images may be in one gradient batch."""
    trainer = job.config.trainer
    return int(trainer.gradient_batch or trainer.batch_size)


def _known_aims(job: Job, dataset: ImageDataset) -> dict[int, int]:
    """Return the data set's class to reach, by image index, if the attack aims for it.

    Raises:
        ValueError: The data set does not give one for every image.
    """
    if job.attack.aim != "data" or job.stored is not None:
        return {}
    name = job.config.dataset.name
    if dataset.target_labels is None:
        raise ValueError(
            f"attack.target_label=data, but the data set {name} names no target labels; "
            "least_likely, random and next need none."
        )
    own = dataset.indices[dataset.target_labels == dataset.labels]
    if len(own):
        raise ValueError(
            f"attack.target_label=data, but the target label of image {own[0]} of {name} is its "
            "true class."
        )
    return dict(zip(dataset.indices.tolist(), dataset.target_labels.tolist(), strict=True))


def _record(
    job: Job, models: Mapping[str, Model], dataset: ImageDataset, device: str, folder: Path
) -> JobRecord:
    """Return what the job's tables will say of it."""
    record = JobRecord(
        key=_job_key(job, models, dataset, device),
        data=dataset.digest(),
        images=len(dataset),
        class_names=tuple(dataset.class_names),
        weights={name: model.digest for name, model in models.items()},
        config=plain_config(job.stored_config(), job.models),
        device=device,
    )
    return record.complete(folder)


def _clean_cache(job: Job, model: Model, dataset: ImageDataset, device: str) -> Path:
    """Return where the model's answers on these clean images are kept."""
    key = content_key(_COLUMNS, model.key, dataset.digest(), _numerics(job, device))
    return Path(job.config.cache_dir) / "clean" / f"{model.name[:100]}-{key}.parquet"


def _numerics(job: Job, device: str) -> list[str]:
    """Return what can change the last digits of a logit."""
    trainer = job.config.trainer
    how = ("precision", "fold_batch_norms", "channels_last", "batch_size")
    return [*(str(trainer[key]) for key in how), device, torch.__version__]


def _job_key(job: Job, models: Mapping[str, Model], dataset: ImageDataset, device: str) -> str:
    """Return the job's identity: equal keys mean equal tables."""
    keys = {name: models[name].key for name in job.models}
    how = [job.forms, job.ensemble, job.config.trainer.gradient_batch, job.budgets, job.seed]
    made = code_of(job.attack.settings) if job.stored is None else job.stored.digest
    what = [dataset.digest(), job.attack.settings, made, job.sources, job.targets, keys, how]
    return content_key(what, _numerics(job, device))


def _gate(job: Job, models: Mapping[str, Model], clean: pa.Table) -> None:
    """Compare the clean accuracies with those that the model files expect.

    A model misses if the 95 % interval of its accuracy lies outside `expected_accuracy` plus or
    minus the tolerance, so that a small subset does not stop a job by chance.
    """
    frame = clean.select(["target", "label", "predicted"]).to_pandas()
    right = (frame["label"] == frame["predicted"]).groupby(frame["target"]).agg(["sum", "count"])
    words = [f"{name} {k / n:.2%}" for name, (k, n) in right.loc[list(models)].iterrows()]
    log.info("%d clean images, right: %s", len(clean) // len(models), ", ".join(words))
    for name, model in models.items():
        k, n = (int(value) for value in right.loc[name])
        expected = model.settings.get("expected_accuracy")
        if expected is None:
            continue
        low, high = (float(bound) for bound in wilson_interval(k, n))
        tolerance = job.config.clean_accuracy_check.tolerance
        if low > expected + tolerance or high < expected - tolerance:
            message = (
                f"model {name}: clean accuracy is {k} / {n} = {k / n:.2%}, but its file expects "
                f"{expected:.2%} +- {tolerance:.2%}; check weights, mean, std and input_size."
            )
            if job.config.clean_accuracy_check.action == "stop":
                raise ValueError(message)
            log.warning(message)


def _examples(dataset: ImageDataset, count: int) -> list[int]:
    """Return the index of images spread evenly over the classes."""
    by_class = dataset.indices[np.argsort(dataset.labels, kind="stable")]
    count = min(count, len(dataset))
    return [int(by_class[position * len(dataset) // count]) for position in range(count)]
