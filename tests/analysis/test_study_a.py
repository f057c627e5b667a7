import numpy as np
import pandas as pd
import pytest

from src.analysis import rates, wilson_interval
from src.analysis.study_a import (
    CORNER,
    PUBLISHED,
    displayed,
    published_beside,
    published_table,
    study_a,
)

# As the study's page has it, but for a slip of its pen ("AdAdversarial" in the last row).
PAGE = """
| Data Type / Accuracy/ Model Structure |       VGG-16       |      ResNet-50     |    Inception v3    |
| Normal Data                           |         81%        |         81%        |         85%        |
| VGG-16 based Adversarial Data         |1374 / 8139 = 16.88%|1711 / 7448 = 22.97%|1441 / 7674 = 18.78%|
| ResNet-50 based Adversarial Data      |1465 / 7448 = 19.67%|1538 / 8133 = 18.91%|1460 / 7661 = 19.06%|
| Inception v3 based Adversarial Data   |1561 / 7674 = 20.34%|2000 / 7661 = 26.11%|1793 / 8588 = 20.88%|
"""  # noqa: E501
MODELS = ("vgg16", "resnet50", "inception")


def the_page():
    lines = [line.strip("|").split("|") for line in PAGE.strip().split("\n")]
    head, *rows = [[cell.strip() for cell in line] for line in lines]
    return pd.DataFrame(rows, columns=head, dtype="str")


def counted_rates(still_correct, denominators, clean_correct, n=10_000):
    """Make the rates of one source from counts by target."""
    table = pd.DataFrame({"target": list(still_correct), "eps_255": 8.0, "targeted": False, "n": n})
    table["target_clean_correct"] = pd.array(list(clean_correct), dtype="Int64")
    table["target_clean_success"] = n - table["target_clean_correct"]
    table["aimed_at_label"] = 0
    table["still_correct"] = list(still_correct.values())
    table["denominator"] = denominators
    table["robust_accuracy"] = table["still_correct"] / table["denominator"]
    bounds = wilson_interval(table["still_correct"], table["denominator"])
    table["robust_accuracy_low"], table["robust_accuracy_high"] = bounds
    return table


def test_the_published_table_is_the_one_on_the_page():
    pd.testing.assert_frame_equal(published_table(), the_page())


def test_the_studys_own_counts_give_the_studys_own_table():
    diagonal = [PUBLISHED.cells[model, model][1] for model in MODELS]
    by_source = {
        source: counted_rates(
            {target: PUBLISHED.cells[source, target][0] for target in MODELS},
            [PUBLISHED.cells[source, target][1] for target in MODELS],
            diagonal,
        )
        for source in MODELS
    }
    pd.testing.assert_frame_equal(study_a(by_source, 8), the_page())


def test_any_models_have_a_table(make_table):
    clean = {("vgg16", 0): [0, 0, 0, 1], ("vit", 0): [0, 0, 0, 0]}
    attacked = {("vgg16", 4): [0] * 4, ("vgg16", 8): [0, 1, 1, 1], ("vit", 8): [0, 0, 1, 1]}
    everything = make_table(clean | attacked | {("vit", 4): [0] * 4})
    by_source = {
        "vit": rates(everything, "vit", ["vgg16", "vit"]),
        "vgg16+vit": rates(everything, "vgg16", ["vit"]),
    }
    table = study_a(by_source, 8)
    assert list(table.columns) == [CORNER, "VGG-16", "vit"]
    assert table.to_numpy().tolist() == [
        ["Normal Data", "75%", "100%"],
        ["vit based Adversarial Data", "1 / 3 = 33.33%", "2 / 4 = 50.00%"],
        ["VGG-16 + vit based Adversarial Data", "-", "2 / 3 = 66.67%"],
    ]
    with pytest.raises(ValueError, match="no rates at eps_255 = 2"):
        study_a(by_source, 2)
    with pytest.raises(ValueError, match="at least one source"):
        study_a({}, 8)


def test_clean_accuracy_is_cut_and_targeted_attacks_count_what_is_still_right(make_table):
    names = {("vit", eps): np.r_[np.zeros(299), 1] for eps in (0, 8)}
    table = make_table(names, target_label=[1] * 300)
    cells = study_a({"vit": rates(table, "vit", ["vit"])}, 8)["vit"]
    assert list(cells) == ["99%", "299 / 299 = 100.00%"]  # 99.67 % is not rounded up


def test_what_is_not_known_says_so(make_table):
    table = make_table({("vit", 8): [0, 1]})
    cells = study_a({"x": rates(table, "x", ["vit"], "all")}, 8)["vit"]
    assert list(cells) == ["n/a", "1 / 2 = 50.00%"]
    wrong = make_table({("vit", 0): [1, 1], ("vit", 8): [1, 1]})
    cells = study_a({"vit": rates(wrong, "vit", ["vit"])}, 8)["vit"]
    assert list(cells) == ["0%", "0 / 0 = n/a"]


def test_published_cells_stand_beside_ours(make_table):
    keys = [(model, eps) for model in ("resnet50", "vit") for eps in (0, 8)]
    table = make_table({key: [0, 0, 0, int(key[1] > 0)] for key in keys})
    ours = study_a(
        {source: rates(table, source, ["vit", "resnet50"]) for source in ("vit", "resnet50")}, 8
    )
    beside = published_beside(ours)
    assert list(beside.columns) == [CORNER, "ResNet-50 (published)", "ResNet-50 (here)"]
    assert beside.to_numpy().tolist() == [
        ["Normal Data", "81%", "100%"],
        ["ResNet-50 based Adversarial Data", "1538 / 8133 = 18.91%", "3 / 4 = 75.00%"],
    ]
    whole = published_beside(published_table())
    assert whole.shape == (4, 7)
    for model in PUBLISHED.models.values():
        assert list(whole[f"{model} (published)"]) == list(whole[f"{model} (here)"])


def test_without_a_shared_model_there_is_nothing_beside(make_table):
    table = make_table({("vit", 0): [0, 0], ("vit", 8): [0, 1]})
    beside = published_beside(study_a({"vit": rates(table, "vit", ["vit"])}, 8))
    assert beside.empty and list(beside.columns) == [CORNER]


def test_names_are_the_studys_where_it_has_them():
    assert displayed("inception") == "Inception v3"
    assert displayed("resnet50+vit") == "ResNet-50 + vit"
