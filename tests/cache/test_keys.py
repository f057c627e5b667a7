"""Keys: what changes them, and the code that counts; and rows that several processes change."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest
from pydantic import create_model
from torch import nn

from src.cache.code_digest import code_of, digest_rules
from src.cache.keys import lasting_key, weights_parts
from src.cache.rows import Rows
from src.config.compose import compose_words
from src.config.read import read_job
from src.config.sections import ModelSettings, TrainingSettings
from src.data import ImageDataset, LabelledImages
from src.measure.predictions import Clean
from src.measure.protocol import Measurement
from src.run.check_job import check_job, open_job
from src.run.models import ModelPool, Trainings
from src.run.stages import Model, parts_of
from src.tracking import Tracker
from src.utils.model_names import ModelRef
from tests.conftest import TINY, run_python
from tests.job_context import TRAINER, make_context

JOB = [
    *("attack=uap", "source=coarse", "targets=[coarse,net]", "defences=[jpeg]"),
    *("dataset=cifar10_mini", "n_images=6"),
    *("epsilon.grid=[2,8]", "trainer=cpu", "trainer.batch_size=4", "training=quick"),
    *("attack.fit_n_images=20", "dataset.n_train=40", "tracking=none"),
]
ALL = "clean attack model defence fit job"
CHANGES = {
    # Settings that decide no numbers, or that only choose images and tables.
    "trainer.batch_size=3": "",
    "trainer.gradients_per_batch=9": "",
    "training.evaluate_on=7": "",
    "+training.device=cpu": "",
    "protocol=all": "",
    "epsilon.reference=2": "",
    "rerun=true": "",
    "cache.dir=elsewhere": "",
    "save_adversarial=true": "job",
    "n_images=5": "job",
    "dataset.seed=1": "job",
    "epsilon.grid=[2,4,8]": "job",
    "storage=uint8": "job",
    "controls=true": "job",
    "diagnostics.tables=[spectra]": "job",
    "targets=[coarse]": "job",
    # The arithmetic.
    "trainer.precision=bf16-mixed": "clean attack job",
    "trainer.fold_batch_norms=false": "clean attack job",
    "trainer.gradient_batch=3": "attack job",
    "trainer.attack_precision=bf16": "attack fit job",
    # The attack.
    "attack.fit_step=0.3": "attack fit job",
    "attack.norm=l2": "attack fit job",
    "attack.target_label=next": "attack fit job",
    "ensemble=loss": "attack fit job",
    "source=fine": "attack fit job",
    "source_defence=jpeg": "attack fit job",
    "seed=1": "attack defence fit job",
    # Models and defences.
    "model.coarse.mean=[0.4,0.5,0.5]": ALL,
    "+model.coarse.channels=BGR": ALL,
    "model.coarse.weights=other.safetensors": ALL,
    "model.net.std=[0.2,0.2,0.2]": "weights job",
    "defence.jpeg.quality=50": "defence job",
    "defence.jpeg.offset=1": "defence job",
    # Trainings, whose images and augmentation are also those of fits.
    "training.epochs=9": "weights job",
    "training.seed=5": "weights job",
    "training.flip=false": "weights attack fit job",
    "dataset.n_train=39": "weights attack fit job",
}
PROGRAM = {
    "src.cache.keys.program_digest": (lambda: "edited", "clean attack job"),
    "src.cache.keys.version": (lambda name: f"new {name}", "clean attack job"),
    "src.run.stages.FITTING": (99, "attack fit job"),
    "src.cache.keys.TRAINING": (99, "weights job"),
}
# All images, whatever the seed; it still chooses the diagnosed ones, the pairs and mixed-in images.
SEEDED = {
    "": "",
    "controls=true": "job",
    "diagnostics={tables:[visibility],n_images:3}": "job",
    # `mi` states that it does not mix, and a file that is based on it inherits this.
    "+attack.transforms=[{_target_: src.attacks.Admix}]": "attack job",
    "attack._target_=src.attacks.admix": "attack job",
    "attack._target_=wrapped.go": "attack job",  # what `wraps` copies is no statement
}
WRAPPED = """
from functools import wraps
from src.attacks import mi
@wraps(mi)
def go(*arguments, **keywords):
    return mi(*arguments, **keywords)
