import numpy as np
import pytest
from scipy.stats import binomtest

from src.analysis import CAUSES, Alarm, alarms, weaker_than_fgsm


def job(make_table, right, true_confidence=0.1, n=100, target_label=None):
    """`a` and `b` are right on all clean images but the last; attacked on the first `right`."""
    clean, attacked = np.zeros(n, dtype=int), np.where(np.arange(n) < right, 0, 1)
    clean[-1] = 1
    answers = {(model, eps): clean if eps == 0 else attacked for model in "ab" for eps in (0, 4, 8)}
    confidences = {(model, 8): true_confidence for model in "ab"}
    return make_table(answers, target_label=target_label, true_confidence=confidences)


def check(table, source, targets, num_classes=10, zero_gradients=0.0, evaluations=400, **words):
    words = {"protocol": "joint", "iterative": True} | words
    return alarms(table, source, targets, num_classes, zero_gradients, evaluations, **words)


def low_end(k, n):
    return binomtest(k, n).proportion_ci(method="wilson").low


def test_an_attack_that_works_raises_nothing(make_table):
    assert check(job(make_table, 10), "a", ["a", "b"], 10, 0.01) == []
    assert check(job(make_table, 0, target_label=[1] * 100), "a", ["a", "b"]) == []


def test_every_alarm_tells_its_causes_and_zero_gradients_are_counted(make_table):
    for alarm in check(job(make_table, 60, 0.9), "a", ["a"], 10, 0.5):
        assert isinstance(alarm, Alarm) and CAUSES[alarm.name] in alarm.sentence
        assert alarm.sentence.startswith(alarm.finding) and len(alarm.finding) < 130
    (alarm,) = check(job(make_table, 0), "a", ["b"], 10, 0.25, 400)
    assert alarm[:2] == ("zero_gradients", 0.25)
    assert alarm.finding.startswith("a: 100 / 400 = 25.00% of the gradients")


def test_images_whose_loss_rises_nowhere_are_counted_white_box_only(make_table):
    confidence = np.full(100, 0.1)

    def unmoved(count, source="a", targets=("a",)):
        confidence[:count], confidence[count:99] = 0.5, 0.1  # 0.5: as on the clean image
        confidence[99] = 0.9  # wrong when clean and not counted
        table = job(make_table, 0, confidence)
        return check(table, source, list(targets), protocol="target_correct")

    for count in range(1, 20):
        raised = unmoved(count)
        assert [one.name for one in raised] == ["loss_not_rising"] * int(low_end(count, 99) > 0.05)
    (alarm,) = unmoved(19, targets="ab")
    assert alarm.value == 19 / 99
    assert alarm.finding.startswith("a -> a, white box") and "19 / 99 = 19.19%" in alarm.finding
    assert unmoved(19, "c", "ab") == []
    assert [one.value for one in unmoved(19, "a+b", "ab")] == [19 / 99] * 2


def test_a_loss_that_rises_at_one_budget_has_risen_and_one_image_of_few_is_no_alarm(make_table):
    table = job(make_table, 50, 0.9)  # one step that overshoots at the largest budget
    (alarm,) = check(table, "a", ["a"], iterative=False)
    assert alarm.name == "loss_not_rising"
    table.loc[table["eps_255"] == 4, "true_confidence"] = 0.4
    assert check(table, "a", ["a"], iterative=False) == []
    confidence = np.append(0.5, np.full(18, 0.1))
    assert check(job(make_table, 0, confidence, n=19), "a", ["a"]) == []


def test_targeted_images_that_reach_their_class_are_no_alarm(make_table):
    unmoved = job(make_table, 50, 0.5, target_label=[1] * 100)
    (alarm,) = check(unmoved, "a", ["a"])
    assert (alarm.name, alarm.value) == ("loss_not_rising", 50 / 99)
    assert "nor takes them for their target class" in alarm.sentence


