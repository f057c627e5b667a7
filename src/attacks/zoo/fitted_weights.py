"""Gradients of weights that are collected while the source is trained further."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, ClassVar, cast

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.swa_utils import update_bn

from ...utils.networks import copy_network
from .. import PerImageRandom, Source, attack, checked, loss_of_each, members_of
from ..training_images import State, TrainingBatch, TrainingImages

_RENEWING = 8  # number of batches that renew batch-norm statistics


@checked
class CollectedWeights:
    """Continue to train the source at a high constant rate, and attack the weights on the way.

    Weights are collected at equal intervals, and batch-norm statistics are renewed for each. The
    attack's gradients use the collected weights in turn, in a random order.

    Attributes:
        fit_images: Folder of class folders with training images, which the program reads; None:
            those of the data set.
        fit_n_images: Largest number of training images, the same for every class; None: all.
        epochs: Passes over the training images; 0: the source's own weights.
        weights_per_epoch: Number of weights collected per epoch.
        learning_rate: Learning rate of the stochastic gradient descent, with momentum 0.9.
        weight_decay: Weight decay.
        fit_batch: Images per batch.

    Reference: Gubri et al. (2022), arXiv 2207.13129, section 4 (rate 0.05, 10 epochs, 4 weights
    each, weight decay 1e-4, batches of 256).

    Deviation: batches of 128; batch-norm statistics come from eight batches (authors: from the
    training); all members of an ensemble are trained; the order of weights is the same for all
    images.
    """

    fit_images: str | None = None
    fit_n_images: PositiveInt | None = None
    epochs: NonNegativeInt = 10
    weights_per_epoch: PositiveInt = 4
    learning_rate: PositiveFloat = 0.05
    weight_decay: NonNegativeFloat = 1e-4
    fit_batch: PositiveInt = 128
    as_built: ClassVar[bool] = True

    def bind(self, training_images: TrainingImages) -> Callable[[nn.Module], nn.Module]:
        """Return the backward rule that takes other weights for each gradient."""
        return partial(self._changing, training_images)

    def _changing(self, training_images: TrainingImages, model: nn.Module) -> nn.Module:
        state = training_images.fitted(0.0, partial(self._fit, training_images, model))
        return _Changing(model, partial(self._choose, state))

    def _fit(self, training_images: TrainingImages, source: nn.Module) -> State:
        """Return the weights that are collected, as `NUMBER/NAME`."""
        model, collected = copy_network(source).requires_grad_(), dict[str, Tensor]()
        if self.epochs == 0:
            return _numbered(0, _weights(model))
        trained = {id(one) for network in members_of(model) for one in network.parameters()}
        parameters = [one for one in model.parameters() if id(one) in trained]
        rate, decay = self.learning_rate, self.weight_decay
        optimizer = torch.optim.SGD(parameters, rate, 0.9, weight_decay=decay)
        for epoch in range(self.epochs):
            for number in self._train(model, optimizer, training_images, epoch):
                place = epoch * self.weights_per_epoch + number
                collected |= self._collect(model, training_images, place, collected)
            if not all(value.isfinite().all() for value in collected.values()):
                raise ValueError("The fit diverged: NaN or infinity. Lower attack.learning_rate.")
        return collected

    def _train(
        self,
        model: nn.Module,
        optimizer: torch.optim.SGD,
        training_images: TrainingImages,
        epoch: int,
    ) -> Iterator[int]:
        """Train for an epoch and yield a number each time that weights are to be collected."""
        batches, per_epoch = -(-training_images.count // self.fit_batch), self.weights_per_epoch
        stops = [-(-batches * (number + 1) // per_epoch) for number in range(per_epoch)]
        read = training_images.batches(epoch, self.fit_batch, augmented=True)
        seed = training_images.seed * 1_000_003 + epoch * 10_007
        for step, batch in enumerate(read, start=1):
            for network in members_of(model):
                network.train()
            optimizer.zero_grad()
            if step == 1 or len(batch.images) > 1:  # batch norms need two images
                self._differentiate(model, batch, seed + step)
            optimizer.step()
            yield from (number for number, stop in enumerate(stops) if stop == step)

    def _differentiate(self, model: nn.Module, batch: TrainingBatch, seed: int) -> None:
        """Compute the gradients of a batch's loss in the weights, each member as if alone."""
        source = Source(model)
        with torch.enable_grad(), torch.random.fork_rng():  # for dropout
            torch.manual_seed(seed)
            for member in range(len(source.members)):
                source.draw(batch.random(), 1)
                logits, labels = source.logits(batch.images, member), batch.true_labels
                loss_of_each("cross_entropy", logits, labels, False, 1).mean().backward()

    def _collect(
        self, model: nn.Module, training_images: TrainingImages, place: int, _: State
    ) -> State:
        """Return weights number `place` by name, as parts of the state."""
        return _numbered(place, _renewed(model, training_images, self.fit_batch))

    def _choose(self, state: State, number: int) -> dict[str, Tensor]:
        """Return the weights of gradient `number`: the collected ones in turn."""
        count = 1 + max(int(name.partition("/")[0]) for name in state)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        return _select(state, str(int(order[number % count])))


def _numbered(place: int, weights: State) -> State:
    return {f"{place}/{name}": value for name, value in weights.items()}


