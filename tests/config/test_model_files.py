"""Files of models and others as editors and people write them."""

from contextlib import nullcontext

import pytest

from src import load_classifier
from tests.conftest import own_attack

BOM = b"\xef\xbb\xbf"


@pytest.mark.slow
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_byte_order_mark_changes_nothing(workspace, run_job, end):
    own_attack(workspace, "mine", "_target_: src.attacks.bim\nsteps: 2")
    for file in (*workspace.glob("conf/model/*.yaml"), workspace / "conf/attack/mine.yaml"):
        file.write_bytes(BOM + file.read_bytes().replace(b"\n", end))
    assert run_job("attack=mine", "plan=only") == 0
    assert load_classifier("coarse", "dataset=cifar10_mini", config_dir="conf").name == "coarse"


@pytest.mark.parametrize("name", ["net_v1.5", "coarse.2", "a.b.c"])
def test_a_dot_in_a_name_is_refused_with_the_file(workspace, run_job, capsys, name):
    file = workspace / "conf/model" / f"{name}.yaml"
    text = (workspace / "conf/model/coarse.yaml").read_text()
    file.write_text(text.replace("model.coarse", f"model.{name}"))
    for words in ([f"source={name}"], [f"targets=[fine,{name}]"]):
        assert run_job("attack=fgsm", *words) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"conf/model/{name}.yaml: no dots in names" in line


@pytest.mark.parametrize("file", ["model/vgg_small.yaml", "attack/fgsm.yaml", "config.yaml"])
def test_a_file_that_hydra_would_not_read_is_refused(workspace, command_line, capsys, file):
    (workspace / "conf" / file).parent.mkdir(exist_ok=True)
    (workspace / "conf" / file).write_text("steps: 2\n")
    assert command_line("attack=fgsm", "plan=only") == 2
    assert f"conf/{file} is not read" in capsys.readouterr().err


def test_a_model_has_the_name_of_its_file(workspace, run_job):
    file = workspace / "conf/model/fine.yaml"
    file.rename(file.with_stem("pooled"))  # its first line names it fine
    assert run_job("source=pooled", "targets=[coarse]", "plan=only") == 0


def test_the_bases_of_a_file_are_read_in_their_order(workspace):
    for defaults, refusal in {
        "[_self_, coarse@_here_]": "",  # the base comes last, and its weights count
        "[coarse@_here_, _self_]": "gone.pt",
        "[absent@_here_]": "there is no model/absent",
        "[{/model@_here_: coarse}]": "late.yaml: defaults may only have names of model files",
    }.items():
        (workspace / "conf/model/late.yaml").write_text(f"defaults: {defaults}\nweights: gone.pt")
        with pytest.raises(ValueError, match=refusal) if refusal else nullcontext():
            load_classifier("late", "dataset=cifar10_mini", config_dir="conf")


def test_a_defence_that_is_typed_key_by_key_needs_no_file(run_job):
    keys = ["++defence.new._target_=src.defences.Jpeg", "++defence.new.quality=30"]
    assert run_job("attack=fgsm", "defences=[new]", *keys, "plan=only") == 0


def test_a_folder_of_files_that_does_not_exist_is_refused(workspace):
    with pytest.raises(ValueError, match=r"^config_dir=absent: there is no such folder\.$"):
        load_classifier("vgg_small", "experiment=demo", config_dir="absent")