def test_white_box_accuracy_above_chance_is_named_of_iterative_attacks(make_table):
    for right in range(10, 30):
        raised = check(job(make_table, right), "a", ["a", "b"])
        assert [alarm.name for alarm in raised] == ["above_chance"] * int(low_end(right, 100) > 0.1)
    assert raised[0].value == 0.29
    assert "a -> a, white box at 8/255: still right on 29 / 100 = 29.00%" in raised[0].finding
    assert "1 / 10 = 10.00%" in raised[0].finding
    assert check(job(make_table, 90), "a", ["a", "b"], iterative=False) == []
    targeted = job(make_table, 29, target_label=[1] * 100)
    assert check(targeted, "a", ["a"]) == []


def test_models_that_guess_clean_images_are_named(make_table):
    clean = np.where(np.arange(20) < 18, 0, 1)
    for right in range(9):
        guessed = np.where(np.arange(20) < right, 0, 1)
        table = make_table({("a", 0): clean, ("b", 0): guessed, ("b", 8): np.ones(20, dtype=int)})
        raised = check(table, "a", ["b"], protocol="all")
        assert [one.name for one in raised] == ["clean_at_chance"] * int(low_end(right, 20) <= 0.1)
        if right == 2:
            assert raised[0].value == 0.1 and raised[0].finding.startswith("b: right on 2 / 20")


def test_pairs_that_count_few_images_are_named(make_table):
    for n, protocol in ((10, "joint"), (9, "joint"), (9, "all"), (1, "joint"), (0, "joint")):
        answers = np.where(np.arange(20) < n, 0, 1)
        table = make_table({("a", 0): [0] * 20, ("b", 0): answers, ("b", 8): [1] * 20})
        raised = check(table, "a", ["b"], 100, protocol=protocol)
        found = [alarm for alarm in raised if alarm.name == "few_images"]
        assert [alarm.value for alarm in found] == ([n] if n < 10 and protocol != "all" else [])
    assert found[0].finding.startswith("a -> b: 0 images")


def test_an_iterative_attack_that_fools_fewer_images_than_fgsm_is_named(make_table):
    weak, fgsm = job(make_table, 40), job(make_table, 30)
    raised = weaker_than_fgsm(weak, fgsm.sample(frac=1, random_state=0), "a", 4.0, "bim")
    assert [alarm.name for alarm in raised] == ["weaker_than_fgsm"] * 2
    assert [alarm.value for alarm in raised] == [10 / 99] * 2
    assert "a -> a, white box at 4/255: bim fools 59 / 99 = 59.60%" in raised[0].finding
    assert "69 / 99 = 69.70%" in raised[0].finding
    assert "p = 0.00098" in raised[0].sentence  # 0.5 to the power of 10
    assert len(weaker_than_fgsm(weak, fgsm, "a", 8.0)) == 1
    assert len(weaker_than_fgsm(weak, fgsm, "a+b", 8.0)) == 2
    assert weaker_than_fgsm(fgsm, weak, "a", 8.0) == []
    assert weaker_than_fgsm(weak, weak, "a", 8.0) == []
    assert weaker_than_fgsm(weak, fgsm, "c", 8.0) == []


def test_a_lead_of_fgsm_that_may_be_chance_is_no_alarm(make_table):
    fgsm = job(make_table, 30)
    assert weaker_than_fgsm(job(make_table, 34), fgsm, "a", 8.0) == []  # p = 1 / 16
    assert len(weaker_than_fgsm(job(make_table, 35), fgsm, "a", 8.0)) == 1  # p = 1 / 32


def test_targeted_attacks_are_compared_by_the_classes_they_reach(make_table):
    aims = [1] * 100
    weak, fgsm = (job(make_table, right, target_label=aims) for right in (40, 30))
    (alarm,) = weaker_than_fgsm(weak, fgsm, "a", 8.0)
    assert "the iterative attack reaches the target class on 59 / 99" in alarm.finding


def test_jobs_that_cannot_be_compared_are_refused(make_table):
    table = job(make_table, 40)
    with pytest.raises(ValueError, match="share no budget above 0"):
        weaker_than_fgsm(table, table[table["eps_255"] == 0], "a", 8.0)
    changed = table.copy()
    changed.loc[changed["eps_255"] == 0, "predicted"] = 0
    aimed = job(make_table, 40, target_label=[1] * 100)
    for other in (table[table["index"] < 50], aimed, changed):
        with pytest.raises(ValueError, match="white box at 8/255: the iterative attack and FGSM"):
            weaker_than_fgsm(table, other, "a", 8.0)
