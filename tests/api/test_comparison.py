"""Comparison of two sweeps: numbers against plain loops, false alarms, exit codes, refusals."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import save_file
from scipy.optimize import brentq
from scipy.stats import binomtest, norm
from torch import zeros

from src import load_sweep
from src.analysis.multiple_comparisons import compare_versions
from src.api import comparison
from src.api.comparison import CELL, CLEAN, NOTES, ROBUST, gate
from tests.analysis.test_multiple_comparisons import score_statistic
from tests.config.test_exit_codes import closed_pipe, full_disk, with_output
from tests.conftest import REPOSITORY
from tests.records import JOBS, predictions_of, results_of_frame


def compare(old: pd.DataFrame, new: pd.DataFrame, **options) -> pd.DataFrame:
    return comparison.compare(results_of_frame(old), results_of_frame(new), **options)


@pytest.fixture(scope="module")
def old() -> pd.DataFrame:
    """FGSM from three sources on five targets, three of them the sources."""
    frame = predictions_of(load_sweep(REPOSITORY / "docs" / "results" / "demo"))
    return frame[(frame["attack"] == "fgsm") & frame["eps_255"].isin([0, 4])]


def copied(frame: pd.DataFrame, rows: pd.Series | None = None, **jobs) -> pd.DataFrame:
    """Return a copy in which some predictions are wrong, and all records have other fields."""
    new = frame.copy()
    if rows is not None:
        new.loc[rows, "predicted"] = (new.loc[rows, "label"] + 1) % 10
    new.attrs[JOBS] = [job | jobs for job in frame.attrs[JOBS]]
    return new


def renamed(frame: pd.DataFrame, old: str, new: str) -> pd.DataFrame:
    sides = ("source", "target")
    other = frame.assign(**{its: frame[its].cat.rename_categories({old: new}) for its in sides})
    jobs = json.dumps(frame.attrs[JOBS]).replace(f'"{old}"', f'"{new}"')
    other.attrs[JOBS] = json.loads(jobs)
    return other


def test_accuracies_and_their_means_are_those_of_plain_loops(old):
    """One source was attacked on every other image alone."""
    old = old[(old["source"] != "vgg_small") | (old["index"] % 2 == 0)]
    new = copied(old, (old["target"] == "vit_small") & (old["index"] % 5 == 0))
    changes = compare(old, new).set_index(["measure", *CELL[:3]])
    cells: dict[tuple[str, ...], list[list[float]]] = {}
    for side, frame in enumerate((old, new)):
        for row in frame[frame["eps_255"] == 4].itertuples():
            sides = cells.setdefault((row.attack, row.source, row.target), [[], []])
            sides[side].append(row.predicted == row.label)
    assert sorted({len(sides[0]) for sides in cells.values()}) == [100, 200] and len(cells) == 15
    for cell, sides in cells.items():
        one = changes.loc[(ROBUST, *cell)]
        assert (one["old"], one["new"]) == pytest.approx(tuple(map(np.mean, sides)))
        assert one["change"] == pytest.approx(one["new"] - one["old"])
        lost = sum(before > after for before, after in zip(*sides, strict=True))
        gained = sum(before < after for before, after in zip(*sides, strict=True))
        assert (one["images"], one["lost"], one["gained"]) == (len(sides[0]), lost, gained)
        p = binomtest(lost, lost + gained).pvalue if lost + gained else 1
        assert one["p"] == pytest.approx(p)
    mean = changes.loc[ROBUST].iloc[0]
    of_target = [
        np.mean([np.mean(sides[1]) for (_, s, t), sides in cells.items() if t == target != s])
        for target in sorted(old["target"].unique())
    ]
    assert mean["is_mean"] and mean["cells"] == 12
    assert mean["new"] == pytest.approx(np.mean(of_target))
    assert mean["new_right"] == pytest.approx(mean["new"] * mean["images"])
    clean = old.query("eps_255 == 0 and target == 'vit_small'").drop_duplicates("index")
    vit = changes.loc[CLEAN].xs("vit_small", level="target").iloc[0]
    assert vit["old"] == pytest.approx(np.mean(clean["predicted"] == clean["label"]))
    assert vit["new"] < vit["old"] and vit["high"] < 0 and vit["images"] == 200
    assert vit["gained"] == 0 and vit["p"] == pytest.approx(binomtest(0, vit["lost"]).pvalue)
    assert not changes.loc[CLEAN].xs("vgg_small", level="target")["change"].any()


def test_a_cell_with_part_of_the_images_is_judged_by_these(old):
    few, found = old["index"] % 2 == 0, []
    for some in (old[few], old[few | (old["source"] != "resnet_small")]):
        new = copied(some, (some["target"] == "vit_small") & (some["index"] % 12 == 0))
        rows = compare(some, new).set_index(["measure", "source", "target"]).sort_index()
        found.append(rows.loc[(ROBUST, "resnet_small", "vit_small")])
    alone, beside = found
    for name in ("images", "old_right", "lost", "gained", "p", "change", "largest_fall"):
        assert beside[name] == pytest.approx(alone[name]), name
    assert beside["change"] < 0 and beside["low"] <= alone["low"] + 1e-9


def test_intervals_are_those_of_all_sign_flips_in_a_plain_loop():
    random = np.random.default_rng(3)
    old, new = random.integers(0, 2, (2, 6, 40)).astype(float)
    new[:3] = np.where(random.random((3, 40)) < 0.8, old[:3], new[:3])
    found = compare_versions(old, new)
    scale = [np.sqrt(np.sum((a - b) ** 2) + 4) for a, b in zip(old, new, strict=True)]
    signs = random.integers(0, 2, (20_000, 40)) * 2 - 1
    largest = np.max(np.abs(signs @ (new - old).T) / scale, axis=1)
    change = found["change"]
    assert change == pytest.approx((new - old).mean(axis=1))
    unseen = np.log(6 / 0.025) / 40  # (1 - unseen)^40 is about 0.025 / 6
    wanted = np.maximum(np.quantile(largest, 0.95) * np.array(scale) / 40, unseen)
    assert found["high"] - change == pytest.approx(wanted, rel=0.04)
    assert change - found["low"] == pytest.approx(wanted, rel=0.04)
    statistic = np.abs(change) * 40 / scale
    p = (largest[:, None] >= statistic).mean(axis=0)
    none_seen = 2 * 6 * np.exp(-40 * np.abs(change))
    p = np.minimum(1, np.max([p, 2 * norm.sf(statistic), none_seen], axis=0))
    assert found["p_adjusted"] == pytest.approx(p, abs=0.03)
    assert ((found["p_adjusted"] < 0.05) == (found["low"] * found["high"] > 0)).all()
    z, squares = norm.isf(0.05), np.sum((new - old) ** 2, axis=1)
    lost = np.maximum(z**2 / 2 + z * np.sqrt(squares + z**2 / 4), -np.log(0.05))
    above = found["largest_fall"] - np.maximum(lost / 40 - change, 0)  # rounded up to 0.001
    assert (above > -1e-4).all() and (above < 0.001).all()
    half = (np.arange(40) < 20)[None].astype(float)
    fell, alone = (compare_versions(np.ones((1, 40)), half, alone=p) for p in (0, 0.5))
    assert fell["high"] < 0 and fell["p_adjusted"] < 0.05
    assert alone["high"] == 0 and alone["p_adjusted"] == 0.5
    alike = compare_versions(old, old)
    assert not alike["change"].any() and (alike["p_adjusted"] == 1).all()
    assert alike["high"] == pytest.approx(unseen)


def test_a_gate_is_passed_from_the_largest_fall_on(old):
    rows = (old["target"] == "vit_small") & (old["eps_255"] == 0) & (old["index"] % 10 == 0)
    fell = compare(old, copied(old, rows))
    clean = fell[fell["measure"] == CLEAN].set_index("target")
    assert clean.loc["vit_small", "high"] < 0 and not clean.loc["vgg_small", "change"]
    assert not gate(fell)[0] and not gate(fell, 5)[0]
    largest = 100 * fell["largest_fall"].max()
    assert gate(fell, round(largest, 1))[0] and not gate(fell, round(largest - 0.1, 1))[0]
    assert f" {largest:.1f} points" in gate(fell)[1]
    alike = compare(old, old)
    assert gate(alike)[0] and gate(alike, 1.5)[0] and not gate(alike, 1.4)[0]  # 3 of 200 images


@pytest.mark.parametrize(
    ("images", "lost", "gained"), [(60, 0, 0), (60, 9, 1), (200, 1, 10), (200, 40, 10)]
)
def test_the_largest_fall_is_a_little_above_the_score_bound(images, lost, gained):
    """Tango's bound, with the likelihood maximised over a grid."""

    def score(fall: float) -> float:
        return score_statistic(lost, gained, images, fall) + norm.isf(0.05)

    least = max((lost - gained) / images, 0) + 1e-9
    bound = brentq(score, least, 0.999) if score(least) > 0 else 0
    before = (np.arange(images) < images // 2 + 20).astype(float)
    after = before.copy()
    after[:lost], after[images - gained :] = 0, 1
    largest = compare_versions(before[None], after[None], draws=39)["largest_fall"].item()
    assert bound <= largest <= bound + 0.12 * (bound - (lost - gained) / images) + 3 / images


def test_members_of_an_ensemble_have_no_order(old):
    one, other = (renamed(old, "vgg_small", name) for name in ("a+b", "b+a"))
    changes = compare(one, other)
    assert len(changes) == 22 and not changes["change"].any()
    assert compare(one, other, pairs={"a": "b", "b": "a"})["change"].eq(0).all()


def test_models_that_exchange_their_names_are_paired(old):
    new = renamed(renamed(old, "vgg_small", "x"), "vit_small", "vgg_small")
    new = renamed(new, "x", "vit_small")
    new.loc[(new["target"] == "vit_small") & (new["index"] % 3 == 0), "predicted"] = -1
    pairs = {"vgg_small": "vit_small", "vit_small": "vgg_small"}
    clean = compare(old, new, pairs=pairs).set_index(["measure", "target"]).loc[CLEAN]
    assert clean.loc["vit_small", "high"] < 0 and clean.loc["vgg_small", "change"] == 0
    rows = old.query("eps_255 == 0 and target == 'vgg_small'")
    right = (rows["predicted"] == rows["label"]).mean()
    assert clean.loc["vit_small", "old"] == pytest.approx(right)


def test_what_decides_no_image_may_differ_and_what_else_differs_is_said(old):
    new = copied(old)
    new.attrs[JOBS][0] |= {"seed": 3, "protocol": "all", "storage": "uint8"}
    assert len(compare(old, new)) == 22
    keys = [job["target_keys"] for job in old.attrs[JOBS]]
    other = copied(old, crafting="other", target_keys=keys[0] | {"vit_small": "other"})
    said = " ".join(compare(old, other).attrs[NOTES])
    assert "targets: vit_small" in said and "fgsm from vgg_small" in said
    fewer = old[old["source"] == "vgg_small"]
    assert "only in NEW: fgsm from" in " ".join(compare(fewer, old).attrs[NOTES])


def first(images: int, source: str = "") -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return what keeps a number of images, of one source or of all."""

    def keep(old: pd.DataFrame) -> pd.DataFrame:
        others = (old["source"] != source) if source else False
        return old[(old["index"].rank(method="dense") <= images) | others]

    return keep


def same(old: pd.DataFrame) -> pd.DataFrame:
    return old


REFUSED: list[tuple[Callable, Callable, dict[str, Any], str]] = [
    (same, partial(copied, data="other"), {}, "fgsm from .* images"),
    (same, partial(copied, budgets=[0, 4]), {}, "epsilon.grid .* --eps"),
    (same, partial(copied, reference=8.0), {}, "NEW has no adversarial"),
    (same, same, {"eps_255": 3}, "--eps 3"),
    (same, same, {"pairs": {"nosuch": "vit_small"}}, "--pair nosuch: OLD"),
    (same, partial(renamed, old="vgg_small", new="better"), {}, "lacks 7 of the 15 .*--pair"),
    (first(29), first(29), {}, "29 images .* 30"),
    (first(29, "vgg_small"), first(29, "vgg_small"), {}, "from vgg_small on .*: 29 images"),
    (same, first(100), {}, "other images"),
]


@pytest.mark.parametrize(("before", "after", "options", "said"), REFUSED)
def test_sweeps_that_cannot_be_compared_are_refused(old, before, after, options, said):
    with pytest.raises(ValueError, match=said):
        compare(before(old), after(old), **options)


def test_a_budget_or_the_common_cells_may_be_chosen(old):
    assert not compare(old, copied(old, budgets=[0, 4]), eps_255=4)["change"].any()
    some = first(29, "vgg_small")(old)
    changes = compare(some, some, common=True)
    assert "vgg_small" not in set(changes["source"])
    assert "too few images" in changes.attrs[NOTES][-1]


@pytest.fixture
def compared(run_job, workspace, run_in):
    """A function that compares the folders `old` and `new`: there a target is worse."""
    words = ["n_images=60", "trainer.batch_size=60", "epsilon.grid=[0,8]", "targets=[coarse,fine]"]
    save_file({"2.weight": zeros(10, 192), "2.bias": zeros(10)}, "worse.safetensors")
    worse = ["model.fine.weights=worse.safetensors", "hydra.run.dir=new"]
    for others in (["hydra.run.dir=old"], worse):
        assert run_job(*words, "attack=fgsm", *others) == 0
    return partial(run_in, workspace, module="src.compare")


def test_exit_codes_tell_falls_from_bad_input(compared, workspace, capfd):
    for words, code, said in (
        ("old new", 1, "clean accuracy, mean of 2 cells: fell by"),
        ("new old", 0, "rose by"),
        ("old old", 0, "robust accuracy, mean of 1 cell: falls up to 5.0 points"),
        ("old nowhere", 2, "nowhere"),
        ("old new --pair coarse=x fine=y", 2, "lacks 2 of the 2"),
        ("old new --pair fine=x --pair fine=y", 2, "fine"),
        *((f"old old --max-fall {bad}", 2, "--max-fall") for bad in ("0", "100", "5%")),
    ):
        capfd.readouterr()
        assert compared(*words.split()) == code, words
        printed = capfd.readouterr()
        assert said in printed.out + printed.err and not (code == 2 and printed.out), words
    for stream in (full_disk, closed_pipe):
        assert with_output(partial(compared, "old", "old"), workspace, stream) == 2
    # Nothing changed: 3 of 60 images may be lost although none is.
    for folders, fall, code in (("old new", 5, 1), ("old old", 5, 0), ("old old", 4.9, 1)):
        words = [*folders.split(), "--max-fall", str(fall), "--json"]
        assert compared(*words) == code
        facts = json.loads(capfd.readouterr().out)
        assert facts["exit_code"] == code and facts["max_fall"] == fall and facts["notes"]
        assert f"{facts['old']} {facts['new']}" == folders and f" {fall:g} " in facts["verdict"]
        assert code == (not all(row["excluded"] for row in facts["rows"]))
        for row in facts["rows"]:  # in percent
            assert row["change"] == pytest.approx(row["new"] - row["old"]), row
            assert row["new_right"] == pytest.approx(row["new"] / 100 * row["images"])


def test_a_network_that_is_always_right_has_not_fallen(old):
    """The mean of 200 ones over targets is not exactly one."""
    right = old.assign(predicted=old["label"])
    right.attrs = old.attrs
    changes = compare(right, right)
    assert changes["old"].max() <= 1 and (changes["high"] >= 0).all()
