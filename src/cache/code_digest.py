"""Digests of code that decides numbers: the program's own, and code that a config names."""

import ast
import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from importlib.machinery import PathFinder
from itertools import accumulate
from pathlib import Path
from typing import Any

from ..utils.files import facts_of_files, remembered, sha256_of
from ..utils.package import (
    CLONE,
    FOLDER,
    canonical_name,
    importable_name,
    resolve,
    values_in,
)

_RULES = ("attacks", "data", "defences", "images", "measure", "models", "cache/keys.py")
_RUN = ("check_job", "craft", "data", "evaluate", "models", "passes", "stages", "trainer")
_OTHERS = ["api", "cache", "report", "tracking", "training.py"]
_OTHERS += ["run/clean_accuracy.py", "run/track.py"]
"""Modules that rules import and that decide no row: they read, store and tell, or have own keys."""
version = cache(metadata.version)
_distributions = cache(metadata.packages_distributions)
_known: dict[tuple[Path, str], tuple[Any, tuple[str, list[str]]]] = {}  # code by file and module


@cache
def program_digest() -> str:
    """Return a digest of this program's rules, see `digest_rules`."""
    files = sorted(FOLDER.rglob("*.py"))
    return str(remembered(f"program of Python {sys.version}", files, lambda: digest_rules(FOLDER)))


def digest_rules(folder: Path) -> str:
    """Return a digest of the modules in a program's folder that decide rows.

    Comments, docstrings and the words of errors, warnings and the log make no difference.
    """
    digest = hashlib.sha256()
    for file in rule_files(folder):
        tree = ast.parse(file.read_bytes())
        for node in ast.walk(tree):
            if isinstance(body := getattr(node, "body", None), list):
                body[:] = [part for part in body if not _is_docstring(part)]
            if isinstance(node, ast.Raise) or _is_message(node):
                _blank_texts(node)
        digest.update(f"{file.relative_to(folder)} {ast.dump(tree)}\n".encode())
    return digest.hexdigest()[:16]


def rule_files(folder: Path) -> list[Path]:
    """Return the modules in a program's folder that decide rows.

    They are the packages of rules, what makes rows in `run`, and what these import, recursively.
    """
    files = {file for name in _RULES for file in (folder / name, *(folder / name).rglob("*.py"))}
    files |= {folder / "run" / f"{name}.py" for name in _RUN}
    others = [folder / name for name in _OTHERS]
    pending = files = {file for file in files if file.is_file()}
    while pending:
        modules = {
            file: ".".join(file.relative_to(folder).with_suffix("").parts) for file in pending
        }
        names = {name for file in pending for name in _imports(file, modules[file])}
        found = {module for name in names if (module := _module_of(folder, name))}
        pending = {file for file in found if not {file, *file.parents} & {*others}} - files
        files = files | pending
    return sorted(files)


def _module_of(folder: Path, name: str) -> Path | None:
    """Return the file of the module that a dotted name is in, or is."""
    places = reversed([*accumulate(name.split("."), "{}/{}".format)])
    files = (folder / at for place in places for at in (f"{place}.py", f"{place}/__init__.py"))
    return next(filter(Path.is_file, files), None)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_message(node: ast.AST) -> bool:
    """Return True for a call of the log or of a function that warns."""
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func)
    return name.startswith("log.") or name.rpartition(".")[2] in ("warn", "warn_once")


def _blank_texts(node: ast.AST) -> None:
    for part in ast.walk(node):
        if isinstance(part, ast.JoinedStr):
            part.values = [value for value in part.values if isinstance(value, ast.FormattedValue)]
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            part.value = ""


