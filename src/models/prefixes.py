"""Search for a network's state dict in a weight file: by prefix, averaged or not."""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.utils.refusals import shortened

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "last")
"""Keys of state dicts in files. If several fit, the first one is taken."""
_AVERAGED = re.compile(r"(^|[./_-])(ema|swa|avg|average|averaged|shadow)(?=[./_-])", re.IGNORECASE)
_RAW = "current_model_state/"  # of Lightning's WeightAveraging; its `state_dict` is averaged
_say_once = cache(logging.getLogger(__name__).warning)


def find_prefix(
    path: Path, stored: Mapping[str, Any], needed: Mapping[str, Tensor], averaged: bool
) -> str:
    """Return the prefix that a network's state dict has in a file, and log a choice.

    All names that the network needs must follow the prefix. Prefixes with the network's shapes are
    preferred.

    Args:
        path: The file, for messages.
        stored: The file's values by name; names in a dict begin with its key and `/`.
        needed: The network's tensors by name.
        averaged: Take averaged weights if the file has both; False: take the others.

    Raises:
        ValueError: There is no such prefix, or several are as good.
    """
    tensors = {name: value for name, value in stored.items() if torch.is_tensor(value)}
    counts = Counter(prefix for name in tensors for prefix in _prefixes(name, needed))
    named = [prefix for prefix, count in counts.items() if count == len(needed)]
    if not named:
        raise ValueError(_misfit(path, [*tensors], [*needed], counts))
    fits = [
        prefix
        for prefix in named
        if all(tensors[prefix + name].shape == value.shape for name, value in needed.items())
    ]
    if any(prefix.startswith(_RAW) for prefix in fits):
        means = [prefix for prefix in fits if not prefix.startswith(_RAW)]
    else:
        means = [prefix for prefix in fits if _AVERAGED.search(prefix)]
    others = [prefix for prefix in fits or named if prefix not in means]
    chosen = means if means and (averaged or not others) else others
    keys = [prefix.rpartition("/")[0].partition("/")[0] for prefix in chosen]
    known = [chosen[keys.index(key)] for key in WRAPPERS if key in keys]
    if len(chosen) > 1 and not known:
        raise ValueError(
            f"{path}: weights under {shortened(chosen)} fit. Save one of them in a file of its own."
        )
    prefix = [*known, *chosen][0]
    if means and others and averaged:
        _say_once(
            "%s: the averaged weights under %s are used. To use those under %s: "
            "model.NAME.averaged=false",
            *(path, prefix, others[0] or "no prefix"),
        )
    directory = prefix[: prefix.rfind("/") + 1]
    beside = [name for name in names_under(directory, tensors) if not name.startswith(prefix)]
    if beside:
        _say_once("%s: the weights under %s are used, not %s.", path, prefix, shortened(beside))
    return prefix


def names_under(prefix: str, names: Mapping[str, Any]) -> list[str]:
    """Return the names that begin with a prefix, except those in a dict further down."""
    return [name for name in names if name.startswith(prefix) and "/" not in name[len(prefix) :]]


def _prefixes(name: str, needed: Mapping[str, Any]) -> Iterator[str]:
    """Yield every prefix of a name that leaves a needed name."""
    for start in (0, *(match.end() for match in re.finditer("[./]", name))):
        if name[start:] in needed:
            yield name[:start]


def _misfit(
    path: Path, tensors: Sequence[str], needed: Sequence[str], counts: Mapping[str, int]
) -> str:
    text = f"{path} does not fit the network. The file has {shortened(tensors)}; "
    text += f"the network {shortened(needed)}."
    if counts:
        best = max(counts, key=lambda prefix: (counts[prefix], len(prefix)))
        missing = [name for name in needed if best + name not in tensors]
        fit = f"{counts[best]} of the network's {len(needed)} names are in the file"
        text += f" {fit}{f' under {best}' * bool(best)}, but not {shortened(missing)}."
    return text
