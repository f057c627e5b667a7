"""Run the evaluation module over a data set, on one device or on several."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader

from src.data import ImageDataset
from src.diagnostics import Diagnostic
from src.evaluation.attacker import AdversarialSource
from src.evaluation.batches import Batches, pairs, partners, singles
from src.evaluation.lightning_module import Transfer
from src.evaluation.progress import ImageProgress
from src.evaluation.variants import Variants
from src.sets import SetWriter
from src.utils import stopping
from src.utils.cache import cache_entry, is_cached
from src.utils.files import atomic_write
from src.utils.processes import is_first_process

PREDICTIONS = "predictions.parquet"


@dataclass(frozen=True)
class Evaluation:
    """What a pass over the images yields.

    Attributes:
        tables: The rows of `Predictions` by form, the headline's first.
        examples: Adversarial versions, float32 (K, 3, H, W) in [0, 1], by image index.
        gradients: Gradient evaluations per image.
        zero_gradients: The share of them that were zero in every pixel; NaN if there were none.
        images_per_second: Images of the data set per second of the pass.
        diagnostics: The tables of the diagnostics, by name; what they cost is part of `images_per_second`
            alone.
    """

    tables: dict[str, pa.Table]
    examples: dict[int, np.ndarray]
    gradients: float
    zero_gradients: float
    images_per_second: float
    diagnostics: dict[str, pa.Table] = field(default_factory=dict)

    @property
    def table(self) -> pa.Table:
        """The rows of the headline's form."""
        return next(iter(self.tables.values()))


def evaluate(
    dataset: ImageDataset,
    targets: Mapping[str, nn.Module],
    trainer: Mapping[str, Any],
    *,
    label: str,
    maker: AdversarialSource | None = None,
    forms: Variants | None = None,
    keep: Sequence[int] = (),
    writer: SetWriter | None = None,
    diagnostics: Sequence[Diagnostic] = (),
) -> Evaluation:
    """Show the images, attacked or clean, to every target.

    Args:
        dataset: The images.
        targets: The models, by name.
        trainer: The `trainer` section of the config.
        label: What the progress bar says.
        maker: What makes the adversarial images; None shows the clean ones.
        forms: In which forms they are shown.
        keep: Index of the images to return as examples.
        writer: Where the adversarial images are saved.
        diagnostics: What else looks at each batch; its gradients do not count.

    Returns:
        The result; on several processes each gets the merged one.
    """
    groups = singles(len(dataset))
    if forms is not None and forms.controls:
        groups = pairs(len(dataset), forms.seed)
        forms = replace(forms, partners=partners(groups, dataset.indices))
    progress = [ImageProgress(label, len(dataset))] if trainer["progress_bar"] else []
    runner = make_trainer(trainer, progress)
    batches = Batches(dataset, groups, trainer["batch_size"], runner.world_size, runner.global_rank)
    module = Transfer(targets, maker, forms, keep, writer, diagnostics, idle=batches.idle)
    loader = DataLoader(batches, batch_size=None, num_workers=trainer["num_workers"])
    start = time.perf_counter()
    with stopping.insist():
        runner.predict(module, loader, return_predictions=False)
    seconds = time.perf_counter() - start
    return Evaluation(
        tables=module.tables,
        examples={index: np.stack(images) for index, images in module.examples.items()},
        gradients=module.gradients / len(dataset),
        zero_gradients=module.zero_gradients / module.gradients if module.gradients else math.nan,
        images_per_second=len(dataset) / seconds,
        diagnostics=module.probed,
    )


def score_clean(
    dataset: ImageDataset,
    targets: Mapping[str, nn.Module],
    trainer: Mapping[str, Any],
    cache: Mapping[str, Path],
    *,
    refresh: bool = False,
) -> pa.Table:
    """Return the models' answers on the clean images, computed once per model and data.

    Args:
        dataset: The images.
        targets: The models, by name.
        trainer: The `trainer` section of the config.
        cache: Where each model's rows are kept, by name; the path must tell model and data.
        refresh: Compute them all anew. Processes that share a job need it: if one of them found
            rows that another did not, they would wait for each other without end.

    Returns:
        The rows of all targets, in their order.
    """
    rows: dict[str, pa.Table] = {}
    missing = [name for name in targets if refresh or not is_cached(cache[name])]
    if missing:
        networks = {name: targets[name] for name in missing}
        table = evaluate(dataset, networks, trainer, label="clean images").table
        for name in missing:
            rows[name] = table.filter(pc.equal(table["target"], name))
            if is_first_process():
                with cache_entry(cache[name]) as temporary:
                    pq.write_table(rows[name], temporary)
    for name in targets:
        if name not in rows:
            rows[name] = _renamed(pq.read_table(cache[name]), name)
    return pa.concat_tables(rows[name] for name in targets)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a parquet file that is whole or not there."""
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)


def make_trainer(config: Mapping[str, Any], callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    """Return a Lightning trainer that leaves gradients possible while it predicts.

    Raises:
        ValueError: This machine lacks what the config asks for.
    """
    if config["precision"] == "32-true":  # the reference: on a GPU too, no shortened mantissas
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    try:
        return _trainer(config, callbacks)
    except MisconfigurationException as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"trainer in the config: {reason}") from error


def _trainer(config: Mapping[str, Any], callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    return pl.Trainer(
        accelerator=config["accelerator"],
        devices=config["devices"],
        num_nodes=config["num_nodes"],
        strategy=config["strategy"],
        precision=config["precision"],
        use_distributed_sampler=False,  # `Batches` deals them out
        inference_mode=False,  # attacks need gradients, which inference mode forbids
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _renamed(table: pa.Table, name: str) -> pa.Table:
    """Return the rows under the model's name here: the cache knows models by content."""
    position = table.schema.get_field_index("target")
    return table.set_column(position, "target", pa.array([name] * len(table)))
