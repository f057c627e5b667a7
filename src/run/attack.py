"""Attack of a job on its source, tried on two images before it runs on all."""

import logging
from collections.abc import Callable, Mapping

import numpy as np
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from ..cache.rows import Rows
from ..config.settings import Settings
from ..data import Batch, ImageDataset, to_unit
from ..defences import AttackedDefence
from ..images.attacker import Attacker
from ..measure.attack_cost import AttackCost
from ..utils.devices import move_states
from ..utils.model_names import NO_DEFENCE
from ..utils.processes import is_first_process
from .fit import discard_fits, fitted_states
from .pass_progress import PassProgress
from .stages import JobContext
from .stored_rows import read_rows
from .work import work_of

log = logging.getLogger(__name__)


def make_attacker(
    job: JobContext, stored: Callable[[list[int], float], Mapping[int, np.ndarray]] = lambda *_: {}
) -> Attacker:
    """Return a job's attack on its source.

    `stored` returns the stored adversarial images, by index, for a list of indices and a budget in
    1/255; these images are not attacked again.
    """
    settings, attack = job.settings, job.settings.attack
    source, pool, fitted = job.models[settings.source_name], job.data.pool, job.planned.fitted
    assert job.planned.attack is not None
    layers = source.as_built if fitted and fitted.as_built else None
    attacker = Attacker(
        _behind_its_defence(job, layers or source.classifier),
        job.planned.attack,
        norm=attack.norm,
        target_label_rule=attack.target_label,
        num_classes=job.images.num_classes,
        data_target_labels=_known_target_labels(settings, job.images),
        seed=settings.seed,
        pool=pool and (pool.images, pool.labels),
        max_batch=job.gradient_batch,
        max_images=job.max_images,
        precision=settings.trainer.attack_precision,
        name=attack.name,
        stored=stored,
    )
    attacker.states = move_states(fitted_states(job, attacker), job.data.device)
    return attacker


def _behind_its_defence(job: JobContext, classifier: nn.Module) -> nn.Module:
    """Return the source behind `source_defence`, as an adaptive attacker sees it."""
    name = job.settings.source_defence
    if name == NO_DEFENCE:
        return classifier
    draws = job.settings.source_draws
    model = AttackedDefence(classifier, job.planned.defences[name], draws, name)
    if draws > model.draws:
        raise ValueError(f"source_draws={draws}: source_defence={name} is not random; set it to 1.")
    return model


def try_attack(job: JobContext, cache: Rows) -> None:
    """Attack two images, so that a broken attack fails before targets are trained.

    An attack whose rows are stored is not tried, unless a diagnostic has to run it again.
    """
    diagnostics, device = job.settings.diagnostics, job.data.device
    bisected, iterations = diagnostics.bisection > 0, diagnostics.iterations
    costs = read_rows(job, AttackCost().requests(job, None), cache)
    stored = len(costs) == len(job.settings.budgets) and not job.settings.rerun
    stored &= all(len(rows) == len(job.images) for rows in costs.values())
    if stored and not (bisected or iterations):
        return
    batch = Batch(*(column.to(device) for column in job.images[:2]))
    if job.settings.rerun:
        discard_fits(job)
    attacker, clean = make_attacker(job).to(device), to_unit(batch.images)
    tried = {request: request.index[:2] for request in AttackCost().requests(job, None)}
    shown, name = job.settings.trainer.progress_bar, f"trying {job.settings.job}"
    progress = PassProgress(name, work_of(job, tried), shown)
    progress.batch, attacker.on_pass = len(batch.index), progress.count
    try:
        with torch.no_grad(), isolate_rng():
            attacker(clean, batch, job.settings.budgets)
            gradients = attacker.gradients // len(batch.index)
            if iterations:
                attacker.iterates(clean, batch, 8 / 255, iterations)
            if bisected:  # bisection uses one budget per image
                budgets = torch.tensor([[4 / 255, 8 / 255]]).to(clean)
                attacker.perturbed(clean, batch, budgets[:, : len(clean)])
    except ValueError as error:
        hint = " Bisection passes budgets of shape (K, N); switch it off: diagnostics.bisection=0."
        raise ValueError(f"{error}{hint * bisected}") from error
    finally:
        attacker.cpu()
        progress.on_predict_end()
    if is_first_process():
        total = f"{gradients * len(job.images):,}"
        log.debug("%s: %d gradients per image, %s in all", job.settings.job, gradients, total)


def _known_target_labels(settings: Settings, images: ImageDataset) -> dict[int, int]:
    """Return the data set's target labels by image index; empty unless the attack uses them."""
    if settings.attack.target_label != "data":
        return {}
    name = settings.dataset.name
    if images.target_labels is None:
        raise ValueError(
            f"attack.target_label=data, but the data set {name} has no target labels. "
            "Use least_likely, random or next."
        )
    wrong = images.indices[images.target_labels == images.labels]
    if len(wrong):
        raise ValueError(
            f"attack.target_label=data, but the target label of image {wrong[0]} of {name} is "
            "its true class."
        )
    return dict(zip(images.indices.tolist(), images.target_labels.tolist(), strict=True))
