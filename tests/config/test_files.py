"""Files of a user's own, and names that lead to files: models, panels, experiments, attacks."""

from contextlib import nullcontext

import pandas as pd
import pytest
import yaml

from src import load_classifier
from src.config.settings import Settings
from tests.config.test_settings import read


def write(workspace, file, text):
    """Write a file with a byte order mark, as some editors do."""
    path = workspace / "conf" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8-sig", newline="\r\n")


def test_a_file_that_cannot_be_read_is_named(workspace, run_job, capfd):
    tiny = (workspace / "conf/model/coarse.yaml").read_text()
    for file, text, named in (
        ("attack/fgsm.yaml", "steps: 2\n", "conf/attack/fgsm.yaml is not read"),
        ("config.yaml", "steps: 2\n", "conf/config.yaml is not read"),
        ("model/coarse.yaml", "# @package model.coarse\na: [1\nb: 2", "coarse.yaml"),
        ("model/net_v1.5.yaml", tiny, "conf/model/net_v1.5.yaml: no dots in names"),
    ):
        words = ["source=net_v1.5"] if "1.5" in file else ["source=coarse"]
        write(workspace, file, text)
        assert run_job("attack=fgsm", "plan=only", *words) == 2
        error = capfd.readouterr().err
        assert named in error and error.count("\n") == 1
        write(workspace, "model/coarse.yaml", tiny)
        if file != "model/coarse.yaml":
            (workspace / "conf" / file).unlink()


def test_the_bases_of_a_file_are_read_in_their_order(workspace):
    for defaults, refusal in {
        "[_self_, coarse@_here_]": "",  # the base comes last, and its weights count
        "[coarse@_here_, _self_]": "gone.pt",
        "[absent@_here_]": "model/absent",
        "[{/model@_here_: coarse}]": "late.yaml: defaults ",
    }.items():
        write(workspace, "model/late.yaml", f"defaults: {defaults}\nweights: gone.pt")
        with pytest.raises(ValueError, match=refusal) if refusal else nullcontext():
            load_classifier("late", "dataset=cifar10_mini", config_dir="conf")
    with pytest.raises(ValueError, match=r"^config_dir=absent: "):
        load_classifier("vgg_small", "experiment=demo", config_dir="absent")


def test_an_experiment_names_models_too(run_job, workspace, capfd):
    text = "# @package _global_\ntargets: [fine, vit_small]\n"
    write(workspace, "experiment/mine/base.yaml", text)
    text = "# @package _global_\ndefaults: [mine/base, _self_]\n"
    text += "source: resnet50\nmodel:\n  vit_small: {input_size: 32}\n"
    text += "  resnet50: {network: {_target_: own.build}, weights: included}\n"
    write(workspace, "experiment/mine/own.yaml", text)
    assert run_job("--cfg", "job", "experiment=mine/own", "targets=[fine,vit_small]") == 0
    models = yaml.safe_load(capfd.readouterr().out)["model"]
    assert models["resnet50"] == {"network": {"_target_": "own.build"}, "weights": "included"}
    assert models["fine"]["std"] and models["vit_small"]["input_size"] == 32
    assert models["vit_small"]["network"]["_target_"] == "src.models.small.vit_small"


def test_a_panel_is_a_list_of_targets(run_job, workspace, capfd):
    write(workspace, "panel/mine.yaml", "[coarse, resnet_small]")
    words = ["attack=fgsm", "epsilon.grid=[8]", "hydra.run.dir=out", "targets=[panel/mine,fine]"]
    assert run_job(*words) == 0
    targets = pd.read_parquet("out/predictions.parquet")["target"].unique()
    assert list(targets) == ["coarse", "resnet_small", "fine"]
    capfd.readouterr()
    write(workspace, "panel/mine.yaml", "targets: [coarse]")
    for word, told in {
        "targets=panel/mine": "mine.yaml: a panel ",
        "targets=transferatack": "Did you mean panel/transferattack?",
        "source=timm/resnet50.a9_in1k": "timm/resnet50.a9_in1k",
    }.items():
        assert run_job(word) == 2
        error = capfd.readouterr().err
        assert told in error and error.count("\n") == 1


def without_targets(model, images, labels, eps, *, norm: "Unknown", **more):  # noqa: F821
    return images.expand(len(eps), *images.shape)


def strict(model, images, labels, eps, *, sizes: "tuple[int, ...]", norm="linf"):
    return images.expand(len(eps), *images.shape)


@pytest.fixture
def own(tmp_path):
    """A function that reads a job of an attack of one's own: a function here, and its file."""

    def call(name: str, keys: str, *words: str) -> Settings:
        (tmp_path / "attack").mkdir(exist_ok=True)
        text = f"_target_: {__name__}.{name}\n{keys}\n"
        (tmp_path / "attack" / "own.yaml").write_text(text)
        return read("attack=own", *words, extra=tmp_path)

    return call


def test_keywords_of_an_attack_of_ones_own_are_those_of_its_function(own, caplog):
    own("strict", "sizes: [1, 2]")
    for keys, named in {
        "sizes: [a]": r"attack\.sizes\.0=a",
        "size: [1]\nsizes: [1]": "attack.size: attack=own .*Did you mean sizes",  # in its file
        "norm: linf": "attack.sizes",
    }.items():
        with pytest.raises(ValueError, match=named):
            own("strict", keys)
    with pytest.raises(ValueError, match="`targeted`"):
        own("strict", "sizes: [1]\ntarget_label: null", "attack.target_label=next")
    assert not caplog.text
    own("without_targets", "norm: linf\nanything: 3")
    assert "attack=own" in caplog.text and "anything" in caplog.text
