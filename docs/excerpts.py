"""Parts of the repository's files as Markdown: code, descriptions of an interface, sections."""

import ast
import re
import textwrap
from collections.abc import Iterator
from inspect import getsource, ismodule
from typing import Any

from catalogue import REPOSITORY
from formulas import markdown
from hydra.utils import get_object

Definition = ast.FunctionDef | ast.ClassDef


def code(place: str) -> str:
    """Return definitions, named as `PATH NAME NAME`, as a block of code."""
    path, *names = place.split()
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    nodes = (_definition(text, name) for name in names)
    return _block("\n\n\n".join(_lines(text, node, node.end_lineno) for node in nodes))


def fields(place: str) -> str:
    """Return a class, named as `PATH NAME`, up to its first method, as a block of code."""
    path, name = place.split()
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    node = _definition(text, name)
    assert isinstance(node, ast.ClassDef)
    methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    kept = [each for each in node.body if each.lineno < (methods[0].lineno if methods else 10**6)]
    return _block(_lines(text, node, kept[-1].end_lineno))


def file(place: str) -> str:
    """Return a file of YAML as a block."""
    return f"```yaml\n{(REPOSITORY / place).read_text(encoding='utf-8')}```"


def section(place: str) -> str:
    """Return the text under a heading, named as `PATH HEADING`, with links for our pages."""
    path, _, heading = place.partition(" ")
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert found, place
    links = re.sub(r"\]\((?!docs/|\w+:|#)", "](../", found[1].strip())
    return links.replace("](docs/", "](")


def interface(names: str) -> str:
    """Return heads and docstrings of objects by their full names; of modules: all public ones."""
    parts: list[str] = []
    for name in names.split():
        thing: Any = get_object(name)
        text = textwrap.dedent(getsource(thing))
        nodes = ast.parse(text).body
        for node, after in zip(nodes, [*nodes[1:], None], strict=True):
            if not ismodule(thing) or _is_public(node):
                parts += _described(text, node, "")
            elif isinstance(node, ast.Assign) and isinstance(after, ast.Expr):
                code, said = ast.unparse(node), ast.literal_eval(after.value)
                parts += [f"### `{code.partition(' ')[0]}`", _block(code), said]
    return "\n\n".join(parts)


def _described(text: str, node: Any, owner: str) -> Iterator[str]:
    """Yield a heading, the head in the code and the docstring; for a class its methods', too."""
    yield f"{'####' if owner else '###'} `{owner}{node.name}`"
    made = [each for each in node.body if getattr(each, "name", "") in ("__init__", "__call__")]
    heads = [_head(text, each) for each in (node, *made)]
    yield _block("\n".join(textwrap.indent(head, "    " * bool(n)) for n, head in enumerate(heads)))
    yield "\n".join(markdown(ast.get_docstring(node)))
    if made and (said := ast.get_docstring(made[-1])):
        yield "\n".join(markdown(said))
    if isinstance(node, ast.ClassDef):
        for each in filter(_is_public, node.body):
            yield from _described(text, each, f"{node.name}.")


def _head(text: str, node: Any) -> str:
    """Return the lines of a definition above its docstring or body; of decorators `property`."""
    lines = text.splitlines()[node.lineno - 1 : node.body[0].lineno - 1]
    names = [ast.unparse(each) for each in node.decorator_list]
    start = "@property\n" if "property" in names else ""
    return start + textwrap.dedent("\n".join(lines)).rstrip("\n:")


def _is_public(node: ast.stmt) -> bool:
    described = isinstance(node, Definition) and ast.get_docstring(node)
    return bool(described) and node.name[0] != "_"


def _definition(text: str, name: str) -> ast.stmt:
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if name in [getattr(node, "name", ""), *(getattr(each, "id", "") for each in targets)]:
            return node
    raise ValueError(f"{name} is not in the file")


def _lines(text: str, node: ast.stmt, last: int | None) -> str:
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : last]))


def _block(code: str) -> str:
    """Return code as a block; tests run blocks that say `python`."""
    return f"```py\n{code}\n```"
