"""Measurements for predictors of transfer, through the door of the config: see `DOOR`."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import center_crop

from src.attacks import Philox, image_seeds
from src.measure import (
    FLOAT,
    INDEX,
    LABEL,
    SINGLE,
    EvaluatedBatch,
    Job,
    Measurement,
    ModelRef,
    RowRequest,
    column,
    image_rows,
)
from src.measure.similarity import cosines, input_gradients, to_float64
from src.utils.devices import arithmetic

DOOR = "measurements={smoothness: {_target_: findings.measurements.Smoothness}"
DOOR += ", gradient_consistency: {_target_: findings.measurements.GradientConsistency}"
DOOR += ", output_changes: {_target_: findings.measurements.OutputChanges}"
DOOR += ", self_transfer: {_target_: findings.measurements.SelfTransfer}}"
"""Override that adds all of them to a sweep."""

# A distance of 0.01 is local: 1/170 of the L2 norm of a change by 8/255 on 32 x 32 pixels. Float32
# rounding, about 1e-6 of the logits' gradients, grows to 1e-4 of them in a product.
_DISTANCE, _ITERATIONS = 0.01, 8
_STARTS = 9  # stream of random numbers, separate from all others


class Smoothness(Measurement):
    """Curvature of the source's loss at the clean image: the lower, the smoother.

    `curvature` is the largest absolute eigenvalue of the Hessian of the cross-entropy of the true
    class with respect to the image, per squared L2 distance in [0, 1] pixels. It is computed by
    power iteration on central differences of gradients; an ensemble is differentiated as it is
    attacked. The gradients are not counted as cost, and their images may leave [0, 1]. With ReLUs,
    `curvature` is measured over a distance of 0.02, because a kink has no Hessian.

    Reference:
        Zhang et al.: Why Does Little Robustness Help? (2024), S&P 2024, arXiv 2307.07873, for the
        eigenvalue as the smoothness of a source.
    """

    schema = pa.schema([INDEX, LABEL, column("curvature", FLOAT, 0)])

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return a request for the source."""
        source, gradients = ModelRef.parse(job.settings.source_name), 2 * _ITERATIONS
        key_parts = (_DISTANCE, _ITERATIONS, job.settings.seed)
        facts: dict[str, Any] = {"key_parts": key_parts, "attacked": False, "passes": 3 * gradients}
        yield RowRequest(self.name, job.diagnosed.indices, source, **facts)

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per image."""
        (request,) = requests
        network, clean, labels = batch.networks[request.target], batch.clean, batch.batch.labels
        size = batch.gradient_batch
        random = Philox(image_seeds(batch.settings.seed, batch.batch.index), clean, _STARTS)
        product = to_float64(random.normal(*clean.shape[1:])).flatten(1)
        least = torch.finfo(product.dtype).tiny  # a product of zeros stays zero
        with arithmetic(clean.device.type, "32-true"):  # others are too coarse for differences
            for _ in range(_ITERATIONS):
                direction = product / product.norm(dim=1, keepdim=True).clamp_min(least)
                step = (_DISTANCE * direction).view_as(clean).to(clean)
                ends = (input_gradients(network, clean + s * step, labels, size) for s in (1, -1))
                product = torch.sub(*ends).flatten(1) / (2 * _DISTANCE)
        # Unlike v H v, the norm is also correct next to an eigenvalue of the opposite sign, and if
        # kinks make the differences asymmetric.
        yield image_rows(batch.batch, curvature=product.norm(dim=1))


_POINTS, _RADIUS = 5, 1 / 255
_POINTS_STREAM = 8  # of random numbers, separate from attacks, noise, target labels and defences


class GradientConsistency(Measurement):
    """Mean cosine between the source's gradients at x and at five points x + u, u in +-1/255.

    u is uniform. The gradients are those of the cross-entropy of the true class; an ensemble is
    differentiated as it is attacked. They are not counted as cost. `consistency` is NaN if one of
    them is zero everywhere.

    Reference:
        Scissors Effect (2026), arXiv 2606.22516, local gradient consistency.
    """

    schema = pa.schema([INDEX, LABEL, column("consistency", FLOAT, -1, 1, nan=True)])

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return a request for the source."""
        source, key_parts = (
            ModelRef.parse(job.settings.source_name),
            (_POINTS, _RADIUS, job.settings.seed),
        )
        facts: dict[str, Any] = {"key_parts": key_parts, "passes": 3 * (1 + _POINTS)}
        yield RowRequest(self.name, job.diagnosed.indices, source, attacked=False, **facts)

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per image."""
        (request,) = requests
        network, clean, labels = batch.networks[request.target], batch.clean, batch.batch.labels
        size = batch.gradient_batch
        seeds = image_seeds(batch.settings.seed, batch.batch.index)
        random = Philox(seeds, clean, _POINTS_STREAM)
        start = input_gradients(network, clean, labels, size).flatten(1)
        similarities = []
        for _ in range(_POINTS):
            change = random.uniform(*clean.shape[1:], low=-_RADIUS, high=_RADIUS).to(clean)
            gradients = input_gradients(network, clean + change, labels, size)
            similarities.append(cosines(start, gradients.flatten(1)))
        yield image_rows(batch.batch, consistency=torch.stack(similarities).mean(dim=0))


class OutputChanges(Measurement):
    """Change of the logits of the source and every target under the attack on a single source.

    `change` is a list of K numbers, one per class: the logits for the clean image minus the logits
    for the unrounded adversarial image of the reference budget. A source of several models has no
    rows.

    Reference:
        Liang et al.: Uncovering the Connections Between Adversarial Transferability and Knowledge
        Transferability (2021), ICML 2021, arXiv 2006.14512, for the inputs of alpha and gamma.
    """

    schema = pa.schema([INDEX, LABEL, column("change", pa.list_(SINGLE))])

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return a request for the source and for each target, without defences."""
        settings = job.settings
        facts: dict[str, Any] = {"budgets": (settings.reference,), "passes": 2}
        for name in settings.models if len(settings.source) == 1 else ():
            yield RowRequest(self.name, job.diagnosed.indices, ModelRef.parse(name), **facts)

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per image."""
        for request in requests:
            clean = batch.classify(request.target, batch.clean).float()
            change = clean - batch.logits(request.target, *request.budgets).float()
            yield image_rows(batch.batch, change=change)


_SCALES = (0.6, 0.75, 0.9, 1.1, 1.3, 1.6)


class SelfTransfer(Measurement):
    """Share of resized copies of a single source that its adversarial image fools.

    A copy is the source, without a defence, on images that are resized by a factor and then cropped
    or zero-padded about the centre to their old side. Among the copies that classify the clean
    image correctly, `fooled` is the share that misclassifies the adversarial image of the reference
    budget: in [0, 1], or NaN if no copy is correct. A source of several models has no rows.

    Reference:
        Liu et al. (2024), arXiv 2410.13891, for self-transferability. The scales are our own.
    """

    schema = pa.schema([INDEX, LABEL, column("fooled", FLOAT, 0, 1, nan=True)])

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return a request for the source."""
        settings, passes = job.settings, 2 * len(_SCALES)
        facts: dict[str, Any] = {"budgets": (settings.reference,), "key_parts": _SCALES}
        for name in settings.source if len(settings.source) == 1 else ():
            yield RowRequest(
                self.name, job.diagnosed.indices, ModelRef.parse(name), passes=passes, **facts
            )

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per image."""
        (request,) = requests
        versions = batch.clean, batch.version(*request.budgets).adversarial
        on_clean, on_adversarial = (
            torch.stack([_right(batch, request, images, scale) for scale in _SCALES])
            for images in versions
        )
        fooled = (on_clean & ~on_adversarial).sum(dim=0).double() / on_clean.sum(dim=0)
        yield image_rows(batch.batch, fooled=fooled)


def _right(batch: EvaluatedBatch, request: RowRequest, images: Tensor, scale: float) -> Tensor:
    """Return a CPU mask of images (N, 3, H, H) whose resized copies are classified correctly."""
    side = images.shape[-1]
    size = [round(scale * side)] * 2
    resized = functional.interpolate(images, size, mode="bilinear", antialias=True)
    logits = batch.classify(request.target, center_crop(resized, [side, side]))
    return (logits.argmax(dim=1) == batch.batch.labels).cpu()
