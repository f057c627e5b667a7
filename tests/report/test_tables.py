"""Tables by name and for papers: marks and means by hand, and every table in every format."""

import csv
import io
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

import src
from src.artifacts.sweep_state import SweepManifest, write_manifest
from src.report.grid import FORMATS, fitting
from src.report.named_tables import TABLES, matrices
from tests.conftest import REPOSITORY
from tests.records import JOBS, results_of_frame
from tests.report.frames import cells_of, frame_of, ordinary, rows_of, table

DEMO = REPOSITORY / "docs" / "results" / "demo"
NONE = "\N{EN DASH}"


@pytest.fixture(scope="module")
def demo():
    return src.load_sweep(DEMO)


@pytest.mark.parametrize("name", [name for name in TABLES if name != "paper"])  # of other jobs
def test_a_table_has_equal_rows_in_all_formats(demo, name):
    texts = {to: src.table(demo, name=name, to=to) for to in FORMATS}
    grid = src.table(demo, name=name)
    assert str(grid) == texts["markdown"] and grid._repr_html_() == texts["html"]
    assert len(cells_of(texts["markdown"])) == texts["html"].count("<tr>") == len(grid.rows) + 1
    assert texts["latex"].count(r"\\") == len(grid.rows) + 1
    assert len([*csv.reader(io.StringIO(texts["csv"]))]) > len(grid.rows)


