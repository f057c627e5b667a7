"""What the site takes from the program, so that it stands in one place."""

from typing import Any

from src.report.definitions import DEFINITIONS


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the report's definitions where a page asks for them."""
    terms = "\n\n".join(f"**{term}.** {meaning}" for term, meaning in DEFINITIONS)
    return markdown.replace("<!-- definitions -->", terms)
