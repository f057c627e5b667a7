"""Trainings of a command: on how many images, and whether they learn anything."""

import pytest
from safetensors import safe_open

from src.api.classifier import load_classifier

RECIPE = ["model.fine.weights=null", "dataset.n_train=200"]
RECIPE += ["training.epochs=2", "training.batch_size=10", "dataset.n_test=100"]
STOP = "clean_accuracy_check.action=stop"


def test_a_network_at_chance_stops_each_job_that_needs_it(run_job, workspace, capsys):
    words = [*RECIPE, STOP, "training.learning_rate=1e-9", "attack=fgsm"]
    assert run_job("-m", *words, "targets=[coarse],[fine]") == 1
    printed = capsys.readouterr().out
    assert "FAILED 1-fgsm-coarse: model fine is at chance" in printed
    assert printed.count("FAILED") == printed.count("Trained fine: ") == 1
    (file,) = (workspace / "cache" / "checkpoints").glob("fine-*.safetensors")
    with safe_open(file, "numpy") as stored:
        correct, count = stored.metadata()["tested"].split(" / ")
    assert f"{correct} / {count} = " in printed and count == "100"
    assert run_job(*words, "targets=[fine]") == 2  # its weights are known now
    out, err = capsys.readouterr()
    assert "model fine is at chance" in err and "Training" not in out + err
    assert run_job("-m", *words, "clean_accuracy_check.action=warn,stop", "targets=[fine]") == 1
    printed = capsys.readouterr().out
    assert printed.count("model fine is at chance") == 3  # the plan says so, too
    assert printed.count("FAILED") == 1


@pytest.mark.slow
def test_a_training_takes_a_balanced_part_that_is_in_its_key(run_job, workspace, capsys):
    words = [*RECIPE, "targets=[fine]", "attack=fgsm"]
    for more in ("n_images=50", "n_images=50", "n_images=null", "evaluate_on=7"):
        assert run_job(*words, f"training.{more}") == 0
    printed = capsys.readouterr().out
    assert printed.count("Training fine") == 2
    assert "Training fine: 50 images" in printed and "Training fine: 200 images" in printed
    for wrong in (9, 201):
        more = ["dataset=cifar10_mini", f"training.n_images={wrong}"]
        with pytest.raises(ValueError, match=rf"n_images={wrong}: .*10 \(classes\) to 200 "):
            load_classifier("fine", *RECIPE, *more, config_dir="conf")
