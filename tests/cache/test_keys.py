"""Keys of rows: the code that counts, and what tells stored tables apart."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from src.cache.code_digest import code_of, own_code
from src.data import ImageDataset, LabelledImages
from src.measure.protocol import Cell
from src.utils.defended_names import Evaluated
from tests.conftest import REPOSITORY, run_python
from tests.passes import TRAINER, make_pass

FILES = {
    "one.py": "try:\n    from .deep import inner\nexcept ImportError:\n    import deep.inner\n"
    "try:\n    import old\nexcept SyntaxError:\n    inner = deep.inner\n"
    "def attack(x):\n    return inner.change(x)\n",
    "two.py": "from torch import nn\n\ndef build():\n    from helper import LAYERS\n"
    "    return nn.Linear(*LAYERS)\n",
    "helper.py": "LAYERS = (3, 4)\n",
    "deep/inner.py": "from . import rules\nfrom .rules import factor\n\ndef change(x):\n"
    "    return x * factor\n",
    "deep/rules/__init__.py": "factor = 2\n",
    "old.py": "print 'of Python 2'\n",
}
TARGETS = ("one.attack", "two.build")
REACHED = ["deep.inner", "deep.rules", "helper", "old", "one", "torch", "two"]
TELL = "import sys, json; from src.cache.code_digest import code_of, own_code\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of modules, and a function that tells their code where none is imported."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    def told(*targets: str) -> dict[str, str]:
        for name in {*REACHED, "deep"} & sys.modules.keys() - {"torch"}:
            del sys.modules[name]
        return code_of([{"inner": [{"_target_": target}]} for target in targets])

    return tmp_path, told


def test_code_is_the_same_whatever_was_imported_before(own):
    folder, told = own
    both = told(*TARGETS)
    assert list(both) == REACHED
    assert told(*reversed(TARGETS)) == both
    script = f"print(json.dumps(code_of([{{'_target_': name}} for name in {TARGETS}])))"
    assert json.loads(run_python("-c", TELL + script, folder=folder)) == both


@pytest.mark.parametrize("name", ["one.py", "helper.py", "deep/inner.py", "deep/rules/__init__.py"])
def test_every_module_that_is_reached_counts_but_not_its_comments(own, name):
    folder, told = own
    before, text = told(*TARGETS), (folder / name).read_text()
    (folder / name).write_text(f'"""It is described."""\n\n{text}# so be it\n')
    assert told(*TARGETS) == before
    (folder / name).write_text(f"{text}\nmore = 1\n")
    after = told(*TARGETS)
    assert [key for key in before if before[key] != after[key]] == [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    ]


def test_a_module_is_what_it_was_when_it_was_imported(own):
    folder, told = own
    before = told("two.build")
    import helper

    assert helper.LAYERS == (3, 4) and code_of({"_target_": "two.build"}) == before
    (folder / "helper.py").write_text("LAYERS = (5, 6)\n")
    assert code_of({"_target_": "two.build"}) == before != told("two.build")


def test_an_installed_package_is_told_by_its_version_and_this_one_not_at_all():
    assert list(code_of({"_target_": "timm.create_model"})) == ["timm"]
    assert code_of({"_target_": "PIL.Image.new"}).keys() == {"pillow"}
    assert code_of({"_target_": "src.attacks.bim"}) == code_of({"_target_": "json.loads"}) == {}


def test_words_of_the_program_void_nothing_and_its_rules_do(tmp_path):
    shutil.copytree(REPOSITORY / "src", tmp_path / "src")
    script = "print(own_code(), own_code(('data', 'models', 'training')))"
    rows, weights = run_python("-c", TELL + script, folder=tmp_path).split()
    assert rows == own_code()
    losses = tmp_path / "src/attacks/losses.py"
    losses.write_text(f"# Losses\n{losses.read_text()}")
    (tmp_path / "src/report/page/html.py").write_text("")
    assert run_python("-c", TELL + script, folder=tmp_path).split() == [rows, weights]
    losses.write_text(losses.read_text().replace("score if targeted else -score", "score"))
    changed, same = run_python("-c", TELL + script, folder=tmp_path).split()
    assert changed != rows and same == weights


def key_of(device="cpu", side=2, names=("x", "y"), decides=(1, 0.5), **trainer):
    pixels = np.zeros((3, side, side, 3), np.uint8)
    images = ImageDataset(LabelledImages(pixels, np.arange(3), ("a", "b", "c")))
    networks = {name: nn.Flatten() for name in ("x", "y")}
    trainer, about = TRAINER.model_copy(update=trainer), {"mixes": False}
    job = make_pass(images, networks, trainer=trainer, about=about)
    job = replace(job, data=replace(job.data, device=torch.device(device)))
    first, *others = map(Evaluated, names)
    facts = {"others": tuple(others), "decides": decides}
    cells = [Cell("table", images.indices, first, attacked=on, **facts) for on in (False, True)]
    return tuple(job.place(cell) for cell in cells)


def test_a_key_tells_all_that_decides_numbers(monkeypatch):
    assert key_of() == key_of(batch_size=6) == key_of(num_workers=2) == key_of(names=("y", "x"))
    assert key_of() == key_of(side=3)  # images are told by their rows
    others = [{"names": ("x",)}, {"names": ("y",)}, {"device": "cuda"}]
    others += [{"precision": "bf16-mixed"}, {"decides": (1, 0.3)}, {"decides": (2, 0.5)}]
    keys = {*key_of(), *(key for other in others for key in key_of(**other))}
    monkeypatch.setattr("src.run.stages.own_code", lambda: "of an update")
    assert len(keys | {*key_of()}) == 2 * (2 + len(others))
