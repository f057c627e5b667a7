"""Cards against the folders that they were made of, and cards that are damaged or hostile."""

import json
import shutil
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

from src import load_sweep, rates, table
from src.card import main
from tests.conftest import REPOSITORY
from tests.report.conftest import KINDS, make_sweep

DEMO = REPOSITORY / "docs" / "results" / "demo"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A card of two jobs on made-up networks. Tests only read it."""
    place = tmp_path_factory.mktemp("card")
    facts = {"attacks": ("fgsm",), "budgets": (2.0, 8.0), "full": False}
    return packed(make_sweep(place / "sweep", sources=("vgg", "vit"), **facts), place / "x.card")


@pytest.fixture
def card(honest: Path, tmp_path: Path) -> Path:
    """A copy of the honest card, to be changed."""
    return Path(shutil.copy(honest, tmp_path / "made-up.card"))


def predictions(*folders: Path) -> pd.DataFrame:
    return load_sweep(*folders).predictions


def packed(folder: Path, card: Path) -> Path:
    """Return a card of the jobs in a folder."""
    assert main([str(folder), "-o", str(card)]) == 0
    return card


@pytest.mark.parametrize(
    "kind",
    [
        "one image",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("clean images", "hostile names", "missing values", "defended")
        ),
    ],
)
def test_a_card_gives_the_frame_of_its_folder(tmp_path: Path, kind: str):
    folder = make_sweep(tmp_path / "sweep", **KINDS[kind])
    card = packed(folder, tmp_path / "x.card")
    assert_frame_equal(predictions(folder), predictions(card), check_exact=True)


@pytest.mark.slow
def test_the_demo_is_small_and_its_table_the_same(tmp_path: Path):
    card = packed(DEMO, tmp_path / "demo.card")
    assert card.stat().st_size < 450_000
    assert table(DEMO, to="csv") == table(card, to="csv")
    again = packed(card, tmp_path / "again.card")
    assert_frame_equal(predictions(card), predictions(again))


def test_a_folder_and_its_card_are_one_sweep(tmp_path: Path):
    folder = make_sweep(tmp_path / "sweep", **KINDS["one source"])
    card = packed(folder, tmp_path / "x.card")
    assert_frame_equal(predictions(card, folder), predictions(folder))


KEY = "transferability card"


def seal(rows: pa.Table, card: Path, **options: Any) -> None:
    """Write rows to a card as anybody can, with their digest."""
    with pq.ParquetWriter(card, rows.schema.remove_metadata(), **options) as writer:
        writer.write_table(rows.replace_schema_metadata())
        facts = {"version": 2, "rows": sha256(card.read_bytes()).hexdigest()}
        writer.add_key_value_metadata({KEY: json.dumps(facts)})


def changed(card: Path, column: str, values: Callable[[Any], Any]) -> None:
    """Replace a column of a card."""
    rows = pq.read_table(card)
    at, field = rows.schema.get_field_index(column), rows.schema.field(column)
    rows = rows.set_column(at, field, values(rows[column]).cast(field.type))
    seal(rows, card, dictionary_pagesize_limit=1 << 26)


def other_record(column: pa.ChunkedArray) -> pa.Array:
    """Change a record and leave its digest."""
    text = json.loads(column[0].as_py())
    text["job"]["label"] = "first of all"
    return pa.repeat(json.dumps(text), len(column))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("confidence", lambda its: pc.multiply(its, float("nan"))),
        ("confidence", lambda its: pc.add(its, 1)),
        ("predicted", lambda its: pc.add(its, 100)),
        ("predicted", lambda its: pc.subtract(its, 100)),
        ("eps_255", lambda its: pc.add(its, 1)),
        ("index", lambda its: pc.multiply(its, 0)),
        ("target", lambda its: pa.repeat("=cmd()|<script>", len(its))),
        ("target", lambda its: pa.repeat("x" * 100_000, len(its))),
        ("variant", lambda its: pa.repeat("../../float32", len(its))),
        ("variant", lambda its: pa.array(["uint8", *its.to_pylist()[1:]])),
        ("record", lambda its: pa.repeat("{}", len(its))),
        ("record", lambda its: pa.repeat("[" * 100_000, len(its))),
        ("record", lambda its: pa.nulls(len(its), pa.string())),
        ("record", other_record),
    ],
)
def test_wrong_values_are_refused(card: Path, column: str, values: Callable[[Any], Any]):
    changed(card, column, values)
    with pytest.raises(ValueError, match=r"made-up\.card"):
        load_sweep(card)


def test_a_record_cannot_ask_for_more_rows_than_there_are(card: Path):
    def many(column: pa.ChunkedArray) -> pa.Array:
        text = json.loads(column[0].as_py())
        names = [f"n{number}" for number in range(2000)]
        text["job"] |= {"targets": names, "defences": names}
        text["digest"] = sha256(json.dumps(text["job"]).encode()).hexdigest()[:16]
        return pa.repeat(json.dumps(text), len(column))

    changed(card, "record", many)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"made-up\.card is not a valid table"):
            load_sweep(card)
        assert tracemalloc.get_traced_memory()[1] < 100e6  # of 4 million pairs
    finally:
        tracemalloc.stop()


def test_cells_that_version_1_left_empty_are_filled(card: Path):
    before, rows = predictions(card), pq.read_table(card)
    at = rows.schema.get_field_index("true_confidence")
    correct = pc.equal(rows["predicted"], rows["label"])
    rows = rows.set_column(at, rows.schema.field(at), pc.if_else(correct, None, rows[at]))
    facts = {b"transferability card": b'{"version": 1, "coarse": false}'}
    pq.write_table(rows.replace_schema_metadata(facts), card)
    after = predictions(card)
    assert_frame_equal(*(its.drop(columns="draws_correct") for its in (before, after)))
    assert after["draws_correct"].eq(after["predicted"] == after["label"]).all()


def test_another_encoding_of_the_same_rows_is_read(card: Path):
    before, rows = predictions(card), pq.read_table(card)
    plain = [
        pa.field(its.name, pa.string() if pa.types.is_dictionary(its.type) else its.type)
        for its in rows.schema
    ]
    seal(rows.cast(pa.schema(plain)), card, compression="gzip", use_dictionary=False)
    assert_frame_equal(predictions(card), before)


def test_rows_that_another_tool_has_changed_are_refused(card: Path):
    rows, metadata = pq.read_table(card), pq.read_metadata(card).metadata
    for others in (rows.slice(1), rows.take([*range(len(rows))][::-1])):
        pq.write_table(others.replace_schema_metadata({KEY: metadata[KEY.encode()]}), card)
        with pytest.raises(ValueError, match=r"made-up\.card has other rows than were packed"):
            load_sweep(card)


def test_other_files_are_refused(card: Path, tmp_path: Path):
    content = card.read_bytes()
    key = KEY.encode()
    metadata = {key: pq.read_metadata(card).metadata[key]}
    later = {key: json.dumps({"version": 99}).encode()}
    rows = pq.read_table(card)
    files: dict[str, bytes | pa.Table] = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "text": b"attack,success\nmine,1.0\n" * 99,
        "flipped": content[:2000] + bytes(b ^ 255 for b in content[2000:2100]) + content[2100:],
        "foreign": pa.table({"a": [1]}),
        "later": rows.replace_schema_metadata(later),
        "no facts": rows.replace_schema_metadata({key: b"[]"}),
        "no JSON": rows.replace_schema_metadata({key: b"\xff"}),
        "columns": rows.drop_columns(["predicted"]).replace_schema_metadata(metadata),
        "types": rows.set_column(0, "index", pa.repeat("x", len(rows))),
        "many rows": pa.table({"a": pa.repeat(pa.scalar(1, pa.int8()), 60_000_000)}),
    }
    files["many rows"] = files["many rows"].replace_schema_metadata(metadata)
    for name, file in files.items():
        path = tmp_path / f"{name}.parquet.card"
        if isinstance(file, bytes):
            path.write_bytes(file)
        else:
            pq.write_table(file, path)
        with pytest.raises(ValueError, match=name) as refusal:
            load_sweep(path)
        assert "\n" not in str(refusal.value)


def test_a_card_cannot_replace_another_file(card: Path, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    assert main([str(card), "-o", str(tmp_path / "notes.txt")]) == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_place_in_a_card_opens_no_file(card: Path, tmp_path: Path):
    def elsewhere(column: pa.ChunkedArray) -> pa.Array:
        texts = column.to_pylist()
        content = {text: json.loads(text) | {"place": [str(DEMO), 0]} for text in {*texts}}
        return pa.array([json.dumps(content[text]) for text in texts])

    before = predictions(card)
    changed(card, "record", elsewhere)
    assert_frame_equal(predictions(card), before)


def test_the_documented_columns_are_enough_to_count(card: Path):
    rows = pd.read_parquet(card)
    source = rows["record"].map(lambda text: json.loads(text)["job"]["source"])
    rows = rows[source == "vgg"].assign(right=lambda its: its["predicted"] == its["label"])
    right = {
        (name, eps): part.set_index("index")["right"]
        for (name, eps), part in rows.groupby(["target", "eps_255"], observed=True)
    }
    counted = right["vgg", 0.0] & right["vit", 0.0]
    fooled = counted & ~right["vit", 8.0]
    row = rates(load_sweep(card)).query("source == 'vgg' and target == 'vit' and eps_255 == 8")
    assert (fooled.sum() / counted.sum()) == pytest.approx(row["success_rate"].item())
