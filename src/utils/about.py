"""Statements of an attack: its category, cost and requirements."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, PositiveInt

Norm = Literal["linf", "l2"]
Need = Literal["layers", "skip connections", "skip connections or ReLUs", "attention", "ReLUs"]
Category = Literal[
    "gradient", "input", "backward", "feature", "ensemble", "targeted", "fitted", "library", "own"
]


def listed(value: Any) -> Any:
    """Return a single item as a tuple; return lists unchanged."""
    if isinstance(value, list | tuple):
        return tuple(value)
    return value if value is None else (value,)


class About(BaseModel):
    """Statements of an attack, in its code or as `about` in its file.

    Attributes:
        category: Kind of attack, by what it changes.
        name: Full name.
        does: Short description of its rule.
        paper: The paper's arXiv number or its address.
        year: Year of the paper's publication.
        gradients: Number of gradients per image; for an ensemble, per image and member. A text is
            for people only: the attack's function computes the number, see `attack`.
        forwards: Number of additional forward passes per image; likewise.
        targeted: True if the attack accepts target labels, or `only` if it requires them.
        norms: Norms of the balls that it supports.
        members: Minimum number of the source's members.
        needs: Parts that the source's network must have.
        universal: True if all images get the same perturbation.
        mixes: False if it never mixes in other images of the data set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    category: Category = "own"
    name: str = ""
    does: str = ""
    paper: str = ""
    year: int | None = None
    gradients: str | int | float = ""
    forwards: str | int | float = ""
    targeted: bool | Literal["only"] = True
    norms: Annotated[tuple[Norm, ...], BeforeValidator(listed)] = ("linf", "l2")
    members: PositiveInt = 1
    needs: Annotated[tuple[Need, ...], BeforeValidator(listed)] = ()
    universal: bool = False
    mixes: bool = True


def inherits_statements(function: Any) -> bool:
    """Return True if `functools.wraps` has copied the statements of another attack."""
    inner = getattr(getattr(function, "__wrapped__", None), "about", None)
    return inner is not None and getattr(function, "about", None) is inner
