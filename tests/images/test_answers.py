"""A label-only target: predictions that were asked elsewhere for saved images."""

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from src import load_classifier


@pytest.fixture(scope="module")
def saved(new_workspace, run_tiny):
    """A workspace with a job that saved its images."""
    folder = new_workspace()
    words = ["save_adversarial=true", "epsilon.grid=[4,8]", "n_images=12"]
    assert run_tiny(folder, *words, "hydra.run.dir=outputs/0-saved") == 0
    return folder


@pytest.fixture(scope="module")
def answered(saved):
    """The answers of `fine` about the saved images, asked file by file."""
    folder = saved / "outputs/0-saved/adversarial"
    fine = load_classifier("fine", "dataset=cifar10_mini", config_dir=saved / "conf")
    rows = []
    for path in sorted(folder.rglob("*.png")):
        images = np.asarray(Image.open(path)).transpose(2, 0, 1)[None] / np.float32(255)
        confidences = fine(torch.from_numpy(images)).softmax(1)[0]
        rows.append(
            {
                "filename": path.relative_to(folder).as_posix(),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "predicted": int(confidences.argmax()),
                "confidence": float(confidences.max()),
            }
        )
    return pd.DataFrame(rows)


@pytest.fixture
def asked(saved, answered, workspace):
    """A folder of saved images here, and answers about them."""
    shutil.copytree(saved, workspace, dirs_exist_ok=True)
    return Path("outputs/0-saved/adversarial").absolute(), answered


def evaluate(run_job, folder, *words):
    """Evaluate answers beside `fine` itself on the saved images."""
    words = (f"attack.path={folder}", "model.answers.network.file=answers.csv", *words)
    return run_job(
        *("attack=saved", "targets=[answers,fine]", "n_images=null"),
        *("epsilon.grid=[8]", *words),
    )


@pytest.mark.parametrize("separator", [",", ";"])
def test_answers_count_as_the_model_that_gave_them(asked, run_job, workspace, separator):
    folder, answers = asked
    answers.sample(frac=1, random_state=0).to_csv("answers.csv", sep=separator, index=False)
    assert evaluate(run_job, folder) == 0
    file = max(workspace.glob("outputs/*/predictions.parquet"))
    rows = pd.read_parquet(file).set_index(["target", "eps_255", "index"]).sort_index()
    for column, columns in (("predicted", {}), ("confidence", {"rtol": 1e-4})):
        its, other = rows.loc["answers", column], rows.loc["fine", column]
        assert len(its) == 36
        pd.testing.assert_series_equal(its, other, **columns)


@pytest.mark.slow
def test_changed_answers_are_evaluated_anew(asked, run_job, workspace):
    folder, answers = asked
    for predicted in (3, 4):
        answers.assign(predicted=predicted).drop(columns="confidence").to_csv("answers.csv")
        assert evaluate(run_job, folder, "rerun=false") == 0
        file = max(workspace.glob("outputs/*/predictions.parquet"))
        rows = pd.read_parquet(file).set_index("target").loc["answers"]
        assert {*rows["predicted"]} == {predicted} and (rows["confidence"] > 0.999).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda rows: rows.drop(columns="sha256"), "needs the columns sha256 and predicted"),
        (lambda rows: rows.assign(predicted="cat"), "needs the columns sha256 and predicted"),
        (
            lambda rows: rows.assign(predicted=rows["predicted"].where(rows.index != 6)),
            "row 7 has no",
        ),
        (lambda rows: rows.assign(predicted=10), "row 1 needs a class from 0 to 9"),
        (lambda rows: rows.assign(confidence=0.05), "row 1 needs .* confidence above 0.1"),
        (lambda rows: rows.assign(sha256=rows["sha256"][0], predicted=range(36)), "needs a class"),
        (lambda rows: rows[:1].assign(sha256="00" * 32), "is about 1 images that attack=saved"),
        (lambda rows: rows[:0], "answers.csv has no answers"),
        (lambda rows: rows.assign(predicted="9" * 23), "row 1 has no class number"),
        (lambda rows: rows.assign(predicted="\u0663"), "row 1 has no class number"),
        (lambda rows: rows.rename(columns={"predicted": "predicted\0"}), "NUL bytes"),
    ],
)
def test_answers_that_do_not_fit_the_images_are_refused(
    asked, run_job, workspace, capsys, change, text
):
    folder, answers = asked
    change(answers).to_csv("answers.csv", index=False)
    before = {*workspace.glob("outputs/*")}
    assert evaluate(run_job, folder) == 2
    assert re.search(text, capsys.readouterr().err) and {*workspace.glob("outputs/*")} == before


def test_answers_may_lack_images_that_are_not_evaluated(asked, run_job, workspace, caplog):
    folder, answers = asked
    Image.new("RGB", (32, 32)).save(folder.parent / "figure.png")
    answers.to_csv("answers.csv", index=False)
    assert evaluate(run_job, folder, f"model.answers.network.images=[{folder.parent}]") == 0
    text = "no answer for 1 of the 37 saved images, such as .*figure.png"
    assert re.search(text, caplog.text)
    answers[:-5].to_csv("answers.csv", index=False)
    assert evaluate(run_job, folder) == 1


@pytest.mark.slow
def test_answers_are_neither_a_source_nor_for_new_images(asked, run_job, capsys):
    folder, answers = asked
    answers.to_csv("answers.csv", index=False)
    words = ("targets=[answers,fine]", "model.answers.network.file=answers.csv")
    assert run_job("source=coarse", *words) != 0
    assert "attack=saved attack.path=FOLDER" in "".join(capsys.readouterr())
    assert evaluate(run_job, folder, "defences=[jpeg]") != 0
    assert "has no answer for one of the images" in "".join(capsys.readouterr())
