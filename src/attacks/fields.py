"""Types of settings: what a field of a part may be."""

from typing import Annotated

from annotated_types import Ge, Le
from pydantic import AfterValidator, NonNegativeInt, Strict

from ..utils.checked_dataclass import odd

GreyLevels = Annotated[float, Ge(0), Le(255)]
OddSize = Annotated[NonNegativeInt, AfterValidator(odd)]
Names = Annotated[tuple[str, ...], Strict(False)]
