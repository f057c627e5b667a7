"""Names of public models: a list in the package, so that wrong names are refused without torch."""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

from src.utils.refusals import suggestion

PROVIDERS = ("timm", "torchvision", "hub", "robustbench", "onnx")
LIST = Path(__file__).parents[1] / "assets" / "public-models.txt"
"""File with one name per line; lines with `#` name the libraries that are listed completely."""


def check_listed(name: str) -> None:
    """Refuse a name that its provider, or the installed version of its library, does not have."""
    provider, (libraries, names) = name.partition("/")[0], _read()
    complete = provider in libraries and libraries[provider] == _public_version(provider)
    if provider not in PROVIDERS or (complete and name not in names):
        raise not_found(name)


def not_found(name: str, known: Sequence[str] = ()) -> ValueError:
    """Return the error for an unknown name, with similar listed or `known` names."""
    near, provider = near_models(name, known), name.partition("/")[0]
    listing = f" List all: python -m src.models {provider}" * (provider in PROVIDERS)
    return ValueError(f"{name}: no such model.{near}{listing}")


def near_models(name: str, known: Sequence[str] = ()) -> str:
    """Return a sentence with similar names of models, or with the tags to choose from."""
    names = list(dict.fromkeys([*known, *_read()[1]]))
    if tags := [other for other in names if other.startswith(f"{name}.")]:
        return f" There are {', '.join(tags[:5])}."
    stems = [other.partition(".")[0] for other in names]
    return suggestion(name, names if "." in name else [*dict.fromkeys(stems)])


@cache
def _read() -> tuple[dict[str, str], list[str]]:
    """Return the versions of the libraries that are listed completely, and the names."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    heads = [line.split() for line in lines if line.startswith("#")]
    return {head[1]: head[2] for head in heads}, lines[len(heads) :]


def _public_version(library: str) -> str:
    return version(library).partition("+")[0]
