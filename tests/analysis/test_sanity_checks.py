import numpy as np
import pytest
from scipy.stats import binomtest

from src.artifacts import Alarm
from src.report.sanity_checks import (
    CAUSES,
    alarms,
    copies_of_images,
    explained,
    labels_permuted,
    many_abstentions,
)


def job(make_table, correct, true_confidence=0.1, n=100, target_label=None):
    """`a` and `b` are correct on all clean images but the last; attacked on the first `correct`."""
    clean, attacked = np.zeros(n, dtype=int), np.where(np.arange(n) < correct, 0, 1)
    clean[-1] = 1
    predictions = {
        (model, eps): clean if eps == 0 else attacked for model in "ab" for eps in (0, 4, 8)
    }
    confidences = {(model, 8): true_confidence for model in "ab"}
    return make_table(predictions, target_label=target_label, true_confidence=confidences)


def check(table, source, targets, num_classes=10, zero_gradients=0.0, **words):
    words = {"protocol": "joint", "iterative": True} | words
    return [*alarms(table, source, list(targets), num_classes, zero_gradients, **words)]


def names(raised):
    return [alarm.name for alarm in raised]


def low_end(k, n):
    return binomtest(k, n).proportion_ci(method="wilson").low


def test_an_attack_that_works_raises_nothing(make_table):
    assert check(job(make_table, 10), "a", "ab", 10, 0.01) == []
    assert check(job(make_table, 10), "a", "ab", 10, np.nan) == []
    assert check(job(make_table, 0, target_label=[1] * 100), "a", "ab") == []


@pytest.mark.parametrize("protocol", ["all", "target_correct", "joint"])
def test_abstentions_on_clean_images_count_under_each_protocol(make_table, protocol):
    """No protocol of correctly classified images counts those on which a target abstains."""

    def abstaining(count):
        predicted = np.where(np.arange(100) < count, -1, 0)
        table = make_table(
            {
                ("a", 0): 0 * predicted,
                ("a", 8): 0 * predicted,
                ("b", 0): predicted,
                ("b", 8): predicted,
            }
        )
        return [alarm.finding for alarm in many_abstentions(table, "a", ["b"], protocol)]

    assert abstaining(20) == []
    (finding,) = abstaining(43)
    assert "b: abstains on 43 / 100" in finding


def test_every_alarm_names_its_causes(make_table):
    (zero, *others) = check(job(make_table, 60, 0.9), "a", "a", 10, 0.25)
    assert zero.name == "zero_gradients" and "a: 25.00%" in zero.finding
    for alarm in (zero, *others):
        assert isinstance(alarm, Alarm) and CAUSES[alarm.name] in explained(alarm)


def test_images_whose_loss_rises_nowhere_are_counted_white_box_only(make_table):
    confidence = np.full(100, 0.1)

    def unmoved(count, source="a", targets="a"):
        confidence[:count], confidence[count:99] = 0.5, 0.1  # 0.5: as on the clean image
        confidence[99] = 0.9  # wrong when clean and not counted
        table = job(make_table, 0, confidence)
        return check(table, source, targets, protocol="target_correct")

    for count in (1, 8, 9, 10, 11, 12, 19):
        raised = unmoved(count)
        assert names(raised) == ["loss_not_rising"] * int(low_end(count, 99) > 0.05)
    (alarm,) = unmoved(19, targets="ab")
    assert alarm.finding.startswith("a -> a, white box") and "19 / 99 = 19.19%" in alarm.finding
    assert unmoved(19, "c", "ab") == []
    assert len(unmoved(19, "a+b", "ab")) == 2


def test_a_loss_that_rises_at_one_budget_has_risen(make_table):
    table = job(make_table, 50, 0.9)  # one step that overshoots at the largest budget
    assert names(check(table, "a", "a", iterative=False)) == ["loss_not_rising"]
    table.loc[table["eps_255"] == 4, "true_confidence"] = 0.4
    assert check(table, "a", "a", iterative=False) == []
    reached = job(make_table, 50, 0.5, target_label=[1] * 100)  # on the others
    (alarm,) = check(reached, "a", "a")
    assert alarm.name == "loss_not_rising" and "50 / 99" in alarm.finding


def test_white_box_accuracy_above_chance_is_named_of_iterative_attacks(make_table):
    for correct in (10, 15, 16, 17, 18, 19, 29):
        raised = check(job(make_table, correct), "a", "ab")
        assert names(raised) == ["above_chance"] * int(low_end(correct, 100) > 0.1)
    assert "a -> a, white box at 8/255: still correct on 29 / 100 = 29.00%" in raised[0].finding
    assert check(job(make_table, 90), "a", "ab", iterative=False) == []
    assert check(job(make_table, 29, target_label=[1] * 100), "a", "a") == []


def test_models_that_guess_clean_images_are_named(make_table):
    clean = np.where(np.arange(20) < 18, 0, 1)
    for k in range(2, 7):
        guessed = np.where(np.arange(20) < k, 0, 1)
        table = make_table({("a", 0): clean, ("b", 0): guessed, ("b", 8): np.ones(20, dtype=int)})
        raised = check(table, "a", "b", protocol="all")
        assert names(raised) == ["clean_at_chance"] * int(low_end(k, 20) <= 0.1)
        assert k > 2 or raised[0].finding.startswith("b: correct on 2 / 20")
    few = make_table({("a", 0): [0] * 3, ("a", 8): [1] * 3})  # of which two classes say nothing
    assert "clean_at_chance" not in names(check(few, "a", "a", 2, protocol="all"))