def code_of(settings: Any, upgrades: bool = True) -> dict[str, str]:
    """Return digests, by name, of the code that a config section names.

    The code consists of each file that a value names, the Python files in each folder that a value
    names, and the module of each `_target_` with the modules that it imports, recursively. An
    installed package is represented by its version if it has one.

    Args:
        settings: The section.
        upgrades: False: leave out packages with a version and imports from this program.
    """
    values = list(values_in(settings))
    paths = [Path(value) for value in values if isinstance(value, str) and os.path.exists(value)]
    files = [file for path in paths for file in (path, *path.rglob("*.py")) if file.is_file()]
    code = {str(file): read_code(file)[0] for file in files}
    pending = [name for value in values if isinstance(value, dict) for name in _callable(value)]
    while pending:
        for module, file in _modules(pending.pop()):
            is_own = file.resolve().is_relative_to(FOLDER)
            name = canonical_name(module) if is_own else module
            if name in code or (is_own and (not upgrades or name == CLONE or _is_rule(file))):
                continue
            is_installed = not is_own and {"site-packages", "dist-packages"} & {*file.parts}
            names = _distributions().get(module.partition(".")[0], ()) if is_installed else ()
            if names:
                code |= {name: version(name) for name in names if upgrades}
            elif is_own or is_installed or not file.is_relative_to(sysconfig.get_path("stdlib")):
                code[name], imports = read_code(file, module)
                pending += imports
    return dict(sorted(code.items()))


def _is_rule(file: Path) -> bool:
    """Return True if the program's digest has a file of this program, or if nothing is in it."""
    package = file.resolve().relative_to(FOLDER).parts[0]
    return package in (*_RULES, "__init__.py")


def _callable(section: dict[str, Any]) -> tuple[str, str]:
    """Return the dotted name of a section's callable and the module that defines it."""
    target = str(section.get("_target_", ""))
    if target.startswith("hydra.utils.get_"):  # the `_target_` returns the callable
        target = str(section.get("path", ""))
    target = importable_name(target)
    try:
        return target, str(getattr(resolve(target), "__module__", ""))
    except Exception:  # any error in the module's own code; the plan refuses it later
        return target, ""


def _modules(name: str) -> Iterator[tuple[str, Path]]:
    """Yield each module along a dotted name, with its file."""
    places = None
    for module in accumulate(name.split("."), "{}.{}".format):
        last = module.rpartition(".")[2]
        # Not importlib.util.find_spec, which imports the parent packages.
        finders: list[Any] = [PathFinder] if "." in module else sys.meta_path
        specs = (finder.find_spec(last, places) for finder in finders if last.isidentifier())
        if (spec := next(filter(None, specs), None)) is None:
            break
        if spec.has_location and spec.origin:
            yield module, Path(spec.origin)
        places = spec.submodule_search_locations or ()


def read_code(file: Path, module: str = "") -> tuple[str, list[str]]:
    """Return the SHA-256 of a file, and the names that it imports if it is a Python module.

    A module's file is read when the module is imported, and another file when it changes: an edit
    counts from the moment on that this process runs the new code.
    """
    state = _state(file, module)
    if _known.get((file, module), ())[:1] != (state,):
        _known[file, module] = state, (sha256_of(file), _imports(file, module))
    return _known[file, module][1]


def _state(file: Path, module: str) -> Any:
    """Return a value that differs once a file's module is imported anew, or the file changes."""
    for loaded in [sys.modules.get(module)] if module else [*sys.modules.values()]:
        facts = getattr(loaded, "__dict__", {})
        if facts.get("__file__") == str(file):
            return loaded, id(facts.get("__spec__"))  # a reload keeps the module
    return facts_of_files([file])


def _imports(file: Path, module: str) -> list[str]:
    names, parts = list[str](), module.removesuffix(".__init__").split(".")
    parts += [""] * (file.stem == "__init__")
    try:
        tree = ast.parse(file.read_bytes() if file.suffix == ".py" else b"")
    except (SyntaxError, ValueError):  # another Python version's syntax; nothing imports it
        tree = ast.parse("")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = [*parts[: -node.level], *filter(None, [node.module])]  # level 0: no parts
            names += [".".join([*above, alias.name]) for alias in node.names]
    return names
