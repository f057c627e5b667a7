"""A command run again computes what is missing, and leaves what one run from the start leaves."""

import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from src.artifacts.record import job_record
from src.config.attack_settings import SavedSettings
from src.run.data import DataSets
from tests.conftest import killed

GO_ON = "rerun=false"
COUNTING = """
import os, signal, torch
from pathlib import Path
from src.attacks import fgsm
def counting(model, images, labels, eps, *, max_batch=None):
    calls = len(list(Path("attacked").iterdir()))
    if calls == int(os.environ.get("KILL_AT", -1)):
        os.kill(os.getpid(), signal.SIGKILL)
    if len(images) > int(os.environ.get("ROOM", 1000)):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    Path("attacked", f"{calls}-{os.getpid()}-{len(images)}").touch()
    noise = torch.rand_like(images) / 255 if "STILL" not in os.environ else 0
    images = (images + noise).clamp(0, 1)  # of PyTorch's own generator, by the batch
    return fgsm(model, images, labels, eps, max_batch=max_batch)
counting.all_budgets = True
"""
APART = COUNTING.replace("max_batch=None", "seeds, max_batch=None")  # keeps images apart
NETWORK = """
from torch import nn
from own_parts import p
def build():
    return nn.Sequential(nn.Flatten(), nn.Dropout(p), nn.Linear(3072, 10))
"""
TABLES = ["predictions", "predictions-uint8", "predictions-noise", "predictions-shuffled"]
TABLES += ["flips", "spectra", "filtered", "low_passed", "similarity"]


@pytest.fixture
def attacked(workspace):
    """A function that tells how many images were attacked since it was last asked."""
    text = "_target_: counting_code.counting\nname: counting\n"
    (workspace / "conf" / "attack" / "counting.yaml").write_text(text)
    (workspace / "counting_code.py").write_text(COUNTING)
    (workspace / "attacked").mkdir()

    def count() -> int:
        sizes = []
        for call in (workspace / "attacked").iterdir():
            sizes.append(int(call.name.split("-")[-1]))
            call.unlink()
        return sum(sizes)

    return count


def same_tables(one: Path, two: Path, names: list[str]) -> None:
    for name in names:
        first, second = (pq.read_table(folder / f"{name}.parquet") for folder in (one, two))
        assert first.equals(second), name


def test_a_finished_job_is_not_computed_again(run_job, workspace, attacked):
    (workspace / "conf/model/twin.yaml").write_text(
        (workspace / "conf/model/fine.yaml").read_text().replace("model.fine", "model.twin")
    )
    words = ["attack=counting", "variants=[float32,uint8]", "save_adversarial=true"]
    words += ["epsilon.grid=[1.5,8]"]
    words += ["report.examples=2"]
    for computed, name, *more in (
        (23, "one"),
        (0, "two", "trainer.num_workers=1"),
        (0, "two"),  # from its own folder
        (0, "read", "protocol=all", "epsilon.reference=1.5", "report.examples=1"),
        (0, "more", "report.examples=5"),
        (0, "twin", "targets=[coarse,twin]"),  # of the same weights by another name
        (23, "other", "seed=1"),
        (23, "other", "epsilon.grid=[8]"),
        (23, "anew", "rerun=true"),
    ):
        assert run_job(*words, GO_ON, f"hydra.run.dir=out/{name}", *more) == 0
        assert attacked() == computed, more
    same_tables(workspace / "out/one", workspace / "out/two", ["predictions"])
    tables = ("one", "read", "twin")
    rates = [pd.read_csv(workspace / "out" / name / "rates.csv") for name in tables]
    pd.testing.assert_frame_equal(rates[0], rates[1])
    pd.testing.assert_frame_equal(rates[0], rates[2].replace("twin", "fine"))
    sets = [str(workspace / "out" / name / "adversarial") for name in ("one", "two")]
    assert len({DataSets().open_saved(SavedSettings(path=path)).digest for path in sets}) == 1


def test_rows_are_of_a_file_as_it_is_when_the_job_begins(run_job, workspace):
    code = (
        "import numpy as np\ndef shifted(model, images, labels, eps, *, file: str, then: float):\n"
    )
    code += "    size = float(np.load(file))\n    np.save(file, then)\n"
    (workspace / "shifting.py").write_text(f"{code}    return (images + size * eps).clamp(0, 1)\n")
    text = "_target_: shifting.shifted\nname: shifted\nfile: size.npy\nthen: 1.0\n"
    (workspace / "conf" / "attack" / "shifted.yaml").write_text(text)
    np.save(workspace / "size.npy", 1.0)
    words = ["attack=shifted", "attack.then=0.5,-1.0", "epsilon.grid=[8]", GO_ON]
    assert run_job("-m", *words, "hydra.sweep.dir=both") == 0  # the second finds the first's 0.5
    np.save(workspace / "size.npy", 0.5)
    words[1], second = "attack.then=-1.0", next(workspace.glob("both/1-*"))
    assert run_job(*words, "cache.dir=other", "hydra.run.dir=alone") == 0
    same_tables(second, workspace / "alone", ["predictions"])
    np.save(workspace / "size.npy", 1.0)
    assert run_job(*words, "hydra.run.dir=anew") == 0
    with pytest.raises(AssertionError):
        same_tables(second, workspace / "anew", ["predictions"])


