import pandas as pd
import pytest

from src.report.verdicts import ranking_label


@pytest.mark.parametrize(
    ("targeted", "ensemble", "source_defended", "heading"),
    [
        (False, False, False, "untargeted"),
        (True, True, False, "targeted of ensembles"),
        (False, False, True, "untargeted behind a defence"),
    ],
)
def test_a_ranking_is_headed_by_its_columns_and_the_heading_cannot_be_taken_apart(
    targeted, ensemble, source_defended, heading
):
    row = {"targeted": targeted, "ensemble": ensemble, "source_defended": source_defended}
    label = ranking_label(pd.Series(row))
    assert str(label) == heading
    assert not {*dir(label)} & ({*dir(str)} - {*dir(object)})
