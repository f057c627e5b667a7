"""Single images over the budgets, worked out by hand and by a loop."""

import numpy as np
import pandas as pd
import pytest

from src.analysis.trajectories import KINDS, by_kind, flip_summary, trajectories

EPS = [0, 0.5, 1, 2, 4]

# Each image over the budgets: (predicted, confidence, true_confidence); label 0.
WAYS = {
    # keeps its class; dips from 0.9 to 0.5 and regains 0.2 of 0.4
    10: [(0, 0.9, 0.9), (0, 0.8, 0.8), (0, 0.5, 0.5), (0, 0.6, 0.6), (0, 0.7, 0.7)],
    # keeps its class; regains too little
    11: [(0, 0.9, 0.9), (0, 0.8, 0.8), (0, 0.5, 0.5), (0, 0.6, 0.6), (0, 0.69, 0.69)],
    # flips at 0.5, is back at 2, flips again; ends more confident
    12: [(0, 0.8, 0.8), (3, 0.5, 0.4), (3, 0.6, 0.3), (0, 0.55, 0.55), (3, 0.85, 0.1)],
    # flips at 1, most confident at 2, ends less confident than it began
    13: [(0, 0.4, 0.4), (0, 0.3, 0.3), (5, 0.45, 0.2), (6, 0.7, 0.1), (5, 0.35, 0.05)],
    # wrong when clean
    14: [(1, 0.6, 0.2), (1, 0.6, 0.2), (1, 0.6, 0.2), (1, 0.6, 0.2), (1, 0.6, 0.2)],
    # keeps its class, and falls too little for a dip
    15: [(0, 0.7, 0.7), (0, 0.66, 0.66), (0, 0.7, 0.7), (0, 0.71, 0.71), (0, 0.72, 0.72)],
    # flips at 4 only, exactly as confident as when clean
    16: [(0, 0.5, 0.5), (0, 0.6, 0.6), (0, 0.6, 0.6), (0, 0.6, 0.6), (2, 0.5, 0.3)],
}
COLUMNS = {
    "index": [10, 11, 12, 13, 15, 16],
    "initial_confidence": [0.9, 0.9, 0.8, 0.4, 0.7, 0.5],
    "first_flip_eps_255": [np.nan, np.nan, 0.5, 1, np.nan, 4],
    "lowest_confidence": [0.5, 0.5, 0.1, 0.05, 0.66, 0.3],
    "lowest_eps_255": [1, 1, 4, 4, 0.5, 4],
    "recovered_confidence": [0.7, 0.69, np.nan, np.nan, 0.72, np.nan],
    "back_eps_255": [np.nan, np.nan, 2, np.nan, np.nan, np.nan],
    "end_confidence": [np.nan, np.nan, 0.85, 0.35, np.nan, 0.5],
}


def make_rows(ways=WAYS):
    """Return the rows of `b` with these ways, and of `a` that never changes."""
    columns = ["index", "predicted", "confidence", "true_confidence", "target", "eps_255"]
    rows = [
        (index, *prediction, target, float(budget))
        for target in "ab"
        for index, way in ways.items()
        for budget, its in zip(EPS, way, strict=True)
        for prediction in [its if target == "b" else (0, 0.2, 0.2)]
    ]
    frame = pd.DataFrame(rows, columns=columns).assign(label=0).sample(frac=1, random_state=0)
    return frame.astype({"confidence": np.float32, "true_confidence": np.float32})


def found_in(rows, *protocol, **words):
    return trajectories(rows, "a", ["b"], *protocol, **words).set_index("index", drop=False)


def check(frame, **columns):
    for name, values in columns.items():
        np.testing.assert_allclose(frame[name], values, rtol=1e-6, err_msg=name)


