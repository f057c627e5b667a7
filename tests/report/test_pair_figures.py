"""Figures of one source and target, and curves of every value: numbers, size and refusals."""

import json
import os
import re
import shutil
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import src.figure
from src import curves, load_sweep
from src.report.charts.theme import DASHES, SHAPES
from tests.conftest import REPOSITORY
from tests.report.conftest import make_sweep as write_sweep

PAIR = ("--attack", "fgsm", "--source", "vgg", "--target", "vit")
NAMED = "vgg \N{RIGHTWARDS ARROW} vit"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    models = {"models": ("vgg", "vit", "mixer"), "sources": ("vgg", "vit")}
    return write_sweep(tmp_path_factory.mktemp("sweep"), **models, budgets=(2.0, 8.0), images=60)


@pytest.fixture
def draw(tmp_path):
    """A function that runs the command line and returns the figure's SVG, or the exit code."""

    def run(*words):
        out = tmp_path / "figure.svg"
        return src.figure.main([*map(str, words), "--out", str(out)]) or out.read_bytes()

    return run


def texts_of(svg: bytes) -> list[str]:
    return [text.strip() for text in ElementTree.fromstring(svg).itertext() if text.strip()]


def test_markers_and_dashes_are_those_of_the_page():
    script = (REPOSITORY / "src" / "report" / "templates" / "page.js").read_text()
    for name, ours in (("SHAPES", SHAPES), ("DASHES", DASHES)):
        page = json.loads(re.search(rf"const {name} = (\[.*\]);", script)[1])
        assert page[: len(ours)] == ours


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("confidence-groups", "--bins", "20"),
        ("image", 5),
        ("confidence-groups",),
        ("profiles",),
    ],
)
def test_a_figure_has_its_size(draw, folder, words):
    kind, *more = words
    number = [more.pop(0)] if kind == "image" else []
    svg = draw(kind, *number, folder, *PAIR, *more, "--width", "4in", "--height", "2.4in")
    root = ElementTree.fromstring(svg)
    sizes = [float(root.attrib[name].removesuffix("pt")) for name in ("width", "height")]
    assert sizes == pytest.approx([288, 172.8], abs=1)
    assert {*re.findall(rb'font-size="(.*?)"', svg)} == {b"7px"}


@pytest.mark.slow
def test_groups_name_their_confidences_and_counts(draw, folder, caplog):
    frame = load_sweep(folder).predictions.query(
        "variant == 'float32' and attack == 'fgsm' and source == 'vgg'"
    )
    clean = frame[frame["eps_255"] == 0]
    right = clean[clean["predicted"] == clean["label"]]
    both = {*right.loc[right["target"] == "vgg", "index"]}
    counted = right[(right["target"] == "vit") & right["index"].isin(both)]
    bins = np.floor(counted["confidence"] * 50 + 1e-6).clip(upper=49).value_counts()
    texts = " ".join(
        texts_of(draw("confidence-groups", folder, *PAIR, "--bins", 2, "--height", "6in"))
    )
    assert sorted(map(int, re.findall(r"% \((\d+)\)", texts))) == sorted(bins[bins >= 3])
    ends = [span.split("\N{EN DASH}") for span in re.findall(r"(\d+\N{EN DASH}\d+) %", texts)]
    assert all(int(high) - int(low) == 2 and int(low) % 2 == 0 for low, high in ends)
    left = bins[bins < 3].sum()
    sentence = f"Not drawn: {left} of {len(counted)} images, in bins of fewer than 3."
    assert left and sentence in texts and sentence in caplog.text
    texts = " ".join(texts_of(draw("confidence-groups", folder, *PAIR, "--groups", 2)))
    assert NAMED in texts and "fgsm" in texts
    sizes = sorted(map(int, re.findall(r"% \((\d+)\)", texts)))
    assert sum(sizes) == len(counted) and sizes[1] - sizes[0] <= 1


def test_an_image_shows_its_classes_when_clean_and_when_first_wrong(draw, folder):
    frame = load_sweep(folder).predictions.query(
        "variant == 'float32' and attack == 'fgsm' and source == 'vgg' and target == 'vit'"
    )
    right = frame.assign(right=frame["predicted"] == frame["label"]).pivot(
        index="index", columns="eps_255", values="right"
    )
    for number, title in (
        (right.index[right[0.0] & ~right[2.0]][0], "fgsm: wrong at 2/255"),
        (right.index[right[0.0] & right[2.0] & ~right[8.0]][0], "fgsm: wrong at 8/255"),
    ):
        texts = texts_of(draw("image", number, folder, *PAIR))
        assert {"clean", title} < {*texts} and "fgsm" in texts and NAMED in " ".join(texts)
        assert "Cross: wrong class." in " ".join(texts)
        top = frame[(frame["index"] == number) & (frame["eps_255"] == 0)].iloc[0]
        names = ("cat", "dog", "owl", "fox", "elk", "ape")
        assert f"{names[top['label']]} {100 * top['confidence']:.0f} %" in texts


@pytest.mark.slow
def test_a_strip_has_a_picture_per_budget_and_the_classes(draw, folder):
    svg = draw("strip", 1, folder, *PAIR)
    assert svg.count(b"<image") == 4
    texts = texts_of(svg)
    assert NAMED in " ".join(texts)
    assert "".join(texts).count("\N{MULTIPLICATION SIGN}") == 1  # of the enhanced change
    rows = load_sweep(folder).predictions.query(
        "variant == 'float32' and attack == 'fgsm' and source == 'vgg' and target == 'vit'"
    )
    for row in rows[rows["index"] == 1].itertuples():
        name = ("cat", "dog", "owl", "fox", "elk", "ape")[row.predicted]
        wrong = "" if row.predicted == row.label else "wrong: "
        assert f"{wrong}{name}" in texts and f"{100 * row.confidence:.0f} %" in texts
    assert draw("strip", 1, folder, *PAIR, "--eps", 8).count(b"<image") == 3


