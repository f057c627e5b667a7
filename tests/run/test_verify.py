"""`python -m src.verify CARD`: honest cards agree, forged ones differ, none opens a file."""

import copy
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from safetensors.torch import load_file, save_file

from src.artifacts.card import CardJob, read_card, write_card
from src.config.resolvers import CONF
from tests.config.test_exit_codes import closed_pipe, full_disk, plain_file, with_output

RUN = ["attack=bim", "attack.steps=3", "epsilon.grid=[8]", "hydra.run.dir=out", "variants=[uint8]"]


@pytest.fixture(scope="module")
def made(new_workspace, run_tiny, run_in) -> Path:
    """A workspace with a card of one job on the tiny models."""
    folder: Path = new_workspace()
    assert run_tiny(folder, *RUN) == 0
    assert run_in(folder, "out", "-o", "mine.card", module="src.card") == 0
    return folder


@pytest.fixture(scope="module")
def verify(made, run_in) -> Callable[..., tuple[int, str]]:
    """A function that runs the command there, and returns its exit code and what it printed."""

    def run(*words: str) -> tuple[int, str]:
        with redirect_stdout(StringIO()) as printed, redirect_stderr(printed):
            code = run_in(made, "--seed=1", "--images=100", *words, module="src.verify")
        assert "Traceback" not in printed.getvalue()
        return code, printed.getvalue()

    return run


@pytest.fixture(scope="module")
def trust(verify) -> list[str]:
    """The words with which the user trusts the code and the files of the honest card."""
    code, printed = verify("mine.card")
    assert code == 2 and "not checked: it names files or code. If you trust them" in printed
    return suggested(printed)


def suggested(printed: str) -> list[str]:
    """Return the words after the card in the command that the program tells to type."""
    (line,) = re.findall("type: (.*)", printed)
    *command, card = (words := shlex.split(line))[:4]
    assert command == ["python", "-m", "src.verify"] and card == "CARD"
    return words[4:]


@pytest.fixture
def forge(made) -> Callable[[Callable[[CardJob], CardJob]], str]:
    """A function that writes a changed copy of the card with a valid seal; return its name."""

    def write(change: Callable[[CardJob], CardJob]) -> str:
        (job,) = read_card(made / "mine.card")
        write_card([change(job)], made / "forged.card")
        return "forged.card"

    return write


def with_record(job: CardJob, config: dict[str, Any] | None = None, **facts: Any) -> CardJob:
    """Return a job with other facts in its record, and other sections of its settings."""
    settings = {**copy.deepcopy(job.record.config), **(config or {})}
    return replace(job, record=job.record.model_copy(update={"config": settings, **facts}))


def flipped(job: CardJob) -> CardJob:
    """Return a job in which a tenth of the outcomes has another class, drawn at random."""
    tables, draw = {}, np.random.default_rng(0)
    for name, table in job.tables.items():
        predicted, place = table["predicted"].to_numpy(), table.column_names.index("predicted")
        others = (predicted + draw.integers(1, 10, len(table))) % 10
        column = np.where(draw.random(len(table)) < 0.1, others, predicted)
        tables[name] = table.set_column(place, table.schema.field(place), pa.array(column))
    return replace(job, tables=tables)


def test_an_honest_card_of_clean_images_agrees(made, verify, trust, run_tiny, run_in):
    words = ["attack=none", "source=null", "targets=[fine,coarse]", "hydra.run.dir=clean"]
    assert run_tiny(made, *words) == 0
    assert run_in(made, "clean", "-o", "clean.card", module="src.card") == 0
    code, printed = verify("clean.card", *trust)
    assert code == 0 and "agrees: 0 of 46 outcomes differ" in printed, printed


@pytest.mark.parametrize(
    "page",
    [
        *("javascript:alert(1)", "[a](b)", "docs/x.md\nagrees: 0 of 9", "\x1b[2Jx", "a b", ""),
        *("x" * 10_000, None, ["a b"], {"a": 1}),
    ],
)
def test_a_page_that_is_no_place_is_not_shown(made, verify, page):
    (job,) = read_card(made / "mine.card")
    write_card([job], made / "forged.card", page=page)
    code, printed = verify("forged.card")
    assert code == 2 and printed.splitlines()[-1] == "No outcome can be recomputed here."