def test_numbers_and_kinds_are_those_worked_out_by_hand():
    found = found_in(make_rows())
    check(found, **COLUMNS)
    kinds = {kind: found.index[found[kind]].tolist() for kind in KINDS}
    assert kinds == {"dip_and_recovery": [10]} | {kind: [12] for kind in list(KINDS)[1:]}
    both = trajectories(make_rows(), "a", ["b", "a"])
    assert both["target"].unique().tolist() == ["b", "a"]
    b, a = flip_summary(both).to_dict("records")
    counts = {"target": "b", "initially_correct": 6, "flipped": 3, "flipped_share": 0.5}
    assert b == {**counts, "median_first_flip_eps_255": 4, "below_8_bits": 1}
    assert (a["flipped"], a["below_8_bits"]) == (0, 0) and np.isnan(a["median_first_flip_eps_255"])
    in_l2 = found_in(make_rows(), norm="l2")
    pd.testing.assert_frame_equal(in_l2, found.drop(columns="below_8_bits"))
    assert "below_8_bits" not in flip_summary(in_l2)
    targeted = make_rows().assign(target_label=7).convert_dtypes()
    check(found_in(targeted), **COLUMNS)  # any other class is a flip


@pytest.mark.parametrize(
    ("lowest", "last", "dips"),
    [(0.75, 0.775, True), (0.75, 0.774, False), (0.751, 0.8, False), (0.2, 0.5, True)],
)
def test_a_dip_is_five_points_and_a_recovery_is_half_of_it(lowest, last, dips):
    way = [(0, c, c) for c in (0.8, 0.79, lowest, last, last)]
    assert found_in(make_rows({1: way}))["dip_and_recovery"].item() is dips
    flips = pd.DataFrame({"index": [1], "target": "b", "eps_255": 3.0})
    assert not found_in(make_rows({1: way}), flips=flips)["dip_and_recovery"].any()


@pytest.mark.parametrize(
    ("protocol", "counted"),
    [
        ("joint", [10, 11, 13, 15, 16]),
        ("target_correct", COLUMNS["index"]),
        ("all", COLUMNS["index"]),
    ],
)
def test_the_protocol_decides_which_images_are_counted(protocol, counted):
    rows = make_rows()
    rows.loc[(rows["target"] == "a") & (rows["index"] == 12), "predicted"] = 1
    assert found_in(rows, protocol)["index"].tolist() == counted


@pytest.mark.parametrize(
    ("refined", "first", "below"),
    [
        # 12 flips at 0.5 already; 15, which no tried budget flips, does flip between them.
        (
            {13: 0.75, 16: 1, 12: 3, 15: 3.5, 99: 0.1},
            [np.nan, np.nan, 0.5, 0.75, 3.5, 1],
            [12, 13],
        ),
        # 16 flips too, and was not bisected: those without a row are left out.
        ({10: np.nan, 12: 0.4, 13: 1}, [np.nan, 0.4, 1], [12]),
    ],
)
def test_refined_flips_take_the_place_of_tried_ones(refined, first, below):
    flips = pd.DataFrame({"index": refined.keys(), "target": "b", "eps_255": refined.values()})
    other = pd.DataFrame({"index": [13], "target": "a", "eps_255": 0.0})
    found = found_in(make_rows(), flips=pd.concat([flips, other]))
    there = [name in refined or len(first) == 6 for name in COLUMNS["index"]]
    numbers = {name: np.array(values)[there] for name, values in COLUMNS.items()}
    check(found, **numbers | {"first_flip_eps_255": first})
    assert found.index[found["below_8_bits"]].tolist() == below


def test_the_clearest_image_of_each_kind_comes_first():
    table = pd.DataFrame(
        {
            "target": "b",
            "index": [4, 3, 2, 1],
            "initial_confidence": [0.5, 0.7, 0.5, 0.9],
            "lowest_confidence": [0.3, 0.4, 0.1, 0.5],
            "recovered_confidence": [0.5, 0.7, 0.15, 0.62],
            "end_confidence": [0.55, 0.8, 0.7, 0.91],
            "first_flip_eps_255": [0.1, 0.4, 0.3, 0.8],
            **dict.fromkeys(KINDS, True),
        }
    )
    kinds = by_kind(table)
    first = {kind: rows["index"].tolist()[:2] for kind, rows in kinds.items() if len(rows)}
    assert first == dict(zip(KINDS, ([3, 4], [1, 3], [2, 3], [4, 2]), strict=True))
    never = by_kind(table.assign(first_flip_eps_255=np.nan))["never_flips"]
    assert never["index"].tolist() == [1, 3, 4, 2]
