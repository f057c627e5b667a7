"""Lines of code below the paths in `[tool.size]` of `pyproject.toml`, against their budgets.

    python -m tests.size

Lines with code count; comments, docstrings and blank lines do not. Of templates, every line that
is not blank counts. A path over its budget is named, and so is a name in `src` that says nothing of
its value, see `[tool.names]`; the exit code is then 1.
"""

import ast
import io
import sys
import tokenize
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = {".js", ".css", ".html", ".j2"}
LAYOUT = {*(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE), *(tokenize.INDENT, tokenize.DEDENT)}


def lines_of_code(text: str) -> int:
    """Count the lines of a Python file that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT and token.string:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                lines.difference_update(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(lines)


def size(patterns: str) -> int:
    """Count the lines of code of the files and folders that match glob patterns."""
    total = 0
    for place in (place for pattern in patterns.split() for place in ROOT.glob(pattern)):
        for path in place.rglob("*") if place.is_dir() else [place]:
            if path.suffix == ".py":
                total += lines_of_code(path.read_text(encoding="utf-8"))
            elif path.suffix in TEMPLATES:
                lines = path.read_text(encoding="utf-8").splitlines()
                total += sum(bool(line.strip()) for line in lines)
    return total


def forbidden_names(names: list[str]) -> list[str]:
    """Return the places in `src` where an identifier is one of some names."""
    places = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found = {getattr(node, key, None) for key in ("id", "arg", "attr", "name", "asname")}
            if bad := found & {*names}:
                places.append(f"{path.relative_to(ROOT)}:{node.lineno}: {bad.pop()}")
    return places


def main() -> None:
    """Print each part with its lines and its budget, and forbidden names."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    budgets, places = tools["size"], forbidden_names(tools["names"]["forbidden"])
    sizes = {paths: size(paths) for paths in budgets}
    for paths, lines in sizes.items():
        mark = " OVER" if lines > budgets[paths] else ""
        print(f"{lines:6} of {budgets[paths]:6} lines{mark}: {paths}")
    print(*places, sep="\n")
    sys.exit(bool(places) or any(lines > budgets[paths] for paths, lines in sizes.items()))


if __name__ == "__main__":
    main()
