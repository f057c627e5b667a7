"""Which jobs raise which alarm, at the limits that SciPy's intervals give."""

import numpy as np
import pytest
from scipy.stats import binomtest

from src.report.sanity_checks import (
    CAUSES,
    alarms,
    copies_of_images,
    explained,
    labels_permuted,
    many_abstentions,
)
from tests.analysis.conftest import make_table


def job(correct, true_confidence=0.1, n=100, target_label=None):
    """`a` and `b` are correct on all clean images but the last; attacked on the first `correct`."""
    clean, attacked = np.zeros(n, int), np.where(np.arange(n) < correct, 0, 1)
    clean[-1] = 1
    classes = {(model, eps): attacked if eps else clean for model in "ab" for eps in (0, 4, 8)}
    confidences = {(model, 8): true_confidence for model in "ab"}
    return make_table(classes, target_label=target_label, true_confidence=confidences)


def check(table, source, targets, num_classes=10, zero_gradients=0.0, **words):
    words = {"protocol": "joint", "iterative": True} | words
    found = [*alarms(table, source, list(targets), num_classes, zero_gradients, **words)]
    assert all(CAUSES[alarm.name] in explained(alarm) for alarm in found)
    return found


def names(raised):
    return [alarm.name for alarm in raised]


def low_end(k, n):
    return binomtest(k, n).proportion_ci(method="wilson").low


@pytest.mark.parametrize(
    ("table", "zero_gradients", "raised"),
    [
        (job(10), 0.01, []),
        (job(10), np.nan, []),
        (job(10), 0.011, ["zero_gradients"]),
        (job(0, target_label=[1] * 100), 0.0, []),
        (job(50, 0.5, target_label=[1] * 100), 0.0, ["loss_not_rising"] * 2),
    ],
)
def test_an_attack_that_works_raises_nothing(table, zero_gradients, raised):
    assert names(check(table, "a+b", "ab", 10, zero_gradients, protocol="target_correct")) == raised


@pytest.mark.parametrize("protocol", ["all", "target_correct", "joint"])
def test_abstentions_on_clean_images_count_under_each_protocol(protocol):
    """No protocol of correctly classified images counts those on which a target abstains."""
    for count, found in ((20, []), (43, ["43 / 100"])):
        predicted = np.where(np.arange(100) < count, -1, 0)
        classes = {("a", eps): 0 * predicted for eps in (0, 8)}
        table = make_table(classes | {("b", eps): predicted for eps in (0, 8)})
        raised = [*many_abstentions(table, "a", ["b"], protocol)]
        assert len(raised) == len(found) and all(found[0] in its.finding for its in raised)


def test_images_whose_loss_rises_nowhere_are_counted_white_box_only():
    def unmoved(count, source="a", targets="a"):
        confidence = np.full(100, 0.1)
        confidence[:count], confidence[99] = 0.5, 0.9  # as on the clean image; wrong when clean
        return check(job(0, confidence), source, targets, protocol="target_correct")

    for count in (1, 8, 9, 10, 11, 12, 19):
        assert names(unmoved(count)) == ["loss_not_rising"] * int(low_end(count, 99) > 0.05)
    (alarm,) = unmoved(19, targets="ab")
    assert alarm.finding.startswith("a -> a, white box") and "19 / 99 = 19.19%" in alarm.finding
    assert unmoved(19, "c", "ab") == [] and len(unmoved(19, "a+b", "ab")) == 2
    table = job(50, 0.9)  # one step that overshoots at the largest budget
    assert names(check(table, "a", "a", iterative=False)) == ["loss_not_rising"]
    table.loc[table["eps_255"] == 4, "true_confidence"] = 0.4
    assert check(table, "a", "a", iterative=False) == []


