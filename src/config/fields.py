"""Types and checks of values: names, lists of distinct values, budgets, variants."""

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from os.path import expanduser
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from ..utils.about import listed
from ..utils.package import find_asset
from ..utils.refusals import choose

PRESETS = find_asset("assets/baselines")
"""Folder with a card of stored jobs for each preset."""
Item = TypeVar("Item", bound=Hashable)


_TAKEN = ("average", "clean", "difference", "mean")


def check_name(value: str) -> str:
    """Return a name after checking that it is valid for folders, experiments, columns and rows."""
    if not re.fullmatch(r"[A-Za-z0-9_.+-]{1,100}", value) or value in (".", "..", *_TAKEN):
        raise ValueError(
            f"{value[:120]!r} is not a valid name: use 1 to 100 letters, digits and _ . + -, but "
            f"not {', '.join(_TAKEN)}, which name rows and columns of tables"
        )
    return value


def _level(value: Any) -> Any:
    """Return a budget; refuse one written as a fraction of 255."""
    if isinstance(value, str) and (match := re.fullmatch(r"([\d.]+) */ *255", value)):
        raise ValueError(f"budgets are in units of 1/255: write {match[1]}")
    return value


def distinct(values: tuple[Item, ...]) -> tuple[Item, ...]:
    """Return the values; refuse repeated ones."""
    if twice := sorted(str(value) for value, count in Counter(values).items() if count > 1):
        raise ValueError(f"{', '.join(twice)} is listed more than once")
    return values


def find_preset(name: str) -> Path:
    """Return the card of a preset; refuse an unknown name."""
    cards = {path.stem: path for path in sorted(PRESETS.glob("*.card"))}
    return cards[choose("preset", str(name), cards)]  # from Python it may be anything


Name = Annotated[str, AfterValidator(check_name)]
ModelName = Annotated[Name, Field(pattern=r"^[^+]*$")]  # + joins the members of an ensemble
Distinct = Annotated[tuple[Item, ...], BeforeValidator(listed), AfterValidator(distinct)]
"""One value, or a list of different ones."""
ModelNames = Distinct[ModelName]
Budget = Annotated[float, BeforeValidator(_level), Field(ge=0, le=255)]
Budgets = Distinct[Budget]
Variant = Literal["float32", "uint8"]
Preset = Annotated[str, AfterValidator(lambda name: find_preset(name).stem)]
Place = Annotated[str, AfterValidator(expanduser)]  # a file or folder; ~ is the home folder


def check_units(budgets: Sequence[float], limit: float = 1, otherwise: str = "") -> None:
    """Refuse budgets with a maximum in (0, `limit`): probably meant in [0, 1] units, not in 1/255.

    `otherwise` says what to do if they are meant in 1/255.
    """
    if not 0 < max(budgets) < limit:
        return
    given = ", ".join(f"{eps:g}" for eps in budgets)
    # Below 0.1 rounded: 0.03 is short for 8/255.
    levels = [f"{round(255 * eps, int(eps >= 0.1)) or 255 * eps:g}" for eps in budgets]
    raise ValueError(
        f"{given}: budgets have unit 1/255. Did you mean {', '.join(levels)}?{otherwise}"
    )


def check_among(key: str, value: float, budgets: Sequence[float]) -> None:
    """Refuse a value that is neither 0 nor one of the budgets."""
    if value not in (0, *budgets):
        names = ", ".join(f"{budget:g}" for budget in budgets)
        raise ValueError(f"{key}={value:g} is not among the budgets {names}. Set it to one of them")
