"""Dataclasses that check their fields against the ranges and choices of their types."""

from typing import Annotated, Any, TypeVar, dataclass_transform

from annotated_types import Ge, Le
from pydantic import ConfigDict, dataclasses

T = TypeVar("T")
Share = Annotated[float, Ge(0), Le(1)]


def odd(size: int) -> int:
    """Return a number after checking that it is odd or 0.

    Raises:
        ValueError: The number is even and not 0.
    """
    if size % 2 == 0 and size:
        raise ValueError(f"{size} is even; an odd number is needed")
    return size


@dataclass_transform(frozen_default=True)
def checked(cls: type[T]) -> type[T]:
    """Make a frozen dataclass that accepts only values of its fields' types, and finite numbers.

    Invalid values raise pydantic's `ValidationError`, which is a `ValueError`.
    """
    config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True
    )
    made: Any = dataclasses.dataclass(frozen=True, config=config)(cls)
    return made