def test_a_function_of_the_user_is_a_table(demo, tmp_path, monkeypatch):
    page = (REPOSITORY / "docs" / "own-measurement.md").read_text()
    (code,) = re.findall(r"```python\n(# hardest\.py\n.*?)```", page, re.S)
    (tmp_path / "hardest.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    words = {"name": "hardest.hardest", "attack": "fgsm"}
    means = rows_of(src.table(demo, rows="attack", average=False, to="csv"))
    (expected,) = (row for row in means if row["attack"] == "fgsm")
    rows = rows_of(src.table(demo, to="csv", **words))
    found = {row["target"]: float(row["success_rate"]) for row in rows}
    assert found == pytest.approx({key: float(expected[key]) for key in found})
    assert len(found) == 5 and [*found.values()] == sorted(found.values())
    for to in ("markdown", "latex", "html"):
        assert f"{100 * min(found.values()):.1f}" in src.table(demo, to=to, **words)
    with pytest.raises(ValueError, match=r"rows: the table hardest\.hardest takes only attack, "):
        src.table(demo, rows="attack", **words)


def test_the_best_and_what_cannot_be_told_from_it_are_marked():
    assert cells_of(table(ordinary(), to="markdown", average=False)) == [
        ["source", "attack", "vgg", "vit"],
        ["vgg", "fgsm", "100.0 †", "10.0"],
        ["", "mi", "100.0 †", "**100.0**"],
        ["", "di", "100.0 †", "*95.0*"],
        ["vit", "fgsm", "20.0", "90.0 †"],
        ["", "mi", "**80.0**", "90.0 †"],
        ["", "di", "**80.0**", "90.0 †"],
    ]
    assert cells_of(table(ordinary(), rows="attack", value="accuracy", to="markdown")) == [
        ["attack", "vgg", "vit", "average"],
        ["fgsm", "80.0", "90.0", "85.0"],  # white boxes are in no mean
        ["mi", "**20.0**", "**0.0**", "**10.0**"],  # the least is the best
        ["di", "**20.0**", "*5.0*", "*12.5*"],
    ]


def test_nothing_is_marked_that_no_ranking_compares():
    targeted = REPOSITORY / "docs/results/targeted"
    text = src.table(targeted, rows="attack", value="accuracy", to="markdown")
    assert cells_of(text)[1][1:] == ["53.1", "33.6", "43.4"]
    white = table(frame_of({("mi", "a", "a"): 5, ("di", "a", "a"): 9}), to="markdown")
    assert [row[-1] for row in cells_of(white)[1:]] == ["25.0 †", "45.0 †"]
    frame = frame_of({("mi", "a", "b"): 20, ("l2", "a", "b"): 5})
    assert "**" in table(frame, to="markdown")
    frame.attrs[JOBS][1]["norm"] = "l2"
    assert "**" not in table(frame, to="markdown")
    with pytest.raises(ValueError, match=r"norm \(linf, l2\)"):
        src.tries(results_of_frame(frame))


def test_conditional_success_is_of_images_that_fool_the_source():
    frame = frame_of(
        {("fgsm", "vgg", "vgg"): 10, ("fgsm", "vgg", "vit"): 5}
        | {("mi", "vgg", "vgg"): 4, ("mi", "vgg", "vit"): 5}  # too few images fool the source
        | {("fgsm", "vit", "vgg"): 10}  # the source was not evaluated
    )
    text = table(frame, value="conditional", to="markdown")
    rows = [[NONE, "50.0", "50.0"], [NONE, "n/a", "n/a"], ["n/a", NONE, "n/a"]]
    assert [row[2:] for row in cells_of(text)[1:]] == rows
    assert text == table(frame, value="conditional", protocol="all", to="markdown")
    with pytest.raises(ValueError, match=r"no pair has a value.*fooled on 10"):
        table(frame[frame["attack"] == "mi"], value="conditional")


def test_nothing_is_averaged_over_defences():
    frame = frame_of({("mi", "a", "b"): 20, ("bim", "a", "b"): 5})
    behind = frame[frame["target"] == "b"].assign(defence="jpeg")
    behind.loc[behind["eps_255"] > 0, "predicted"] = 0
    both = pd.concat([frame, behind], ignore_index=True)
    both.attrs[JOBS] = [{**one, "defences": ["jpeg"]} for one in frame.attrs[JOBS]]
    found = cells_of(table(both, value="counts", clean=True, to="markdown"))
    assert found[1:4] == [  # defences become rows
        ["clean", "", "none", "40 / 40 = 100.00%"],
        ["", "", "jpeg", "40 / 40 = 100.00%"],
        ["a", "mi", "none", "0 / 40 = 0.00%"],
    ]
    found = cells_of(table(both, defence="jpeg", to="markdown"))
    assert [row[-1] for row in found[1:]] == ["0.0"] * 2
    found = cells_of(table(both, columns=["target", "defence"], to="markdown"))
    assert found[0][-2:] == ["b none", "b jpeg"]  # no mean is over them
    assert found[1] == ["a", "mi", "**100.0**", "0.0"]
    with pytest.raises(ValueError, match="defence=gblur: "):
        table(both, defence="gblur")


def test_means_are_over_sources_and_targets_alone():
    frame = frame_of({("mi", "a", "b"): 20, ("mi", "c", "b"): 5, ("mi", "a@jpeg", "b"): 10})
    assert cells_of(table(frame, rows="attack", to="markdown"))[1] == ["mi", "62.5"]
    found = cells_of(table(frame, rows="target", columns="source", to="markdown"))
    assert found[0] == ["target", "a", "c", "a@jpeg"]
    assert "average" not in table(ordinary(), rows="source", columns="attack", to="markdown")
    defended = frame_of({("mi", f"a@{name}", "b"): 10 for name in ("jpeg", "gblur")})
    with pytest.raises(ValueError, match="add source to rows"):
        table(defended, rows="attack")
    frame = frame_of({("fgsm", "vgg", "net"): 12, ("fgsm", "vit@jpeg", "net"): 2})
    assert table(frame, rows="attack", columns="source", to="csv").splitlines() == [
        "attack,vgg,vit@jpeg",
        "fgsm,0.6,0.1",
    ]


def test_partial_means_are_marked():
    pairs = [(source, target) for source in ("vgg", "vit") for target in ("net", "other")]
    frame = frame_of({("fgsm", *pair): 12 for pair in pairs})
    clean, half = frame["eps_255"] == 0, frame["index"] < 20
    wrong = frame["target"].eq("vgg") & half | frame["target"].eq("net") & ~half
    frame.loc[clean & wrong, "predicted"] = 1  # the pair vgg -> net counts no image
    for rows, columns, name in (("source", "target", "vgg"), ("target", "source", "net")):
        cells = cells_of(table(frame, rows=rows, columns=columns, to="markdown"))
        assert [row[0] for row in cells if row[-1].endswith("‡")] == [name]
    fooled = dict.fromkeys([("fgsm", "vgg"), ("fgsm", "vit"), ("mi", "vgg")], 12)
    frame = frame_of({(*job, target): 12 for job in fooled for target in ("vgg", "vit")})
    text = table(frame, rows="attack", to="markdown", average=False)
    assert "‡" not in text and "†" in text  # a mean lacks no white box


def test_names_are_text_in_every_format():
    latex = table(ordinary("hostile"), to="latex")
    body = latex[latex.index(r"\begin{tabular}") :]
    rows = re.findall(r"^.* & .* \\\\$", body, re.M)
    assert [row.count(" & ") for row in rows] == [4] * 7
    assert [body.count(rf"\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 2, 1]
    assert r"\begin{tabular}{llrrr}" in body and latex.count("{") == latex.count("}")
    for name in (r"a\_b", r"=b\%", r"\&x", r"-y\#", r"@\textbackslash{}z"):
        assert f"{name} &" in body, name
    assert not re.search(r"(?<!\\)[%#_]", re.sub(r"(?m)\[HTML\]|^% .*", "", latex))
    head, *rows = csv.reader(io.StringIO(table(ordinary("hostile"), to="csv")))
    assert head == ["source", "attack", "a_b", "'=b%", "average"]  # no cell is a formula
    assert {row[1] for row in rows} == {"&x", "'-y#", "'@\\z"}
    page = table(frame_of({("<b>", "a", "b"): 3}))._repr_html_()
    assert "&lt;b&gt;" in page and "<b>" not in page and "<caption>" in page
    frame = frame_of({("fgsm", "source", target): 12 for target in ("target", "attack")})
    head, row = table(frame, rows=["attack", "source"], to="csv", average=False).splitlines()
    assert head == "attack,source,target,attack" and row.startswith("fgsm,source,")


@pytest.mark.parametrize("width", [40, 160])  # a row a pair, a row a source
def test_no_cell_of_a_matrix_is_cut_off_at_any_width_and_white_boxes_are_marked(width):
    long = "Q" * 33  # a letter that is nowhere else, however a name is folded
    jobs = [(source, target) for source in ("vgg", long) for target in ("vgg", long, "vit")]
    frame = frame_of({("fgsm", *pair): 2 + 3 * at for at, pair in enumerate(jobs[:-1])})
    (forms,) = matrices(results_of_frame(frame)).values()
    console = Console(width=width, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(fitting(forms, width).terminal())
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= width
    cells = [f"{'*' * (a == b)}{40 - 2 * (2 + 3 * at)}" for at, (a, b) in enumerate(jobs[:-1])]
    found = Counter(re.findall(r"\*?\d+(?= / 40 =)", capture.get()))
    assert found == Counter([*cells, *["40"] * 3])  # and the clean images
    empty = [line for line in lines if line.split()[-1:] == ["-"]]
    assert len(empty) == (width == 160)  # a pair that was not run


def test_captions_state_steps_number_formats_and_the_attack_that_no_row_names():
    sizes = {"relative": {"relative_step_size": 0.25}, "fixed": {"step_size_255": 2.0}, "even": {}}
    frame = frame_of(dict.fromkeys([(name, "a", "b") for name in (*sizes, "fgsm")], 5))
    for record in frame.attrs[JOBS]:
        if record["attack"] in sizes:
            settings = {"steps": 20, "step_size_255": None, "relative_step_size": None}
            record["config"]["attack"]["settings"] = settings | sizes[record["attack"]]
    text = table(frame, to="markdown")
    assert "relative 20 x 0.25 eps, fixed 20 x 2/255, even 20 x 0.05 eps, fgsm 10." in text
    frame = frame_of({("fgsm", source, target): 10 for source in "ab" for target in "ab"})
    text = table(frame, rows="source", to="latex", names={"fgsm": "FGSM"})
    assert "under FGSM" in text and "under" not in table(frame, to="latex")
    for fact, other in (("storage", "uint8"), ("precision", "bf16-mixed")):
        assert "Arithmetic" not in table(frame, to="markdown")
        frame.attrs[JOBS][1][fact] = other
        its = frame["source"].eq("b") & (fact == "storage")
        mixed = frame.assign(variant=frame["variant"].mask(its, other))
        mixed.attrs = frame.attrs
        assert "Arithmetic: float32, saved as float32; " in table(mixed, to="markdown")
        frame.attrs[JOBS][1][fact] = frame.attrs[JOBS][0][fact]


REFUSED = [
    ({"rows": "model"}, "rows=model: choose from attack, source, target, defence"),
    ({"columns": ["target", "source"]}, "source"),
    ({"rows": ["attack", "attack"]}, "attack"),
    ({"rows": 3}, "rows"),
    ({"eps_255": "8"}, "eps_255"),
    ({"to": ""}, "to="),
    ({"vaule": "success"}, "vaule"),
    ({"value": "rate"}, "value=rate: choose from success"),
    ({"to": "word"}, "to=word: choose from latex, markdown, html, csv"),
    ({"rows": "source"}, "add attack to rows or columns"),
    ({"eps_255": 3}, "eps_255=3, protocol=joint: fgsm on vgg has the budgets 4.0, 8.0"),
    ({"protocol": "any"}, "protocol=any"),
    ({"eps_255": 0}, "has the budgets 4.0, 8.0"),
    ({"clean": True}, "clean needs source or attack in rows"),
    ({"clean": True, "value": "accuracy", "columns": "defence"}, "clean needs source or"),
    ({"value": "counts", "rows": "attack"}, "value=counts needs source and target"),
    ({"differences": True, "value": "accuracy"}, "differences needs"),
    ({"published": True, "rows": "attack"}, "published needs attack"),
    ({"published": True, "value": "accuracy"}, "published needs attack"),
    ({"names": {"mi": "di"}}, "the same new name"),
    ({"name": "matrix", "attack": "pgd"}, "attack=pgd: choose from fgsm, mi, di"),
    *(({"name": its}, f"name={its}: ") for its in ("nosuch", "no.such", "csv.nosuch", "math.pi")),
]


def test_what_cannot_be_is_refused():
    results = results_of_frame(ordinary())
    for words, sentence in REFUSED:
        with pytest.raises(ValueError, match=re.escape(sentence)):
            src.table(results, **words)
    frame = ordinary()
    other = (frame["source"] == "vit") & (frame["index"] >= 30)
    frame.loc[other & (frame["eps_255"] == 0), "predicted"] = 1
    with pytest.raises(ValueError, match="the same clean images"):
        table(frame, value="counts", clean=True)


@pytest.fixture
def run_table(run_in, tmp_path, capfd):
    """A function that runs `python -m src.table` and returns what it prints and what it warns."""

    def run(*words: str | Path) -> tuple[str, str]:
        assert run_in(tmp_path, *map(str, words), module="src.table") == 0
        return capfd.readouterr()

    return run


def test_the_command_line_prints_the_table_of_a_folder(run_table, tmp_path):
    words = [DEMO, "--rows", "attack", "--to", "csv", "--no-average", "--out", "t.csv"]
    _, warned = run_table(*words, "--names", "vgg_small=VGG", "vgg_smal=V", "--names", "fgsm=F")
    assert "vgg_smal:" in warned and "vgg_small:" not in warned and "fgsm" not in warned
    expected = src.table(
        DEMO, rows="attack", to="csv", average=False, names={"vgg_small": "VGG", "fgsm": "F"}
    )
    assert (tmp_path / "t.csv").read_text() == expected
    shutil.copytree(DEMO / "0-fgsm-vgg_small", tmp_path / "0-a")
    (tmp_path / "0-a" / ".hydra").mkdir()
    (tmp_path / "0-a" / ".hydra" / "config.yaml").write_text("sweep: a\n")
    write_manifest(tmp_path, SweepManifest(jobs=["attack=fgsm", "attack=mi"], single=False, id="a"))
    printed, warned = run_table(tmp_path, "--to", "csv")
    assert "1 of 2 jobs are not done" in warned and printed.startswith("source,attack,")


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs LaTeX")
def test_five_targets_fit_a_column(tmp_path):
    names = {"vgg_small": "VGG", "resnet_small": "ResNet", "inception_small": "Incept."}
    names |= {"mobilenet_small": "MobNet", "vit_small": "ViT"}
    text = src.table(DEMO, names=names, small=True, to="latex")
    page = r"\documentclass[10pt]{article}\usepackage[textwidth=3.3in]{geometry}"
    page += r"\usepackage{booktabs,xcolor}\begin{document}" + text + r"\end{document}"
    (tmp_path / "page.tex").write_text(page)
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "Overfull" not in done.stdout, done.stdout
