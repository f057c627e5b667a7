"""The matrices of one command's jobs, printed and written beside them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from omegaconf import OmegaConf
from rich.console import Console

from src.analysis import matrix, rates
from src.evaluation import PREDICTIONS
from src.report.figures import heat_map, save_figure
from src.report.tables import matrix_table, write_matrix_csv


def sweep_matrices(jobs: Sequence[Path], folder: Path, console: Console, *, figures: bool) -> None:
    """Print the matrix of every attack among finished jobs and write it as CSV and heat map.

    Args:
        jobs: Folders of finished jobs.
        folder: Where the files go.
        console: Where the tables are printed.
        figures: Whether to draw heat maps.

    Raises:
        ValueError: The jobs' tables do not fit into one matrix.
    """
    groups: dict[str, dict[str, pd.DataFrame]] = {}
    configs: dict[str, Any] = {}
    for path, label in _labels(jobs).items():
        config: Any = OmegaConf.load(path / "config.yaml")
        name = f"{config.attack.name}{label}"
        table = pq.read_table(path / PREDICTIONS).drop_columns(["top5_classes", "top5_confidences"])
        groups.setdefault(name, {})[config.source] = rates(
            table.to_pandas(), config.source, list(config.targets), config.protocol
        )
        configs.setdefault(name, config)
    for name, by_source in groups.items():
        config = configs[name]
        standard = config.epsilon.standard
        cells = matrix(by_source, standard)
        words = {"dataset": config.dataset.name, "attack": name, "protocol": config.protocol}
        console.print()
        console.print(matrix_table(cells, **words, eps_255=standard, width=console.width))
        stem = "matrix-" + re.sub(r"[^\w.=+,-]", "-", name)[:150]
        write_matrix_csv(cells, folder / f"{stem}.csv")
        if figures:
            save_figure(heat_map(cells, **words), folder / f"{stem}.png")
    console.print()


def _labels(jobs: Sequence[Path]) -> dict[Path, str]:
    """Tell jobs of one attack and source apart by what else the command sweeps over.

    Returns:
        By job, the overrides that not all jobs share, as in ` seed=1`, or nothing.
    """
    overrides: dict[Path, list[str]] = {}
    for job in jobs:
        path = job / ".hydra" / "overrides.yaml"
        overrides[job] = list(OmegaConf.load(path)) if path.exists() else []
    shared = set.intersection(*map(set, overrides.values())) if overrides else set()
    return {
        job: "".join(
            f" {word}"
            for word in words
            if word not in shared and word.split("=")[0] not in ("attack", "source")
        )
        for job, words in overrides.items()
    }