def _select(state: State, kind: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `kind/`, without this prefix."""
    start = f"{kind}/"
    return {
        name.removeprefix(start): value for name, value in state.items() if name.startswith(start)
    }


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a model's weights and statistics."""
    state = model.state_dict().items()
    return {name: value.detach().clone() for name, value in state if torch.is_tensor(value)}


def _renewed(model: nn.Module, training_images: TrainingImages, size: int) -> dict[str, Tensor]:
    """Return a model's weights, with the batch-norm statistics of training images."""
    renewed = copy_network(model)
    source = Source(renewed)

    def images() -> Iterator[Tensor]:
        for batch in islice(training_images.batches(0, size), _RENEWING):
            source.draw(batch.random(), 1)
            yield batch.images

    with torch.random.fork_rng():
        torch.manual_seed(training_images.seed)
        update_bn(images(), renewed)
    return _weights(renewed)


class _Changing(nn.Module):
    """Source that takes other weights for each gradient, which `choose` returns by its number."""

    def __init__(self, model: nn.Module, choose: Callable[[int], dict[str, Tensor]]) -> None:
        super().__init__()
        self.model, self.choose = model, choose
        self.weights = choose(0)

    def draw(self, random: PerImageRandom, budgets: int) -> None:
        """Load the next weights; the others stay off the device, which may be small."""
        device = next(self.model.parameters()).device
        chosen = self.choose(random.shared.count)
        random.shared.count += 1  # begins anew for each part of a batch
        self.weights = {name: value.to(device) for name, value in chosen.items()}

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return cast(Tensor, functional_call(self.model, self.weights, (images,)))


@attack(
    backward_rule=CollectedWeights,
    steps=50,
    relative_step_size=0.1,
)
def lgv() -> None:
    """Take gradients of weights from continued training: `bim` in a large geometric vicinity.

    Name: Large Geometric Vicinity.
    Reference: Gubri et al. (2022), arXiv 2207.13129 (50 steps of eps / 10).
    """


@checked
class SampledWeights(CollectedWeights):
    """Continue to train the source, and attack weights from a normal distribution around the mean.

    Mean and variance of each weight are those at equal intervals of the training. Weights are drawn
    anew for each gradient: the mean plus `spread` times the standard deviation times N(0, 1).
    Batch-norm statistics are renewed for the mean. The training follows ::

        g + flatness / reach * (h - g),  h = gradient at w + reach * g / ||g||

    with the gradient g of a batch's loss at the weights w, which lowers the length of g, too.

    Attributes:
        fit_images: Folder of class folders with training images, which the program reads; None:
            those of the data set.
        fit_n_images: Largest number of training images, the same for every class; None: all.
        epochs: Passes over the training images; 0: the source's own weights.
        weights_per_epoch: Number of weights per epoch that enter mean and variance.
        learning_rate: Learning rate of the stochastic gradient descent, with momentum 0.9.
        weight_decay: Weight decay.
        fit_batch: Images per batch.
        flatness: Weight lambda of the change h - g; 0: plain training.
        reach: Distance of h from w.
        spread: Factor of the standard deviations.

    Reference: Li et al. (2023), arXiv 2302.05086 (rate 0.05, 10 epochs, batches of 1024, weight
    decay 5e-4, 300 weights in all, lambda = 1, distance 0.1, factor 1.5).

    Deviation: batches of 128; batch-norm statistics come from eight batches (authors: from 10 % of
    the training images); all members of an ensemble are trained; the weights drawn are the same for
    all images and runs.
    """

    weights_per_epoch: PositiveInt = 30
    weight_decay: NonNegativeFloat = 5e-4
    flatness: NonNegativeFloat = 1.0
    reach: PositiveFloat = 0.1
    spread: NonNegativeFloat = Field(1.5, repr=False)  # no part of the fit, nor of its key

    def _differentiate(self, model: nn.Module, batch: TrainingBatch, seed: int) -> None:
        super()._differentiate(model, batch, seed)
        trained: list[Any] = [one for one in model.parameters() if one.grad is not None]
        start = [(weights.detach().clone(), weights.grad) for weights in trained]
        length = nn.utils.get_total_norm([gradient for _, gradient in start]).clamp_min(1e-20)
        for weights in trained:
            weights.data += self.reach / length * weights.grad
        model.zero_grad()
        super()._differentiate(model, batch, seed)
        for weights, (old, gradient) in zip(trained, start, strict=True):
            weights.data.copy_(old)
            weights.grad = gradient.lerp(weights.grad, self.flatness / self.reach)

    def _collect(
        self, model: nn.Module, training_images: TrainingImages, place: int, collected: State
    ) -> State:
        moments: dict[str, Tensor] = {}
        for name, weights in model.named_parameters():
            for power, kind in enumerate(("mean", "square"), start=1):
                new, key = weights.detach() ** power, f"{kind}/{name}"
                moments[key] = collected.get(key, new).lerp(new, 1 / (place + 1))
        if (place + 1) % self.weights_per_epoch == 0:
            middle = copy_network(model)
            middle.load_state_dict(_select(moments, "mean"), strict=False)
            moments |= super()._collect(middle, training_images, 0, collected)
        return moments

    def _choose(self, state: State, number: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(number)
        weights = _select(state, "0")
        for name, square in sorted(_select(state, "square").items()):  # whatever order a file has
            variance = (square - weights[name].square()).clamp_min(1e-30)
            noise = torch.randn(square.shape, generator=generator, dtype=square.dtype)
            weights[name] = weights[name] + self.spread * variance.sqrt() * noise.to(square)
        return weights


@checked
class Repeated:
    """Average the gradients of several copies of the image, for which the source may change.

    Args:
        copies: Number of copies.
    """

    copies: PositiveInt = 20

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        return images


@attack(
    transform=Repeated,
    backward_rule=SampledWeights,
    steps=50,
    relative_step_size=0.125,
)
def mba() -> None:
    """Average gradients over weights drawn around a mean: more Bayesian sources, with `bim`.

    Name: More Bayesian Attack.
    Reference: Li et al. (2023), arXiv 2302.05086 (50 steps of eps / 8, 20 models per step).
    """