@pytest.mark.slow
def test_rows_and_weights_are_of_the_code_that_ones_own_files_import(
    run_job, workspace, attacked, capsys
):
    (workspace / "own_net.py").write_text(NETWORK)
    (workspace / "conf" / "model" / "net.yaml").write_text(
        "# @package model.net\nnetwork: {_target_: own_net.build}\nmean: [0.5, 0.5, 0.5]\n"
        "std: [0.5, 0.5, 0.5]\n"
    )
    (workspace / "counting_code.py").write_text(f"import own_rule\n{COUNTING}")
    words = ["targets=[net]", "attack=counting", GO_ON, "dataset.n_train=20"]
    words += ["training.epochs=1", "training.dropout=null", "training.precision=32-true"]
    (workspace / "own_parts.py").write_text("p = 0.0\n")
    for changed, text, computed, trained in (
        ("own_rule", "flip = True", 23, 1),
        ("own_rule", "flip = True", 0, 0),
        ("own_rule", "flip = False", 23, 0),
        ("own_parts", "p = 0.9", 0, 1),  # of a target alone
    ):
        (workspace / f"{changed}.py").write_text(f"{text}\n")
        assert run_job(*words, "hydra.run.dir=out") == 0
        assert (attacked(), capsys.readouterr().out.count("Trained net")) == (computed, trained)


READING = """
from pathlib import Path
from torch import nn
class Reading(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3072, 10).requires_grad_(False)
        nn.init.eye_(self.linear.weight)
        self.power = float(Path("power.txt").read_text())  # which no key knows
    def forward(self, images):
        return self.linear(images.flatten(1)) ** self.power
"""


def reading_model(workspace: Path, network: str) -> None:
    text = f"# @package model.reading\nnetwork: {network}\n"
    text += "mean: [0, 0, 0]\nstd: [1, 1, 1]\nweights: included\n"
    (workspace / "conf/model/reading.yaml").write_text(text)


@pytest.mark.slow
def test_rerun_computes_what_needs_no_attack_again_too(run_job, workspace):
    (workspace / "reading_code.py").write_text(READING)
    reading_model(workspace, "{_target_: reading_code.Reading}")
    words = ["source=reading", "targets=[coarse,reading]"]
    words += ["diagnostics=full", "diagnostics.bisection=0", "diagnostics.iterations=[]"]
    for power, name, *more in ((1, "before"), (2, "rerun"), (2, "alone", "cache.dir=empty")):
        (workspace / "power.txt").write_text(str(power))
        assert run_job(*words, f"hydra.run.dir=out/{name}", *more) == 0
    same_tables(workspace / "out/rerun", workspace / "out/alone", ["predictions", *TABLES[5:]])