def test_a_strip_is_as_wide_as_its_texts(draw, folder, capsys):
    name = "Bartholomew"
    words = ("strip", 1, folder, *PAIR, "--names", f"vit={name}")
    narrow = draw(*words, "--width", "1in")
    assert narrow == 2 and re.search(
        r"4 pictures need a width of [\d.]+in", capsys.readouterr().err
    )
    texts = " ".join(texts_of(draw(*words)))
    assert name in texts and "Image 1" in texts


def test_every_line_has_a_look_of_its_own(folder):
    options = {"attack": ["fgsm", "bim"], "source": ["vgg", "vit"], "target": ["vgg", "vit"]}
    spec = curves(folder, **options, width="5in").to_dict()
    (rows,) = [rows for rows in spec["datasets"].values() if rows]
    looks = {
        (row["series"], row["colour"], str(row["dash"]), row["shape"], row["label"]) for row in rows
    }
    assert len(looks) == 8 == len({look[1:4] for look in looks})
    assert "bim: vgg \N{RIGHTWARDS ARROW} vit" in {look[0] for look in looks}


@pytest.fixture(scope="module")
def with_files(tmp_path_factory):
    few = {"attacks": ("fgsm",), "models": ("vgg", "vit"), "budgets": (8.0,), "full": False}
    return write_sweep(tmp_path_factory.mktemp("files"), **few, images=60, files=True)


def test_an_image_is_found_by_its_file(draw, with_files, capsys):
    listed = pd.read_csv(next(with_files.glob("*/images.csv")))
    names = listed["file"].str.split("/").str[1]
    number, file = 7, listed["file"][7]
    alike = [*listed["file"][names == names[7]]]
    assert len(alike) > 1 and file in alike
    wanted = draw("image", number, with_files, *PAIR)
    for name in (file, f"./photographs/{file}", f"/home/me/{file}"):
        assert draw("image", name, with_files, *PAIR) == wanted
    assert draw("image", listed["file"][8], with_files, *PAIR) != wanted
    assert draw("image", names[7], with_files, *PAIR) == 2
    assert f"choose from {', '.join(alike[:3])}" in capsys.readouterr().err
    assert draw("image", file[1:], with_files, *PAIR) == 2
    assert f"image {file[1:]}: no such file" in capsys.readouterr().err


def test_a_list_of_files_that_cannot_be_read_leaves_the_numbers(draw, with_files, tmp_path):
    for at, text in enumerate(
        ("", "index,file\nx,a.png\n", "index\n1\n", "\0", "index,file\n1,\n")
    ):
        folder = shutil.copytree(with_files, tmp_path / str(at))
        for path in folder.glob("*/images.csv"):
            path.write_text(text)
        assert draw("image", 1, folder, *PAIR) != 2 and draw("image", "a.png", folder, *PAIR) == 2
    path.unlink()
    os.mkfifo(path)
    assert draw("image", 1, folder, *PAIR) != 2


RARE = [
    (["image", "999"], "image 999: choose one of the 60"),
    (["image", "cat"], "image cat: these images have no files"),
    (["strip", "1", "--attack", "fgsm", "bim"], "This figure shows one attack"),
    (["image", "1", "--target", "vit", "vgg"], "This figure shows one target"),
    (["strip", "1", *PAIR, "--eps", "3"], "eps=3: image 1 has pictures at 2, 8."),
    (["confidence-groups", "--bins", "0"], "bins above 0"),
    (["confidence-groups", "--target", "nope"], "target=nope: choose from"),
    (["confidence-groups", "--bins", "5", "--height", "1in"], "need a height of"),
]


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["curves", "--value", "nope"], "value=nope: choose from success, accuracy"),
        (["strip", "30", *PAIR], "image 30 has no picture: choose from 0, 1, 2, or run"),
        (["confidence-groups", "--bins", "0.01"], "no bin has 3 images"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in RARE),
    ],
)
def test_a_refusal_is_one_sentence(draw, folder, words, refusal, capsys):
    place = 2 if words[0] in ("image", "strip") else 1
    assert draw(*words[:place], folder, *words[place:]) == 2
    error = capsys.readouterr().err
    assert refusal in error and "Traceback" not in error
    assert len(error.strip().splitlines()) == 1


def test_few_images_and_unknown_classes_are_refused(tmp_path, draw, capsys):
    few = write_sweep(tmp_path / "few", images=5, full=False, budgets=(8.0,))
    assert draw("confidence-groups", few) == 2
    assert "need 9 counted images" in capsys.readouterr().err
    clean = write_sweep(tmp_path / "clean", attacks=("",), sources=("vgg",), full=False)
    assert draw("profiles", clean) == 2
    assert "only clean images" in capsys.readouterr().err


def test_a_white_box_is_drawn_if_there_is_no_other_model(tmp_path):
    one = write_sweep(tmp_path / "one", models=("vgg",), attacks=("fgsm",), full=False)
    spec = curves(one, value="confidence", width="3.3in").to_dict()
    rows = pd.DataFrame(next(rows for rows in spec["datasets"].values() if rows))
    assert {*rows["eps_255"]} == {0.0, 1.0, 2.0, 4.0, 8.0, 16.0}
