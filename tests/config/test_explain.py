"""What a command line that Hydra cannot compose is told."""

import importlib
import re
import sys

import pytest
from hydra import compose, initialize_config_dir

import src.main
from src.config.errors import REFUSALS, explain

WRONG = [
    ("attack=fgsmm", "there is no attack=fgsmm among admix, .* Did you mean fgsm"),
    ("trainer=nope", "there is no trainer=nope among cpu, ddp, default, gpu.$"),
    ("model=[vgg61]", "there is no model=vgg61 among .* Did you mean vgg16"),
    ("trainer.batchsize=4", "there is no key batchsize in trainer. Did you mean batch_size"),
    ("batch_size=4", "there is no key batch_size in the config. Did you mean train.*.batch_size"),
    ("atack.norm=l2", "Did you mean attack"),
    ("zzz=4", "there is no key zzz in the config; it has model, trainer, "),
    ("n_images.x=4", "there is no key x in n_images"),
    ("attack=fgsm,bim", "attack=fgsm,bim: -m before the keys runs each in turn"),
    ("seed", "seed cannot be read as KEY=VALUE: missing EQUAL"),
    ("epsilon.grid=[1", r"epsilon.grid=\[1 cannot be read"),
    ("+seed=1", "An item is already at 'seed'"),
    ("seed=${nope}", "'nope' not found"),
    ("hydra.mode=never", "hydra.mode=never: Invalid value"),
]


@pytest.mark.parametrize(("word", "message"), WRONG, ids=[word for word, _ in WRONG])
def test_one_line_says_what_is_wrong(word, message):
    conf = initialize_config_dir(version_base="1.3", config_dir=str(src.main.CONF))
    with conf, pytest.raises(REFUSALS) as caught:
        _ = compose("config", [word]).seed
    sentence = explain(caught.value)
    assert re.search(message, sentence), sentence
    assert "\n" not in sentence and "use +" not in sentence and "HYDRA_FULL_ERROR" not in sentence


@pytest.mark.parametrize("module", ["main", "score", "explore", "report.__main__"])
def test_every_command_is_short_and_exits_with_2(module, workspace, monkeypatch, capfd):
    for word in ("report=defalt", "report.pair=3", "report=a,b"):
        monkeypatch.setattr(sys, "argv", [module, word])
        with pytest.raises(SystemExit) as stop:
            importlib.import_module(f"src.{module}").main()
        out, err = capfd.readouterr()
        assert stop.value.code == 2 and not out
        assert len(err.splitlines()) == 1 and "report" in err


def test_a_sweep_is_refused_likewise(command_line, workspace, capfd):
    assert command_line("-m", "attack=bim,fgsm", "attack.steps=5", "tracking=none") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "attack=fgsm has no setting steps; its settings are norm, loss, target_label" in line


def test_a_file_that_is_no_yaml_is_named(command_line, workspace, capfd):
    (workspace / "conf" / "model" / "coarse.yaml").write_text(
        "# @package model.coarse\na: [1\nb: 2"
    )
    assert command_line() == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "coarse.yaml" in line
