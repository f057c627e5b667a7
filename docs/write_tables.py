"""Write the tables of the pages, made from code: `make docs-tables`.

A table follows the comment `<!-- NAME: made by make docs-tables -->` and ends at `<!-- end -->`.
"""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import catalogue
import house
import key_tables

from src.analysis.quantities import definitions

DOCS = Path(__file__).parent
START = "made by make docs-tables -->"
TABLE = re.compile(rf"(<!-- ([^:\n]+): {START}\n)(?:(?!<!-- ).)*(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Write the pages."""
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
    (DOCS / "house.svg").write_text(house.draw(), encoding="utf-8")


def pages() -> dict[Path, str]:
    """Return the text of each page with such tables."""
    texts = {page: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
    return {page: TABLE.sub(_fill, text) for page, text in texts.items() if TABLE.search(text)}


def _fill(place: re.Match[str]) -> str:
    start, name, end = place.groups()
    return f"{start}\n{MAKERS[name]()}\n\n{end}"


def _definitions() -> str:
    return "\n".join(f"- **{term}**: {meaning}" for term, meaning in definitions().items())


def _sizes() -> str:
    text = (DOCS.parent / "pyproject.toml").read_text(encoding="utf-8")
    sizes = tomllib.loads(text)["tool"]["size"].items()
    rows = (f"| {', '.join(f'`{part}`' for part in parts.split())} | {n:,} |" for parts, n in sizes)
    return "\n".join(["| part | lines |", "|---|---|", *rows])


MAKERS: dict[str, Callable[[], str]] = {
    "attacks": catalogue.attacks,
    "defences": catalogue.defences,
    "models": catalogue.models,
    "differing references": catalogue.differing_references,
    "equal references": catalogue.equal_references,
    "definitions": _definitions,
    "keys": key_tables.keys,
    "sizes": _sizes,
}


if __name__ == "__main__":
    main()
