"""Dataclasses that check their fields by the ranges and choices of their types."""

from typing import Annotated, Any, TypeVar, dataclass_transform

from annotated_types import Ge, Le
from pydantic import ConfigDict, dataclasses

T = TypeVar("T")
Share = Annotated[float, Ge(0), Le(1)]


def odd(size: int) -> int:
    """Return an odd number, or 0.

    Raises:
        ValueError: The number is another.
    """
    if size % 2 == 0 and size:
        raise ValueError(f"{size} is even; an odd number is needed")
    return size


@dataclass_transform(frozen_default=True)
def checked(cls: type[T]) -> type[T]:
    """Make a frozen dataclass that takes exactly its fields' types, and of numbers finite ones.

    A value without a meaning raises pydantic's `ValidationError`, which is a `ValueError`.
    """
    config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True
    )
    made: Any = dataclasses.dataclass(frozen=True, config=config)(cls)
    return made
