"""`python -m src.status why JOB`: what differs between a finished job and this program's."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from src.artifacts.record import job_record

FLAG = "--config-dir=conf"
REUSED = "All rows are reused: nothing that decides them has changed."
WORDS = ["attack=fgsm", "rerun=false", "hydra.run.dir=out"]


@pytest.fixture
def why(run_in, workspace, capsys) -> Callable[..., tuple[int, list[str], str]]:
    """A function that runs the command, and returns its exit code, lines and error."""

    def run(*words: str) -> tuple[int, list[str], str]:
        capsys.readouterr()
        code = run_in(workspace, "why", *words, module="src.status")
        printed = capsys.readouterr()
        return code, [line.strip() for line in printed.out.splitlines()], printed.err

    return run


def gradients(folder: Path) -> int:
    record = job_record(folder)
    assert record is not None
    return record.gradients


def test_each_difference_is_a_line_and_rows_are_reused_as_it_says(
    run_job, workspace, why, tiny_weights, monkeypatch
):
    shutil.copytree(tiny_weights, workspace / "own")
    words = [*WORDS, "model.fine.weights=own/fine.safetensors"]
    assert run_job(*words) == 0
    assert why("out", FLAG) == (0, ["out:", REUSED], "")
    assert why("out", FLAG, "trainer.fold_batch_norms=false")[1] == [
        *("out:", "fold_batch_norms: true -> false", "No row is reused.")
    ]
    with monkeypatch.context() as patch:
        patch.setattr("src.cache.keys.version", lambda name: "99")
        patch.setattr("src.cache.keys.program_digest", lambda: "edited")
        _, lines, _ = why("out", FLAG)
    names = [line.partition(":")[0] for line in lines]
    libraries = ["torch", "torchvision", "timm", "numpy", "scipy", "pillow"]
    assert names == ["out", "program", *libraries, "No row is reused."]
    assert lines[1].endswith(" -> edited")
    path = workspace / "own" / "fine.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\x3f")
    _, (_, line, end), _ = why("out", FLAG)
    assert line.startswith("model.fine.weights: ") and "fine are computed again" in end
    assert gradients(workspace / "out") > 0 and run_job(*words) == 0
    assert gradients(workspace / "out") == 0
    shutil.rmtree(workspace / "cache")
    _, (_, end), _ = why("out", FLAG)
    assert "cache/rows-3 lacks rows" in end


@pytest.mark.slow
def test_the_jobs_of_a_sweep_are_compared(run_job, why):
    words = ["-m", "attack=fgsm,bim", "attack.steps=2", "hydra.sweep.dir=out", "rerun=false"]
    assert run_job(*words) == 0
    names = ["out/0-fgsm-coarse:", "out/1-bim-coarse:"]
    assert why("out", FLAG) == (0, [names[0], REUSED, names[1], REUSED], "")
    _, lines, _ = why("out/1-bim-coarse", FLAG, "attack.steps=3")
    assert lines[:2] == [names[1], "attack.steps: 2 -> 3"]
    assert lines[2].startswith("Rows with an attack are computed again.")


def test_a_folder_imports_no_code_unless_the_user_types_it(run_job, workspace, why):
    assert run_job(*WORDS) == 0
    code, lines, error = why("out")
    assert code == 2 and not lines and "--config-dir" in error and error.count("\n") == 1
    overrides = workspace / "out/.hydra/overrides.yaml"
    hostile = "model.coarse.network._target_=hostile.build"
    (workspace / "hostile.py").write_text("open('imported', 'w').close()\n")
    overrides.write_text(yaml.safe_dump([*yaml.safe_load(overrides.read_text()), hostile]))
    code, _, error = why("out", FLAG)
    assert code == 2 and hostile in error and error.count("\n") == 1
    assert not (workspace / "imported").exists()
    others = overrides.read_text()
    (workspace / "bad.yaml").write_text("_target_: hostile.build\nname: bad\nabout: {}\n")
    for word in (
        "+measurements.m='${oc.decode:\"{_${by_device:cpu,target_,x}: hostile.build}\"}'",
        "attack=../../../../../../../.." + str(workspace / "bad"),
    ):
        words = [each for each in yaml.safe_load(others) if each != hostile]
        overrides.write_text(yaml.safe_dump([*words, word]))
        code, _, error = why("out", FLAG)
        assert code == 2 and error.count("\n") == 1, error
        assert not (workspace / "imported").exists()
    for text in ("[", "no list"):
        overrides.write_text(text)
        code, _, error = why("out", FLAG)
        assert code == 2 and "overrides.yaml" in error and error.count("\n") == 1
    (workspace / "out/predictions.parquet").write_bytes(b"damaged")
    code, _, error = why("out", FLAG)
    assert code == 2 and "predictions.parquet" in error
    code, _, error = why("nowhere")
    assert code == 2 and error == (
        "nowhere has no finished job. Name the folder of a job or a sweep.\n"
    )
