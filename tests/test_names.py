"""Names of models on the command line: files, experiments, panels, public models."""

import pandas as pd
import pytest
import yaml

from src import load_classifier

PUBLIC = "hub/me/nets@0123456789abcdef/tiny"
SHORT = "hub.me.nets.0123456.tiny"
QUICK = ["attack=fgsm", "epsilon.grid=[8]"]


@pytest.fixture
def composed(run_job, capfd):
    """A function that returns the config that `--cfg job` prints."""

    def compose(*words):
        assert run_job("--cfg", "job", *words) == 0
        return yaml.safe_load(capfd.readouterr().out)

    return compose


@pytest.fixture
def provider(workspace, monkeypatch):
    """A stand-in of providers, whose models are the tiny ones."""
    keys = yaml.safe_load((workspace / "conf/model/fine.yaml").read_text())
    monkeypatch.setattr("src.models.providers.section_of", lambda name: {**keys})


def write(workspace, file, text):
    path = workspace / "conf" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("words", [["source=coarse,fine"], ["source=coarse,[coarse,fine]"]])
def test_files_of_a_jobs_models_are_read_and_no_others(composed, workspace, words):
    write(workspace, "model/broken.yaml", "{")
    models = composed("-m", "targets=[resnet_small]", *words)["model"]
    assert models.keys() == {"coarse", "resnet_small"}


def test_an_experiment_names_models_too(composed, workspace):
    write(workspace, "experiment/base.yaml", "# @package _global_\ntargets: [fine, vit_small]\n")
    text = "# @package _global_\ndefaults: [base]\nsource: resnet50\nmodel:\n"
    text += "  resnet50: {network: {_target_: own.build}, weights: included}\n"
    write(workspace, "experiment/own.yaml", text + "  vit_small: {input_size: 32}\n")
    models = composed("experiment=own", "targets=[fine,vit_small]")["model"]
    assert models["resnet50"] == {"network": {"_target_": "own.build"}, "weights": "included"}
    assert models["fine"]["std"] and models["vit_small"]["input_size"] == 32
    assert models["vit_small"]["network"]["_target_"] == "src.models.small.vit_small"


def test_a_panel_is_a_list_of_targets(run_job, workspace, capfd):
    write(workspace, "panel/mine.yaml", "[coarse, resnet_small]")
    words = [*QUICK, "hydra.run.dir=out", "targets=[panel/mine,fine]"]
    assert run_job(*words) == 0
    targets = pd.read_parquet("out/predictions.parquet")["target"].unique()
    assert list(targets) == ["coarse", "resnet_small", "fine"]
    capfd.readouterr()
    write(workspace, "panel/mine.yaml", "targets: [coarse]")
    for word, told in {
        "targets=panel/mine": "mine.yaml: a panel ",
        "targets=panel/mien": "Did you mean panel/mine?",
        "targets=transferatack": "Did you mean panel/transferattack?",
        "targets=[panel/mine,fien]": "mine.yaml: a panel",
        "source=fien": "Did you mean fine?",
    }.items():
        assert run_job(word) == 2
        error = capfd.readouterr().err
        assert told in error and error.count("\n") == 1


@pytest.mark.slow
def test_a_public_model_has_a_short_name_in_folders_and_tables(run_job, workspace, provider):
    words = ["-m", *QUICK, f"source={PUBLIC},coarse", f"targets=[{PUBLIC},coarse]"]
    assert run_job(*words, "hydra.sweep.dir=out") == 0
    predictions = pd.read_parquet(f"out/0-fgsm-{SHORT}/predictions.parquet")
    assert list(predictions["target"].unique()) == [SHORT, "coarse"]


def test_several_public_sources_are_one_anothers_targets(composed):
    sources = ["timm/resnet18.a1_in1k", "torchvision/vgg16.IMAGENET1K_V1"]
    for words in (["-m", f"source={','.join(sources)}"], [f"source=[{','.join(sources)}]"]):
        assert composed(*words, "targets=null")["targets"] == sources
        assert composed(*words, "targets=[fine]")["targets"] == ["fine"]
    assert composed(f"source={sources[0]}", "targets=null")["targets"][0] == "vgg16"


def test_a_public_model_loads_from_python(workspace, provider):
    assert load_classifier(PUBLIC, "dataset=cifar10_mini").name == SHORT


def test_an_unknown_public_model_is_refused(run_job, capfd):
    assert run_job("source=timm/resnet50.a9_in1k") == 2
    assert "timm/resnet50.a9_in1k" in capfd.readouterr().err