def test_white_box_accuracy_above_chance_is_named_of_iterative_attacks():
    for correct in (10, 15, 16, 17, 18, 19, 29):
        raised = check(job(correct), "a", "ab")
        assert names(raised) == ["above_chance"] * int(low_end(correct, 100) > 0.1)
    assert "a -> a, white box at 8/255: still correct on 29 / 100" in raised[0].finding
    assert check(job(90), "a", "ab", iterative=False) == []
    assert check(job(29, target_label=[1] * 100), "a", "a") == []


def test_models_that_guess_and_pairs_that_count_few_images_are_named():
    """On 18 of 20 clean images `a` is correct, `b` on k."""
    clean = np.where(np.arange(20) < 18, 0, 1)
    for k in (0, 1, 2, 3, 4, 5, 6, 9, 10):
        guessed = np.where(np.arange(20) < k, 0, 1)
        table = make_table({("a", 0): clean, ("b", 0): guessed, ("b", 8): np.ones(20, int)})
        guesses = ["clean_at_chance"] * int(low_end(k, 20) <= 0.1)
        assert names(check(table, "a", "b", protocol="all")) == guesses
        assert names(check(table, "a", "b")) == guesses + ["few_images"] * (k < 10)
    few = make_table({("a", 0): [0] * 3, ("a", 8): [1] * 3})  # of which two classes say nothing
    assert "clean_at_chance" not in names(check(few, "a", "a", 2, protocol="all"))


def test_a_larger_budget_that_leaves_more_right_is_named():
    for back, named in ((0, False), (4, False), (5, True), (40, True)):
        classes = {("a", 0): [0] * 100, ("a", 2): np.where(np.arange(100) < 30, 0, 1)}
        classes["a", 8] = np.where(np.arange(100) < 30 + back, 0, 1)
        table = make_table(classes, true_confidence={("a", 2): 0.1, ("a", 8): 0.1})
        raised = check(table, "a", "a", iterative=False)
        assert names(raised) == ["weaker_at_larger_budget"] * named, back
    assert "70 / 100 = 70.00% at 2/255, but on 30 / 100" in raised[0].finding


WORDS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay", "kiwi", "lynx")


def permuted(true, predicted, classes=WORDS):
    return [*labels_permuted(make_table({("a", 0): predicted}, label=true), classes)]


@pytest.mark.parametrize(("each", "right"), [(2, 24), (5, 60), (5, 40)])
def test_classes_in_another_order_are_named_in_the_networks_order(each, right):
    order = np.random.RandomState(1).permutation(12)  # of the network's classes
    number, true = np.argsort(order), np.repeat(np.arange(12), each)
    predicted = number[true]
    predicted[np.random.RandomState(2).permutation(len(true))[right:]] = 0
    (alarm,) = permuted(true, predicted)
    assert ",".join(f'"{WORDS[its]}"' for its in order) in alarm.finding
    assert f"{(predicted == true).sum()} / {len(true)} " in alarm.finding
    assert f"but on {(order[predicted] == true).sum()} / {len(true)} " in explained(alarm)
    assert permuted(true, order[predicted]) == []  # with the setting


def test_networks_that_guess_number_their_classes_in_no_other_order():
    random = np.random.default_rng(0)
    for classes in (2, 10, 100):
        for n in (3, 60, 300):
            true = random.integers(classes, size=n)
            for predicted in (*random.integers(classes, size=(5, n)), np.full(n, 1)):
                assert permuted(true, predicted, [*map(str, range(classes))]) == []
    most = np.where(np.arange(200) < 180, 0, 1)
    for constant in (1, -1):  # the rarer class, or it abstains
        assert permuted(most, np.full(200, constant), "ab") == []


def test_copies_of_images_are_counted():
    for distinct, count in ((1, 1), (98, 1), (99, 0), (100, 0)):
        raised = [*copies_of_images(np.array([f"{n % distinct:02}" for n in range(100)]))]
        assert names(raised) == ["copies_of_images"] * count
        assert all(f"{distinct} of the 100 images" in explained(its) for its in raised)
