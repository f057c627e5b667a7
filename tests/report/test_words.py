"""Sentences on a ranking, from its rows."""

import numpy as np
import pandas as pd
import pytest

from src import images_needed
from src.report.words import answer, ranking_notes, said, sentences

GROUP = {"targeted": False, "source": "mean of 2 sources", "sources": 2, "eps_255": 8}


def ranking(images: int, *differences: float, undecided: int = 0, p: float = 0.01, **more):
    """Return a ranking of attacks `a0`, `a1`, ..., of which the first others are undecided."""
    count = len(differences) + 1
    numbers = {"difference": [np.nan, *differences], "p": [np.nan, *[p] * len(differences)]}
    numbers |= {"mean": [0.3, *(0.3 + its for its in differences)], "rank": range(1, count + 1)}
    numbers |= {"undecided": [at <= undecided for at in range(count)], "images": images}
    columns = {"detectable": 0.07, "discordance": 0.1, "depends_on": "", **GROUP, **more}
    return pd.DataFrame({"attack": [f"a{at}" for at in range(count)], **numbers}).assign(**columns)


@pytest.mark.parametrize(
    ("ranked", "lead", "note"),
    [
        (ranking(150, -0.1), "a0 transfers best", "decided: "),
        (ranking(150, -0.1, undecided=1, p=0.2), "a0 leads, undecided,", "= not significantly "),
        (ranking(150, 0.0, undecided=1, p=1.0), "a0 and 1 more are equal", "= not significantly "),
        (ranking(50, -0.1), "50 images are too few", "50 images are too few"),
        (ranking(20, -0.1, undecided=1, p=np.nan), "20 images are too few", "not tested: "),
    ],
)
def test_answer_and_notes_agree_on_what_the_tests_decide(ranked, lead, note):
    said_first, rest, details = answer(ranked, "attack", " at 8/255", ["counted: all images"])
    notes = ranking_notes(ranked, "attack", 5)
    assert said_first.startswith(lead) and notes[0].startswith(note)
    assert details.startswith("Counted: all images. ") and rest.startswith(" at 8/255")
    assert ("10.0 points ahead of a1" in rest) == lead.startswith(("a0 trans", "a0 leads"))
    assert (": a1 (" in details or ": a1." in details) == ("undecided" in lead or "equal" in lead)
    takes = f"takes about {max(100, images_needed(0.1, 0.1, 2))} images"
    for text in (" ".join(notes), details):
        assert (takes in text) == ("too few" in lead)
    assert "differences of 7.0 points" in " ".join(notes)


def test_a_lead_that_depends_on_targets_is_one_on_average():
    ranked = ranking(150, -0.01, -0.02, -0.03, depends_on="x, y")
    lead, rest, details = answer(ranked, "attack", "", [])
    assert lead == "a0 leads on average" and rest == ": 1.0 point ahead of the next, a1"
    assert "without target x or without y," in details.lower() and "ecided" not in details


def test_rows_that_are_not_shown_or_not_ranked_are_named():
    ranked = ranking(150, -0.1, -0.2)
    lacking = pd.DataFrame({"attack": ["a9"], "lacks": "vgg -> vit", "undecided": True})
    notes = ranking_notes(pd.concat([ranked, lacking]), "attack", 2)
    assert notes[0].startswith("attacks.csv has 1 more; decided: ")
    assert notes[-1] == "not ranked: a9, which lacks vgg -> vit"


def test_texts_that_hold_become_sentences():
    assert sentences(said(("one", True), ("two", 0), ("", True))) == ["One."]