NAMED = {  # a module that settings name, and not as their `_target_`
    "folder": "{_target_: torch.hub.load, repo_or_dir: hub, model: Reading, source: local}",
    "file": "{_target_: torch.jit.load, f: hub/net.pt}",
    "path": "{_target_: calling.call, build: {_target_: hydra.utils.get_class, path: own.Reading}}",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # users still have some
@pytest.mark.parametrize("named", ["path", "folder", "file"])
def test_rows_are_of_the_code_that_settings_name_otherwise(run_job, workspace, named):
    (workspace / "hub").mkdir()
    (workspace / "calling.py").write_text("def call(build):\n    return build()\n")
    reading_model(workspace, NAMED[named])
    words = ["source=coarse", "targets=[reading]", "attack=fgsm", GO_ON]
    for power in (1, 2):
        text = READING.replace('float(Path("power.txt").read_text())', str(power))
        for file in ("own.py", "hub/hubconf.py"):
            (workspace / file).write_text(text)
        exec(text, code := {})
        torch.manual_seed(0)  # equal weights
        torch.jit.trace(code["Reading"](), torch.rand(2, 3, 32, 32)).save(workspace / "hub/net.pt")
        assert run_job(*words, f"hydra.run.dir=out/{power}") == 0
    tables = [pq.read_table(workspace / f"out/{power}/predictions.parquet") for power in (1, 2)]
    assert not tables[0].equals(tables[1])


@pytest.mark.slow
def test_further_targets_variants_and_examples_cost_no_attack_within_images_mb(
    run_job, workspace, attacked, monkeypatch
):
    monkeypatch.setenv("STILL", "1")
    (workspace / "counting_code.py").write_text(APART)
    words = ["attack=counting", GO_ON, "targets=[coarse]", "report.examples=2"]
    more = ["targets=[coarse,fine]", "variants=[uint8]", "controls=true", "report.examples=4"]
    anew = [*more, "rerun=true", "hydra.run.dir=out/anew", "cache.dir=other"]
    assert run_job(*words, *anew) == 0
    assert attacked() == 23
    for megabytes, computed in (
        ("300", 0),
        ("0", 20),
    ):  # two examples and the image chosen for its result are kept
        where = [f"cache.images_mb={megabytes}", f"cache.dir=cache-{megabytes}"]
        assert run_job(*words, *where, "hydra.run.dir=out/one") == 0
        assert attacked() == 23 + (computed > 0)  # a picture, if images are not stored
        assert run_job(*words, *where, *more, f"hydra.run.dir=out/{megabytes}") == 0
        assert attacked() == computed
        folders = [workspace / "out" / name for name in ("anew", megabytes)]
        for name in TABLES[:4]:  # of other batches, hence but for rounding
            one, two = (pd.read_parquet(folder / f"{name}.parquet") for folder in folders)
            pd.testing.assert_frame_equal(one, two, rtol=1e-4)
        one, two = (pictures_of(folder) for folder in folders)
        assert one.keys() >= two.keys() and (computed or one.keys() == two.keys())
        for index, picture in two.items():
            np.testing.assert_allclose(one[index], picture, atol=1)


def test_of_two_commands_at_once_one_computes(run_job, workspace, attacked, at_once):
    words = ["attack=counting", GO_ON, "controls=true"]

    def run(name: str) -> None:
        os._exit(run_job(*words, f"hydra.run.dir=out/{name}"))

    at_once(partial(run, "one"), partial(run, "two"))
    assert attacked() == 23
    same_tables(workspace / "out/one", workspace / "out/two", [TABLES[0], *TABLES[2:4]])


@pytest.mark.slow
def test_damaged_rows_are_computed_again(run_job, workspace, attacked, capsys):
    words = ["attack=counting", GO_ON, "report.examples=2", "controls=true"]
    assert run_job(*words, "hydra.run.dir=out/one") == 0
    files = sorted((workspace / "cache").glob("rows-*/*/*/*.parquet"))
    assert attacked() == 23 and len(files) > 5
    for number, file in enumerate(files):
        content = bytearray(file.read_bytes())
        content[len(content) * (number + 1) // (len(files) + 2)] ^= 1
        file.write_bytes(content)
    for damaged in (len(files), 0):
        capsys.readouterr()
        assert run_job(*words, "hydra.run.dir=out/two") == 0
        assert "".join(capsys.readouterr()).count(".parquet is damaged") == damaged
        same_tables(workspace / "out/one", workspace / "out/two", ["predictions"])


def pictures_of(folder: Path) -> dict[int, np.ndarray]:
    """Return the stored adversarial pictures, (K, 3, H, W), by image."""
    arrays = np.load(folder / "images.npz")
    pictures = arrays["adversarial"].astype(int).swapaxes(0, 1)
    return dict(zip(arrays["index"].tolist(), pictures, strict=True))


def rows_of(workspace: Path) -> list[Path]:
    """Return the files of rows, without those of images, which stay in parts."""
    files = (workspace / "cache").glob("rows-*/*/*/*.parquet")
    return [file for file in files if "adversarial" not in pq.read_schema(file).names]


def run_until(run, *words, at: int) -> None:
    """Run a command whose process is killed in the middle of a pass."""

    def die() -> None:
        os.environ["KILL_AT"] = str(at)
        run(*words)

    killed(die)


@pytest.mark.parametrize("examples", [pytest.param(0, marks=pytest.mark.slow), 4])
def test_a_killed_job_goes_on_where_it_was(
    run_job, workspace, attacked, monkeypatch, capsys, examples
):
    words = ["attack=counting", "trainer.batch_size=4", f"report.examples={examples}"]
    words += ["controls=true", "variants=[uint8]"]
    assert run_job(*words, "hydra.run.dir=whole", "cache.dir=other") == 0
    assert attacked() == 23
    for at, done in ((3, 3 + 4 + 4), (2, 4 + 4)):
        run_until(run_job, *words, GO_ON, "hydra.run.dir=out/part", at=at)
        assert attacked() == done
    assert run_job(*words, GO_ON, "hydra.run.dir=out/part") == 0
    assert attacked() == 23 - 19
    folders = workspace / "whole", workspace / "out" / "part"
    same_tables(*folders, TABLES[:4])
    files = rows_of(workspace)
    assert len(files) == len({file.parent for file in files})
    assert [job_record(folder).gradients for folder in folders] == [23, 23 - 19]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["attack=bim", "attack.steps=3"], 6),  # of 5 gradients at two budgets
        (["attack=bim", "attack.steps=3", "source=[coarse,fine]"], 3),
        (["attack=counting"], 10),  # which states none
    ],
)
def test_a_batch_holds_so_many_gradients(run_job, workspace, attacked, words, size):
    of_gradients = ["trainer.gradients_per_batch=30", "hydra.run.dir=out"]
    assert run_job(*words, *of_gradients) == 0
    assert f"batch_size: {size}\n" in (workspace / "out" / "config.yaml").read_text()
    assert run_job(*words, f"trainer.batch_size={size}", "hydra.run.dir=same") == 0
    same_tables(workspace / "out", workspace / "same", ["predictions"])