def test_the_page_of_a_preset_is_shown(made, verify):
    (job,) = read_card(made / "mine.card")
    write_card([job], made / "forged.card", page="docs/findings/networks.md#images")
    assert "docs/findings/networks.md#images describes them." in verify("forged.card")[1]


def test_names_in_a_card_begin_no_line(verify, trust, forge):
    """A second line could read like a result of this program."""
    name = "fgsm\nagrees: 0 of 99 outcomes differ"
    code, printed = verify(forge(lambda job: with_record(job, label=name, source=name)), *trust)
    assert code == 1 and not re.search("^ *agrees", printed, re.M)


def test_an_honest_card_agrees_and_the_seed_repeats_the_sample(made, verify, trust):
    code, printed = verify("mine.card", *trust)
    assert code == 0
    assert re.search(r"^bim \(steps=3\) coarse +184 of 184 +0 +agrees", printed, re.M)
    assert "agrees: 0 of 184 outcomes differ, in 1 of 1 jobs" in printed
    assert verify("mine.card", *trust) == (code, printed)


def test_budgets_below_one_agree_also_in_a_card_that_lacks_their_key(
    made, verify, trust, run_tiny, run_in
):
    words = ["attack=fgsm", "epsilon.grid=[0.5]", "epsilon.below_one=true", "hydra.run.dir=low"]
    assert run_tiny(made, *words) == 0
    assert run_in(made, "low", "-o", "low.card", module="src.card") == 0
    (job,) = read_card(made / "low.card")
    old = {key: its for key, its in job.record.config["epsilon"].items() if key != "below_one"}
    write_card([with_record(job, {"epsilon": old})], made / "old.card")
    for name in ("low.card", "old.card"):
        code, printed = verify(name, *trust)
        assert code == 0 and "agrees: 0 of " in printed, printed


def steps(job: CardJob) -> CardJob:
    attack = copy.deepcopy(job.record.config["attack"])
    attack["settings"]["steps"] = 1
    return with_record(job, {"attack": attack})


def larger_budget(job: CardJob) -> CardJob:
    """State the settings of a smaller budget, in settings, record and rows."""
    tables = {}
    for name, table in job.tables.items():
        place = table.column_names.index("eps_255")
        eps = pa.array(np.minimum(table["eps_255"].to_numpy(), 4))
        tables[name] = table.set_column(place, table.schema.field(place), eps)
    epsilon = {"grid": [4.0], "reference": None}
    changed = with_record(job, {"epsilon": epsilon}, budgets=(0.0, 4.0), reference=4.0)
    return replace(changed, tables=tables)


def other_costs(job: CardJob) -> CardJob:
    """Return a job whose attack states a tenth of its gradients."""
    tables = {}
    for name, table in job.tables.items():
        place = table.column_names.index("gradients")
        costs = pc.divide(table["gradients"], 10.0)
        tables[name] = table.set_column(place, table.schema.field(place), costs)
    return replace(job, tables=tables)


def other_passes(job: CardJob) -> CardJob:
    """Return a job whose first outcomes, of one pass each, state the other number of correct ones.

    Reports show this number as a share.
    """
    tables = {}
    for name, table in job.tables.items():
        place, passes = (
            table.column_names.index("draws_correct"),
            table["draws_correct"].to_numpy().copy(),
        )
        passes[:10] = 1 - passes[:10]
        tables[name] = table.set_column(place, table.schema.field(place), pa.array(passes))
    return replace(job, tables=tables)


