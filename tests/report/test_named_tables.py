"""Tables by name: the user's own function, and each of the program's in every format."""

import csv
import io
import re

import pytest

import src
from src.report.grid import FORMATS
from src.report.named_tables import TABLES
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "own-measurement.md"


@pytest.fixture(scope="module")
def results():
    return src.load_sweep(REPOSITORY / "docs" / "results" / "demo")


def test_a_function_of_the_user_is_a_table(results, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(# hardest\.py\n.*?)```", PAGE.read_text(), re.S)
    (tmp_path / "hardest.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    words = {"name": "hardest.hardest", "attack": "fgsm"}
    means = src.table(results, rows="attack", average=False, to="csv").splitlines()
    (expected,) = (row for row in csv.DictReader(means) if row["attack"] == "fgsm")
    rows = [*csv.DictReader(io.StringIO(src.table(results, to="csv", **words)))]
    found = {row["target"]: float(row["success_rate"]) for row in rows}
    assert found == pytest.approx({key: float(expected[key]) for key in found})
    assert len(found) == 5 and [*found.values()] == sorted(found.values())
    for to in ("markdown", "latex", "html"):
        text = src.table(results, to=to, **words)
        assert "Targets of fgsm" in text and f"{100 * min(found.values()):.1f}" in text
    with pytest.raises(ValueError, match=r"rows: the table hardest\.hardest takes only attack, "):
        src.table(results, rows="attack", **words)


@pytest.mark.parametrize("name", [name for name in TABLES if name != "paper"])  # of other jobs
def test_a_table_has_equal_rows_in_all_formats(results, name):
    texts = {to: src.table(results, name=name, to=to) for to in FORMATS}
    grid = src.table(results, name=name)
    assert str(grid) == texts["markdown"] and grid._repr_html_() == texts["html"]
    lines = [line for line in texts["markdown"].splitlines() if line.startswith("| ")]
    assert len(lines) - 2 == texts["html"].count("<tr>") - 1 == len(grid.rows)
    assert texts["latex"].count(r"\\") == len(grid.rows) + 1
    assert len([*csv.reader(io.StringIO(texts["csv"]))]) > len(grid.rows)


def test_a_name_that_is_no_table_is_refused(results):
    for name in ("nosuch", "no.such", "csv.nosuch", "math.pi"):
        with pytest.raises(ValueError, match=rf"name={name}: .*MODULE\.FUNCTION"):
            src.table(results, name=name)
    with pytest.raises(ValueError, match="attack=pgd: choose from fgsm, bim, mi"):
        src.table(results, name="matrix", attack="pgd")
