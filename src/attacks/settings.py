"""Settings common to all attacks."""

from math import prod
from typing import Annotated, Literal

from annotated_types import Gt, Le
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, full_like

from ..utils.checked_dataclass import Share, checked
from .fields import Names, OddSize
from .parts import BackwardRule, Estimator, Objective, Transforms, Update
from .steps import DecayingSteps, single_gradient, steepest_ascent


@checked
class Settings:
    """Settings of an attack: the keywords of `bim`. Other attacks change their defaults.

    Attributes:
        loss: Name of the loss to maximise, see `LOSSES`.
        norm: `linf` or `l2`; the L2 radius is eps * sqrt(values per image), see `project`.
        steps: Number of gradient steps.
        step_size_255: Step size in units of 1/255, the same for every budget.
        relative_step_size: Step size as a share of the budget, used if `step_size_255` is None;
            None: 1 / steps. With 1 / steps, steps in a constant direction just reach the border of
            the ball.
        step_rule: None: steps of equal length; `mdcs`: shorter steps for values with a large
            momentum, see `DecayingSteps`; for `linf` only.
        warm_up_steps: Number of steps before the first; only their momentum is kept.
        warm_up_scale: Step size of the warm-up, as a multiple of the ordinary step size.
        random_start: None; `uniform` in the ball; or `sign`: plus or minus the radius in every
            value, for `linf` only.
        start_radius: Radius of the random start, as a share of the budget.
        restarts: Number of runs; each image keeps its result with the highest loss.
        keep_best: Return each image's iterate with the highest loss; one more forward pass per
            step.
        decay: Decay factor mu of the momentum; 0: no momentum.
        normalised: Divide each gradient by its mean absolute value before it enters the momentum.
        lookahead: Point where the gradient is taken: x_t if None; x_t + a * mu * m_{t-1} if
            `momentum`; x_t + a * g_{t-1} / mean|g_{t-1}| if `gradient`.
        kernel_size: Side of the Gaussian that smooths the gradients, odd; 0: no smoothing.
        transforms: Transforms of the images, in this order; their numbers of copies multiply.
        copies_average: What is averaged over the copies: `gradients`, taken one by one, or
            `logits`, with one gradient through all copies at once.
        estimator: Gradient estimator that replaces the single gradient g_t at p_t.
        update: Rule that turns the momentum into a step.
        backward_rule: Rule that changes the copy of the source used for gradients; None: no change.
        objective: Function to maximise instead of the loss, such as one of a layer's output.
        layer: Layer that the objective reads, or one per ensemble member; None: the source's
            `feature_layer`.
    """

    loss: Literal["cross_entropy", "calibrated", "logit", "margin"] = "cross_entropy"
    norm: Literal["linf", "l2"] = "linf"
    steps: PositiveInt = 10
    step_size_255: Annotated[float, Gt(0), Le(255)] | None = None
    relative_step_size: PositiveFloat | None = None
    step_rule: Literal["mdcs"] | None = None
    warm_up_steps: NonNegativeInt = 0
    warm_up_scale: PositiveFloat = 1.0
    random_start: Literal["uniform", "sign"] | None = None
    start_radius: Share = 1.0
    restarts: PositiveInt = 1
    keep_best: bool = False
    decay: NonNegativeFloat = 0.0
    normalised: bool = True
    lookahead: Literal["momentum", "gradient"] | None = None
    kernel_size: OddSize = 0
    transforms: Transforms = ()
    copies_average: Literal["gradients", "logits"] = "gradients"
    estimator: Estimator = single_gradient
    update: Update = steepest_ascent
    backward_rule: BackwardRule | None = None
    objective: Objective | None = None
    layer: str | Names | None = None

    @model_validator(mode="after")
    def _go_together(self) -> "Settings":
        if self.norm == "l2" and self.random_start == "sign":
            raise ValueError("attack.random_start=sign needs attack.norm=linf; use uniform")
        if self.step_rule is not None and self.norm == "l2":
            raise ValueError("attack.step_rule=mdcs needs attack.norm=linf")
        if self.step_rule is not None and self.update is not steepest_ascent:
            raise ValueError("attack.step_rule=mdcs does not work with attack.update")
        if self.step_rule is not None and not self.normalised:
            raise ValueError("attack.step_rule=mdcs needs attack.normalised=true")
        if self.restarts > 1 and self.random_start is None:
            raise ValueError(f"attack.restarts={self.restarts} needs attack.random_start")
        if self.layer is not None and self.objective is None:
            raise ValueError(f"attack.layer={self.layer} needs attack.objective, which reads it")
        if self.objective is not None and self.copies_average == "logits":
            raise ValueError("attack.copies_average=logits does not work with attack.objective")
        return self

    @property
    def chosen_update(self) -> Update:
        """Update of the step rule, or the attack's own."""
        return self.update if self.step_rule is None else DecayingSteps()

    @property
    def one_gradient(self) -> bool:
        """True if one gradient per image serves all budgets."""
        plain = self.estimator is single_gradient and self.update is steepest_ascent
        shared = not (self.random_start or self.per_budget)
        return plain and shared and self.steps + self.warm_up_steps == 1

    @property
    def per_budget(self) -> bool:
        """True if the gradient at an image depends on the budget."""
        return getattr(self.objective, "per_budget", False)

    @property
    def passes_per_gradient(self) -> int:
        """Number of forward passes that one gradient keeps in memory."""
        averaged = self.copies_average == "logits"
        return prod(transform.copies for transform in self.transforms) if averaged else 1

    def step_size(self, eps: Tensor) -> Tensor:
        """Return the step size for each budget, in [0, 1] units."""
        if self.step_size_255 is not None:
            return full_like(eps, self.step_size_255 / 255)
        return eps * self.relative_step_size if self.relative_step_size else eps / self.steps