FORGERIES: dict[str, tuple[Callable[[CardJob], CardJob], str]] = {
    "flipped outcomes": (flipped, "differs *$"),
    "other passes": (other_passes, "differs *$"),
    "other costs": (other_costs, "differs *$"),
    "rows that no setting asks for": (
        lambda job: with_record(job, {"variants": []}),
        "differs: rows of predictions-uint8, from its settings",
    ),
    "another attack": (steps, "differs *$"),
    "a larger budget": (larger_budget, "differs *$"),
    "other settings of the budget": (
        lambda job: with_record(job, {"epsilon": {"grid": [16.0], "reference": None}}),
        "differs: budgets in the record",
    ),
    "other images": (lambda job: with_record(job, data="0" * 16), "differs: images"),
    "other numbers of images": (
        lambda job: replace(
            job,
            tables={
                name: table.set_column(
                    table.schema.get_field_index("index"), "index", pc.add(table["index"], 1000)
                )
                for name, table in job.tables.items()
            },
        ),
        "differs: images in the rows",
    ),
    "other weights": (
        lambda job: with_record(job, weights={**job.record.weights, "fine": "0" * 16}),
        "differs: weights of fine",
    ),
    "another attack's name": (
        lambda job: with_record(job, attack="mi", label="mi"),
        "differs: attack in the record",
    ),
    "another attack's name before another space": (
        lambda job: with_record(job, attack="mi\tof mine", label="mi\tof mine"),
        "differs: attack in the record",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_card_differs(verify, trust, forge, name: str):
    change, result = FORGERIES[name]
    code, printed = verify(forge(change), *trust)
    assert code == 1
    assert re.search(rf"^\S.* {result}", printed, re.M), printed
    assert "\ndiffers: " in printed


def test_other_weights_with_the_stated_digest_differ(made, verify, trust, tiny_weights):
    path = tiny_weights / "fine.safetensors"
    before = path.read_bytes()
    try:
        save_file({key: -value for key, value in load_file(path).items()}, path)
        code, printed = verify("mine.card", *trust)
        assert code == 1 and "differs: weights of fine" in printed
        path.unlink()
        code, printed = verify("mine.card", *trust)
        assert code == 2 and "not checked" in printed and "fine.safetensors" in printed
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    "key", ["network._target_", "weights", "network.path", "network._args_.0._target_"]
)
def test_a_hostile_card_opens_no_file_and_imports_no_module(made, verify, trust, forge, key: str):
    (made / "canary.py").write_text("raise SystemExit('imported')")

    def hostile(job: CardJob) -> CardJob:
        models = copy.deepcopy(job.record.config["model"])
        section: Any = models["fine"]
        *path, last = key.split(".")
        for part in path:
            section = section[int(part)] if part.isdigit() else section[part]
        section[last] = "canary.run" if "_target_" in key else str(made / "mine.card")
        return with_record(job, {"model": models})

    words = [word for word in trust if not word.startswith(f"model.fine.{key}=")]
    code, printed = verify(forge(hostile), *words)
    assert code == 2 and "imported" not in printed
    assert any(word.startswith(f"model.fine.{key}=") for word in suggested(printed))


def test_what_a_card_needs_is_said_once_for_all_its_jobs(made, verify, trust):
    """Paths of another machine are not suggested: they would be refused next."""
    (job,) = read_card(made / "mine.card")
    models = copy.deepcopy(job.record.config["model"])
    models["fine"]["weights"] = "nowhere/fine.pt"
    gone = [with_record(job, {"model": models}, label=name, key=name) for name in ("bim", "b")]
    write_card([replace(its, place=("out", at)) for at, its in enumerate(gone)], made / "two.card")
    code, printed = verify("two.card", *[word for word in trust if "fine.weights" not in word])
    assert code == 2 and "nowhere" not in printed and printed.count("model.fine.weights=FILE") == 1
    code, printed = verify("two.card", *trust, "model.fine.weights=nowhere.pt")
    assert code == 2 and printed.count("nowhere.pt") == 1


def test_trust_in_a_file_for_one_network_is_none_for_another(verify, trust, forge):
    def swapped(job: CardJob) -> CardJob:
        models = copy.deepcopy(job.record.config["model"])
        models["coarse"]["weights"] = models["fine"]["weights"]
        return with_record(job, {"model": models})

    words = [word for word in trust if not word.startswith("model.coarse.weights=")]
    code, printed = verify(forge(swapped), *words)
    assert code == 2 and suggested(printed)[-1].startswith("model.coarse.weights=")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("attack.loss", "margin", marks=pytest.mark.slow),
        pytest.param("attack.random_start", "sign", marks=pytest.mark.slow),
        ("attack.copies_average", "logits"),
        ("dataset.class_names", ["a", "b"]),
    ],
)
def test_words_that_open_nothing_need_no_trust(verify, trust, forge, key: str, value):
    _, printed = verify(forge(lambda job: with_setting(job, key, value)), *trust)
    assert "If you trust them" not in printed


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("attack.loss", "margin.py", ""),
        ("attack.random_start", "margin", ""),  # a word of another key
        ("attack.fit_images", "linf", ""),
        ("attack._target_", "src.attacks.torchattacks.${attack.name}", ""),
        ("attack.layer", "${oc.create:{_target_:canary.run}}", ""),
        ("attack.transforms", [{"_target_": "canary.run"}], ".0._target_"),
        ("dataset.class_names", {"_target_": "canary.run"}, "._target_"),
    ],
)
def test_other_words_need_it(made, verify, trust, forge, key: str, value, place: str):
    (made / "canary.py").write_text("raise SystemExit('imported')")
    code, printed = verify(forge(lambda job: with_setting(job, key, value)), *trust)
    assert code == 2 and "imported" not in printed
    assert suggested(printed)[: len(trust)] == trust
    assert suggested(printed)[-1].startswith(f"{key}{place}=")


