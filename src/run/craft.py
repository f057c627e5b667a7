"""A job's attack on its source, and the states that it fits, in files that other jobs reuse."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ..attacks import TrainingBatch, TrainingImages, image_seeds
from ..attacks.training_images import Fit, State, in_levels
from ..cache.keys import content_key
from ..data import Batch, ImageDataset, to_unit
from ..defences import AttackedDefence
from ..images.attacker import Attacker, Counts
from ..models.weights import tensors_digest
from ..utils.devices import is_out_of_memory, move_state
from ..utils.files import atomic_write, in_turn
from ..utils.processes import command_key, is_first_process
from ..utils.refusals import first_line
from ..utils.terminal import Progress
from .data import target_labels_of
from .stages import GRADIENT, JobContext

log = logging.getLogger(__name__)

_LONGEST = 150  # characters of a file name before its key; an ensemble may have more


def make_attacker(job: JobContext) -> Attacker:
    """Return a job's attack on its source."""
    attack, source = job.attack, job.models[job.source.model]
    assert attack.function is not None
    layers = source.as_built if attack.as_built else None
    attacker = Attacker(
        _behind_its_defence(job, layers or source.classifier),
        attack.function,
        norm=job.norm,
        target_label_rule=attack.target_label,
        num_classes=job.images.num_classes,
        data_target_labels=target_labels_of(attack.target_label, job.images),
        seed=attack.seed,
        pool=job.pool and (job.pool.images, job.pool.labels),
        max_batch=job.max_batch,
        precision=attack.precision,
        name=attack.name,
        targets=[model.classifier for name, model in job.models.items() if name not in job.members],
    )
    if job.fit_images is not None:
        attacker.training_images = _Fits(job, job.fit_images, attacker).training_images
    return attacker


def _behind_its_defence(job: JobContext, classifier: nn.Module) -> nn.Module:
    """Return the source behind its defence, as an adaptive attacker sees it."""
    name, draws = job.attacked.defence, job.attack.draws
    if not job.attacked.is_defended:
        return classifier
    model = AttackedDefence(classifier, job.defences[name].function, draws, name)
    if draws > model.draws:
        raise ValueError(f"source_draws={draws}: source_defence={name} is not random; set it to 1.")
    return model


def _fit_file(job: JobContext, eps: float) -> Path:
    """Return the file of an attack's state for a budget in [0, 1] units, or for all budgets: 0."""
    name = f"{job.attack.name}-{job.attacked}"[:_LONGEST]
    return job.cache_dir / "fitted" / f"{name}-{job.fit_key(eps)}.safetensors"


def fit_gradients(job: JobContext) -> float | None:
    """Return the gradients of the states that a job uses, a third for a pass without gradient.

    None: unknown, as no state is stored.
    """
    if job.fit_images is None:
        return 0.0
    of_all, *each = (_gradients(_fit_file(job, eps / 255)) for eps in (0.0, *job.budgets))
    # NaN if one of several is missing
    return next((total for total in (of_all, sum(each)) if total == total), None)


