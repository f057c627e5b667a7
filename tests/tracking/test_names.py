"""Names in the tracking store against docs/tracking.md: others build on them."""

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tracking.md"
QUERY = """
WITH every AS (
    SELECT run_uuid, 'experiment' AS what, e.name FROM runs JOIN experiments e USING (experiment_id)
    UNION SELECT run_uuid, 'run name', name FROM runs
    UNION SELECT run_uuid, 'metrics', key FROM metrics
    UNION SELECT run_uuid, 'parameters', key FROM params
    UNION SELECT run_uuid, 'tags', key FROM tags
) SELECT DISTINCT value, what, name FROM every JOIN tags USING (run_uuid) WHERE key = 'kind'
"""


@pytest.fixture(scope="module")
def folder(new_workspace, run_tiny, empty_store):
    """A workspace with a training, jobs of every kind, and one that failed, all tracked."""
    folder = new_workspace()
    shutil.copytree(empty_store, folder / "mlruns")
    first = ["attack=fgsm_l2,pgd_l2", "source=coarse,[coarse,fine]", "save_adversarial=true"]
    first += ["model.coarse.weights=null", "dataset.n_train=100", "dataset.n_test=50"]
    first += ["training.epochs=1", "training.batch_size=50", "trainer.attack_precision=bf16"]
    again = ["attack=saved", "attack.path=outputs/a/0-fgsm_l2-coarse/adversarial", "source=null"]
    again += ["targets=[fine]", "model.fine.expected_accuracy=null,1"]
    again += ["clean_accuracy_check.action=stop"]
    for name, words in {"a": first, "b": again}.items():
        code = run_tiny(folder, "-m", *words, "tracking=mlflow", f"hydra.sweep.dir=outputs/{name}")
        assert code == (name == "b")
    return folder


@pytest.mark.slow
def test_the_names_in_the_store_are_those_of_the_table(folder):
    rows = re.findall(r"^\| (\w+) \| ([a-z ]+) \| (`.*?`) \|", PAGE.read_text("utf-8"), re.M)
    listed = {
        (kind, what, name)
        for run, what, names in rows
        for kind in (("pair", "job", "sweep", "training") if run == "all" else (run,))
        for name in re.findall("`(.*?)`", names)
    }
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as store:
        found = {row for row in store.execute(QUERY) if row[2] != "atonce-sweeps"}
    pattern = {row: ".+".join(map(re.escape, re.split(r"\b[A-Z]+\b", row[2]))) for row in listed}

    def same(one: tuple[str, str, str], row: tuple[str, str, str]) -> bool:
        return one[:2] == row[:2] and bool(re.fullmatch(pattern[row], one[2]))

    assert not [one for one in found if not any(same(one, row) for row in listed)]
    rare = {"conditional", "conditional_interval"}  # of at least ten images that fool the source
    wanted = (row for row in listed if row[2] not in rare)
    assert not [row for row in wanted if not any(same(one, row) for one in found)]


@pytest.mark.slow
def test_what_is_not_float32_says_so(folder):
    words = "gradients in bfloat16"
    for name, arithmetic in {"a/0-fgsm_l2-coarse": words, "b/0-saved": "float32"}.items():
        rates = pd.read_csv(folder / "outputs" / name / "rates.csv")
        assert set(rates["arithmetic"]) == {arithmetic}
    printed = [(folder / "outputs" / name / "summary.txt").read_text() for name in "ab"]
    summaries = [" ".join(text.split()) for text in printed]
    assert [f"joint, {words}" in text for text in summaries] == [True, False]
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as store:
        names = {name for (name,) in store.execute("SELECT name FROM runs")}
    assert {f"fgsm_l2 coarse ({words})", "fgsm_l2 coarse", "fgsm_l2 coarse -> fine"} <= names