HARMLESS = ["a b", "$(touch RAN)", "; touch RAN #", "a & touch RAN", "> RAN", "*", "!!", "~"]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_suggested_is_one_word_for_a_shell(verify, trust, forge, text: str):
    code, printed = verify(forge(lambda job: with_setting(job, "dataset.note", text)), *trust)
    assert code == 2 and suggested(printed) == [*trust, f"dataset.note={text}"]
    (line,) = re.findall("type: (.*)", printed)
    echoed = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, check=True)
    assert echoed.stdout.decode().splitlines()[-1] == f"dataset.note={text}"
    assert not Path("RAN").exists()


@pytest.mark.parametrize("text", ["photos #2", "2024", "a: b", "*x"])
def test_a_typed_text_is_the_text_of_the_card(verify, trust, forge, text: str):
    words = (*trust, f"dataset.note={text}")
    _, printed = verify(forge(lambda job: with_setting(job, "dataset.note", text)), *words)
    assert "If you trust them" not in printed


HOSTILE = ["a'; touch RAN; echo '", 'a"b', "`touch RAN`", "a\\", "a\x1b[2J", "a\u202e", "a\nb"]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("is_key", [False, True])
def test_texts_that_shells_or_terminals_read_otherwise_are_not_suggested(
    verify, trust, forge, text: str, is_key: bool
):
    key, value = (text, "b") if is_key else ("note", text)
    code, printed = verify(forge(lambda job: with_setting(job, f"dataset.{key}", value)), *trust)
    assert code == 2 and "its dataset has text with quotes or control characters" in printed
    assert "type: " not in printed and "touch" not in printed


@pytest.mark.parametrize("stream", [full_disk, closed_pipe])
def test_a_card_that_agrees_is_not_passed_if_nobody_can_read_so(made, run_in, trust, stream):
    call = partial(run_in, made, "mine.card", *trust, "--seed=1", module="src.verify")
    assert with_output(call, made, plain_file) == 0
    assert with_output(call, made, stream) == 2


def with_setting(job: CardJob, key: str, value: Any) -> CardJob:
    """Return a job with another setting of its attack or data set."""
    group, _, name = key.partition(".")
    section = copy.deepcopy(job.record.config[group])
    (section["settings"] if group == "attack" else section)[name] = value
    return with_record(job, {group: section})


