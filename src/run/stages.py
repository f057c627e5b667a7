"""A job with its data and models, and what becomes of its adversarial images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa
from torch import nn

from src.cache.code_digest import code_of, own_code
from src.cache.keys import content_key, defence_key, numerics, rows_key
from src.cache.rows import Rows
from src.config.settings import Settings
from src.data import Batch, ImageDataset
from src.defences import Defence, Defended
from src.images.attacker import Attack
from src.images.saved_images import SavedImages
from src.images.variants import STORED, Variants
from src.run.models import Model
from src.utils.call_target import call_target
from src.utils.defended_names import PLAIN, Evaluated

_POOL = 32  # images that attacks may mix in


@dataclass(frozen=True)
class Job:
    """A job with its data and models.

    Attributes:
        settings: Completed by what the device and a saved set decide.
        saved: Set that takes the attack's place, if one does.
        diagnosed: Images of the diagnostics.
        pool: Images that attacks may mix in; None without an attack.
        models: Source and targets, by name.
        attack: The attack as a function; None without one.
        clean: Predictions for the clean images; None until they are made.
    """

    settings: Settings
    images: ImageDataset
    diagnosed: ImageDataset
    models: dict[str, Model]
    device: str
    rows: Rows
    defences: Mapping[str, Defence]
    attack: Attack | None = None
    pool: Batch | None = None
    saved: SavedImages | None = None
    clean: pa.Table = None

    @property
    def networks(self) -> dict[Evaluated, nn.Module]:
        """Classifiers: models, then targets, and the source as attacked, behind defences."""
        settings = self.settings
        pairs = [*map(Evaluated, self.models), *settings.evaluated]
        if settings.source:  # of a saved set perhaps none
            pairs.append(Evaluated(settings.source_name, settings.source_defence))
        return {pair: self._network(*pair) for pair in pairs}

    def _network(self, model: str, defence: str) -> nn.Module:
        network, settings = self.models[model].classifier, self.settings
        if defence == PLAIN:
            return network
        repeats = settings.defence[defence].repeats
        return Defended(network, self.defences[defence], repeats, settings.seed, defence)

    def model_key(self, pair: Evaluated) -> str:
        """Return the key of all that decides the logits of a model behind a defence."""
        key = self.models[pair.target].key
        if pair.defence == PLAIN:
            return key
        return content_key(key, defence_key(self.settings, pair.defence))

    @property
    def target_keys(self) -> dict[str, str]:
        """Keys of all that decides the targets' logits, by name, such as `resnet50@jpeg`."""
        return {str(pair): self.model_key(pair) for pair in self.settings.evaluated}

    @cached_property
    def crafting(self) -> str:
        """Key of the adversarial images: of attack, source, budgets, seed and arithmetic."""
        settings, pool, trainer = self.settings, self.pool, self.settings.trainer
        attack, defence = settings.attack, settings.source_defence
        return content_key(
            own_code(),
            self.images.digest(),
            pool and (pool.labels.tolist(), sha256(pool.images.numpy().tobytes()).hexdigest()),
            attack.settings,
            self.saved.digest if self.saved else code_of(attack.settings),
            (settings.budgets, attack.norm, attack.target_label),
            (settings.ensemble, settings.seed, settings.layers),
            [self.models[name].key for name in settings.source],
            (defence != PLAIN and defence_key(settings, defence), settings.source_draws),
            (trainer.gradient_batch, trainer.attack_precision),
            numerics(settings, self.device),
        )

    def rows_key(self, table: str, pairs: Sequence[Evaluated], *parts: Any) -> str:
        """Return the key of rows of some models that need no attack, see `rows_key`."""
        keys = [self.model_key(pair) for pair in pairs]
        return rows_key(self.settings, self.device, self.images.digest(), table, keys, *parts)

    @property
    def variants(self) -> Variants:
        """Variants of the adversarial images that targets are evaluated on."""
        settings = self.settings
        return Variants(
            primary=settings.storage or STORED,
            others=settings.variants,
            controls=settings.controls,
            seed=settings.seed,
        )

    @property
    def examples(self) -> list[int]:
        """Index of the report's example images, spread evenly over the classes."""
        images = self.images
        by_class = images.indices[np.argsort(images.labels, kind="stable")]
        count = min(self.settings.report.examples, len(images))
        return [int(by_class[position * len(images) // count]) for position in range(count)]


@dataclass(frozen=True)
class Results:
    """Rows of a job's adversarial images.

    Attributes:
        tables: Predictions by variant, the primary one first.
        gradients: Number of gradients taken, of which `zero_gradients` were zero in every pixel.
        seconds: Duration of the pass; NaN where some of its rows were stored.
        unsteady: Models that give equal images unequal logits.
        softmax: Models that give probabilities.
    """

    tables: dict[str, pa.Table] = field(default_factory=dict)
    diagnostics: dict[str, pa.Table] = field(default_factory=dict)
    gradients: int = 0
    zero_gradients: int = 0
    seconds: float = math.nan
    batch_size: int = 0
    unsteady: Sequence[Evaluated] = ()
    softmax: Sequence[Evaluated] = ()


def build_defences(settings: Settings) -> dict[str, Defence]:
    """Return the defences that a job names."""
    built = {}
    for name, defence in settings.defence.items():
        try:
            built[name] = call_target(defence.call)
        except ValueError as error:
            raise ValueError(f"defence.{name}: {error}") from error
        if not callable(built[name]):
            raise ValueError(f"defence.{name}: {type(built[name]).__name__} cannot be called.")
    return built


def mixing_pool(whole: ImageDataset, seed: int) -> Batch:
    """Return the images of a whole split that attacks may mix in to any of its images."""
    chosen = np.random.default_rng(seed).permutation(len(whole))[:_POOL]
    return whole[chosen.tolist()]
