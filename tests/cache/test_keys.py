"""Keys of rows: the code that counts, and what tells stored tables apart."""

import json
import shutil
import sys
from contextlib import suppress
from importlib import import_module

import numpy as np
import pytest
from pydantic import create_model
from torch import nn

from src import load_classifier
from src.cache.code_digest import code_of, program_digest
from src.cache.keys import TRAINING
from src.config.sections import TrainingSettings
from src.data import ImageDataset, LabelledImages
from src.measure.protocol import Measurement
from src.run.models import stored_classifier
from src.run.stages import parts_of
from src.utils.model_names import ModelRef
from tests.conftest import REPOSITORY, run_python
from tests.job_context import TRAINER, make_context

FILES = {
    "one.py": "try:\n    from .deep import inner\nexcept ImportError:\n    import deep.inner\n"
    "try:\n    import old\nexcept SyntaxError:\n    inner = deep.inner\n"
    "def attack(x):\n    return inner.change(x)\n",
    "two.py": "from yaml import dump\n\ndef build():\n    from helper import LAYERS\n"
    "    return dump(LAYERS)\n",
    "helper.py": "LAYERS = (3, 4)\n",
    "deep/inner.py": "from . import rules\nfrom .rules import factor\n\ndef change(x):\n"
    "    return x * factor\n",
    "deep/rules/__init__.py": "factor = 2\n",
    "old.py": "print 'of Python 2'\n",
}
TARGETS = ("one.attack", "two.build")
REACHED = ["PyYAML", "deep.inner", "deep.rules", "helper", "old", "one", "two"]
TELL = "import json; from src.cache.code_digest import code_of, program_digest\n"
RULES = ("attacks/losses.py", "config/settings.py", "run/attack.py", "utils/devices.py")
NETWORK = """
from torch import nn
class Showing(nn.Linear):
    def extra_repr(self):
        return repr(lambda: 0)
def build():
    return nn.Sequential(nn.Flatten(), Showing(3072, 10))
"""
MODEL = """# @package model.net
network: {_target_: showing.build}
mean: [0, 0, 0]
std: [1, 1, 1]
"""


def append(path, text):
    with path.open("a") as file:
        file.write(text)


def forget_modules(folder):
    """Let the next command import a folder's modules anew, as a new process does."""
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of modules, and a function that tells their code as a new command would."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    def told(*targets: str) -> dict[str, str]:
        forget_modules(tmp_path)
        return code_of([{"inner": [{"_target_": target}]} for target in targets])

    yield tmp_path, told
    forget_modules(tmp_path)


@pytest.mark.slow
def test_code_is_the_same_whatever_was_imported_before(own):
    folder, told = own
    both = told(*TARGETS)
    assert list(both) == REACHED
    assert told(*reversed(TARGETS)) == both
    script = f"print(json.dumps(code_of([{{'_target_': name}} for name in {TARGETS}])))"
    for imported in ("", "import two, one; one.attack(1); two.build()\n"):
        assert json.loads(run_python("-c", imported + TELL + script, folder=folder)) == both


@pytest.mark.parametrize("name", ["one.py", "helper.py", "deep/inner.py", "deep/rules/__init__.py"])
def test_every_module_that_is_reached_counts_from_the_next_command_on(own, name):
    folder, told = own
    before = told(*TARGETS)
    import_module("helper")  # as a call of two.build does
    assert code_of([{"_target_": target} for target in TARGETS]) == before
    append(folder / name, "more = 1\n")
    assert code_of([{"_target_": target} for target in TARGETS]) == before
    after = told(*TARGETS)
    assert [key for key in before if before[key] != after[key]] == [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    ]


def test_an_installed_package_is_told_by_its_version_and_this_one_not_at_all():
    assert list(code_of({"_target_": "timm.create_model"})) == ["timm"]
    assert code_of({"_target_": "PIL.Image.new"}).keys() == {"pillow"}
    assert code_of({"_target_": "src.attacks.bim"}) == code_of({"_target_": "json.loads"}) == {}


@pytest.mark.slow
def test_words_of_the_program_void_nothing_and_its_rules_do(tmp_path):
    shutil.copytree(REPOSITORY / "src", tmp_path / "src")
    script = "print(program_digest(), code_of({'_target_': 'src.mine.go'})['src.mine'])"

    def told(text: str, *names: str) -> list[str]:
        for name in names:
            append(tmp_path / "src" / name, text)
        return run_python("-c", TELL + script, folder=tmp_path).split()

    rows, mine = told("from src.config.sections import TrainingSettings as go\n", "mine.py")
    assert rows == program_digest() and told("# so be it\n", *RULES) == [rows, mine]
    same, edited = told("more = 1\n", "report/page/html.py", "training.py", "mine.py")
    assert same == rows and edited != mine
    codes = {told("more = 1\n", name)[0] for name in RULES}
    assert len(codes | {rows}) == 1 + len(RULES)


