"""Tables by name and for papers: marks and means by hand, and every table in every format."""

import csv
import io
import re
from functools import partial

import pandas as pd
import pytest

import src
from tests.conftest import REPOSITORY
from tests.records import JOBS, results_of_frame
from tests.report.frames import cells_of, frame_of, ordinary, table

DEMO = REPOSITORY / "docs" / "results" / "demo"


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
    white = table(frame_of({("mi", "a", "a"): 5, ("di", "a", "a"): 9}), to="markdown")
    assert [row[-1] for row in cells_of(white)[1:]] == ["25.0 †", "45.0 †"]
    frame = frame_of({("mi", "a", "b"): 20, ("l2", "a", "b"): 5})
    assert "**" in table(frame, to="markdown")
    frame.attrs[JOBS][1]["norm"] = "l2"
    assert "**" not in table(frame, to="markdown")
    with pytest.raises(ValueError, match=r"norm \(linf, l2\)"):
        src.tries(results_of_frame(frame))


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
    found = cells_of(table(both, columns=["target", "defence"], to="markdown"))
    assert found[0][-2:] == ["b none", "b jpeg"]  # no mean is over them
    assert found[1] == ["a", "mi", "**100.0**", "0.0"]
    with pytest.raises(ValueError, match="defence=gblur: "):
        table(both, defence="gblur")


def test_budgets_are_rows_or_columns_of_cells_with_marks_of_their_own():
    frame = ordinary()
    assert cells_of(table(frame, rows="attack", columns="budget", to="markdown")) == [
        ["attack", "4/255", "8/255"],
        *(["fgsm", "7.5", "15.0"], ["mi", "**45.0**", "**90.0**"], ["di", "*42.5*", "*87.5*"]),
    ]
    rows = cells_of(table(frame, rows=["budget", "attack"], columns="target", to="markdown"))
    for eps, at in ((4, rows[1:4]), (8, rows[4:])):
        alone = cells_of(table(frame, rows="attack", eps_255=eps, to="markdown"))
        assert [row[1:] for row in at] == alone[1:] and at[0][0] == f"{eps}/255"
    counts = table(frame, rows=["attack", "source", "target"], columns="budget", value="counts")
    assert cells_of(str(counts))[2] == ["", "", "vit", "38 / 40 = 95.00%", "36 / 40 = 90.00%"]


def test_partial_means_are_marked():
    pairs = [(source, target) for source in ("vgg", "vit") for target in ("net", "other")]
    frame = frame_of({("fgsm", *pair): 12 for pair in pairs})
    clean, half = frame["eps_255"] == 0, frame["index"] < 20
    wrong = frame["target"].eq("vgg") & half | frame["target"].eq("net") & ~half
    frame.loc[clean & wrong, "predicted"] = 1  # the pair vgg -> net counts no image
    for rows, columns, name in (("source", "target", "vgg"), ("target", "source", "net")):
        cells = cells_of(table(frame, rows=rows, columns=columns, to="markdown"))
        assert [row[0] for row in cells if row[-1].endswith("‡")] == [name]


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


REFUSED = [
    ({"rows": "model"}, "rows=model: choose from attack, source, target, defence"),
    ({"vaule": "success"}, "vaule"),
    ({"to": "word"}, "to=word: choose from latex, markdown, html, csv"),
    ({"value": "sucess"}, "ssim, counts. Did you mean success?"),
    ({"rows": "source"}, "add attack to rows or columns"),
    ({"eps_255": 3}, "eps_255=3, protocol=joint: fgsm on vgg has the budgets 4.0, 8.0"),
    ({"protocol": "any"}, "protocol=any"),
    ({"clean": True}, "clean needs source or attack in rows"),
    ({"value": "counts", "rows": "attack"}, "value=counts needs source and target"),
    ({"differences": True, "value": "accuracy"}, "differences needs"),
    ({"differences": True, "rows": "attack", "columns": "budget"}, "Leave budget out of columns."),
    ({"columns": "budget", "eps_255": 4}, "budget shows all budgets"),
    ({"columns": "budget", "value": "gradients"}, "leave out value=gradients and"),
    ({"name": "matrix", "names": {"mi": "M"}}, "Of the table transfer, rows=source and value"),
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


def test_the_command_line_writes_the_table_of_a_folder(run_in, tmp_path, capfd):
    line = partial(run_in, tmp_path, module="src.table")
    words = ["--rows", "attack", "--to", "csv", "--no-average", "--out", "t.csv"]
    names = ["--names", "vgg_small=VGG", "vgg_smal=V", "--names", "fgsm=F"]
    assert line(str(DEMO), *words, *names) == 0
    warned = capfd.readouterr().err
    assert "vgg_smal:" in warned and "vgg_small:" not in warned and "fgsm" not in warned
    shown = {"rows": "attack", "average": False, "names": {"vgg_small": "VGG", "fgsm": "F"}}
    assert (tmp_path / "t.csv").read_text() == src.table(DEMO, to="csv", **shown)
    assert line(str(DEMO), "--eps", "1", "2", "4") == 2
    assert "--eps takes one budget, not 2, too. All: --columns budget." in capfd.readouterr().err
    assert line(str(DEMO), "--as", "matrix", "--rows", "attack") == 2
    assert "rows: the table matrix takes only attack" in capfd.readouterr().err


def test_keywords_of_a_table_of_the_users_are_options(run_in, tmp_path, capfd, monkeypatch):
    code = """from src.report import Grid
def own(results, limits: list[float], count: int | None = None, upper=False):
    return Grid(["limits", "count", "upper"], [[repr(limits), repr(count), repr(upper)]])
def taken(results, beside=1): ..."""
    (tmp_path / "mytables.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    line = partial(run_in, tmp_path, str(DEMO), "--to", "csv", "--as", module="src.table")
    assert line("mytables.own", "--limits", "1", "2.5", "--count", "3", "--upper") == 0
    assert '"[1.0, 2.5]",3,True' in capfd.readouterr().out
    assert line("mytables.own") == 2 and "--limits" in capfd.readouterr().err
    assert line("mytables.taken") == 2
    assert "beside is an option of every table. Rename the" in capfd.readouterr().err
