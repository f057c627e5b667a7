"""The page of findings says what the stored tables hold."""

from findings.__main__ import DOCS, page


def test_the_page_is_what_the_tables_say():
    assert (DOCS / "findings.md").read_text(encoding="utf-8") == page()
