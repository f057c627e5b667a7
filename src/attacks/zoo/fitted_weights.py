"""Gradients of weights that are collected while the source is trained further."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, ClassVar, cast

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.swa_utils import update_bn

from ...utils.networks import copy_network
from .. import PerImageRandom, Source, attack, checked, loss_of_each, members_of
from ..fitted import FitTask, State, state_of

_RENEWING = 8  # number of batches that renew batch-norm statistics; `fit_gradients` counts them


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
    one_state: ClassVar[bool] = True
    as_built: ClassVar[bool] = True
    reads_target_labels: ClassVar[bool] = False

    def fit(self, task: FitTask, state: State | None) -> Iterator[State]:
        """Yield all weights collected so far after each epoch, as `NUMBER/NAME`."""
        if not isinstance(task.model, nn.Module):
            raise ValueError("attack=lgv trains its source, which must be a torch module.")
        model = copy_network(task.model).requires_grad_()
        if self.epochs == 0:
            yield {f"0/{name}": value for name, value in _weights(model).items()}
            return
        stored = dict(state or {})
        done = int(stored.pop("epochs", 0))
        trained = {id(one) for network in members_of(model) for one in network.parameters()}
        parameters = {name: one for name, one in model.named_parameters() if id(one) in trained}
        optimizer = torch.optim.SGD(
            parameters.values(), self.learning_rate, 0.9, weight_decay=self.weight_decay
        )
        collected = {name: value for name, value in stored.items() if name[0].isdigit()}
        if done:  # continue after these epochs
            model.load_state_dict(_select(stored, "weights"), strict=False)  # extra state stays
            for name, value in _select(stored, "momentum").items():
                optimizer.state[parameters[name]]["momentum_buffer"] = value.to(parameters[name])
        for epoch in range(done, self.epochs):
            for number, weights in enumerate(self._train(model, optimizer, task, epoch)):
                place = epoch * self.weights_per_epoch + number
                collected |= {f"{place}/{name}": value for name, value in weights.items()}
            momentum = {
                f"momentum/{name}": optimizer.state[value]["momentum_buffer"].clone()
                for name, value in parameters.items()
                if value in optimizer.state
            }
            weights = {f"weights/{name}": value for name, value in _weights(model).items()}
            yield {**collected, **momentum, **weights, "epochs": torch.tensor(epoch + 1)}

    def _train(
        self, model: nn.Module, optimizer: torch.optim.SGD, task: FitTask, epoch: int
    ) -> Iterator[dict[str, Tensor]]:
        """Train for an epoch and yield the weights collected in it."""
        batches, per_epoch = -(-task.count // self.fit_batch), self.weights_per_epoch
        stops = [-(-batches * (number + 1) // per_epoch) for number in range(per_epoch)]
        for step, batch in enumerate(task.batches(epoch, self.fit_batch, augmented=True), start=1):
            for network in members_of(model):
                network.train()
            source = Source(model)
            optimizer.zero_grad()
            with torch.random.fork_rng():  # for dropout
                torch.manual_seed(task.seed * 1_000_003 + epoch * 10_007 + step)
                enough = step == 1 or len(batch.images) > 1  # batch norms need two images
                for member in range(len(source.members)) if enough else ():
                    source.draw(batch.random(), 1)  # each member as if alone
                    logits, labels = source.logits(batch.images, member), batch.true_labels
                    loss_of_each("cross_entropy", logits, labels, False, 1).mean().backward()
            optimizer.step()
            for _ in range(stops.count(step)):
                yield _renewed(model, task, self.fit_batch)

    def bind(self, states: Mapping[float, State]) -> Callable[..., Any]:
        """Return the backward rule that uses the collected weights in turn."""
        return partial(_Collected, states)


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


def _renewed(model: nn.Module, task: FitTask, size: int) -> dict[str, Tensor]:
    """Return a model's weights, with the batch-norm statistics of training images."""
    renewed = copy_network(model)
    source = Source(renewed)

    def images() -> Iterator[Tensor]:
        for batch in islice(task.batches(0, size), _RENEWING):
            source.draw(batch.random(), 1)
            yield batch.images

    with torch.random.fork_rng():
        torch.manual_seed(task.seed)
        update_bn(images(), renewed)
    return _weights(renewed)


class _Collected(nn.Module):
    """Source that takes the next collected weights for each gradient."""

    def __init__(self, states: Mapping[float, State], model: nn.Module) -> None:
        super().__init__()
        self.model, self.state = model, state_of(states, 0.0)
        count = 1 + max(int(name.partition("/")[0]) for name in self.state if name[0].isdigit())
        self.order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
        self.weights: dict[str, Tensor] = {}

    def draw(self, random: PerImageRandom, budgets: int) -> None:
        """Load the next weights; the others stay off the device, which may be small."""
        device = next(self.model.parameters()).device
        place = self.order[random.shared.count % len(self.order)]
        random.shared.count += 1  # begins anew for each part of a batch
        chosen = _select(self.state, str(place))
        self.weights = {name: value.to(device) for name, value in chosen.items()}

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return cast(Tensor, functional_call(self.model, self.weights, (images,)))


@attack(
    # Batch norms are renewed for each of the weights; a forward pass counts as a third.
    fit_gradients=lambda n: (
        n.epochs * (n.fit_n_images + n.weights_per_epoch * min(n.fit_n_images, 8 * n.fit_batch) / 3)
    ),
    backward_rule=CollectedWeights,
    steps=50,
    relative_step_size=0.1,
)
def lgv() -> None:
    """Take gradients of weights from continued training: `bim` in a large geometric vicinity.

    Name: Large Geometric Vicinity.
    Reference: Gubri et al. (2022), arXiv 2207.13129 (50 steps of eps / 10).
    """
