"""Digests of the code that decides numbers: this program's and a config's."""

import ast
import hashlib
import pkgutil
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec, resolve_name
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from src.utils.files import sha256_of

ROWS = ("attacks", "data", "defences", "images", "measure", "models", "run")
"""Packages of this program that decide the rows of a job."""
WEIGHTS = ("data", "models", "training")
"""Packages that decide trained weights."""
_HERE = Path(__file__).resolve().parents[1]
_STANDARD = Path(sysconfig.get_path("stdlib"))
_INSTALLED = {"site-packages", "dist-packages"}

_read: WeakKeyDictionary[ModuleType, tuple[str, list[str]]] = WeakKeyDictionary()
"""Digest and imports by module, kept since a file edited later is not the code that runs."""


@cache
def own_code(packages: tuple[str, ...] = ROWS) -> str:
    """Return a digest of packages of this program; comments and docstrings do not count."""
    files = sorted(path for name in packages for path in (_HERE / name).rglob("*.py"))
    parts = [f"{path.relative_to(_HERE)} {_digest(path)}" for path in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def code_of(settings: Any) -> dict[str, str]:
    """Return the code behind every callable that a config's section names as `_target_`.

    The code is the module in which the config names the callable, and all that this one
    imports, at any depth and wherever in its text: by name the digest of a module outside
    site-packages (of an editable installation too), or the version of an installed package.
    The standard library, this program's packages, and files that the code reads are left out.
    """
    code: dict[str, str] = {}
    pending = [module for target in _targets(settings) for module in _modules_of(target)]
    while pending:
        for module in accumulate(pending.pop().split("."), "{}.{}".format):
            spec = None if module in code else _spec(module)
            places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
            paths = [Path(place) for place in places if place and Path(place).exists()]
            installed = any(_INSTALLED & set(path.parts) for path in paths)
            versions = _versions(module.partition(".")[0]) if installed else {}
            known = any(path.is_relative_to(_HERE) or _is_standard(path) for path in paths)
            if versions or known:
                code |= versions
                break
            if spec is not None and spec.has_location and paths:  # a namespace has no file
                code[module], imported = _module(module, paths[0], spec.parent or "")
                pending += imported
    return dict(sorted(code.items()))


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield str(value["_target_"])
        value = list(value.values())
    if isinstance(value, list | tuple):
        for entry in value:
            yield from _targets(entry)


def _is_standard(path: Path) -> bool:
    return path.is_relative_to(_STANDARD) and not _INSTALLED & set(path.parts)


def _modules_of(target: str) -> list[str]:
    """Return the module in which a config names a callable, imported, and the callable's own."""
    try:
        value = pkgutil.resolve_name(target)
    except Exception as error:  # of any kind, as the module's own code may raise it
        reason = str(error).rstrip(".")
        raise ValueError(f"_target_ {target} cannot be imported: {reason}.") from error
    while target not in sys.modules:
        target = target.rpartition(".")[0]
    return [target, getattr(value, "__module__", None) or target]


def _spec(name: str) -> ModuleSpec | None:
    """Return a module's spec, whatever was imported before; None if there is no such module."""
    parent, _, _ = name.rpartition(".")
    if not parent:
        if name not in sys.modules:
            return find_spec(name)
        module = sys.modules[name]  # or whatever code has put there
        return module.__spec__ if isinstance(module, ModuleType) else PathFinder.find_spec(name)
    above = _spec(parent)
    places = above and above.submodule_search_locations
    return PathFinder.find_spec(name, places) if places else None


@cache
def _versions(package: str) -> dict[str, str]:
    try:
        return {package: version(package)}
    except PackageNotFoundError:  # its distribution has another name
        return {name: version(name) for name in packages_distributions().get(package, ())}


def _module(name: str, file: Path, package: str) -> tuple[str, list[str]]:
    """Return the digest of a module's file, and the names it imports that may be modules."""
    module = sys.modules.get(name)
    facts = _read.get(module) if isinstance(module, ModuleType) else None
    if facts is None:
        try:
            facts = _digest(file), list(_imports(file, package))
        except (SyntaxError, ValueError):  # of a file that nobody runs, as for another Python
            facts = sha256_of(file), []
    if isinstance(module, ModuleType):
        _read[module] = facts
    return facts


def _digest(path: Path) -> str:
    """Return a digest of a Python file's syntax tree without docstrings, else the SHA-256."""
    if path.suffix != ".py":
        return sha256_of(path)
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        for field, parts in ast.iter_fields(node):
            if isinstance(parts, list):
                setattr(node, field, [part for part in parts if not _is_docstring(part)])
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_docstring(node: Any) -> bool:
    constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return constant and isinstance(node.value.value, str)


def _imports(file: Path, package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes() if file.suffix == ".py" else b"")):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                above = resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # of a file outside a package, which tries another name next
                continue
            yield above
            yield from (f"{above}.{alias.name}" for alias in node.names)
