"""Names and files of this package: `src` in a clone, `transferability` where it is installed."""

import ast
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path, PurePath
from pkgutil import resolve_name
from typing import Any

CLONE, INSTALLED = "src", "transferability"
PACKAGE = __name__.partition(".")[0]
"""The name under which this process imported the package."""
FOLDER = Path(__file__).resolve().parents[1]
OFFLINE = "Without a network: experiment=demo."
"""Way on if weights cannot be downloaded: the embedded images and networks."""


def command(module: str = "main") -> str:
    """Return the words that start a command, in the form that the user started.

    >>> command("table") in ("python -m src.table", "transferability table")
    True
    """
    if PACKAGE == CLONE:
        return f"python -m {CLONE}.{module}"
    return INSTALLED if module == "main" else f"{INSTALLED} {module}"


def install_command(extra: str) -> str:
    """Return the command that installs one of this package's extras."""
    place = "-e '." if FOLDER.name == CLONE else f"'{INSTALLED}"
    return f"pip install {place}[{extra}]'"


def find_asset(name: str) -> Path:
    """Return the place of files that come with this package: `conf`, `assets/NAME`.

    A wheel has `conf` inside the package, a clone beside it.
    """
    inside = FOLDER / name
    return FOLDER.parent / name if name == "conf" and not inside.is_dir() else inside


def is_asset(file: str) -> bool:
    """Return True if a path in a record is that of a file in this package's `assets`.

    A path that exists here must be that very file. One of another machine is told by its end.
    """
    path = PurePath(file)
    asset = find_asset(f"assets/{path.name}")
    if not os.path.isfile(asset):
        return False
    if os.path.exists(file):
        return os.path.samefile(file, asset)
    return path.parts[-3:-1] in ((CLONE, "assets"), (INSTALLED, "assets"))


def canonical_name(name: str) -> str:
    """Return a dotted name as it is written in records and keys: this package is `src`.

    >>> canonical_name("transferability.attacks.mi")
    'src.attacks.mi'
    """
    top = name.partition(".")[0]
    return CLONE + name.removeprefix(top) if top == INSTALLED else name


def importable_name(name: str) -> str:
    """Return the name by which this process imports what a `_target_` names.

    Both of this package's names mean the running package.
    """
    top, dot, rest = name.partition(".")
    return f"{PACKAGE}.{rest}" if dot and top in (CLONE, INSTALLED) else name


def resolve(name: str) -> Any:
    """Import what a `_target_` names, and return it; raise what the import raises."""
    return resolve_name(importable_name(name))


def lazily(package: str, file: str) -> tuple[list[str], Callable[[str], Any]]:
    """Return the `__all__` and the `__getattr__` of a package that imports names on first use.

    The names and their modules are the imports of the stub beside its `file`, which gives editors
    and type checkers the names' types.
    """
    home_of = {
        name.name: node.module or name.name
        for node in ast.parse(Path(file).with_suffix(".pyi").read_bytes()).body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = import_module(f".{home_of[name]}", package)
        return home if name == home_of[name] else getattr(home, name)

    return [*home_of], get


def values_in(section: Any) -> Iterator[Any]:
    """Yield a section and all values in it, recursively."""
    yield section
    if isinstance(section, dict | list | tuple):
        for value in section.values() if isinstance(section, dict) else section:
            yield from values_in(value)


def rename_targets(section: Any, rename: Callable[[str], str]) -> Any:
    """Return a config section with each name of a callable renamed, recursively."""
    if isinstance(section, dict):
        names = {"_target_"}
        if str(section.get("_target_")).startswith("hydra.utils.get_"):  # it returns the callable
            names.add("path")
        return {
            key: rename(value)
            if key in names and isinstance(value, str)
            else rename_targets(value, rename)
            for key, value in section.items()
        }
    if isinstance(section, list | tuple):
        return type(section)(rename_targets(value, rename) for value in section)
    return section
