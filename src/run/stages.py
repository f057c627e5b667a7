"""The stages of a job: what is planned, its data, its models; and the pass that they make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from inspect import signature
from typing import Any

import torch
from torch import nn

from src.attacks import Fitted
from src.cache.code_digest import code_of, own_code
from src.cache.keys import content_key, defence_key, numerics
from src.config.settings import Settings
from src.data import Batch, ImageDataset
from src.defences import Defence, Defended
from src.images.attacker import Attack, keeps_images_apart
from src.images.saved import SavedImages
from src.measure.protocol import Cell
from src.utils.defended_names import PLAIN, Evaluated


@dataclass(frozen=True)
class Planned:
    """A job that its settings alone do not refuse.

    Attributes:
        settings: Completed by what a saved set states.
        attack: The attack as a function; None without one.
        defences: The defences that the job names.
        saved: Set that takes the attack's place, if one does.
        call: Identity of a call from Python, whose functions and modules no key tells from others.
    """

    settings: Settings
    attack: Attack | None
    defences: Mapping[str, Defence]
    saved: SavedImages | None = None
    call: str = ""

    @property
    def fitted(self) -> Fitted | None:
        """The part of the attack that has to be fitted; None: there is none."""
        kind = getattr(getattr(self.attack, "func", self.attack), "fitted", None)
        keywords = getattr(self.attack, "keywords", {})
        if kind is None or keywords.get("file") is not None:
            return None
        part: Fitted = kind(
            **{key: keywords[key] for key in keywords if key in signature(kind).parameters}
        )
        return part


@dataclass(frozen=True)
class Data:
    """A job's images.

    Attributes:
        diagnosed: Images of the diagnostics.
        pool: Images that attacks may mix in; None without an attack.
        fit_images: Training images that the attack is fitted on; None of an attack without a fit.
        device: Where they are computed with.
    """

    images: ImageDataset
    diagnosed: ImageDataset
    pool: Batch | None
    device: torch.device
    fit_images: ImageDataset | None = None


@dataclass(frozen=True)
class Model:
    """A classifier, frozen and in evaluation mode.

    Attributes:
        digest: Digest of its weights.
        key: Digest of all that decides its logits but the trainer's settings.
        expected_accuracy: Share of clean images that it should get right, as its settings or else
            its weights state.
        as_built: The classifier with its layers as built, where batch norms of others are folded;
            kept for attacks that train it.
    """

    classifier: nn.Module
    digest: str
    key: str
    expected_accuracy: float | None = None
    as_built: nn.Module | None = None


@dataclass(frozen=True)
class Pass:
    """All that decides the rows of a job.

    Attributes:
        models: Source and targets, by name; several sources also as an ensemble.
    """

    planned: Planned
    data: Data
    models: Mapping[str, Model]

    @property
    def settings(self) -> Settings:
        """The job's settings."""
        return self.planned.settings

    @property
    def images(self) -> ImageDataset:
        """The job's images."""
        return self.data.images

    @property
    def diagnosed(self) -> ImageDataset:
        """The images of its diagnostics."""
        return self.data.diagnosed

    @property
    def classifiers(self) -> Sequence[Evaluated]:
        """Models, then targets behind defences, and the source behind that of its attack."""
        settings = self.settings
        pairs = [*map(Evaluated, self.models), *settings.evaluated]
        if settings.source:  # of a saved set perhaps none
            pairs.append(Evaluated(settings.source_name, settings.source_defence))
        return list(dict.fromkeys(pairs))

    @cached_property
    def networks(self) -> dict[Evaluated, nn.Module]:
        """The classifiers by name."""
        return {pair: self._network(*pair) for pair in self.classifiers}

    def _network(self, model: str, defence: str) -> nn.Module:
        network, settings = self.models[model].classifier, self.settings
        if defence == PLAIN:
            return network
        repeats = settings.defence[defence].repeats
        return Defended(network, self.planned.defences[defence], repeats, settings.seed, defence)

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
        """Key of the attack: of all that decides an adversarial image beside it and its budget.

        An attack without the keyword `seeds` may treat images by their batch, which it decides.
        """
        settings, saved = self.settings, self.planned.saved
        attack, defence, trainer = settings.attack, settings.source_defence, settings.trainer
        mixed = self.data.pool if attack.about.mixes else None
        batches = (self.images.digest(), settings.budgets, trainer.batch_size, self.pair_seed)
        return content_key(
            (self._clean_key, self.planned.call),
            mixed and (mixed.labels.tolist(), sha256(mixed.images.numpy().tobytes()).hexdigest()),
            attack.settings,
            saved.digest if saved else code_of(attack.settings),
            (attack.norm, attack.target_label, self.images.num_classes),
            (settings.ensemble, settings.seed, settings.layers),
            [self.models[name].key for name in settings.source],
            (defence != PLAIN and defence_key(settings, defence), settings.source_draws),
            (trainer.gradient_batch, trainer.attack_precision),
            None if self.images_apart else batches,
            *([self.fit_key(0.0)] if self.planned.fitted else []),
        )

    def fit_key(self, eps_255: float) -> str:
        """Return the key of all that decides a fit of the attack; a budget of 0 serves all.

        As for trained weights neither this program's code nor versions of libraries count.
        """
        settings, attack, defence = (
            self.settings,
            self.settings.attack,
            self.settings.source_defence,
        )
        part, training = self.planned.fitted, settings.training
        assert self.data.fit_images is not None and part is not None
        return content_key(
            (eps_255, self.planned.call, repr(part), attack.norm),
            code_of(attack.settings, upgrades=False),
            (attack.target_label, self.data.fit_images.digest(), settings.ensemble, settings.seed),
            [self.models[name].key for name in settings.source],
            (defence != PLAIN and defence_key(settings, defence), settings.source_draws),
            (settings.trainer.attack_precision, training.crop_padding, training.flip),
        )

    @property
    def fit_gradients(self) -> float:
        """Number of gradients that the fit of the attack takes, for all budgets."""
        settings, images = self.settings, self.data.fit_images
        if images is None:
            return 0.0
        stated = settings.attack.fit_gradients(len(settings.budgets), len(images)) or 0.0
        return stated * len(settings.source) * settings.source_draws

    @property
    def images_apart(self) -> bool:
        """True if what an image gets does not depend on the others in its batch."""
        return self.planned.attack is None or keeps_images_apart(self.planned.attack)

    @property
    def pair_seed(self) -> int | None:
        """Seed of the pairs that controls swap perturbations in; None without controls."""
        return self.settings.dataset.seed if self.settings.controls else None

    @cached_property
    def _clean_key(self) -> list[Any]:
        """Parts of the key of rows that need no attack: code and arithmetic."""
        return [own_code(), numerics(self.settings, self.data.device.type)]

    def place(self, cell: Cell) -> tuple[str, str]:
        """Return the folder of a cell's rows in the cache, and their key in it.

        The folder is of an attack or, where there is none, of models; the key of all else.
        """
        if cell not in self._places:
            self._places[cell] = self._make_place(cell)
        return self._places[cell]

    @cached_property
    def _places(self) -> dict[Cell, tuple[str, str]]:
        """Places that were asked for, as each batch asks for them again."""
        return {}

    def _make_place(self, cell: Cell) -> tuple[str, str]:
        models = sorted(self.model_key(model) for model in cell.models)
        origin = self.crafting if cell.attacked else content_key(self._clean_key, models)
        return origin, content_key(cell.table, cell.budgets, cell.decides, models)
