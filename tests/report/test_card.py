"""Cards against the folders that they were made of; damaged and hostile cards and folders."""

import json
import multiprocessing
import os
import shlex
import shutil
import sys
import tracemalloc
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from src import load_sweep
from src.artifacts.finished_job import FinishedJob
from src.artifacts.sweep_state import SweepManifest, noted_failure, write_manifest
from src.card import main
from src.report.page.frame import commands
from tests.records import make_record
from tests.report.conftest import KINDS, SMALL
from tests.report.conftest import make_sweep as write_sweep

KEY = "transferability card"
HARD = ("one image", "clean images", "hostile names", "missing values", "defended")


def predictions(*folders: Path) -> pd.DataFrame:
    return load_sweep(*folders).predictions


def packed(folder: Path, card: Path) -> Path:
    """Return a card of the jobs in a folder."""
    assert main([str(folder), "-o", str(card)]) == 0
    return card


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card of two jobs on made-up networks. Tests only read it."""
    place = tmp_path_factory.mktemp("card")
    facts = {"attacks": ("fgsm",), "budgets": (2.0, 8.0), "full": False}
    return packed(write_sweep(place / "sweep", sources=("vgg", "vit"), **facts), place / "x.card")


@pytest.fixture
def card(honest: Path, tmp_path: Path) -> Path:
    """A copy of the honest card, to be changed."""
    return Path(shutil.copy(honest, tmp_path / "made-up.card"))


@pytest.mark.parametrize(
    "kind", ["one source", *(pytest.param(kind, marks=pytest.mark.slow) for kind in HARD)]
)
def test_a_card_gives_the_frame_of_its_folder_and_both_are_one_sweep(tmp_path: Path, kind: str):
    folder = write_sweep(tmp_path / "sweep", **KINDS[kind])
    card = packed(folder, tmp_path / "x.card")
    assert_frame_equal(predictions(folder), predictions(card), check_exact=True)
    assert_frame_equal(predictions(card, folder), predictions(folder))


def test_sweeps_whose_folders_have_one_name_stay_apart_in_a_card(tmp_path: Path):
    facts: dict[str, Any] = {**SMALL, "full": False, "models": ("vgg", "vit", "mixer")}
    folders = [
        write_sweep(
            tmp_path / f"{day}" / "out", **facts, sources=(source,), overrides=(f"a={day}",)
        )
        for day, source in enumerate(facts["models"])
    ]
    for number in range(2):  # then a card of a card and a folder
        places = [folders[2], tmp_path / "0.card"] if number else folders[:2]
        card = tmp_path / f"{number}.card"
        assert main([*map(str, places), "-o", str(card)]) == 0
        expected = load_sweep(*places).frame
        assert (expected["attack"] == "fgsm").all() and expected["sources"].max() == 2 + number
        assert_frame_equal(load_sweep(card).frame, expected)


def seal(rows: pa.Table, card: Path, **options: Any) -> None:
    """Write rows to a card as anybody can, with their digest."""
    with pq.ParquetWriter(card, rows.schema.remove_metadata(), **options) as writer:
        writer.write_table(rows.replace_schema_metadata())
        facts = {"version": 2, "rows": sha256(card.read_bytes()).hexdigest()}
        writer.add_key_value_metadata({KEY: json.dumps(facts)})


def changed(rows: pa.Table, card: Path, column: str, values: Callable[[Any], Any]) -> None:
    """Write rows to a card with another column."""
    at, field = rows.schema.get_field_index(column), rows.schema.field(column)
    rows = rows.set_column(at, field, values(rows[column]).cast(field.type))
    seal(rows, card, dictionary_pagesize_limit=1 << 26)


def other_record(column: pa.ChunkedArray) -> pa.Array:
    """Change a record and leave its digest."""
    text = json.loads(column[0].as_py())
    text["job"]["label"] = "first of all"
    return pa.repeat(json.dumps(text), len(column))


def record_of_many_pairs(column: pa.ChunkedArray) -> pa.Array:
    """Ask for 4 million pairs of a target and a defence."""
    text = json.loads(column[0].as_py())
    names = [f"n{number}" for number in range(2000)]
    text["job"] |= {"targets": names, "defences": names}
    text["digest"] = sha256(json.dumps(text["job"]).encode()).hexdigest()[:16]
    return pa.repeat(json.dumps(text), len(column))


WRONG: list[tuple[str, Callable[[Any], Any]]] = [
    ("confidence", lambda its: pc.multiply(its, float("nan"))),
    ("confidence", lambda its: pc.add(its, 1)),
    ("predicted", lambda its: pc.add(its, 100)),
    ("eps_255", lambda its: pc.add(its, 1)),
    ("index", lambda its: pc.multiply(its, 0)),
    ("target", lambda its: pa.repeat("=cmd()|<script>", len(its))),
    ("variant", lambda its: pa.repeat("../../float32", len(its))),
    ("variant", lambda its: pa.array(["uint8", *its.to_pylist()[1:]])),
    ("record", lambda its: pa.repeat("[" * 100_000, len(its))),
    ("record", other_record),
    ("record", record_of_many_pairs),
]


def test_wrong_values_are_refused_in_little_memory(card: Path):
    rows = pq.read_table(card)
    for column, values in WRONG:
        changed(rows, card, column, values)
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=r"made-up\.card"):
                load_sweep(card)
            assert tracemalloc.get_traced_memory()[1] < 100e6, column
        finally:
            tracemalloc.stop()


def test_other_files_are_refused(card: Path, tmp_path: Path):
    content, rows, key = card.read_bytes(), pq.read_table(card), KEY.encode()
    ones = pa.repeat(pa.scalar(1, pa.int8()), 60_000_000)
    metadata = {key: pq.read_metadata(card).metadata[key]}
    files: dict[str, bytes | pa.Table] = {
        "cut": content[: len(content) // 2],
        "text": b"attack,success\nmine,1.0\n" * 99,
        "flipped": content[:2000] + bytes(b ^ 255 for b in content[2000:2100]) + content[2100:],
        "later": rows.replace_schema_metadata({key: b'{"version": 99}'}),
        "no JSON": rows.replace_schema_metadata({key: b"\xff"}),
        "columns": rows.drop_columns(["predicted"]).replace_schema_metadata(metadata),
        "types": rows.set_column(0, "index", pa.repeat("x", len(rows))),
        "fewer": rows.slice(1).replace_schema_metadata(metadata),
        "turned": rows.take([*range(len(rows))][::-1]).replace_schema_metadata(metadata),
        "many": pa.table({"a": ones}).replace_schema_metadata(metadata),
    }
    for name, file in files.items():
        path = tmp_path / f"{name}.card"
        if isinstance(file, bytes):
            path.write_bytes(file)
        else:
            pq.write_table(file, path)
        reason = r"\.card has other rows than were packed" * (name in ("fewer", "turned"))
        with pytest.raises(ValueError, match=f"{name}{reason}") as refusal:
            load_sweep(path)
        assert "\n" not in str(refusal.value)
    (tmp_path / "notes.txt").write_text("mine")
    assert main([str(card), "-o", str(tmp_path / "notes.txt")]) == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(("name", "code"), [("0-job/alarms.json", 0), ("x.parquet", 2)])
def test_a_named_pipe_is_not_waited_for(make_sweep, run_in, capfd, name, code):
    folder = make_sweep()
    os.mkfifo(folder / name)
    process = multiprocessing.get_context("fork").Process(
        target=lambda: sys.exit(run_in(folder, str(folder), module="src.table"))
    )
    process.start()
    process.join(120)
    process.kill()  # one that waits
    assert process.exitcode == code and (name in capfd.readouterr().err) == (code == 2)


def test_names_steer_no_terminal_and_no_shell(tmp_path, run_in, capsys):
    steering = "\x1b[31m \x9b \u202e"
    write_manifest(tmp_path, SweepManifest(jobs=[steering], single=False, id="1"))
    (tmp_path / "error.txt").write_text(steering)
    assert run_in(tmp_path, str(tmp_path), module="src.status") == 1
    for text in (capsys.readouterr().out, noted_failure(tmp_path)):
        assert "[31m" in text and not {*"\x1b\x9b\u202e"} & {*text}
    flags = ("--config-dir my own", "; touch x")
    facts = {"key": "k", "images": 1, "class_names": ("a",), "weights": {"net": "w"}}
    facts |= {"source": "net", "attack": "bim", "budgets": (0.0, 8.0), "reference": 8.0}
    record = make_record(**facts, flags=flags, overrides=("attack=bim", "dataset.root=my own"))
    (command,) = commands([FinishedJob(record, Path("job"), {})])
    words = ["--config-dir", "my own", ";", "touch x", "attack=bim", "dataset.root=my own"]
    assert shlex.split(command) == ["python", "-m", "src.main", *words]
