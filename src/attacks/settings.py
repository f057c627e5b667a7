"""Settings common to all attacks."""

from math import prod
from typing import Annotated, Literal

from annotated_types import Gt, Le
from pydantic import (
    AfterValidator,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Strict,
    model_validator,
)
from torch import Tensor, full_like

from src.attacks.parts import BackwardRule, Estimator, Gradient, Objective, State, Transform, Update
from src.attacks.projection import direction
from src.utils.checked_dataclass import Share, checked, odd


def single_gradient(gradient: Gradient, state: State) -> Tensor:
    """Return the one gradient at `state.at`."""
    return gradient(state.at)


def steepest_ascent(momentum: Tensor, state: State) -> Tensor:
    """Return a step of full length: along the signs or, for L2, along the momentum."""
    return state.step_size * direction(momentum, state.norm)


@checked
class Settings:
    """Settings of an attack: keywords of `bim` and, with other defaults, of every attack.

    Attributes:
        loss: Name of the loss to maximise, see `LOSSES`.
        norm: `linf` or `l2`, whose radius is eps * sqrt(values of an image), see `project`.
        steps: Number of gradient steps.
        step_size_255: Length of a step in units of 1/255, the same for every budget.
        relative_step_size: Length of a step as a share of the budget, if `step_size_255` is None;
            None: 1 / steps. All steps in one direction then just reach the border of the ball.
        warm_up_steps: Number of steps before these, which leave their momentum alone.
        warm_up_scale: Length of a step of the warm-up, in steps.
        random_start: None, `uniform` in the ball, or `sign`: plus or minus the radius in every
            value, for `linf` alone.
        start_radius: Radius of the random start, as a share of the budget.
        restarts: Number of runs of all steps; each image keeps the result of the highest loss.
        keep_best: Return each image's iterate of the highest loss, at a forward pass more per step.
        decay: Decay mu of the momentum; 0: none.
        normalised: Divide each gradient by its mean absolute value before it enters the momentum.
        lookahead: Point at which the gradient is taken: None, at x_t; `momentum`, at
            x_t + a * mu * m_{t-1}; `gradient`, at x_t + a * g_{t-1} / mean|g_{t-1}|.
        kernel_size: Side of the Gaussian that gradients are smoothed with, odd; 0: none.
        transforms: Applied to the images in this order; their numbers of copies multiply.
        copies_average: `gradients` of the copies, taken one by one, or their `logits`, of which
            one gradient is taken through all copies at once.
        estimator: Gradient estimator that replaces the one gradient g_t at p_t.
        update: Rule that makes a step of the momentum.
        backward_rule: Changed copy of the source that gradients are taken of; None: the source.
        objective: Function maximised in the loss's place, such as one of a layer's output.
        layer: Layer that the objective reads, or one for each member of an ensemble; None: the
            `feature_layer` that the source states.
    """

    loss: Literal["cross_entropy", "calibrated", "logit", "margin"] = "cross_entropy"
    norm: Literal["linf", "l2"] = "linf"
    steps: PositiveInt = 10
    step_size_255: Annotated[float, Gt(0), Le(255)] | None = None
    relative_step_size: PositiveFloat | None = None
    warm_up_steps: NonNegativeInt = 0
    warm_up_scale: PositiveFloat = 1.0
    random_start: Literal["uniform", "sign"] | None = None
    start_radius: Share = 1.0
    restarts: PositiveInt = 1
    keep_best: bool = False
    decay: NonNegativeFloat = 0.0
    normalised: bool = True
    lookahead: Literal["momentum", "gradient"] | None = None
    kernel_size: Annotated[NonNegativeInt, AfterValidator(odd)] = 0
    transforms: Annotated[tuple[Transform, ...], Strict(False)] = ()
    copies_average: Literal["gradients", "logits"] = "gradients"
    estimator: Estimator = single_gradient
    update: Update = steepest_ascent
    backward_rule: BackwardRule | None = None
    objective: Objective | None = None
    layer: str | Annotated[tuple[str, ...], Strict(False)] | None = None

    @model_validator(mode="after")
    def _go_together(self) -> "Settings":
        if self.norm == "l2" and self.random_start == "sign":
            raise ValueError("attack.random_start=sign needs attack.norm=linf; use uniform")
        if self.restarts > 1 and self.random_start is None:
            raise ValueError(f"attack.restarts={self.restarts} needs attack.random_start")
        if self.layer is not None and self.objective is None:
            raise ValueError(f"attack.layer={self.layer} needs attack.objective, which reads it")
        if self.objective is not None and self.copies_average == "logits":
            raise ValueError("attack.copies_average=logits cannot go with attack.objective")
        return self

    @property
    def one_gradient(self) -> bool:
        """True if one gradient an image serves all budgets."""
        plain = self.estimator is single_gradient and self.update is steepest_ascent
        shared = not (self.random_start or self.per_budget)
        return plain and shared and self.steps + self.warm_up_steps == 1

    @property
    def per_budget(self) -> bool:
        """True if gradients of different budgets differ at the same image."""
        return getattr(self.objective, "per_budget", False)

    @property
    def passes_per_gradient(self) -> int:
        """Number of passes through the source that one gradient holds in memory."""
        averaged = self.copies_average == "logits"
        return prod(transform.copies for transform in self.transforms) if averaged else 1

    def step_size(self, eps: Tensor) -> Tensor:
        """Return the length of a step for each budget, in [0, 1] units."""
        if self.step_size_255 is not None:
            return full_like(eps, self.step_size_255 / 255)
        return eps * self.relative_step_size if self.relative_step_size else eps / self.steps
