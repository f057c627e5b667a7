"""What the site takes from elsewhere, so that it stands in one place."""

import re
from pathlib import Path
from typing import Any

from src.report.definitions import DEFINITIONS

REPOSITORY = Path(__file__).resolve().parents[1]
SECTION = re.compile(r"<!-- section of (\S+): (.+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the report's definitions, or a section of another file, where a page asks for them."""
    terms = "\n\n".join(f"**{term}.** {meaning}" for term, meaning in DEFINITIONS)
    return SECTION.sub(_section, markdown.replace("<!-- definitions -->", terms))


def _section(asked: re.Match[str]) -> str:
    """Return the section of a file of the repository, its links as a page of docs/ has them."""
    name, title = asked.groups()
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if not found:
        raise ValueError(f"{name} has no section {title!r}.")
    return found[0].replace("](docs/", "](")
