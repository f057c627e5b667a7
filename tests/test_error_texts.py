"""No code decides by the text of an error of this program: words may change at any time."""

import ast
from collections.abc import Iterator

from tests.conftest import REPOSITORY

READERS = {"str", "repr", "first_line", "explain", "describe"}
SEARCHES = {"startswith", "endswith", "search", "match", "fullmatch", "find", "count"}
OF_LIBRARIES = ["models/weights.py"]  # torch marks TorchScript by its text alone


def decisions(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the expressions that code branches on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            yield node.test
        elif isinstance(node, ast.Match):
            yield node.subject
        elif isinstance(node, ast.Compare) or (
            isinstance(node, ast.Call) and getattr(node.func, "attr", "") in SEARCHES
        ):
            yield node


def reads_text(tree: ast.AST, name: str) -> bool:
    """Return True if an expression has the text of the error in a variable."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in READERS:
            values = node.args
        else:
            values = [node.value] if isinstance(node, ast.FormattedValue) else []
        if any(ast.unparse(value) == name for value in values):
            return True
    return False


def deciding(code: str) -> list[int]:
    """Return the lines of handlers that decide by the text of their error."""
    handlers = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ExceptHandler) and node.name
    ]
    return [
        handler.lineno
        for handler in handlers
        if any(reads_text(test, handler.name) for part in handler.body for test in decisions(part))
    ]


def test_no_handler_decides_by_the_text_of_its_error():
    source = REPOSITORY / "src"
    codes = {str(file.relative_to(source)): file.read_text() for file in source.rglob("*.py")}
    assert sorted(name for name in codes if deciding(codes[name])) == OF_LIBRARIES


def test_such_handlers_are_found():
    for line in ("if 'x' in str(e): pass", "y = f'{e}'.startswith('x')", "z = 1 if str(e) else 2"):
        assert deciding(f"try:\n    f()\nexcept ValueError as e:\n    {line}\n") == [3]
    assert deciding("try:\n    f()\nexcept ValueError as e:\n    raise ValueError(str(e))\n") == []
