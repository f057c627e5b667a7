"""A finished job as a report reads it: tables with their provenance, and example images."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from src.analysis.sanity_checks import Alarm
from src.artifacts.layout import EXAMPLES, IMAGES, PREDICTIONS, TOP_FIVE, folder_of_command
from src.artifacts.record import JobRecord
from src.artifacts.tables import read_alarms, read_images, read_job_table
from src.config.sections import CONTROLS
from src.utils.defended_names import PLAIN, split_source

_PREPROCESSING = ("network", "mean", "std", "input_size")


@dataclass(frozen=True)
class StoredJob:
    """A finished job: its record, and the paths of its tables by name.

    Attributes:
        name: The attack's label with what tells it from other jobs, such as ` seed=1`; empty: the
            label alone.
        sweeps: Names of the sweeps that hold the job.
    """

    record: JobRecord
    folder: Path
    files: Mapping[str, Path]
    name: str = ""
    sweeps: tuple[str, ...] = ()

    @property
    def attack(self) -> str:
        """The job's name."""
        return self.name or self.record.label

    @property
    def parts(self) -> tuple["StoredJob", ...]:
        """The jobs that were run: this one, or those that were pooled."""
        return (self,)

    @property
    def attacked(self) -> bool:
        """Tell whether there are adversarial images, or clean ones alone."""
        return bool(self.record.attack)

    @property
    def sweep_folder(self) -> Path:
        """Return the folder of the job's command."""
        return folder_of_command(self.folder)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The primary variant's predictions behind no defence; of the source behind its own."""
        rows = self.defended
        source = split_source(self.record.source)
        own = (rows["target"] == source.target) & (rows["defence"] == source.defence)
        return rows[(rows["defence"] == PLAIN) | own]

    @property
    def defended(self) -> pd.DataFrame:
        """The predictions of the primary variant behind every defence."""
        return self.table(PREDICTIONS)

    @cached_property
    def clean(self) -> pd.DataFrame:
        """The predictions on clean images, with the top five where these are stored."""
        clean = pc.field("eps_255") == 0
        if self.attacked:
            clean &= pc.field("defence") == PLAIN
        table = self._read(TOP_FIVE if TOP_FIVE in self.files else PREDICTIONS)
        return table.filter(clean).to_pandas()

    @property
    def alarms(self) -> list[Alarm]:
        """Alarms that the job has raised."""
        return read_alarms(self.folder)

    def forget(self) -> None:
        """Release the tables that were read."""
        for name in ("predictions", "clean", "flips", "examples", "images", "gallery"):
            self.__dict__.pop(name, None)

    @cached_property
    def flips(self) -> pd.DataFrame | None:
        """The minimum adversarial budgets; None of rounded images: bisection does not round."""
        if "flips" not in self.files or self.record.storage != "float32":
            return None
        return self._read("flips").to_pandas()

    def variants(self) -> dict[str, pd.DataFrame]:
        """Return the predictions by variant, the primary one (`defended`) first, controls last."""
        start = f"{PREDICTIONS}-"
        others = [name.removeprefix(start) for name in self.files if name.startswith(start)]
        others.sort(key=CONTROLS.__contains__)
        tables = {name: self.table(f"{start}{name}") for name in others}
        return {self.record.storage: self.defended} | tables

    def table(self, name: str) -> pd.DataFrame:
        """Return a table by its name."""
        return self._read(name).to_pandas()

    def _read(self, name: str) -> pa.Table:
        return read_job_table(self.files[name], name, self.record)

    @cached_property
    def examples(self) -> dict[str, np.ndarray]:
        """The example images with their adversarial versions; empty if none were stored."""
        return read_images(self.folder / EXAMPLES)

    @cached_property
    def images(self) -> dict[int, np.ndarray]:
        """Stored clean images, uint8 (3, H, W), by index."""
        return {
            int(number): image
            for arrays in (read_images(self.folder / IMAGES), self.examples)
            if arrays
            for number, image in zip(arrays["index"], arrays["clean"], strict=True)
        }

    @cached_property
    def gallery(self) -> dict[tuple[int, float], np.ndarray]:
        """Stored adversarial images of galleries, uint8 (3, H, W), by index and budget."""
        arrays = read_images(self.folder / IMAGES)
        if "adversarial" not in arrays:
            return {}
        places = zip(arrays["of"].tolist(), arrays["eps_255"].tolist(), strict=True)
        return dict(zip(places, arrays["adversarial"], strict=True))


def model_digest(record: JobRecord, name: str) -> str:
    """Return a digest of all that decides a model's logits: weights, settings of its file, code."""
    model = record.config["model"].get(name, {})  # an ensemble has no settings of its own
    settings = {key: model[key] for key in _PREPROCESSING if key in model}
    decisive = json.dumps([record.weights.get(name), settings, record.code.get(name)])
    return hashlib.sha256(decisive.encode()).hexdigest()[:16]
