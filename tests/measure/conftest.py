"""Small images, networks, and a pass over them with diagnostics."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from src.attacks import fgsm
from src.config.settings import DiagnosticSettings, TrainerSettings
from src.data import Batch, ImageDataset, LabelledImages, to_unit
from src.images.adversarial_source import clean_images
from src.images.attacker import Attacker
from src.images.variants import Variants
from src.measure.band_filters import low_passed_images, noise_parts
from src.measure.diagnostics import make_diagnostics
from src.measure.gradient_similarity import Similarity
from src.measure.spectra import mean_spectra
from src.run.evaluate import evaluate, score_clean
from src.run.lightning_module import Transfer

FULL = {"bisection": 3, "spectra": True, "filters": True, "similarity": True, "stealth": True}


@pytest.fixture(scope="session")
def images() -> Callable[..., ImageDataset]:
    """A function that makes a data set of grey-ish noise, so that no attack leaves [0, 1].

    With a `model` its classes are those that the model predicts, so that some can flip.
    """

    def make(
        count: int = 11,
        side: int = 8,
        classes: int = 3,
        low: int = 90,
        model: nn.Module | None = None,
    ) -> ImageDataset:
        size = (side, side, 3)
        draws = [np.random.default_rng(number) for number in range(count)]
        pixels = np.stack([draw.integers(low, 256 - low, size, dtype=np.uint8) for draw in draws])
        labels = np.arange(count) * 7 % classes
        if model is not None:
            clean = to_unit(torch.from_numpy(pixels).permute(0, 3, 1, 2))
            labels = model(clean).argmax(1).numpy()
        return ImageDataset(LabelledImages(pixels, labels, tuple(map(str, range(classes)))))

    return make


def related(rows: int, columns: int, seed: int, size: float) -> nn.Linear:
    """Return a layer like those of other seeds, whose logits of grey images are 0."""
    layer = nn.Linear(columns, rows)
    common, own = (
        torch.randn(rows, columns, generator=torch.Generator().manual_seed(number))
        for number in (rows * columns, seed)
    )
    weight = size * (common + 0.6 * own)
    layer.weight.data = weight - weight.mean(dim=1, keepdim=True)
    layer.bias.data.zero_()
    return layer


def make_linear(seed: int = 0, classes: int = 3, side: int = 8) -> nn.Module:
    layers = nn.Sequential(nn.Flatten(), related(classes, 3 * side * side, seed, 1.0))
    return layers.eval().requires_grad_(False)


def make_curved(seed: int = 0, classes: int = 3, side: int = 8) -> nn.Module:
    first, last = related(32, 3 * side * side, seed, 0.6), related(classes, 32, seed, 1.0)
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), last).eval().requires_grad_(False)


def all_of(dataset: ImageDataset) -> tuple[Tensor, Batch]:
    whole = dataset[:]
    return to_unit(whole.images), whole


@pytest.fixture
def linear() -> Callable[..., nn.Module]:
    """A function that makes a linear classifier; different seeds agree on many images."""
    return make_linear


@pytest.fixture
def curved() -> Callable[..., nn.Module]:
    """A function that makes a small network whose predictions are not monotonous in the budget."""
    return make_curved


@pytest.fixture
def batch_of() -> Callable[[ImageDataset], tuple[Tensor, Batch]]:
    """A function that returns all images of a data set, in [0, 1] and as a batch."""
    return all_of


def ordered(rows: pd.DataFrame, networks: dict[str, nn.Module]) -> pd.DataFrame:
    """Sort the rows of each target by image, in which order the store returns them."""
    if "index" not in rows:
        return rows
    if "target" in rows:
        rows["target"] = pd.Categorical(rows["target"], list(networks))
    keys = [name for name in ("target", "cutoff", "iteration", "index") if name in rows]
    return rows.sort_values(keys, kind="stable", ignore_index=True)


@pytest.fixture
def diagnosed() -> Callable[..., SimpleNamespace]:
    """A function that attacks a data set with diagnostics: their tables in pandas, and the rest."""

    def make(
        dataset: ImageDataset,
        source: nn.Module,
        networks: dict[str, nn.Module],
        attack: Callable[..., Tensor] = fgsm,
        budgets: Sequence[float] = (2.0, 8.0, 16.0),
        reference: float = 8.0,
        only: dict | None = None,
        batch_size: int = 4,
        variants: Variants | None = None,
        max_batch: int = 4,
        **words,
    ) -> SimpleNamespace:
        attacker = Attacker(
            source,
            attack,
            budgets,
            **{"num_classes": dataset.num_classes, "max_batch": max_batch, **words},
        )
        chosen = DiagnosticSettings(**(FULL if only is None else only))
        trainer = TrainerSettings(accelerator="cpu", batch_size=batch_size, progress_bar=False)
        clean, part = score_clean(dataset, networks, trainer), dataset.subset(chosen.n_images)
        diagnostics = make_diagnostics(chosen, reference, clean, attacker)
        diagnosed = part.indices.tolist()
        module = Transfer(networks, attacker, variants or Variants(), diagnostics, diagnosed)
        result = evaluate(dataset, module, trainer)
        tables = {each.table: result.tables[each.table] for each in diagnostics}
        if chosen.spectra:
            tables["spectra"] = mean_spectra(tables["spectra"], dataset.image_size, reference)
        if chosen.filters:
            noise, low = (
                score_clean(part, networks, trainer, probe=probe).drop_columns(
                    ["target_label", "draws", "draws_correct"]
                )
                for probe in (noise_parts(reference, seed=0), low_passed_images())
            )
            tables |= {"filtered": pa.concat_tables([tables["filtered"], noise])}
            tables |= {"low_passed": low}
        if chosen.similarity:
            pairs = {name: ("the source", name) for name in networks}
            models, compared = {"the source": source} | networks, Similarity(pairs, max_batch)
            module = Transfer(models, clean_images(), Variants(wanted=()), [compared])
            tables["similarity"] = evaluate(part, module, trainer).tables["similarity"]
        frames = {name: ordered(table.to_pandas(), networks) for name, table in tables.items()}
        return SimpleNamespace(attacker=attacker, result=result, **frames)

    return make
