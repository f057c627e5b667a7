import numpy as np
import pandas as pd
import pytest

from src.analysis.trajectories import KINDS, by_kind, flip_summary, trajectories, typical_images

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


def make_rows(ways=WAYS, eps=EPS):
    rows = [
        {
            "index": index,
            "label": 0,
            "target": target,
            "eps_255": float(budget),
            "predicted": prediction[0],
            "confidence": np.float32(prediction[1]),
            "true_confidence": np.float32(prediction[2]),
        }
        for target, ways_of in (("b", ways), ("a", dict.fromkeys(ways, [(0, 0.2, 0.2)] * len(eps))))
        for index, way in ways_of.items()
        for budget, prediction in zip(eps, way, strict=True)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


@pytest.fixture
def found():
    return trajectories(make_rows(), "a", ["b"]).set_index("index")


def check(frame, column, values):
    np.testing.assert_allclose(frame[column], values, rtol=1e-6, err_msg=column)


def test_numbers_and_kinds_are_those_worked_out_by_hand(found):
    nan = np.nan
    assert found.index.tolist() == [10, 11, 12, 13, 15, 16]
    check(found, "initial_confidence", [0.9, 0.9, 0.8, 0.4, 0.7, 0.5])
    check(found, "first_flip_eps_255", [nan, nan, 0.5, 1, nan, 4])
    check(found, "lowest_confidence", [0.5, 0.5, 0.1, 0.05, 0.66, 0.3])
    check(found, "lowest_eps_255", [1, 1, 4, 4, 0.5, 4])
    check(found, "recovered_confidence", [0.7, 0.69, nan, nan, 0.72, nan])
    check(found, "back_eps_255", [nan, nan, 2, nan, nan, nan])
    check(found, "end_confidence", [nan, nan, 0.85, 0.35, nan, 0.5])
    kinds = {kind: found.index[found[kind]].tolist() for kind in KINDS}
    assert kinds == {"dip_and_recovery": [10]} | {kind: [12] for kind in list(KINDS)[1:]}
    both = trajectories(make_rows(), "a", ["b", "a"]).set_index("index")
    assert both["target"].unique().tolist() == ["b", "a"]
    pd.testing.assert_frame_equal(both[both["target"] == "b"], found)


@pytest.mark.parametrize(
    ("lowest", "last", "dips"),
    [(0.75, 0.775, True), (0.75, 0.774, False), (0.751, 0.8, False), (0.2, 0.5, True)],
)
def test_a_dip_is_five_points_and_a_recovery_is_half_of_it(lowest, last, dips):
    way = [(0, c, c) for c in (0.8, 0.79, lowest, last, last)]
    assert trajectories(make_rows({1: way}), "a", ["b"])["dip_and_recovery"].item() is dips


def test_the_protocol_decides_which_images_are_counted():
    rows = make_rows()
    source_errs = (rows["target"] == "a") & (rows["index"] == 12)
    rows.loc[source_errs, "predicted"] = 1
    assert 12 not in trajectories(rows, "a", ["b"])["index"].tolist()
    assert 12 in trajectories(rows, "a", ["b"], "target_correct")["index"].tolist()
    assert 14 not in trajectories(rows, "a", ["b"], "all")["index"].tolist()


def refined(indices, budgets, target="b"):
    return pd.DataFrame({"index": indices, "target": target, "eps_255": budgets})


def test_refined_flips_take_the_place_of_tried_ones(found):
    flips = pd.concat(
        [refined([13, 16, 12, 15, 99], [0.75, 1, 3, 3.5, 0.1]), refined(13, [0], "a")]
    )
    table = trajectories(make_rows(), "a", ["b"], flips=flips).set_index("index")
    # 12 flips at 0.5 already; 15, which no tried budget flips, does flip between them.
    check(table, "first_flip_eps_255", [np.nan, np.nan, 0.5, 0.75, 3.5, 1])
    assert table.index[table["below_8_bits"]].tolist() == [12, 13]
    # Everything else is of the tried budgets, but that what flips has no dip.
    changed = ["first_flip_eps_255", "below_8_bits"]
    pd.testing.assert_frame_equal(table.drop(columns=changed), found.drop(columns=changed))
    dipped = trajectories(make_rows(), "a", ["b"], flips=refined([10], 3.0))
    assert not dipped["dip_and_recovery"].any()


def test_flips_of_a_part_of_the_images_leave_the_others_out(found):
    flips = refined([10, 12, 13], [np.nan, 0.4, 0.75])  # 16 flips too, and was not bisected
    table = trajectories(make_rows(), "a", ["b"], flips=flips).set_index("index")
    check(table, "first_flip_eps_255", [np.nan, 0.4, 0.75])
    changed = ["first_flip_eps_255", "below_8_bits"]
    expected = found.loc[[10, 12, 13]].drop(columns=changed)
    pd.testing.assert_frame_equal(table.drop(columns=changed), expected)


def test_a_norm_and_target_labels_change_no_number(found):
    in_l2 = trajectories(make_rows(), "a", ["b"], norm="l2").set_index("index")
    pd.testing.assert_frame_equal(in_l2, found.drop(columns="below_8_bits"))
    rows = make_rows()
    labels = pd.Series(7, rows.index, dtype="Int64").mask(rows["eps_255"] == 0)
    targeted = trajectories(rows.assign(target_label=labels), "a", ["b"])
    pd.testing.assert_frame_equal(targeted.set_index("index"), found)


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


@pytest.mark.parametrize("targeted", [False, True])
def test_a_typical_image_is_counted_and_fooled_with_the_median_confidence(targeted):
    random = np.random.default_rng(5)
    rows = [
        {"target": target, "index": index, "label": 0, "eps_255": eps}
        for target in ("a", "b")
        for index in range(40)
        for eps in (0.0, 2.0, 8.0)
    ]
    rows = pd.DataFrame(rows).assign(defence="none", draws=1, draws_correct=pd.NA)
    rows["predicted"] = random.choice([0, 1, 2], len(rows), p=[0.6, 0.2, 0.2])
    rows["confidence"] = random.choice([0.4, 0.404, 0.6, 0.9], len(rows))
    rows["true_confidence"] = rows["confidence"]
    rows["target_label"] = pd.Series(1 if targeted else pd.NA, rows.index, dtype="Int64")
    typical = typical_images(rows, "a", ["a", "b"], "joint")
    assert set(typical) == {(target, eps) for target in ("a", "b") for eps in (2.0, 8.0)}
    clean = rows[rows["eps_255"] == 0].pivot(index="index", columns="target", values="predicted")
    for (target, eps), index in typical.items():
        counted = clean.index[(clean[["a", target]] == 0).all(axis=1)]
        at = rows[(rows["target"] == target) & (rows["eps_255"] == eps)]
        fooled = at["predicted"].eq(1) if targeted else at["predicted"].ne(0)
        at = at[fooled & at["index"].isin(counted)]
        ordered = sorted(zip(round(100 * at["confidence"]), at["index"], strict=True))
        assert index == ordered[(len(ordered) - 1) // 2][1]


def test_the_summary_counts_what_the_table_holds(found):
    table = trajectories(make_rows(), "a", ["b", "a"])
    b, a = flip_summary(table).to_dict("records")
    counts = {"target": "b", "initially_correct": 6, "flipped": 3, "flipped_share": 0.5}
    assert b == {**counts, "median_first_flip_eps_255": 4, "below_8_bits": 1}
    assert (a["flipped"], a["below_8_bits"]) == (0, 0) and np.isnan(a["median_first_flip_eps_255"])
    assert "below_8_bits" not in flip_summary(found.drop(columns="below_8_bits"))
