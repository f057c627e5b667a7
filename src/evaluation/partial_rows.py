"""What a long pass over the images has found so far, kept so that one that was killed goes on."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from src.evaluation.adversarial_source import AdversarialSource
from src.evaluation.predictions import RowMetric
from src.utils.cache import cache_entry, is_cached


class PartialRows:
    """Files of the rows of finished batches, whichever processes have found them.

    A file holds `batches`, the batches' numbers; `M.whole` and `M.real`, the rows of metric M;
    `gradients`, how many were taken and how many of them were zero; and `example.I`, the
    adversarial versions of image I, (K, 3, H, W).

    Args:
        folder: Of this pass alone; its name must tell all that decides the rows.

    Attributes:
        seconds: Between two files: what is lost at most, and what shorter passes never write.
    """

    seconds = 30.0

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
        """Add what files hold to metrics and counts that are empty; each process reads its share.

        Args:
            names: Of the files, the same in every process.
            metrics: They get the rows.
            source: It gets the numbers of gradients.
            process: Which one this is, of how many.

        Returns:
            The batches that no process needs to compute, and this one's examples by image index.
        """
        rank, processes = process
        taken = self._taken(names, processes)
        examples: dict[int, list[np.ndarray]] = {}
        for name in list(taken)[rank::processes]:
            tensors = load_file(self.folder / name)
            for number, metric in enumerate(metrics):
                metric.whole.append(tensors.pop(f"{number}.whole").to(metric.device))
                metric.real.append(tensors.pop(f"{number}.real").to(metric.device))
            gradients, zeros = tensors.pop("gradients").tolist()
            source.gradients += gradients
            source.zero_gradients += zeros
            del tensors["batches"]
            for key, images in tensors.items():
                examples[int(key.removeprefix("example."))] = list(images.numpy())
        self._start(metrics, source, examples)
        return frozenset(n for numbers in taken.values() for n in numbers), examples

    def add(
        self,
        number: int,
        metrics: Sequence[RowMetric],
        source: AdversarialSource,
        examples: Mapping[int, Sequence[np.ndarray]],
    ) -> None:
        """Note that a batch is finished, and write a file if the last one is some time ago.

        Args:
            number: Of the batch.
            metrics: With the rows so far.
            source: With the numbers of gradients so far.
            examples: Adversarial versions so far, by image index.
        """
        self._batches.append(number)
        if time.monotonic() - self._since < self.seconds:
            return
        counts = torch.tensor([source.gradients, source.zero_gradients])
        tensors = {"batches": torch.tensor(self._batches), "gradients": counts - self._counts}
        for place, (metric, first) in enumerate(zip(metrics, self._rows, strict=True)):
            tensors[f"{place}.whole"] = torch.cat(metric.whole[first:]).cpu()
            tensors[f"{place}.real"] = torch.cat(metric.real[first:]).cpu()
        for index in examples.keys() - self._examples:
            tensors[f"example.{index}"] = torch.from_numpy(np.stack(examples[index]))
        with cache_entry(self.folder / f"{self._batches[0]:07d}.safetensors") as temporary:
            save_file(tensors, temporary)
        self._start(metrics, source, examples)

    def _start(
        self,
        metrics: Sequence[RowMetric],
        source: AdversarialSource,
        examples: Mapping[int, Sequence[np.ndarray]],
    ) -> None:
        """Count from here what the next file will hold."""
        self._since = time.monotonic()
        self._batches: list[int] = []
        self._rows = [len(metric.whole) for metric in metrics]
        self._counts = torch.tensor([source.gradients, source.zero_gradients])
        self._examples = set(examples)

    def _taken(self, names: Sequence[str], processes: int) -> dict[str, list[int]]:
        """Return the batches of the files that are read, by name.

        None is read twice, and of each process one batch at least is left to be computed.
        """
        batches: dict[str, list[int]] = {}
        for name in names:
            with safe_open(self.folder / name, "pt") as file:
                batches[name] = file.get_tensor("batches").tolist()
        for rank in range(processes):
            numbers = [n for own in batches.values() for n in own if n % processes == rank]
            last = max(numbers, default=-1)
            batches = {name: own for name, own in batches.items() if last not in own}
        seen: set[int] = set()
        taken = {}
        for name, own in batches.items():
            if seen.isdisjoint(own):
                taken[name] = own
                seen.update(own)
        return taken
