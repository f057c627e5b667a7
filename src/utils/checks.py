"""Words of refusals."""

import re
from collections.abc import Sequence
from difflib import get_close_matches


def meant(given: str, known: Sequence[str]) -> str:
    """Return a question that follows a refusal, or nothing where no known word is near.

    >>> meant("nrom", ["norm", "loss"])
    ' Did you mean norm?'
    """
    words = " or ".join(get_close_matches(given, known, n=2, cutoff=0.7))
    return f" Did you mean {words}?" if words else ""


def first_line(error: BaseException) -> str:
    """Return an error's first line, without what libraries add to it and below it."""
    line = str(error).strip().split("\n")[0].split(", set env var HYDRA_FULL_ERROR")[0]
    return re.sub(r"\s+", " ", line)
