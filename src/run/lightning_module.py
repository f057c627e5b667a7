"""Lightning module for a pass over the images, and the writer of its rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from ..artifacts.tables import IMAGE
from ..cache.rows import Rows
from ..config.settings import Settings
from ..data import Batch, to_unit
from ..images.attacker import AdversarialSource
from ..measure.protocol import EvaluatedBatch, Measurement, RowRequest
from ..utils import stopping
from ..utils.devices import arithmetic
from ..utils.model_names import ModelRef
from .shared_pass import SharedPass
from .stages import JobContext

Tables = Mapping[RowRequest, pa.Table]


class MeasuringModule(pl.LightningModule):
    """Lightning module that attacks each batch once and computes its measurements.

    Args:
        settings: Settings of the job.
        networks: Classifiers by name, as far as the requests need them.
        source: Source of the adversarial images; None in a pass over clean images.
        missing: Images whose rows are to be computed, int64 (n,), by request.
        requests: Requests by measurement.
        shared: The processes of the pass, which end it together.
    """

    def __init__(
        self,
        settings: Settings,
        networks: Mapping[ModelRef, nn.Module],
        source: AdversarialSource | None,
        missing: Mapping[RowRequest, np.ndarray],
        requests: Mapping[Measurement, Sequence[RowRequest]],
        shared: SharedPass,
    ) -> None:
        super().__init__()
        self.settings, self.source = settings, source
        self.missing, self.requests = missing, requests
        self.names, self.shared = list(networks), shared
        self.networks = nn.ModuleList(networks.values())

    def predict_step(self, batch: Batch, batch_idx: int) -> Tables:
        """Return the rows of a batch by request."""
        stopping.raise_if_interrupted()
        self.shared.raise_if_failed()
        if not len(batch.index):
            return {}
        # Seeds attacks that use PyTorch's global generator: independent of earlier batches.
        state = np.random.SeedSequence([self.settings.seed, int(batch.index[0])]).generate_state(1)
        pl.seed_everything(int(state[0]), verbose=False)
        with arithmetic(batch.images.device.type, self.settings.trainer.precision):
            return self._compute_rows(batch)

    def _compute_rows(self, batch: Batch) -> Tables:
        """Attack a batch and compute its rows."""
        networks = dict(zip(self.names, self.networks, strict=True))
        adversarial, budgets = None, self._budgets(batch)
        if self.source is not None and budgets:
            adversarial = self.source(to_unit(batch.images), batch, budgets)
        evaluated_batch = EvaluatedBatch(batch, networks, self.settings, self.source, adversarial)
        tables: dict[RowRequest, pa.Table] = {}
        for measurement, requests in self.requests.items():
            with isolate_rng():  # the draws of one measurement do not affect the next
                tables |= self._measure(measurement, requests, evaluated_batch)
        return tables

    def _budgets(self, batch: Batch) -> tuple[float, ...]:
        """Return the budgets at which rows of the batch are missing."""
        index = batch.index.cpu().numpy()
        lacking = [request for request, its in self.missing.items() if _among(index, its).any()]
        if self.source is not None and lacking and not self.source.images_apart:
            return self.settings.budgets
        return tuple(sorted({eps_255 for request in lacking for eps_255 in request.budgets}))

    def _measure(
        self, measurement: Measurement, requests: Sequence[RowRequest], batch: EvaluatedBatch
    ) -> Tables:
        """Return the rows of one measurement, without requests that miss no image of the batch."""
        index, nothing = batch.batch.index.cpu().numpy(), np.array([], np.int64)
        asked = {
            request: self.missing.get(request, nothing)
            if request.also_store is None
            else request.also_store
            for request in requests
        }
        made = batch.adversarial.budgets if batch.adversarial else ()
        requests = [
            request
            for request in requests
            if {*request.budgets} <= {*made} and _among(index, asked[request]).any()
        ]
        if not requests:
            return {}
        wanted = [
            request.index if request.also_store is None else request.also_store
            for request in requests
        ]
        part = batch.select(index[np.any([_among(index, its) for its in wanted], axis=0)])
        return dict(zip(requests, measurement.rows(part, requests), strict=True))


def _among(index: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return a mask of `index`, true where a value is in `numbers`, which are ascending."""
    if not len(numbers):
        return np.zeros(len(index), bool)
    places = np.searchsorted(numbers, index).clip(max=len(numbers) - 1)
    mask: np.ndarray = numbers[places] == index
    return mask


class CacheWriter(pl.Callback):
    """Writer that adds rows to the cache after each batch, so that a kill loses only one batch."""

    def __init__(self, rows: Rows, job: JobContext) -> None:
        self.rows, self.job = rows, job

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the rows of a batch to the cache, one file per table."""
        parts: dict[tuple[str, str], dict[str, pa.Table]] = {}
        images = self.job.images
        for request, rows in outputs.items():
            if len(rows):
                origin, key = self.job.place(request)
                places = np.searchsorted(images.indices, rows["index"].to_numpy())
                digests = pa.array(images.row_digests(places, request.paired), pa.string())
                rows = rows.append_column("key", pa.repeat(key, len(rows)))
                part = parts.setdefault((origin, request.table), {})
                part.setdefault(key, rows.append_column(IMAGE, digests))  # two names may share it
        for (origin, table), tables in parts.items():
            self.rows.add(origin, table, pa.concat_tables(tables.values()))