WORDS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay", "kiwi", "lynx")


def permuted(make_table, true, predicted, classes=WORDS):
    return [*labels_permuted(make_table({("a", 0): predicted}, label=true), classes)]


@pytest.mark.parametrize(("each", "right"), [(2, 24), (5, 60), (5, 40)])
def test_classes_in_another_order_are_named_in_the_networks_order(make_table, each, right):
    order = np.random.RandomState(1).permutation(12)  # of the network's classes
    number, true = np.argsort(order), np.repeat(np.arange(12), each)
    predicted = number[true]
    predicted[np.random.RandomState(2).permutation(len(true))[right:]] = 0
    (alarm,) = permuted(make_table, true, predicted)
    assert ",".join(f'"{WORDS[its]}"' for its in order) in alarm.finding
    assert f"{(predicted == true).sum()} / {len(true)} " in alarm.finding
    assert explained(alarm).startswith("a: correct on ")
    assert f"but on {(order[predicted] == true).sum()} / {len(true)} " in alarm.finding
    assert permuted(make_table, true, order[predicted]) == []  # with the setting
    names = [f"n{number:03}" for number in range(1000)]
    (alarm,) = permuted(make_table, true, predicted, names)
    assert "n000" not in alarm.finding and "all 1000 names" in alarm.finding


def test_weak_networks_that_take_each_class_for_another_are_no_suspects(make_table):
    true = np.repeat(np.arange(12), 50)
    for share, count in ((0.45, 0), (0.65, 1)):
        random = np.random.default_rng(0)
        likely = random.random(len(true)) < share
        predicted = np.where(likely, (true + 1) % 12, random.integers(12, size=len(true)))
        assert len(permuted(make_table, true, predicted)) == count


def test_two_classes_are_swapped_only_if_nearly_all_images_say_so(make_table):
    for n, wrong, count in ((10, 10, 1), (10, 9, 0), (100, 90, 1), (100, 60, 0)):
        true = np.arange(n) % 2
        predicted = np.where(np.random.RandomState(0).permutation(n) < wrong, 1 - true, true)
        assert len(permuted(make_table, true, predicted, "ab")) == count


def test_networks_that_guess_number_their_classes_in_no_other_order(make_table):
    random = np.random.default_rng(0)
    for classes in (2, 3, 10, 100):
        names = [*map(str, range(classes))]
        for n in (3, 10, 60, 300):
            true = random.integers(classes, size=n)
            for predicted in (
                *random.integers(classes, size=(5, n)),
                *(np.full(n, its) for its in range(min(classes, 3))),
                random.integers(2, size=n),
            ):
                assert permuted(make_table, true, predicted, names) == []
    most = np.where(np.arange(200) < 180, 0, 1)
    assert permuted(make_table, most, np.ones(200, int), "ab") == []
    assert permuted(make_table, most, np.full(200, -1), "ab") == []  # it abstains


def test_one_image_of_each_class_says_nothing_of_the_order(make_table):
    assert permuted(make_table, np.arange(12), np.roll(np.arange(12), 1)) == []


@pytest.mark.parametrize(("distinct", "count"), [(1, 1), (50, 1), (98, 1), (99, 0), (100, 0)])
def test_copies_of_images_are_counted(distinct, count):
    raised = [*copies_of_images(np.array([f"{n % distinct:02}" for n in range(100)]))]
    assert [alarm.name for alarm in raised] == ["copies_of_images"] * count
    assert all(f"{distinct} of the 100 images are distinct" in explained(its) for its in raised)


def test_pairs_that_count_few_images_are_named(make_table):
    for n, protocol in ((10, "joint"), (9, "joint"), (9, "all"), (1, "joint"), (0, "joint")):
        predictions = np.where(np.arange(20) < n, 0, 1)
        table = make_table({("a", 0): [0] * 20, ("b", 0): predictions, ("b", 8): [1] * 20})
        raised = names(check(table, "a", "b", 100, protocol=protocol))
        assert ("few_images" in raised) == (n < 10 and protocol != "all")


def test_a_larger_budget_that_leaves_more_right_is_named(make_table):
    for back, named in ((0, False), (4, False), (40, True)):
        wrong = np.where(np.arange(100) < 30, 0, 1)
        right_again = np.where(np.arange(100) < 30 + back, 0, 1)
        table = make_table({("a", 0): [0] * 100, ("a", 2): wrong, ("a", 8): right_again})
        table.loc[table["eps_255"] > 0, "true_confidence"] = 0.1
        raised = check(table, "a", "a", iterative=False)
        assert names(raised) == ["weaker_at_larger_budget"] * named, back
    assert "70 / 100 = 70.00% at 2/255, but on 30 / 100" in raised[0].finding


@pytest.mark.slow
def test_budgets_of_equal_success_rarely_raise_an_alarm(make_table):
    random, raised, images = np.random.default_rng(0), 0, 100
    for _ in range(60):
        classes = {(name, 0): np.zeros(images, int) for name in ("a", "b", "c", "a+b+c")}
        for name in "abc":
            chances = random.beta(1, 1, images)
            wrong = {(name, eps): random.random(images) < chances for eps in range(1, 19)}
            classes |= {cell: its.astype(int) for cell, its in wrong.items()}
        found = check(make_table(classes), "a+b+c", "abc", iterative=False)
        raised += "weaker_at_larger_budget" in names(found)
    assert raised <= 0.07 * 60