"""


@pytest.fixture
def keys(workspace: Path, tiny_weights: Path, monkeypatch) -> Callable[..., dict[str, str]]:
    """A function that returns the keys of a job of two linear models by name."""
    untrained = TINY.format(name="net", pool=8, features=48, weights="null")
    (workspace / "conf/model/net.yaml").write_text(untrained)
    content = (tiny_weights / "coarse.safetensors").read_bytes()
    (workspace / "other.safetensors").write_bytes(content[:-4] + b"\0\0\0\x3f")
    (workspace / "wrapped.py").write_text(WRAPPED)
    monkeypatch.syspath_prepend(workspace)
    pool = ModelPool()

    def compute(*words: str) -> dict[str, str]:
        config = compose_words([*JOB, *words], "conf")
        planned = check_job(read_job(config, config.hydra), pool.sets)
        planned, job = open_job(planned, pool.sets)
        built, untrained = pool.build(planned, job.images), pool.untrained(planned, job.images)
        trainings = Trainings(planned.settings, job.images, pool.sets)
        trained = [name for name in planned.settings.models if name not in untrained]
        models = pool.train(planned, job.images, trained, Tracker())
        for name, file in trainings.files({name: built[name] for name in untrained}).items():
            models[name] = Model(built[name], "", {"file": file.name})
        job = replace(job, models=models)
        name = ModelRef.parse("coarse")
        clean = parts_of(job, [Clean("clean images")])
        place = next(part.place for part in clean if part.target == name)
        file = trainings.file("net", built["net"]) if "net" in built else None
        return {
            "clean": " ".join(place),
            "attack": job.attack_key,
            "model": job.models["coarse"].key,
            "defence": job.target_keys["coarse@jpeg"],
            **({"fit": job.fit_key(0.0)} if job.attack.is_fitted else {}),
            "job": job.key,
            **({"weights": file.name} if file else {}),
        }

    return compute


def changed(before: dict[str, str], after: dict[str, str]) -> str:
    return " ".join(sorted(name for name in after if before[name] != after[name]))


def ordered(changes: dict[str, str]) -> dict[str, str]:
    return {change: " ".join(sorted(names.split())) for change, names in changes.items()}


def test_settings_code_and_libraries_change_exactly_these_keys(keys, monkeypatch):
    before = keys()
    assert {word: changed(before, keys(word)) for word in CHANGES} == ordered(CHANGES)
    found = {}
    for place, (value, _) in PROGRAM.items():
        with monkeypatch.context() as patch:
            patch.setattr(place, value)
            found[place] = changed(before, keys())
    assert found == ordered({place: names for place, (_, names) in PROGRAM.items()})


def test_a_seed_that_chooses_other_images_changes_exactly_these_keys(keys):
    job = ["attack=mi", "~attack.fit_n_images", "n_images=null", "dataset.n_test=6"]
    pairs = {word: [*job, *filter(None, [word])] for word in SEEDED}
    found = {word: changed(keys(*one), keys(*one, "dataset.seed=1")) for word, one in pairs.items()}
    assert found == ordered(SEEDED)
    *_, own = pairs.values()
    assert changed(keys(*own), keys(*own, "trainer.batch_size=3")) == "attack job"


def test_weights_stay_when_a_recipe_gets_a_new_key():
    later = create_model("Later", __base__=TrainingSettings, momentum=(float, 0.9))
    model, recipe = ModelSettings(network={}), TrainingSettings(epochs=3)

    def key(recipe, images="images") -> str:
        return lasting_key(weights_parts(model, recipe, "layers", [], images))

    assert key(later(epochs=3)) == key(recipe)
    others = {key(later(epochs=3, momentum=0.8)), key(TrainingSettings(epochs=4))}
    assert len({key(recipe), key(recipe, "others"), *others}) == 4


def places_of(device="cpu", side=2, names=("x", "y"), key_parts=(1, 0.5), **trainer):
    """Return folder and key of the rows of a table of clean images, and of attacked ones."""
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


def test_the_place_of_rows_tells_all_that_decides_numbers(monkeypatch):
    same = [{}, {"batch_size": 6}, {"num_workers": 2}, {"names": ("y", "x")}]
    assert len({places_of(**words) for words in same}) == 1
    (clean, attacked), (other_clean, other_attacked) = places_of(), places_of(side=3)
    assert clean == other_clean  # images are told by their rows
    assert attacked[0] != other_attacked[0]  # but images of two sizes fit no table
    others = [{"names": ("x",)}, {"names": ("y",)}, {"device": "cuda"}]
    others += [{"precision": "bf16-mixed"}, {"key_parts": (1, 0.3)}, {"key_parts": (2, 0.5)}]
    keys = {*places_of(), *(place for other in others for place in places_of(**other))}
    for updated in ("timm", "scipy", "torch"):
        with monkeypatch.context() as patch:
            patch.setattr("src.cache.keys.version", lambda name, new=updated: name == new)
            keys |= {*places_of()}
    assert len(keys) == 2 * (4 + len(others))


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
    "site-packages/copied_attack.py": "def attack(x):\n    return x\n",
}
TARGETS = ("one.attack", "two.build")
REACHED = ["PyYAML", "deep.inner", "deep.rules", "helper", "old", "one", "two"]


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def forget_modules(folder: Path) -> None:
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
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.syspath_prepend(tmp_path)

    def told(*targets: str) -> dict[str, str]:
        forget_modules(tmp_path)
        return code_of([{"inner": [{"_target_": target}]} for target in targets])

    yield tmp_path, told
    forget_modules(tmp_path)


def test_every_module_that_is_reached_counts_from_the_next_command_on(own):
    folder, told = own
    before = told(*TARGETS)
    assert list(before) == REACHED
    for name in ("one.py", "helper.py", "deep/inner.py", "deep/rules/__init__.py"):
        import_module("helper")  # as a call of two.build does
        assert code_of([{"_target_": target} for target in TARGETS]) == before
        append(folder / name, "more = 1\n")
        assert code_of([{"_target_": target} for target in TARGETS]) == before
        after = told(*TARGETS)
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        assert [key for key in before if before[key] != after[key]] == [module]
        before = after


def test_an_installed_package_is_told_by_its_version_or_content_and_this_one_not_at_all(own):
    folder, told = own
    assert list(code_of({"_target_": "timm.create_model"})) == ["timm"]
    assert code_of({"_target_": "PIL.Image.new"}).keys() == {"pillow"}
    assert code_of({"_target_": "PIL.Image.new"}, upgrades=False) == {}
    assert code_of({"_target_": "src.attacks.bim"}) == code_of({"_target_": "json.loads"}) == {}
    before = told("copied_attack.attack")
    append(folder / "site-packages" / "copied_attack.py", "more = 1\n")
    after = told("copied_attack.attack")
    assert [*before] == [*after] == ["copied_attack"] and before != after


@pytest.mark.parametrize(
    "settings",
    [
        {"_target_": "torch.hub.load", "repo_or_dir": "deep", "model": "Net", "source": "local"},
        {"_target_": "x.y", "build": {"_target_": "hydra.utils.get_class", "path": "one.Net"}},
    ],
)
def test_code_that_settings_name_otherwise_counts(own, monkeypatch, settings):
    folder, _ = own
    monkeypatch.chdir(folder)
    before = code_of(settings)
    append(folder / "deep" / "inner.py", "more = 1\n")
    forget_modules(folder)
    after = code_of(settings)
    assert before.keys() == after.keys() and before != after


@pytest.fixture
def digest_with(tmp_path) -> Callable[[str, str], str]:
    """A function that puts text into a file of a small program, and returns its digest."""
    program = {
        "attacks/rule.py": "from ..utils.one import x",
        "attacks/__init__.py": "from ..utils import three",
        "utils/one.py": "from .two import x",
        "utils/two.py": "from .deep import x",
        "utils/three.py": "x = 1",
        "utils/deep/__init__.py": "from .inner import x",
        "utils/deep/inner.py": "from ...analysis import x",
        "analysis/__init__.py": "x = 1",
        "utils/other.py": "x = 1",
        "run/craft.py": "from .helper import x",
        "run/helper.py": "x = 1",
        "run/sweep.py": "x = 1",
        "report/page.py": "x = 1",
    }

    def digest(name: str, text: str) -> str:
        folder = tmp_path / uuid4().hex
        for file, code in {**program, name: text}.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(code)
        return digest_rules(folder)

    return digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x = 1", '"""Words."""\n# a comment\nx = 1'),
        ("raise ValueError(f'{x} is wrong')", "raise ValueError(f'wrong: {x}.')"),
        ("raise ValueError('wrong', x)", "raise ValueError('false', x)"),
        ("log.warning('wrong: %s', x)", "log.warning('false: %s', x)"),
        ("warnings.warn(f'{x} is wrong')", "warnings.warn(f'{x}')"),
        ("warn_once('wrong')", "warn_once('false')"),
    ],
)
def test_words_of_the_program_void_nothing(digest_with, old: str, new: str):
    assert digest_with("attacks/rule.py", old) == digest_with("attacks/rule.py", new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x = 1", "x = 2"),
        ("def x():\n    'words'", "def x():\n    'words'\n    return 1"),
        ("x = 'wrong'", "x = 'false'"),
        ("raise ValueError(f'{x} is wrong')", "raise ValueError(f'{y} is wrong')"),
        ("raise ValueError('wrong')", "raise TypeError('wrong')"),
        ("warning('wrong')", "warning('false')"),
        ("log.warning('wrong: %s', x(1))", "log.warning('wrong: %s', x(2))"),
    ],
)
def test_rules_of_the_program_count(digest_with, old: str, new: str):
    assert digest_with("attacks/rule.py", old) != digest_with("attacks/rule.py", new)


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("utils/one.py", True),
        ("utils/two.py", True),  # a rule imports it by another one
        ("utils/three.py", True),
        ("utils/deep/__init__.py", True),
        ("utils/deep/inner.py", True),
        ("analysis/__init__.py", True),
        ("run/helper.py", True),
        ("utils/other.py", False),
        ("run/sweep.py", False),
        ("report/page.py", False),
        ("conf/attack/mi.yaml", False),  # resolved settings are in the keys
    ],
)
def test_what_rules_import_counts_and_nothing_else(digest_with, file: str, counts: bool):
    assert (digest_with(file, "x = 1") != digest_with(file, "x = 2")) == counts


def test_the_rules_include_those_that_a_pass_loads(tmp_path):
    script = """
