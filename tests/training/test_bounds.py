"""Trainings of a command: on how many images, and whether they learn anything."""

import pytest
from safetensors import safe_open

from src.api.classifier import load_classifier
from src.config.compose import compose_words
from src.config.read import read_job
from src.config.resolvers import CONF
from src.run.check_job import check_job
from src.run.data import DataSets
from src.run.models import Trainings, build

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


def test_too_few_or_too_many_training_images_are_refused(workspace):
    for count in (9, 201):
        more = ["dataset=cifar10_mini", f"training.n_images={count}"]
        with pytest.raises(ValueError, match=rf"n_images={count}: .*10 \(classes\) to 200 "):
            load_classifier("fine", *RECIPE, *more, config_dir="conf")


@pytest.mark.parametrize(
    ("name", "key", "words"),
    [
        ("resnet_small", "1f1d1ccb25b1edbd", []),
        ("vit_small", "d5b88052b41e21e2", []),
        ("resnet_small", "8f8015632cf14d80", ["attack=fgsm", "eps=4", "epochs=20"]),
    ],
)
def test_weights_that_earlier_versions_trained_are_found(name, key, words):
    words = ["dataset=cifar10_mini", "training=quick", *(f"training.{word}" for word in words)]
    words += [f"source={name}", f"targets=[{name}]", f"model.{name}.weights=null", "trainer=cpu"]
    config, sets = compose_words(CONF, words), DataSets()
    settings = check_job(read_job(config, config.hydra), sets).settings
    images = sets.open(settings, "test")
    file = Trainings(settings, images, sets).file(name, build(settings, name, images))
    assert file.name == f"{name}-cifar10_mini-{key}.safetensors"
