"""Cards against the folders that they were made of, and cards that are damaged or hostile."""

import json
import shutil
import tracemalloc
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from src import load_sweep, rankings, rates, table
from src.analysis.confidence import by_initial_confidence
from src.analysis.trajectories import by_kind, trajectories
from src.artifacts.card import SCHEMA, digest_rows
from src.artifacts.jobs import find_jobs
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
def test_a_card_gives_the_frame_and_the_rankings_of_its_folder(tmp_path: Path, kind: str):
    folder = make_sweep(tmp_path / "sweep", **KINDS[kind])
    card = packed(folder, tmp_path / "x.card")
    frames = [load_sweep(path) for path in (folder, card)]
    rows, small = (frame.drop(columns="draws_correct") for frame in frames)
    assert_frame_equal(rows, small, check_exact=True)
    for of in ("attack", "source"):
        assert_frame_equal(rankings(folder, of=of), rankings(card, of=of))


@pytest.mark.slow
def test_the_demo_is_small_and_its_table_the_same(tmp_path: Path):
    card = packed(DEMO, tmp_path / "demo.card")
    assert card.stat().st_size < 350_000
    assert table(DEMO, to="csv") == table(card, to="csv")
    again = packed(card, tmp_path / "again.card")
    assert_frame_equal(load_sweep(card), load_sweep(again))


def at_edges(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Put confidences on the edges of bins and steps, and just beside them, as float32 values."""
    random = np.random.default_rng(seed)
    near = random.choice([0, 1e-8, 1e-7, 1e-5, 4e-4], len(rows)) * random.choice([-1, 1], len(rows))
    shares = random.choice([20, 1000, 37], len(rows))
    true = np.clip(random.integers(shares) / shares + near, 1e-6, 1).astype(np.float32)
    correct = rows["predicted"] == rows["label"]
    shown = np.where(correct, true, np.float32(1) - true)
    return rows.assign(confidence=shown, true_confidence=true)


@pytest.mark.parametrize("seed", range(5))
def test_a_card_has_the_groups_and_kinds_of_its_folder(tmp_path: Path, seed: int):
    facts = {"images": 300, "budgets": (2.0, 4.0, 8.0), "seed": seed}
    folder = make_sweep(tmp_path / "sweep", **KINDS["one source"] | facts)
    for path in folder.rglob("predictions.parquet"):
        stored = pq.read_table(path)
        edges = pa.Table.from_pandas(at_edges(stored.to_pandas(), seed), preserve_index=False)
        pq.write_table(edges.replace_schema_metadata(stored.schema.metadata), path)
    card = packed(folder, tmp_path / "x.card")
    for job, small in zip(*(find_jobs([path]) for path in (folder, card)), strict=True):
        for groups in (3, 7, [0.05 * step for step in range(1, 20)], [1 / 3, 0.5, 0.98765]):
            frames = [
                by_initial_confidence(its.predictions, "vgg", ["vgg", "vit"], "all", groups)
                for its in (job, small)
            ]
            same = ["target", "group", "lowest", "highest", "eps_255", "n", "still_correct"]
            assert_frame_equal(*(frame[same] for frame in frames))
        rows = [trajectories(its.predictions, "vgg", ["vgg", "vit"], "all") for its in (job, small)]
        assert_frame_equal(*rows)
        for kind, found in by_kind(rows[0]).items():
            assert list(found["index"]) == list(by_kind(rows[1])[kind]["index"]), kind
        assert rows[0][["dip_and_recovery", "ends_more_confident_wrong"]].any().all()


def test_a_folder_and_its_card_are_one_sweep(tmp_path: Path):
    folder = make_sweep(tmp_path / "sweep", **KINDS["one source"])
    card = packed(folder, tmp_path / "x.card")
    assert_frame_equal(load_sweep(card, folder), load_sweep(folder))


def changed(card: Path, column: str, values: Callable[[Any], Any]) -> None:
    """Replace a column of a card, and state the digest of the new rows, as an attacker would."""
    rows = pq.read_table(card)
    at, field = rows.schema.get_field_index(column), rows.schema.field(column)
    rows = rows.set_column(at, field, values(rows[column]).cast(field.type))
    digest = digest_rows(rows.cast(SCHEMA).combine_chunks())
    facts = json.dumps({"version": 1, "coarse": False, "rows": digest}).encode()
    pq.write_table(rows.replace_schema_metadata({b"transferability card": facts}), card)


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


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.slice(1),
        lambda rows: rows.take(np.arange(len(rows))[::-1]),
        lambda rows: pa.concat_tables([rows, rows]),
        lambda rows: with_first(rows, "predicted", 1 - rows["predicted"][0].as_py()),
        lambda rows: with_first(rows, "true_confidence", 0.125),
        lambda rows: with_first(rows, "gradients", 0.5),
        lambda rows: with_first(rows, "image", "f" * 16),
    ],
)
def test_rows_that_another_tool_changed_are_refused(card: Path, change: Callable[[Any], Any]):
    rows = pq.read_table(card)
    pq.write_table(change(rows).replace_schema_metadata(rows.schema.metadata), card)
    with pytest.raises(ValueError, match=r"made-up\.card has other rows than were packed"):
        load_sweep(card)


def with_first(rows: pa.Table, column: str, value: Any) -> pa.Table:
    """Replace one value."""
    at, field = rows.schema.get_field_index(column), rows.schema.field(column)
    values = pa.array(
        [value, *rows[column].to_pylist()[1:]], pa.string() if column == "image" else field.type
    )
    return rows.set_column(at, field, values.cast(field.type))


def test_another_encoding_of_the_same_rows_is_read(card: Path):
    before, rows = load_sweep(card), pq.read_table(card)
    plain = [
        pa.field(its.name, pa.string() if pa.types.is_dictionary(its.type) else its.type)
        for its in rows.schema
    ]
    rows = rows.cast(pa.schema(plain, rows.schema.metadata))
    pq.write_table(rows, card, compression="gzip", use_dictionary=False, row_group_size=1000)
    assert_frame_equal(load_sweep(card), before)


def test_other_files_are_refused(card: Path, tmp_path: Path):
    content = card.read_bytes()
    metadata = pq.read_schema(card).metadata
    (key,) = metadata.keys() - {b"ARROW:schema"}
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

    before = load_sweep(card)
    changed(card, "record", elsewhere)
    assert_frame_equal(load_sweep(card), before)


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