import sys
from pathlib import Path
import src.run.passes, src.measure.registry
from src.cache.code_digest import rule_files
files = {Path(its.__file__) for name, its in sys.modules.items() if name.startswith("src.")}
folder = Path(sys.modules["src"].__file__).parent
groups = {file: file.relative_to(folder).parts[0] for file in files}
left = {file.stem for file in groups.keys() - {*rule_files(folder)} if groups[file] != "cache"}
print(sorted(left), len(files) > 100)
"""
    # Packages load these, of which no rule imports anything.
    left = ["__init__", "card", "comparable", "finished_job", "jobs", "sweep_state"]
    assert run_python("-c", script, folder=tmp_path) == f"{left} True\n"


def row(number: int, key: str = "a") -> pa.Table:
    return pa.table({"key": [key], "index": [number], "image": [f"image {number}"]})


@pytest.fixture
def rows(tmp_path) -> Rows:
    """A store with a table of two files."""
    rows = Rows(tmp_path)
    for number in range(2):
        rows.add("0f", "table", row(number))
    return rows


def index_of(rows: Rows, origin: str = "0f") -> list[int]:
    table = rows.read(origin, "table")
    return [] if table is None else sorted(table["index"].to_pylist())


def meanwhile(monkeypatch, moment: str, rows: Rows) -> None:
    """Discard the rows of a key once, after a file's bytes were read or written."""
    real = getattr(Path, moment)

    def call(path: Path, *content: bytes) -> bytes | int:
        result = real(path, *content)
        monkeypatch.undo()
        rows.discard("0f", "table", ["a"])
        return result

    monkeypatch.setattr(Path, moment, call)


