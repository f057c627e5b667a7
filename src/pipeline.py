"""One job from config to files: data, models, clean answers, attack, rates, figures, tracking."""

import logging
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from src.analysis import PROTOCOLS, rates, wilson_interval
from src.data import ImageDataset
from src.evaluation import (
    PREDICTIONS,
    Evaluation,
    evaluate,
    make_trainer,
    score_clean,
    write_table,
)
from src.job import Job, build_attack, content_key
from src.preparation import Model, check_images, open_dataset, prepare_models
from src.processes import is_first_process
from src.report import job_figures
from src.tracking import Run, Tracker, pair_metrics

log = logging.getLogger(__name__)


def run_job(job: Job, tracker: Tracker, run: Run, folder: Path) -> None:
    """Compute a job, write its files into a folder and log its pairs.

    Raises:
        ValueError: The data, the weights or the clean accuracy are not as the config says.
    """
    trainer = job.section("trainer")
    runner = make_trainer(trainer, [])
    dataset = open_dataset(job, "test")
    check_images(dataset, runner.world_size)
    job = job.with_data(dataset.num_classes, dataset.image_size)
    device = runner.strategy.root_device.type
    models = prepare_models(job, dataset, tracker)
    networks = {name: model.classifier for name, model in models.items()}
    cache = {name: _clean_cache(job, model, dataset, device) for name, model in models.items()}
    clean = score_clean(dataset, networks, trainer, cache, refresh=job.distributed)
    _gate(job, models, clean)
    shown = {name: networks[name] for name in job.targets}
    pl.seed_everything(job.seed, verbose=False)  # whatever was trained or scored before
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
    if not is_first_process():
        return  # the first process of this job writes the results
    table = pa.concat_tables([clean, result.table])
    write_table(table, folder / PREDICTIONS)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(job.stored_config(), resolve=False))
    if job.config.report.name != "none":
        job_figures(job, dataset, table, result.examples, folder)
    key = _job_key(job, models, dataset, device)
    _track(job, models, dataset, table, result, tracker, run, key)
    tracker.log_files(run, folder)


def _clean_cache(job: Job, model: Model, dataset: ImageDataset, device: str) -> Path:
    """Return where the model's answers on these clean images are kept."""
    key = content_key(model.key, dataset.digest(), _numerics(job, device))
    return Path(job.config.cache_dir) / "clean" / f"{model.name}-{key}.parquet"


def _numerics(job: Job, device: str) -> list[str]:
    """Return what can change the last digits of a logit."""
    trainer = job.config.trainer
    how = ("precision", "fold_batch_norms", "channels_last", "batch_size")
    return [*(str(trainer[key]) for key in how), device, torch.__version__]


def _job_key(job: Job, models: Mapping[str, Model], dataset: ImageDataset, device: str) -> str:
    """Return the job's identity: equal keys mean equal tables."""
    targets = {name: models[name].key for name in job.targets}
    source = models[job.source].key
    what = [dataset.digest(), job.attack, source, targets, job.budgets, job.seed]
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
    """Return the index of images spread evenly over the classes."""
    by_class = dataset.indices[np.argsort(dataset.labels, kind="stable")]
    count = min(count, len(dataset))
    return [int(by_class[position * len(dataset) // count]) for position in range(count)]


def _track(
    job: Job,
    models: Mapping[str, Model],
    dataset: ImageDataset,
    table: pa.Table,
    result: Evaluation,
    tracker: Tracker,
    run: Run,
    key: str,
) -> None:
    """Log a run per target, and the job's own figures."""
    frame = table.drop_columns(["top5_classes", "top5_confidences"]).to_pandas()
    by_protocol = {
        protocol: rates(frame, job.source, job.targets, protocol) for protocol in PROTOCOLS
    }
    name = job.config.dataset.name
    for target in job.targets:
        rows = {
            protocol: whole[whole["target"] == target] for protocol, whole in by_protocol.items()
        }
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
                "job_key": key,
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
