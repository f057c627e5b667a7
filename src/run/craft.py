"""A job's attack on its source, and its fits: one per budget, in files that other jobs reuse."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..attacks import FitBatch, FitTask, Fitted, image_seeds
from ..cache.keys import content_key
from ..data import Batch, to_unit
from ..defences import AttackedDefence
from ..images.attacker import Attacker
from ..models.weights import tensors_digest
from ..utils.devices import deterministic, move_states
from ..utils.files import atomic_write, in_turn
from ..utils.processes import is_first_process
from ..utils.refusals import first_line
from ..utils.terminal import Progress
from .data import target_labels_of
from .stages import JobContext

log = logging.getLogger(__name__)

State = Mapping[str, Tensor]
_LONGEST = 150  # characters of a file name before its key; an ensemble may have more


def make_attacker(job: JobContext) -> Attacker:
    """Return a job's attack on its source."""
    attack, source = job.attack, job.models[job.source.model]
    assert attack.function is not None
    layers = source.as_built if attack.fitted and attack.fitted.as_built else None
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
    attacker.states = move_states(fitted_states(job, attacker), job.device)
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


def fit_files(job: JobContext) -> dict[float, Path]:
    """Return the files of an attack's fitted states by budget in 1/255.

    The budget is 0 if one state serves all budgets.
    """
    part = job.attack.fitted
    if part is None:
        return {}
    stem = job.cache_dir / "fitted" / name_fit(job.attack.name, str(job.attacked))
    return {
        eps: Path(f"{stem}-{f'{eps:g}-' * bool(eps)}{job.fit_key(eps)}.safetensors")
        for eps in ((0.0,) if part.one_state else job.budgets)
    }


def name_fit(attack: str, source: str) -> str:
    """Return the start of the names of a job's fitted states."""
    return f"{attack}-{source}"[:_LONGEST]


def fitted_states(job: JobContext, attacker: Attacker) -> dict[float, State]:
    """Return the fitted states of an attack by budget in [0, 1] units; fit missing ones.

    If several processes need the same state, one fits it and the others wait. An interrupted fit
    resumes after its last complete epoch. A damaged state is fitted again.
    """
    part, states = job.attack.fitted, {}
    for eps, file in fit_files(job).items():
        assert part is not None
        state = _read(file, job.fit_key(eps))
        if state is None:
            with in_turn(file.with_suffix(".lock"), f"fit {job.name}"):
                state = _read(file, job.fit_key(eps)) or _fit(job, attacker, part, eps, file)
        states[eps / 255] = state
    return states


def discard_fits(job: JobContext) -> None:
    """Remove the files of an attack's fitted states, so that it is fitted again."""
    for file in fit_files(job).values() if is_first_process() else ():
        for path in (file, file.with_suffix(".part")):
            path.unlink(missing_ok=True)


def _fit(job: JobContext, attacker: Attacker, part: Fitted, eps: float, file: Path) -> State:
    """Fit an attack for one budget, and write its state to a file."""
    from pytorch_lightning.utilities.seed import isolate_rng  # slow to import

    attack, images, device = job.attack, job.fit_images, job.device
    assert images is not None
    is_visible = job.trainer.progress_bar and is_first_process()
    name = f"{job.name} at {eps:g}/255" if eps else job.name
    progress, partial = Progress(f"fitting {name}", is_visible), file.with_suffix(".part")
    key = job.fit_key(eps)
    state = _read(partial, key)
    length = f"{len(images):,} images, {part.epochs} epochs" + " (resuming)" * bool(state)
    log.info("Fitting %s: %s", name, length)
    reader = _Reader(job, attacker, progress, part.epochs * len(images))
    reader.seen = int(state.get("epochs", 0)) * len(images) if state else 0
    progress.first = reader.seen / reader.total if reader.total else 0
    try:
        attacker.source.to(device)
        with (
            closing(progress),
            torch.enable_grad(),
            isolate_rng(),
            attacker.named_errors(),
            deterministic(device.type, set()),
            attacker.arithmetic(device.type),
        ):
            facts = eps / 255, job.norm, attack.fit_rule is not None, attack.seed, len(images)
            task = FitTask(attacker.make_counted(), *facts, reader.read, attacker.max_batch)
            for fitted in part.fit(task, state):
                state = {name: value.detach().cpu() for name, value in fitted.items()}
                _write(partial, key, state)
    finally:
        attacker.source.cpu()
    partial.replace(file)
    assert state is not None
    return state


class _Reader:
    """Reader of training images for a fit; shows the progress."""

    def __init__(self, job: JobContext, attacker: Attacker, progress: Progress, total: int) -> None:
        self.job, self.attacker, self.progress, self.total = job, attacker, progress, total
        self.seen = 0

    def read(self, positions: Sequence[int], generator: torch.Generator | None) -> FitBatch:
        """Return a batch; see `FitTask`."""
        attack, chosen, device = self.job.attack, self.job.fit_images, self.job.device
        assert chosen is not None
        batch = chosen[np.asarray(positions)]
        if generator is not None:
            from ..training import augment  # slow to import

            images = augment(batch.images, *attack.augmentation, generator)
            batch = batch._replace(images=images)
        batch = Batch(*(column.to(device) for column in batch))
        images = to_unit(batch.images)
        labels, rule = batch.labels, attack.fit_rule
        if rule in ("data", "next_image"):
            aims = chosen.target_labels
            assert aims is not None
            labels = torch.from_numpy(aims[np.asarray(positions)]).to(labels)
        elif rule is not None:
            with torch.no_grad():
                aimed = self.attacker.target_labels(images, batch)
            assert aimed is not None
            labels = aimed
        trained = attack.fitted is not None and attack.fitted.as_built
        if generator is not None or not trained:  # else only batch norms are renewed
            self.seen += len(positions)
        share = min(1.0, self.seen / max(1, self.total))
        self.progress.update(share, f"{self.seen:,} / {self.total:,} images")
        seeds = image_seeds(attack.seed, batch.index)
        return FitBatch(images, labels, batch.labels, seeds)


def _read(file: Path, key: str) -> State | None:
    """Read the state of the fit with this key; None if there is none, or if the file is damaged."""
    try:
        with safe_open(file, "pt") as opened:
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            if (opened.metadata() or {}).get("digest") == _digest(key, state):
                return state
            reason = "its content is not what was written"
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError) as error:
        reason = first_line(error)
    log.warning("%s is damaged (%s); the attack is fitted again.", file, reason)
    return None


def _write(file: Path, key: str, state: State) -> None:
    tensors = {name: value.contiguous().clone() for name, value in state.items()}
    with atomic_write(file) as temporary:
        temporary.write_bytes(save(tensors, {"digest": _digest(key, tensors)}))


def _digest(key: str, state: State) -> str:
    return content_key([key, tensors_digest(state.items())])
