"""Published success rates beside a table's own: verdicts by hand, and what is not comparable."""

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep

from src import table
from src.artifacts.frame_jobs import JOBS
from src.report import published
from src.report.published import PublishedTable, compare, load_published
from tests.report.test_paper import frame_of

TABLE = {
    "title": "Theirs",
    "source": "a paper",
    "n": 40,
    "datasets": ["ten"],
    "image_size": 4,
    "protocol": "joint",
    "eps_255": 8,
    "attacks": {"mi": "mifgsm"},
    "models": {"digest-a": "A", "digest-b": "B", "digest-c": "C"},
    "clean": {"C": 60},
}
CELLS = {"B": 55.0, "C": 55.0}


@pytest.fixture
def frame():
    """`mi` from a fools 20 of 40 images of b, and 4 of c; `di` as many."""
    counts = {("b", "mi"): 10, ("c", "mi"): 2, ("b", "di"): 10, ("c", "di"): 2}
    made = frame_of({(attack, "a", target): count for (target, attack), count in counts.items()})
    for job in made.attrs[JOBS]:
        job["weights"] = {name: f"digest-{name}" for name in "abc"}
        job["values"] = 3 * 4 * 4
        job["config"]["model"] = {name: {"network": {}, "weights": f"{name}.pt"} for name in "abc"}
    return made


@pytest.fixture
def state(monkeypatch):
    """A function that states a published table, with some settings and cells changed."""

    def make(cells=CELLS, steps=10, **changes):
        own = {"table": "theirs", "attack": "mifgsm", "goal": "untargeted", "source": "A"}
        rows = [{**own, "target": name, "success_percent": value} for name, value in cells.items()]
        values = pd.DataFrame(rows).assign(steps=steps, step_size_255=0.8)
        tables = {"theirs": PublishedTable(**{**TABLE, **changes})}
        monkeypatch.setattr(published, "load_published", lambda: (tables, values))

    return make


def test_a_published_row_stands_below_its_attack_with_a_verdict_per_cell(frame, state):
    state()
    text = table(frame, published=True, to="markdown")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    mi, theirs, di = lines[2:5]
    assert mi[1:4] == ["mi", "50.0", "10.0"] and di[1] == "di"
    gap = "inside after the clean difference"  # 45 points below; 40 by clean accuracy
    assert theirs[1:4] == ["mi, Theirs", "55.0 (inside)", f"55.0 ({gap})"]
    assert "a paper" in text and "di: no published values" in text
    head, mine, theirs, _ = csv.reader(io.StringIO(table(frame, published=True, to="csv")))
    own, their = (dict(zip(head, row, strict=True)) for row in (mine, theirs))
    assert [own["b"], own["b verdict"]] == ["0.5", ""]
    assert [their["b"], their["b verdict"]] == ["0.55", "inside"]
    state(clean={})
    assert "55.0 (off by -45.0)" in table(frame, published=True, to="markdown")
    styled = table(frame, published=True).to_html()
    assert "off by -45.0" in styled and "#777777" in styled


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("weights", {"models": {"digest-a": "A", "other": "B", "another": "C"}}),
        ("size", {"image_size": 5}),
        ("images", {"n": 41}),
        ("images", {"datasets": ["twenty"]}),
        ("denominator", {"protocol": "all"}),
        ("steps", {"steps": 20}),
        ("budget", {"eps_255": 16}),
    ],
)
def test_what_is_not_the_same_is_not_compared_and_named(frame, state, reason, changes):
    state(**changes)
    text = table(frame, published=True, to="markdown")
    assert "mi, Theirs |" not in text
    assert f"mi, Theirs: not comparable: {reason} (2 cells)" in text


def test_a_public_name_stands_for_its_unchanged_weights(frame, state):
    state(models={"digest-a": "A", "timm/b.in1k": "B", "timm/c.in1k": "C"})
    public = {name: {"network": {"name": f"timm/{name}.in1k"}} for name in "bc"}
    public["b"]["weights"], public["c"]["weights"] = "included", "mine.pt"
    for job in frame.attrs[JOBS]:
        job["config"]["model"] |= public
    row = table(frame, published=True, to="markdown").splitlines()[3]
    assert "55.0 (inside)" in row and "n/a (not comparable: weights)" in row


def test_other_settings_and_sizes_of_networks_are_not_compared(frame, state):
    state()
    (mi,) = (job for job in frame.attrs[JOBS] if job["attack"] == "mi")
    mi["config"]["model"]["b"]["input_size"] = 8
    assert "n/a" not in table(frame, published=True, to="markdown")
    rows = table(frame, published=True, to="markdown").splitlines()
    assert "(not comparable: size)" in rows[3] and "clean difference" in rows[3]
    mi["label"] = "mi (decay=0.5)"
    frame["attack"] = frame["attack"].replace("mi", mi["label"])
    text = table(frame, published=True, to="markdown")
    assert "Theirs: not comparable: size (1 cells), steps (1 cells)" in text


def test_verdicts_are_those_of_newcombes_interval():
    draw = np.random.default_rng(0)
    verdicts = set()
    for n, m in draw.integers(20, 2000, (200, 2)).tolist():
        k = int(draw.integers(1, n))
        j = int(np.clip(round(m * k / n + 3 * draw.normal() * m**0.5 / 2), 1, m - 1))
        low, high = confint_proportions_2indep(k, n, j, m, method="newcomb", compare="diff")
        verdict = compare(k / n, n, j / m, m)
        assert (verdict == "inside") == (low <= 0 <= high)
        verdicts.add(verdict == "inside")
    assert verdicts == {True, False}


def test_the_stored_tables_have_a_row_for_each_of_their_attacks_and_models():
    tables, cells = load_published()
    assert set(cells["table"]) == {*tables}
    assert cells["success_percent"].between(0, 100).all()
    for name, its in tables.items():
        own = cells[cells["table"] == name]
        assert {*its.attacks.values()} <= {*own["attack"]}
        assert {*its.models.values()} <= {*own["target"]}
        known = {path.stem for path in Path("conf/attack").resolve().glob("*.yaml")}
        assert {*its.attacks} <= known or not known
    ours = cells.query("table == 'transferattack' and attack == 'mifgsm' and target == 'VGG-16'")
    assert ours["success_percent"].tolist() == [57.9]


def test_published_needs_pairs_and_success(frame):
    for options in ({"rows": "attack"}, {"value": "accuracy"}):
        with pytest.raises(ValueError, match="published needs attack"):
            table(frame, published=True, **options)
