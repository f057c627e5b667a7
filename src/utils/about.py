"""Statements of an attack: what it is, and what it works with."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, PositiveInt

Norm = Literal["linf", "l2"]
Need = Literal["layers", "skip connections", "skip connections or ReLUs", "attention", "ReLUs"]
Category = Literal[
    "gradient", "input", "backward", "feature", "ensemble", "targeted", "fitted", "library", "own"
]


def listed(value: Any) -> Any:
    """Return one item as a tuple of one."""
    if isinstance(value, list | tuple):
        return tuple(value)
    return value if value is None else (value,)


class About(BaseModel):
    """Statements of an attack, in its code or as `about` in its file.

    Attributes:
        category: Its kind, by what it changes.
        does: Its rule in some words.
        paper: The paper's number at arXiv, or its address.
        gradients: Number of gradients per image, an expression of the attack's settings and of the
            number K of budgets; those of an ensemble count once for each of its M members. Of a
            library's attack it is only counted.
        forwards: Number of passes an image besides, likewise.
        fit_gradients: Number of gradients that its fit takes, an expression of settings and K.
        targeted: True if the attack may have target labels, or `only` if it must.
        norms: Norms of its balls.
        members: Least number of the source's members.
        needs: Parts that the source's network must have.
        universal: True if all images get the same perturbation.
        mixes: False if it never mixes in other images of the data set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    category: Category = "own"
    does: str = ""
    paper: str = ""
    gradients: str | int = ""
    forwards: str | int = 0
    fit_gradients: str | int = 0
    targeted: bool | Literal["only"] = True
    norms: Annotated[tuple[Norm, ...], BeforeValidator(listed)] = ("linf", "l2")
    members: PositiveInt = 1
    needs: Annotated[tuple[Need, ...], BeforeValidator(listed)] = ()
    universal: bool = False
    mixes: bool = True