def test_the_program_is_every_module_that_a_pass_loads(tmp_path):
    script = """
import sys
import src.run.passes, src.run.check_job, src.measure.registry
from src.cache.code_digest import ROWS
files = {name: its.__file__ for name, its in sys.modules.items() if name.split(".")[0] == "src"}
print([name for name, file in files.items() if file not in {*map(str, ROWS)}], len(files) > 100)
"""
    assert run_python("-c", script, folder=tmp_path) == "[] True\n"


def key_of(device="cpu", side=2, names=("x", "y"), key_parts=(1, 0.5), **trainer):
    pixels = np.zeros((3, side, side, 3), np.uint8)
    images = ImageDataset(LabelledImages(pixels, np.arange(3), ("a", "b", "c")))
    networks = {name: nn.Flatten() for name in ("x", "y")}
    trainer, about = TRAINER.model_copy(update=trainer), {"mixes": False}
    job = make_context(images, networks, trainer=trainer, about=about, device=device)
    first, *others = map(ModelRef.parse, names)

    class Rows(Measurement):
        name = "table"
        targets, others = lambda *_: [first], lambda *_: others
        budgets, rows = lambda *_: (), None

        def __init__(self, attacked):
            self.attacked, self.key_parts = attacked, key_parts

    return tuple(part.place for part in parts_of(job, map(Rows, (False, True))))


def test_a_key_tells_all_that_decides_numbers(monkeypatch):
    assert key_of() == key_of(batch_size=6) == key_of(num_workers=2) == key_of(names=("y", "x"))
    (clean, attacked), (other_clean, other_attacked) = key_of(), key_of(side=3)
    assert clean == other_clean  # images are told by their rows
    assert attacked[0] != other_attacked[0]  # but images of two sizes fit no table
    others = [{"names": ("x",)}, {"names": ("y",)}, {"device": "cuda"}]
    others += [{"precision": "bf16-mixed"}, {"key_parts": (1, 0.3)}, {"key_parts": (2, 0.5)}]
    keys = {*key_of(), *(key for other in others for key in key_of(**other))}
    for updated in ("timm", "scipy", "torch"):
        with monkeypatch.context() as patch:
            patch.setattr("src.cache.keys.version", lambda name, new=updated: name == new)
            keys |= {*key_of()}
    monkeypatch.setattr("src.cache.keys.program_digest", lambda: "of an update")
    assert len(keys | {*key_of()}) == 2 * (5 + len(others))


def later_classifier(settings, name, sets):
    """A classifier by a recipe with a key that was not there when its weights were trained."""
    later = create_model("Later", __base__=TrainingSettings, momentum=(float, 0.9))
    training = later(**settings.training.model_dump())
    return stored_classifier(settings.model_copy(update={"training": training}), name, sets)


@pytest.mark.slow
def test_trained_weights_are_of_data_network_recipe_and_the_trainings_number(
    run_job, workspace, monkeypatch
):
    (workspace / "showing.py").write_text(NETWORK)
    (workspace / "conf/model/net.yaml").write_text(MODEL)
    monkeypatch.syspath_prepend(workspace)
    recipe = ["dataset.n_train=20", "training.epochs=1"]
    assert run_job(*recipe, "attack=fgsm", "targets=[net]") == 0

    def is_trained(*more: str, patched="src.cache.keys.TRAINING", value=TRAINING) -> bool:
        with monkeypatch.context() as patch, suppress(ValueError):
            patch.setattr(patched, value)
            load_classifier("net", "dataset=cifar10_mini", *recipe, *more, config_dir="conf")
            return True
        return False

    assert is_trained() and is_trained("training.flip=true")
    assert is_trained(patched="src.cache.code_digest.version", value=lambda name: "of an upgrade")
    assert is_trained(patched="src.api.classifier.stored_classifier", value=later_classifier)
    assert not is_trained(value=TRAINING + 1)
    assert not is_trained("training.flip=false") and not is_trained("dataset.n_train=21")
    (workspace / "showing.py").write_text(f"{NETWORK}more = 1\n")
    assert is_trained()  # this process runs the code that it has imported
    forget_modules(workspace)
    assert not is_trained()


def test_an_installed_file_without_a_version_is_told_by_its_content(tmp_path, monkeypatch):
    place = tmp_path / "site-packages"
    place.mkdir()
    monkeypatch.syspath_prepend(place)
    (place / "copied_attack.py").write_text("def attack(x):\n    return x\n")
    section = {"_target_": "copied_attack.attack"}
    before = code_of(section)
    forget_modules(place)
    append(place / "copied_attack.py", "more = 1\n")
    assert [*before] == [*code_of(section)] == ["copied_attack"] and before != code_of(section)
    forget_modules(place)