@pytest.mark.parametrize(
    ("keys", "asked"),
    [
        # Without `download` its function would download.
        ({"_target_": "src.data.nips17.nips17", "root": "data/nips17"}, False),
        # Another file of the program has this root; here it would be a name on the hub.
        ({"_target_": "src.data.library_datasets.huggingface", "root": "data/cifar10"}, True),
    ],
)
def test_a_hostile_data_set_downloads_nothing(verify, trust, forge, monkeypatch, keys, asked: bool):
    asked_for = list[Any]()
    monkeypatch.setattr("requests.Session.get", lambda *arguments, **_: asked_for.append(arguments))
    dataset = {"name": "mine", "seed": 0, **keys}
    if not asked:
        dataset["url"] = yaml.safe_load((CONF / "dataset" / "nips17.yaml").read_text())["url"]
    code, printed = verify(forge(lambda job: with_record(job, {"dataset": dataset})), *trust)
    assert (code, asked_for) == (2, [])
    assert ("dataset.root=FOLDER" in printed) == asked


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
def test_what_is_no_regular_file_is_refused_at_once(made, verify, kind: str):
    path = {"folder": made / "conf", "device": Path(os.devnull)}.get(kind, made / kind)
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(path))  # a socket's path is short
    code, printed = verify(str(path))
    assert code == 2 and re.fullmatch(rf"{path} is a .*{kind}.*\.\n", printed)


@pytest.mark.slow
def test_a_typed_setting_replaces_that_of_the_card(made, verify, trust, tiny_weights):
    (made / "moved.safetensors").write_bytes((tiny_weights / "fine.safetensors").read_bytes())
    words = [word for word in trust if not word.startswith("model.fine.weights=")]
    assert verify("mine.card", *words, "model.fine.weights=moved.safetensors")[0] == 0
    code, printed = verify("mine.card", *words, "model.fine.weights=mine.card")
    assert code == 2 and "mine.card" in printed


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["conf/model/fine.yaml"], "no card"),
        (["mine.card", "other.card"], "other.card: type KEY=VALUE"),
        (["mine.card", "--images=0"], "--images and --jobs must be at least 1"),
        (["mine.card", "model.fin.weights=x"], "model.fin.weights: no job in the card has"),
    ],
)
def test_wrong_words_are_refused(verify, words: list[str], refusal: str):
    code, printed = verify(*words)
    assert code == 2 and refusal in printed


def test_settings_that_open_files_without_an_attack_are_ignored(verify, trust, forge, tmp_path):
    listed = tmp_path / "labels.csv"
    listed.write_text("not read")
    saved = {"path": str(tmp_path), "clean": str(tmp_path), "labels": str(listed), "eps_255": 8.0}
    attack = {"kind": "none", "name": "none", "label": "clean images", "saved": saved}
    code, printed = verify(forge(lambda job: with_record(job, {"attack": attack})), *trust)
    assert code and "labels.csv" not in printed


@pytest.mark.parametrize(
    ("network", "typed", "keeps_file"),
    [
        (
            {"_target_": "timm.create_model", "model_name": "resnet18", "pretrained": True},
            "model_name",
            False,
        ),
        (
            {"_target_": "torchvision.models.get_model", "name": "resnet18", "weights": "DEFAULT"},
            "name",
            True,  # the library would bring its own first
        ),
    ],
)
def test_a_network_whose_library_downloads_weights_is_not_built(
    verify, trust, forge, network: dict[str, Any], typed: str, keeps_file: bool
):
    def pretrained(job: CardJob) -> CardJob:
        models = copy.deepcopy(job.record.config["model"])
        weights = models["fine"]["weights"] if keeps_file else None
        models["fine"] |= {"network": network, "weights": weights}
        return with_record(job, {"model": models})

    words = [word for word in trust if not word.startswith("model.fine.network")]
    words = [word for word in words if keeps_file or "fine.weights" not in word]
    code, printed = verify(forge(pretrained), *words, f"model.fine.network.{typed}=resnet18")
    assert code == 2 and "weights of fine are in no file here" in printed


def test_weights_of_the_program_are_found_in_any_place(verify, trust, forge):
    def moved(job: CardJob) -> CardJob:
        models = copy.deepcopy(job.record.config["model"])
        models["fine"]["weights"] = "/somewhere/else/src/assets/vgg_small.safetensors"
        return with_record(job, {"model": models})

    words = [word for word in trust if "fine.weights" not in word]
    assert "/somewhere/else" not in verify(forge(moved), *words)[1]
