"""One job from config to files: data, models, clean answers, attack, rates, figures, tracking."""

import json
import logging
import subprocess
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from src.analysis import PROTOCOLS, rates, wilson_interval
from src.data import ImageDataset, load_dataset
from src.evaluation import PREDICTIONS, Evaluation, evaluate, score_clean, write_table
from src.job import Job, build_attack, content_key
from src.models import (
    PixelClassifier,
    build_classifier,
    fold_batch_norms,
    load_weights,
    weights_digest,
)
from src.report import job_figures
from src.tracking import Run, Tracker, pair_metrics
from src.training import Recipe, trained_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A classifier that is ready to be shown images, and the digest of its weights."""

    name: str
    classifier: PixelClassifier
    digest: str
    settings: dict[str, Any]


def run_job(job: Job, tracker: Tracker, run: Run, folder: Path) -> None:
    """Compute a job, write its files into a folder and log its pairs.

    Raises:
        ValueError: The data, the weights or the clean accuracy are not as the config says.
    """
    dataset = _dataset(json.dumps(job.section("dataset")), "test")
    job = job.with_data(dataset.num_classes, dataset.image_size)
    models = {name: prepare_model(job, name, dataset, tracker) for name in job.models}
    networks = {name: model.classifier for name, model in models.items()}
    trainer = job.section("trainer")
    cache = {name: _clean_cache(job, model, dataset) for name, model in models.items()}
    clean = score_clean(dataset, networks, trainer, cache, refresh=job.distributed)
    if clean is not None:
        _gate(job, models, clean)
    shown = {name: networks[name] for name in job.targets}
    result = evaluate(
        dataset,
        shown,
        trainer,
        label=f"{job.name} -> {', '.join(job.targets)}",
        source=networks[job.source],
        attack=build_attack(job),
        budgets=job.budgets,
        keep=_examples(dataset, job.config.report.examples),
    )
    if clean is None or result is None:
        return  # another process of this job writes the results
    table = pa.concat_tables([clean, result.table])
    write_table(table, folder / PREDICTIONS)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(job.config, resolve=False))
    if job.config.report.name != "none":
        job_figures(job, dataset, table, result.examples, folder)
    _track(job, models, dataset, table, result, tracker, run)
    tracker.log_files(run, folder)


def prepare_model(job: Job, name: str, dataset: ImageDataset, tracker: Tracker) -> Model:
    """Build a model, train it if it has no weights, and make it fast to differentiate.

    Raises:
        ValueError: The model or its weights do not fit the data.
    """
    settings = job.section(f"model.{name}")
    pl.seed_everything(job.seed, verbose=False)
    classifier = build_classifier(name, settings, dataset.num_classes, dataset.image_size)
    if settings["weights"] is None:
        path = _trained(job, name, settings, classifier, dataset, tracker)
        load_weights(classifier.network, path, dataset.num_classes)
    digest = weights_digest(classifier.network)
    classifier.eval().requires_grad_(False)
    trainer = job.config.trainer
    if trainer.fold_batch_norms:
        classifier.network = fold_batch_norms(classifier.network)
    if trainer.channels_last:
        classifier.to(memory_format=torch.channels_last)
    return Model(name, classifier, digest, settings)


def _trained(
    job: Job,
    name: str,
    settings: dict[str, Any],
    classifier: PixelClassifier,
    test: ImageDataset,
    tracker: Tracker,
) -> Path:
    """Return the file of the weights that this model gets from this data by this recipe."""
    section = job.section("dataset")
    train = _dataset(json.dumps(section), "train")
    recipe = Recipe(**job.section("training"))
    built = {key: settings[key] for key in ("network", "mean", "std", "input_size")}
    key = content_key(built, train.digest(), recipe, job.seed)
    path = Path(job.config.cache_dir) / "checkpoints" / f"{name}-{section['name']}-{key}.safetensors"
    whole = _dataset(json.dumps({**section, "n_images": None}), "test")
    parameters = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    return trained_weights(
        name,
        path,
        classifier,
        train,
        whole,
        recipe,
        seed=job.seed,
        trainer=job.section("trainer"),
        make_logger=lambda work: tracker.training_logger(
            f"train {name}",
            {"model": name, "dataset": section["name"], "seed": str(job.seed)},
            {**parameters, "checkpoint": path.name},
            work,
        ),
    )


@lru_cache(maxsize=4)
def _dataset(section: str, split: str) -> ImageDataset:
    """Open a split once for all jobs of a process; images are decoded when asked for."""
    return load_dataset(json.loads(section), split)


def _clean_cache(job: Job, model: Model, dataset: ImageDataset) -> Path:
    """Return where the model's answers on these clean images are kept."""
    trainer = job.config.trainer
    how = [trainer.precision, trainer.fold_batch_norms, trainer.channels_last, trainer.batch_size]
    built = {key: model.settings[key] for key in ("network", "mean", "std", "input_size")}
    key = content_key(built, model.digest, dataset.digest(), how, torch.__version__)
    return Path(job.config.cache_dir) / "clean" / f"{model.name}-{key}.parquet"


