"""A finished job: tables with provenance, and pictures."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ..utils.model_names import NO_DEFENCE
from ..utils.vocabulary import CONTROLS
from .layout import IMAGE_LIST, IMAGES, PREDICTIONS, TOP_FIVE, folder_of_command
from .record import JobRecord
from .tables import Alarm, read_alarms, read_images, read_job_table


@dataclass(frozen=True)
class FinishedJob:
    """A finished job: its record, and its tables by name, in files or in memory.

    Attributes:
        folder: Folder of its files. That of a job in a card does not exist.
        tables: The path of each table, or its rows.
        title: The label plus what tells the job apart from others, except the seed; empty: the
            label alone.
        shows_seed: Whether the seed tells the job apart from others.
        sweeps: Names of the sweeps that contain the job.
        written: The record in its files, if `record` has fewer targets.
        raised: Alarms that the job raised; None: those in its folder.
    """

    record: JobRecord
    folder: Path
    tables: dict[str, Path | pa.Table]
    title: str = ""
    shows_seed: bool = False
    sweeps: tuple[str, ...] = ()
    written: JobRecord | None = None
    raised: Sequence[Alarm] | None = None

    @property
    def attack(self) -> str:
        """The job's name among others: its title, and the seed if that tells it apart."""
        return self.row_title + f" seed={self.record.seed}" * self.shows_seed

    @property
    def row_title(self) -> str:
        """The name of the row that combines all seeds."""
        return self.title or self.record.label

    @property
    def attacked(self) -> bool:
        """True if there are adversarial images, False if only clean ones."""
        return bool(self.record.attack)

    @property
    def sweep_folder(self) -> Path:
        """Return the folder of the job's command."""
        return folder_of_command(self.folder)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The primary variant's predictions without defences, plus the source behind its own."""
        rows = self.defended
        source = self.record.source_model
        source_rows = (rows["target"] == source.model) & (rows["defence"] == source.defence)
        return rows[(rows["defence"] == NO_DEFENCE) | source_rows]

    @cached_property
    def defended(self) -> pd.DataFrame:
        """The primary variant's predictions, with and without defences."""
        return self.table(PREDICTIONS)

    @cached_property
    def clean(self) -> pd.DataFrame:
        """The predictions on clean images, with the top five classes if stored."""
        clean = pc.field("eps_255") == 0
        if self.attacked:
            clean &= pc.field("defence") == NO_DEFENCE
        table = self.read(TOP_FIVE if TOP_FIVE in self.tables else PREDICTIONS)
        return table.filter(clean).to_pandas()

    @property
    def alarms(self) -> Sequence[Alarm]:
        """Alarms that the job raised."""
        return read_alarms(self.folder) if self.raised is None else self.raised

    def forget(self) -> None:
        """Release the tables from memory."""
        for name in ("defended", "predictions", "clean", "pictures"):
            self.__dict__.pop(name, None)

    def variants(self) -> dict[str, pd.DataFrame]:
        """Return the predictions by variant, the primary one (`defended`) first, controls last."""
        start = f"{PREDICTIONS}-"
        others = [name.removeprefix(start) for name in self.tables if name.startswith(start)]
        others.sort(key=CONTROLS.__contains__)
        rows = {name: self.table(f"{start}{name}") for name in others}
        return {self.record.storage: self.defended} | rows

    def table(self, name: str) -> pd.DataFrame:
        """Return the table of this name."""
        return self.read(name).to_pandas()

    def read(self, name: str) -> pa.Table:
        """Return the table of this name."""
        table = self.tables[name]
        if isinstance(table, Path):
            return read_job_table(table, name, self.written or self.record)
        return table

    @cached_property
    def image_files(self) -> dict[int, str]:
        """The images' files by number, as in `images.csv`; empty without a list of files."""
        path, types = self.folder / IMAGE_LIST, {"index": np.int64, "file": str}
        with suppress(OSError, ValueError):  # it cannot be read
            if path.is_file():  # reading a named pipe would block for ever
                listed = pd.read_csv(path, usecols=[*types], dtype=types).dropna()
                names = listed["file"].str.replace(r"^'(?=[=+\-@])", "", regex=True)  # no formulas
                return dict(zip(listed["index"], names, strict=True))
        return {}

    @cached_property
    def pictures(self) -> dict[int, dict[float, np.ndarray]]:
        """Stored pictures, uint8 (3, H, W), by image and budget; the clean one has budget 0."""
        if not (arrays := read_images(self.folder / IMAGES)):
            return {}
        budgets = [0.0, *arrays["eps_255"].tolist()]
        versions = zip(arrays["clean"], *arrays["adversarial"], strict=True)
        return {
            index: dict(zip(budgets, paths, strict=True))
            for index, paths in zip(arrays["index"].tolist(), versions, strict=True)
        }