class _Fits:
    """The training images of a job's attack, and the states that it fits to them.

    The states are in files that other jobs read. If several processes need the same one, one fits
    it and the others wait. A fit that is killed begins again; so does one whose file is damaged.
    """

    def __init__(self, job: JobContext, images: ImageDataset, attacker: Attacker) -> None:
        self.job, self.images, self.attacker = job, images, attacker
        self.max_batch = attacker.max_batch  # stays if batches of the attack are halved
        self.states = dict[float, State]()
        self.progress, self.seen = Progress("", visible=False), 0

    def training_images(self, counts: Counts) -> TrainingImages:
        """Return the training images for a call of the attack, which has these counts."""
        rule, seed, fitted = self.job.attack.fit_rule, self.job.attack.seed, self._fitted
        facts = seed, rule is not None, self.max_batch, partial(fitted, counts)
        return TrainingImages(len(self.images), self._read, *facts)

    def _fitted(self, counts: Counts, eps: float, fit: Fit) -> State:
        """Return the state for a budget in [0, 1] units; see `TrainingImages`."""
        job, start, eps_255 = self.job, time.perf_counter(), in_levels(eps)
        if eps_255 in self.states:
            return self.states[eps_255]
        file, key = _fit_file(job, eps), job.fit_key(eps)
        name = f"{job.name} at {eps_255:g}/255" if eps_255 else job.name
        state = self._stored(file, key)
        if state is None:
            with in_turn(file.with_suffix(".lock"), f"fit {name}"):
                state = self._stored(file, key) or self._fit(counts, fit, name, file, key)
        self.states[eps_255] = move_state(state, job.device)
        self.attacker.fit_seconds += time.perf_counter() - start
        return self.states[eps_255]

    def _fit(self, counts: Counts, fit: Fit, name: str, file: Path, key: str) -> State:
        """Fit a state, and write it to a file with the gradients that it took."""
        from pytorch_lightning.utilities.seed import isolate_rng  # slow to import

        is_visible = self.job.trainer.progress_bar and is_first_process()
        self.progress, self.seen = Progress(f"fitting {name}", is_visible), 0
        log.info("Fitting %s: %s images", name, f"{len(self.images):,}")
        try:
            with closing(self.progress), isolate_rng(), counts.of_fit():
                state = {name: value.detach().cpu().contiguous() for name, value in fit().items()}
                gradients = counts.gradients + (counts.forwards - counts.gradients) / GRADIENT
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            # Smaller batches of evaluated images would not help.
            way = "Lower attack.fit_batch or trainer.gradient_batch"
            raise ValueError(f"the fit needs more free memory. {way}.") from error
        stated = {"gradients": str(gradients), "command": command_key()}
        stated["digest"] = _digest(key, stated, state)
        with atomic_write(file) as temporary:
            temporary.write_bytes(save(state, stated))
        return state

    def _stored(self, file: Path, key: str) -> State | None:
        """Return the state in a file; None if there is none, or if it is damaged.

        With `rerun`, a state of another command is none.
        """
        try:
            with safe_open(file, "pt") as opened:
                stated = opened.metadata() or {}
                if self.job.rerun and stated.get("command") != command_key():
                    return None
                state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            if stated.get("digest") == _digest(key, stated, state):
                return state
            reason = "its content is not what was written"
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError) as error:
            reason = first_line(error)
        log.warning("%s is damaged (%s); the attack is fitted again.", file, reason)
        return None

    def _read(self, positions: Sequence[int], generator: torch.Generator | None) -> TrainingBatch:
        """Return a batch of training images; see `TrainingImages`. Show the progress."""
        attack, device = self.job.attack, self.job.device
        batch = self.images[np.asarray(positions)]
        if generator is not None:
            from ..training import augment  # slow to import

            images = augment(batch.images, *attack.augmentation, generator)
            batch = batch._replace(images=images)
        batch = Batch(*(column.to(device) for column in batch))
        images, labels, rule = to_unit(batch.images), batch.labels, attack.fit_rule
        if rule in ("data", "next_image"):
            aims = self.images.target_labels
            assert aims is not None
            labels = torch.from_numpy(aims[np.asarray(positions)]).to(labels)
        elif rule is not None:
            with torch.no_grad():
                aimed = self.attacker.target_labels(images, batch)
            assert aimed is not None
            labels = aimed
        if generator is not None or not attack.as_built:  # else only batch norms are renewed
            self.seen += len(positions)
        epochs = attack.keywords.get("epochs")
        expected = len(self.images) * epochs if isinstance(epochs, int) else 0
        share = min(1.0, self.seen / expected) if expected else 0.0
        self.progress.update(share, f"{self.seen:,} images")
        return TrainingBatch(images, labels, batch.labels, image_seeds(attack.seed, batch.index))


def _gradients(file: Path) -> float:
    """Return the gradients that a stored state took; NaN without one."""
    with suppress(SafetensorError, OSError), safe_open(file, "pt") as opened:
        return float((opened.metadata() or {}).get("gradients", math.nan))
    return math.nan


def _digest(key: str, stated: Mapping[str, str], state: State) -> str:
    return content_key([key, stated.get("gradients"), tensors_digest(state.items())])
