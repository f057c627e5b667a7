"""A label-only target: predictions that were asked elsewhere for saved images."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from src.images.answers import Answers
from src.utils.files import sha256_of


@pytest.fixture
def asked(tmp_path, monkeypatch) -> tuple[torch.Tensor, pd.DataFrame]:
    """Images that are saved in a folder here, and answers about them."""
    monkeypatch.chdir(tmp_path)
    Path("saved/8").mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    paths = [Path(f"saved/8/{number}.png") for number in range(4)]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    answers = {"sha256": map(sha256_of, paths), "predicted": [3, 1, 4, 1]}
    answers = pd.DataFrame({**answers, "confidence": [0.91, 0.5, 1.0, 0.11]})
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255, answers


def answering(rows: pd.DataFrame) -> Answers:
    rows.to_csv("answers.csv", index=False)
    return Answers("answers.csv", 10, ["saved", None])


def test_the_other_classes_share_the_rest_and_other_images_are_refused(asked, caplog):
    images, answers = asked
    found = answering(answers)(images[[1, 0]]).exp()
    wanted = torch.full((2, 10), 0.5 / 9)
    wanted[1] = 0.01
    wanted[0, 1], wanted[1, 3] = 0.5, 0.91
    torch.testing.assert_close(found, wanted)
    certain = answering(answers.drop(columns="confidence"))(images)
    assert certain.argmax(1).tolist() == [3, 1, 4, 1] and (certain.exp().amax(1) > 0.999).all()
    assert certain.isfinite().all() and not caplog.messages
    with pytest.raises(ValueError, match="has no answer for one of the images"):
        answering(answers)(images.flip(-1))
    few = answering(answers[:-1])
    assert re.search("no answer for 1 of the 4 saved images, such as .*3.png", caplog.text)
    assert len(few(images[:3])) == 3


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda rows: rows.drop(columns="sha256"), "needs the columns sha256 and predicted"),
        (lambda rows: rows.assign(predicted=rows["predicted"].where(rows.index != 2)), "row 3 has"),
        (lambda rows: rows.assign(predicted=10), "row 1 needs a class from 0 to 9"),
        (lambda rows: rows.assign(confidence=[0.9, 0.1, 1, 1]), "row 2 needs .*above 0.1 and up"),
        (lambda rows: rows.assign(confidence=1.01), "row 1 needs .* a confidence above 0.1"),
        (lambda rows: rows[:1].assign(sha256="00" * 32), "is about 1 images that attack=saved"),
        (lambda rows: rows[:0], "answers.csv has no answers"),
        (lambda rows: rows.assign(predicted="\u0663"), "row 1 has no class number"),
        (lambda rows: rows.rename(columns={"predicted": "predicted\0"}), "NUL bytes"),
    ],
)
def test_answers_that_do_not_fit_the_images_are_refused(asked, change, text):
    with pytest.raises(ValueError, match=text):
        answering(change(asked[1]))
