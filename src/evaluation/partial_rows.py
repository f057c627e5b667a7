"""Checkpoints of an evaluation pass: rows of finished images, for a killed pass to go on."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from src.evaluation.adversarial_source import LIMIT, AdversarialSource
from src.evaluation.predictions import RowMetric
from src.utils.cache import cache_entry, is_cached


class PartialRows:
    """Files of the rows of finished images, whichever processes have computed them.

    A file holds `index`, of the images; `M.whole` and `M.real`, the rows of metric M;
    `gradients`, how many were taken and how many of them were zero; and `example.I`, the
    adversarial versions of image I, (K, 3, H, W). The folder is one pass's alone; its name must
    tell all that decides the rows.

    Attributes:
        seconds: Most work that a killed pass loses, unless one batch takes longer; shorter passes
            write no file.
    """

    seconds = LIMIT

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def whole_files(self) -> list[str]:
        """Return the names of the files that are not damaged."""
        files = sorted(self.folder.glob("[0-9]*.safetensors"))  # not hidden ones of a killed write
        return [path.name for path in files if is_cached(path)]

    def restore(
        self,
        names: Sequence[str],
        metrics: Sequence[RowMetric],
        source: AdversarialSource,
        process: tuple[int, int],
    ) -> tuple[frozenset[int], dict[int, list[np.ndarray]]]:
        """Add the files' rows and gradient counts to empty metrics and to a source without counts.

        `process` is this process's rank and the number of processes: each takes its share of the
        files `names`, which must be the same in all.

        Returns:
            The index of images that no process needs to compute, and this one's examples by index.
        """
        rank, processes = process
        finished: set[int] = set()
        examples: dict[int, list[np.ndarray]] = {}
        for place, name in enumerate(names):
            tensors = load_file(self.folder / name)
            index = tensors.pop("index").tolist()
            if not finished.isdisjoint(index):
                continue
            finished.update(index)
            own = place % processes == rank
            for number, metric in enumerate(metrics):
                # No row as well: processes merge their rows only if all of them have some.
                rows = slice(None) if own else slice(0)
                metric.whole.append(tensors.pop(f"{number}.whole")[rows].to(metric.device))
                metric.real.append(tensors.pop(f"{number}.real")[rows].to(metric.device))
            gradients, zeros = tensors.pop("gradients").tolist()
            if own:
                source.gradients += gradients
                source.zero_gradients += zeros
                for key, images in tensors.items():
                    examples[int(key.removeprefix("example."))] = list(images.numpy())
        self._start(metrics, source, examples)
        return frozenset(finished), examples

    def add(
        self,
        index: Sequence[int],
        metrics: Sequence[RowMetric],
        source: AdversarialSource,
        examples: Mapping[int, Sequence[np.ndarray]],
        took: float,
    ) -> None:
        """Note that images are finished, and write a file before more than `seconds` are unwritten.

        `took` is the time in seconds of these images, as that of the next ones may be. Metrics,
        source and examples hold those of all images so far.
        """
        self._index += index
        if time.monotonic() - self._since + took < self.seconds:
            return
        counts = torch.tensor([source.gradients, source.zero_gradients])
        tensors = {"index": torch.tensor(self._index), "gradients": counts - self._counts}
        for place, (metric, first) in enumerate(zip(metrics, self._rows, strict=True)):
            tensors[f"{place}.whole"] = torch.cat(metric.whole[first:]).cpu()
            tensors[f"{place}.real"] = torch.cat(metric.real[first:]).cpu()
        for number in examples.keys() - self._examples:
            stacked = torch.from_numpy(np.stack(examples[number]))
            tensors[f"example.{number}"] = stacked.contiguous()
        with cache_entry(self.folder / f"{self._index[0]:07d}.safetensors") as temporary:
            save_file(tensors, temporary)
        self._start(metrics, source, examples)

    def _start(
        self,
        metrics: Sequence[RowMetric],
        source: AdversarialSource,
        examples: Mapping[int, Sequence[np.ndarray]],
    ) -> None:
        """Mark the start of the next file."""
        self._since = time.monotonic()
        self._index: list[int] = []
        self._rows = [len(metric.whole) for metric in metrics]
        self._counts = torch.tensor([source.gradients, source.zero_gradients])
        self._examples = set(examples)