def test_a_file_that_is_removed_while_rows_are_read_is_missing_rows(rows, monkeypatch):
    meanwhile(monkeypatch, "read_bytes", rows)
    assert len(index_of(rows)) == 1 and index_of(rows) == []


def test_discarded_rows_leave_those_of_other_keys_and_those_being_written(rows, monkeypatch):
    rows.add("0f", "table", pa.concat_tables([row(7), row(7, "b")]))
    meanwhile(monkeypatch, "write_bytes", rows)
    rows.add("0f", "table", row(2))
    assert index_of(rows) == [2, 7]


@pytest.mark.parametrize("moment", ["write_bytes", "rename", "replace", "unlink"])
def test_a_kill_while_rows_are_discarded_loses_no_other_row(rows, monkeypatch, moment):
    rows.add("0f", "table", pa.concat_tables([row(7), row(7, "b")]))
    real = getattr(Path, moment)

    def stop(path: Path, *words: object, **options: object) -> None:
        monkeypatch.setattr(Path, moment, real)  # what ends the process may clean up
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, moment, stop)
    with suppress(KeyboardInterrupt):
        rows.discard("0f", "table", ["a"])
    left = rows.read("0f", "table")
    assert left is not None and "b" in left["key"].to_pylist()


def test_damaged_and_moved_files_are_discarded_and_lost_ones_have_no_size(rows):
    damaged, whole = sorted((rows.folder / "0f" / "table").iterdir())
    for place in ("0f/other", "1e/table"):
        moved = rows.folder / place / whole.name
        moved.parent.mkdir(parents=True)
        moved.write_bytes(whole.read_bytes())
        assert rows.read(*place.split("/")) is None and not moved.exists()
    assert index_of(rows) == [0, 1]
    damaged.write_bytes(b"damaged")
    rows.discard("0f", "table", ["a"])
    assert index_of(rows) == [] and not damaged.exists() and not whole.exists()
    rows.add("0f", "table", row(1))
    (rows.folder / "0f" / "table" / "gone.parquet").symlink_to("nowhere")
    assert rows.sizes()[rows.folder / "0f"] > 0


def test_rows_that_two_processes_computed_are_read_once(rows):
    rows.add("0f", "table", pa.concat_tables([row(1), row(1, "b"), row(3)]))
    for _ in ("in three files", "in one"):
        assert index_of(rows) == [0, 1, 1, 3]
        rows.merge("0f", "table")
    assert len(list((rows.folder / "0f" / "table").iterdir())) == 1
    assert rows.select("0f", "table", "a", [1, 3])["index"].to_pylist() == [1, 3]


def test_what_was_used_longest_ago_goes_first_and_never_what_is_in_use(rows):
    for hours, origin in enumerate(("1a", "1b", "1c", "1d"), start=2):
        rows.add(origin, "table", row(0))
        os.utime(rows.folder / origin, (0, time.time() - 3600 * hours))
    size = min(rows.sizes().values())
    index_of(rows, "1d")  # is a use
    with rows.locked(["1c"]):
        rows.shrink(4 * size / 1e9)
        assert index_of(rows, "1b") == [] and index_of(rows, "1c") == [0]
    rows.shrink(0)
    assert {path.name for path in rows.sizes()} == {"0f", "1c", "1d"}