@pytest.mark.slow
def test_a_job_whose_batches_were_halved_goes_on_and_is_found(
    run_job, workspace, attacked, monkeypatch
):
    monkeypatch.setenv("ROOM", "5")
    monkeypatch.setenv("STILL", "1")
    (workspace / "counting_code.py").write_text(APART)
    words = ["attack=counting", GO_ON, "trainer.batch_size=8"]
    run_until(run_job, *words, "hydra.run.dir=out/one", at=3)
    assert attacked() == 3 + 4 + 4
    assert run_job(*words, "hydra.run.dir=out/one") == 0
    assert attacked() == 23 - 11
    assert run_job(*words, "hydra.run.dir=out/two") == 0
    assert attacked() == 0
    assert run_job(*words, "rerun=true", "hydra.run.dir=out/whole") == 0
    assert "batch_size: 4\n" in (workspace / "out" / "one" / "config.yaml").read_text()
    for name in ("one", "two"):
        same_tables(workspace / "out/whole", workspace / "out" / name, ["predictions"])


def test_batches_are_not_halved_under_an_attack_that_mixes_their_images(
    run_job, attacked, monkeypatch, capsys
):
    monkeypatch.setenv("ROOM", "5")
    assert run_job("attack=counting", "trainer.batch_size=8", "hydra.run.dir=out") == 1
    assert "trainer.batch_size=8 needs more free memory" in "".join(capsys.readouterr())


def test_the_jobs_of_a_sweep_are_listed(run_job, run_in, workspace, attacked, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    wrong = ["model.fine.expected_accuracy=0.99", "clean_accuracy_check.action=stop,warn"]
    words = ["-m", "attack=counting", "trainer.batch_size=20", GO_ON]
    # Three jobs stop before their attack; two batches of the fourth, then of the fifth.
    run_until(run_job, *words, *wrong, "seed=0,1,2", "hydra.sweep.dir=outputs/a", at=2)
    capsys.readouterr()
    assert run_in(workspace, module="src.status") == 1
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()[1:]]
    states = [row[2] for row in rows if row[0].startswith("clean_accuracy")]
    assert states == [*["failed"] * 3, "done", "failed", "missing"], printed
    assert "its file expects 99.00%" in " ".join(printed.split()) and "it was killed" in printed
    assert "4 failed, 1 done, 1 missing; at the pace" in printed
    assert run_job(*words, "hydra.sweep.dir=outputs/b", "targets=[coarse]") == 0
    capsys.readouterr()
    assert run_in(workspace, module="src.status") == 0
    assert "outputs/b: 1 done." in capsys.readouterr().out


def test_images_that_another_command_removes_meanwhile_are_named(run_job, workspace, monkeypatch):
    words = ["attack=fgsm", "n_images=4", "epsilon.grid=[8]", "save_adversarial=true"]
    words += ["hydra.run.dir=out"]

    def remove(*_: object) -> list[int]:
        for folder in (workspace / "cache").glob("rows-*/*/images"):
            shutil.rmtree(folder)
        return [0]

    with monkeypatch.context() as patch:
        patch.setattr("src.run.job.choose_pictures", remove)
        assert run_job(*words) == 1
    assert (workspace / "out" / "error.txt").read_text().startswith("Another command has removed")
    assert run_job(*words) == 0
    assert len([*(workspace / "out" / "adversarial" / "8").glob("*.png")]) == 4
