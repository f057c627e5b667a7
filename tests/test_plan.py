"""What a command takes, printed before its first job, against what it took."""

import re

import pytest

from src.artifacts.record import job_record


@pytest.fixture
def plan(run_job, printed_by, monkeypatch):
    """A function that plans a command without any model, and returns the lines it prints."""

    def run(*words):
        with monkeypatch.context() as patch:
            patch.delattr("src.run.models.build")
            code, printed = printed_by(run_job, *words, "plan=only")
        assert code == 0, printed
        return printed

    return run


def count(name, printed):
    (number,) = re.findall(rf"Plan: .*?([\d,]+) {name}", printed)
    return int(number.replace(",", ""))


@pytest.mark.slow
def test_a_plan_computes_nothing_and_states_what_the_command_takes(plan, run_job, workspace):
    words = ["-m", "attack=bim,mi", "attack.steps=3", "rerun=false", "hydra.sweep.dir=out"]
    printed = plan(*words)
    assert {path.name for path in workspace.iterdir()} == {"conf", "cache"}
    assert not [*(workspace / "cache").iterdir()] and "unknown until" in printed
    assert count("gradients", printed) == 2 * 23 * (1 + 2 * 2)
    # Clean images once for both jobs; one or two storage formats have the same logits.
    assert count("predictions", printed) == 2 * 23 + 2 * 2 * 2 * 23
    assert run_job(*words) == 0
    records = [job_record(folder) for folder in sorted((workspace / "out").glob("[0-9]-*"))]
    assert sum(record.gradients for record in records) == 2 * 23 * (1 + 2 * 2)
    again = plan(*words)
    assert count("gradients", again) == count("predictions", again) == 0
    assert "all rows of 2 jobs" in again and "Already stored" not in plan(*words, "rerun=true")
    grown = plan(*words, "epsilon.grid=[0,0.5,2,8]")
    assert count("gradients", grown) == 2 * 23 * (1 + 3 * 2) and "Already" not in grown
    assert re.search(r"about \d+ s at the pace of earlier jobs", grown)
    (workspace / "cache" / "seconds.json").write_text('{"a": -1}')
    assert "unknown until" in plan(*words, "n_images=9")


def test_a_command_that_takes_too_long_is_refused_or_stops_after_its_first_batch(
    run_job, workspace, capsys
):
    words = ["-m", "attack=fgsm,bim", "plan.max_hours=1e-9"]
    assert run_job(*words, "hydra.sweep.dir=out") == 2
    told = capsys.readouterr().out
    assert "plan.max_hours=1e-09 is checked after" in told and "Type plan.max_hours=0.1." in told
    assert [path.name for path in (workspace / "out").glob("[0-9]-*")] == ["0-fgsm-coarse"]
    assert run_job("plan.max_hours=100") == 0
    capsys.readouterr()
    assert run_job(*words, "hydra.sweep.dir=two") == 2
    assert "at most" in capsys.readouterr().err and not (workspace / "two").exists()


def test_a_plan_lists_missing_files_with_the_commands_that_get_them(plan, workspace):
    words = ["model.fine.weights=there/fine.pth", "++model.fine.url=https://example.org/fine.pth"]
    printed = plan(*words)
    assert "curl -L --create-dirs -o there/fine.pth https://example.org/fine.pth" in printed
    assert count("gradients", printed) == 23
    printed = plan("dataset=image_folder", "dataset.root=nowhere", "n_images=null", "attack=bim")
    assert "dataset=image_folder: " in printed and "19 gradients per image" in printed
    words = ["dataset=cifar10", "dataset.root=nowhere", "model.coarse.weights=null"]
    printed = plan("-m", "attack=fgsm,bim", *words)
    assert "first: coarse." in printed and "downloads" in printed
    assert count("gradients", printed) == 23 * (1 + 19)
    printed = plan("-m", "attack=bim,mi", "hydra/launcher=processes", "plan.max_hours=1")
    assert "not checked by launchers" in printed and "unknown" not in printed  # no hours