def _gate(job: Job, models: dict[str, Model], clean: pa.Table) -> None:
    """Compare the clean accuracies with those that the model files expect.

    A model misses if the 95 % interval of its accuracy lies outside `expected_accuracy` plus or
    minus the tolerance, so that a small subset does not stop a job by chance.
    """
    frame = clean.select(["target", "label", "predicted"]).to_pandas()
    right = (frame["label"] == frame["predicted"]).groupby(frame["target"]).agg(["sum", "count"])
    for name, model in models.items():
        k, n = (int(value) for value in right.loc[name])
        log.info("%s: %d / %d = %.2f%% of the clean images right.", name, k, n, 100 * k / n)
        expected = model.settings.get("expected_accuracy")
        if expected is None:
            continue
        low, high = (float(bound) for bound in wilson_interval(k, n))
        tolerance = job.config.gate.tolerance
        if low > expected + tolerance or high < expected - tolerance:
            message = (
                f"model {name}: clean accuracy is {k} / {n} = {k / n:.2%}, but its file expects "
                f"{expected:.2%} +- {tolerance:.2%}; check weights, mean, std and input_size."
            )
            if job.config.gate.action == "stop":
                raise ValueError(message)
            log.warning(message)


def _examples(dataset: ImageDataset, count: int) -> list[int]:
    """Return the index of images spread evenly over the data set."""
    count = min(count, len(dataset))
    return [int(dataset.indices[position * len(dataset) // count]) for position in range(count)]


def _track(
    job: Job,
    models: dict[str, Model],
    dataset: ImageDataset,
    table: pa.Table,
    result: Evaluation,
    tracker: Tracker,
    run: Run,
) -> None:
    """Log a run per target, and the job's own figures."""
    frame = table.drop_columns(["top5_classes", "top5_confidences"]).to_pandas()
    by_protocol: dict[str, pd.DataFrame] = {
        protocol: rates(frame, job.source, job.targets, protocol) for protocol in PROTOCOLS
    }
    name = job.config.dataset.name
    for target in job.targets:
        rows = {key: value[value["target"] == target] for key, value in by_protocol.items()}
        curves, metrics = pair_metrics(rows, job.protocol, job.standard)
        tracker.log_pair(
            run,
            f"{job.attack['name']} {job.source} -> {target}",
            tags={
                "dataset": name,
                "source": job.source,
                "target": target,
                "attack": job.attack["name"],
                "seed": str(job.seed),
                "precision": str(job.config.trainer.precision),
                "protocol": job.protocol,
                "source_weights": models[job.source].digest,
                "target_weights": models[target].digest,
                "data_digest": dataset.digest(),
                "git_commit": git_commit(),
            },
            parameters={
                **{f"attack.{key}": value for key, value in job.attack.items()},
                "source": job.source,
                "target": target,
                "dataset": name,
                "n_images": len(dataset),
                "seed": job.seed,
                "standard_eps_255": job.standard,
            },
            curves=curves,
            metrics=metrics,
        )
    tracker.log_metrics(
        run,
        {
            "gradients_per_image": result.gradients,
            "images_per_second": result.images_per_second,
            "n": len(dataset),
        },
    )


@lru_cache(maxsize=1)
def git_commit() -> str:
    """Return the commit of the code that runs, `+changes` if it was edited; or `unknown`."""
    here = Path(__file__).parent
    try:
        command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"]
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
