"""Tables for papers: marks and means by hand, names in every format."""

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import src
from src.artifacts.sweep_state import SweepManifest, write_manifest
from src.report.results import COLUMNS
from src.utils.model_names import TARGET_COLUMNS, ModelRef
from tests.conftest import REPOSITORY
from tests.records import JOBS, make_record, results_of_frame

IMAGES = 40
BUDGETS = (0.0, 4.0, 8.0)
NAMES = {
    "plain": ("vgg", "vit", "fgsm", "mi", "di"),
    "hostile": ("a_b", "=b%", "&x", "-y#", "@\\z"),
}


def frame_of(fooled: dict[tuple[str, str, str], int]) -> pd.DataFrame:
    """Return a frame in which so many of 20 images are fooled by attack, source and target.

    That is at 8/255; at 4/255 half as many are, on the clean images none; fooled are the first.
    """
    parts, records = [], []
    jobs = {(attack, source): 0 for attack, source, _ in fooled}
    targets = list(dict.fromkeys(target for *_, target in fooled))
    for attack, source in jobs:
        for target in dict.fromkeys((source, *targets)):
            for eps in BUDGETS:
                count = fooled.get((attack, source, target), 0) * eps // 8 * IMAGES // 20
                if (attack, source, target) not in fooled and eps:
                    continue
                names = {"attack": attack, "source": source}
                names |= dict(zip(TARGET_COLUMNS, ModelRef.parse(target).columns, strict=True))
                names |= {"norm": "linf", "protocol": "joint", "variant": "float32"}
                predicted = (np.arange(IMAGES) < count).astype(int)
                rows = {"index": range(IMAGES), "label": 0, "predicted": predicted, "draws": 1}
                numbers = {"confidence": 0.75, "true_confidence": 0.5, "eps_255": eps}
                cost = {"gradients": 7.0 * (eps > 0), "forwards": 9.0 * (eps > 0)}
                parts.append(pd.DataFrame({**names, **rows, **numbers, **cost}))
        config = {"attack": {"kind": "crafted", "settings": {"steps": 10}}}
        config["model"] = {name: {"network": {"model_name": f"{name}.tv_in1k"}} for name in targets}
        records.append(
            make_record(
                **{"key": attack + source, "data": "0123456789abcdef", "images": IMAGES},
                **{"class_names": ("cat", "dog"), "weights": dict.fromkeys(targets, "fedcba9876")},
                **{"source": source, "targets": targets, "attack": attack, "seed": 5},
                **{"budgets": BUDGETS, "reference": 8.0, "dataset": "ten"},
                **{"versions": {"torch": "2.15.0", "transferability": "0.5.0"}},
                **{"config": config, "commit": "unknown"},
            ).model_dump(mode="json")
        )
    rows = pd.concat(parts, ignore_index=True).assign(target_label=pd.NA, draws_correct=pd.NA)
    rows = rows.astype({"target_label": "Int64", "draws_correct": "Int64"})[[*COLUMNS]]
    rows.attrs[JOBS] = records
    return rows


def ordinary(kind: str = "plain") -> pd.DataFrame:
    """Two sources, three attacks; MI fools most, DI one image fewer, FGSM far fewer."""
    a, b, *attacks = NAMES[kind]
    counts = {"first": (2, 20, 19), "second": (4, 16, 16)}
    return frame_of(
        {(attack, a, a): 20 for attack in attacks}
        | {(attack, a, b): counts["first"][number] for number, attack in enumerate(attacks)}
        | {(attack, b, a): counts["second"][number] for number, attack in enumerate(attacks)}
        | {(attack, b, b): 18 for attack in attacks}
    )


def table(frame: pd.DataFrame, **options):
    return src.table(results_of_frame(frame), **options)


def cells_of(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_best_and_what_cannot_be_told_from_it_are_marked():
    head, _, *body = cells_of(table(ordinary(), to="markdown", average=False))
    assert head == ["source", "attack", "vgg", "vit"]
    assert body == [
        ["vgg", "fgsm", "100.0 †", "10.0"],
        ["", "mi", "100.0 †", "**100.0**"],
        ["", "di", "100.0 †", "*95.0*"],
        ["vit", "fgsm", "20.0", "90.0 †"],
        ["", "mi", "**80.0**", "90.0 †"],
        ["", "di", "**80.0**", "90.0 †"],
    ]


def test_of_robust_accuracy_the_least_is_the_best():
    head, _, *body = cells_of(table(ordinary(), rows="attack", value="accuracy", to="markdown"))
    assert head == ["attack", "vgg", "vit", "average"]
    assert body == [
        ["fgsm", "80.0", "90.0", "85.0"],  # white boxes are in no mean
        ["mi", "**20.0**", "**0.0**", "**10.0**"],
        ["di", "**20.0**", "*5.0*", "*12.5*"],
    ]


def test_conditional_success_is_of_images_that_fool_the_source():
    frame = frame_of(
        {("fgsm", "vgg", "vgg"): 10, ("fgsm", "vgg", "vit"): 5}
        | {("mi", "vgg", "vgg"): 4, ("mi", "vgg", "vit"): 5}  # too few images fool the source
        | {("fgsm", "vit", "vgg"): 10}  # the source was not evaluated
    )
    text = table(frame, value="conditional", to="markdown")
    none = "\N{EN DASH}"
    assert [row[2:] for row in cells_of(text)[2:]] == [
        [none, "50.0", "50.0"],
        [none, "n/a", "n/a"],
        ["n/a", none, "n/a"],
    ]
    assert text == table(frame, value="conditional", protocol="all", to="markdown")
    with pytest.raises(ValueError, match=r"no pair has a value.* target, too .*fooled on 10"):
        table(frame[frame["attack"] == "mi"], value="conditional")


def test_clean_accuracies_need_equal_images():
    frame = ordinary()
    other = (frame["source"] == "vit") & (frame["index"] >= 30)
    frame.loc[other & (frame["eps_255"] == 0), "predicted"] = 1
    with pytest.raises(ValueError, match="the same clean images"):
        table(frame, value="counts", clean=True)


def test_what_no_ranking_has_is_shown_without_marks():
    targeted = REPOSITORY / "docs/results/targeted"
    text = src.table(targeted, rows="attack", value="accuracy", to="markdown")
    assert cells_of(text)[2][1:] == ["53.1", "33.6", "43.4"]
    white = table(frame_of({("mi", "a", "a"): 5, ("di", "a", "a"): 9}), to="markdown")
    assert [row[-1] for row in cells_of(white)[2:]] == ["25.0 †", "45.0 †"]


def test_attacks_are_compared_within_one_norm_alone():
    frame = frame_of({(attack, "a", "b"): count for attack, count in {"mi": 20, "l2": 5}.items()})
    assert "**" in table(frame, to="markdown")
    frame.attrs[JOBS][1]["norm"] = "l2"
    assert "**" not in table(frame, to="markdown")
    with pytest.raises(ValueError, match=r"norm \(linf, l2\)"):
        src.tries(results_of_frame(frame))


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs LaTeX")
def test_five_targets_fit_a_column(tmp_path):
    names = {"vgg_small": "VGG", "resnet_small": "ResNet", "inception_small": "Incept."}
    names |= {"mobilenet_small": "MobNet", "vit_small": "ViT"}
    text = src.table(REPOSITORY / "docs/results/demo", names=names, small=True, to="latex")
    page = r"\documentclass[10pt]{article}\usepackage[textwidth=3.3in]{geometry}"
    page += r"\usepackage{booktabs,xcolor}\begin{document}" + text + r"\end{document}"
    (tmp_path / "page.tex").write_text(page)
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "Overfull" not in done.stdout, done.stdout


def test_latex_has_the_structure_of_booktabs_and_escapes_names():
    latex = table(ordinary("hostile"), to="latex")
    body = latex[latex.index(r"\begin{tabular}") :]
    rows = re.findall(r"^.* & .* \\\\$", body, re.M)
    assert [row.count(" & ") for row in rows] == [4] * 7
    assert [body.count(rf"\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 2, 1]
    assert r"\begin{tabular}{llrrr}" in body and latex.count("{") == latex.count("}")
    for name in (r"a\_b", r"=b\%", r"\&x", r"-y\#", r"@\textbackslash{}z"):
        assert f"{name} &" in body, name
    assert not re.search(r"(?<!\\)[%#_]", re.sub(r"(?m)\[HTML\]|^% .*", "", latex))


def test_no_cell_of_a_csv_is_a_formula():
    rows = list(csv.reader(io.StringIO(table(ordinary("hostile"), to="csv"))))
    assert rows[0] == ["source", "attack", "a_b", "'=b%", "average"]
    assert {row[1] for row in rows[1:]} == {"&x", "'-y#", "'@\\z"}


def test_a_notebook_gets_a_table_with_escaped_names():
    page = table(frame_of({("<b>", "a", "b"): 3}))._repr_html_()
    assert "&lt;b&gt;" in page and "<b>" not in page and "<caption>" in page


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
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
    ],
)
def test_what_cannot_be_is_refused(words, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        table(ordinary(), **words)


@pytest.fixture
def run_table(run_in, tmp_path, capfd):
    """A function that runs `python -m src.table` and returns what it prints and what it warns."""

    def run(*words: str | Path) -> tuple[str, str]:
        assert run_in(tmp_path, *map(str, words), module="src.table") == 0
        return capfd.readouterr()

    return run


@pytest.mark.slow
def test_the_command_line_prints_the_table_of_a_folder(run_table, tmp_path):
    folder = REPOSITORY / "docs" / "results" / "demo"
    words = [folder, "--rows", "attack", "--to", "csv", "--no-average"]
    printed, _ = run_table(*words)
    assert printed == src.table(folder, rows="attack", to="csv", average=False)
    run_table(*words, "--out", "t.csv")
    assert (tmp_path / "t.csv").read_text() == printed


def test_a_printed_name_that_nothing_has_is_reported(run_table):
    folder = REPOSITORY / "docs" / "results" / "demo"
    _, warned = run_table(folder, "--names", "vgg_small=VGG", "vgg_smal=V", "--names", "fgsm=F")
    assert "vgg_smal:" in warned and "vgg_small:" not in warned and "fgsm" not in warned


def test_the_caption_states_the_number_and_size_of_steps():
    sizes = {"relative": {"relative_step_size": 0.25}, "fixed": {"step_size_255": 2.0}, "even": {}}
    frame = frame_of(dict.fromkeys([(name, "a", "b") for name in (*sizes, "fgsm")], 5))
    for record in frame.attrs[JOBS]:
        if record["attack"] in sizes:
            settings = {"steps": 20, "step_size_255": None, "relative_step_size": None}
            record["config"]["attack"]["settings"] = settings | sizes[record["attack"]]
    text = table(frame, to="markdown")
    assert "Steps: relative 20 x 0.25 eps, fixed 20 x 2/255, even 20 x 0.05 eps, fgsm 10." in text


def test_jobs_that_are_not_done_are_counted(run_table, tmp_path):
    shutil.copytree(REPOSITORY / "docs" / "results" / "demo" / "0-fgsm-vgg_small", tmp_path / "0-a")
    (tmp_path / "0-a" / ".hydra").mkdir()
    (tmp_path / "0-a" / ".hydra" / "config.yaml").write_text("sweep: a\n")
    write_manifest(tmp_path, SweepManifest(jobs=["attack=fgsm", "attack=mi"], single=False, id="a"))
    printed, warned = run_table(tmp_path, "--to", "csv")
    assert "1 of 2 jobs are not done" in warned and printed.startswith("source,attack,")


def test_nothing_is_averaged_over_defences():
    frame = frame_of({("mi", "a", "b"): 20, ("bim", "a", "b"): 5})
    behind = frame[frame["target"] == "b"].assign(defence="jpeg")
    behind.loc[behind["eps_255"] > 0, "predicted"] = 0
    both = pd.concat([frame, behind], ignore_index=True)
    both.attrs[JOBS] = [{**one, "defences": ["jpeg"]} for one in frame.attrs[JOBS]]
    found = cells_of(table(both, to="markdown"))  # defences become rows
    assert [row[2] for row in found[2:]] == ["none", "jpeg"] * 2
    found = cells_of(table(both, value="counts", clean=True, to="markdown"))
    assert found[2:5] == [
        ["clean", "", "none", "40 / 40 = 100.00%"],
        ["", "", "jpeg", "40 / 40 = 100.00%"],
        ["a", "mi", "none", "0 / 40 = 0.00%"],
    ]
    found = cells_of(table(both, defence="jpeg", to="markdown"))
    assert [row[-1] for row in found[2:]] == ["0.0"] * 2
    with pytest.raises(ValueError, match="defence=gblur: "):
        table(both, defence="gblur")
    found = cells_of(table(both, columns=["target", "defence"], to="markdown"))
    assert found[0][-2:] == ["b none", "b jpeg"]  # no mean is over them
    assert found[2] == ["a", "mi", "**100.0**", "0.0"]


def test_means_are_over_sources_and_targets_alone():
    frame = frame_of({("mi", "a", "b"): 20, ("mi", "c", "b"): 5, ("mi", "a@jpeg", "b"): 10})
    text = table(frame, rows="attack", columns="target", to="markdown")
    assert cells_of(text)[2] == ["mi", "62.5"]
    assert "means over sources: without ensembles and sources behind a defence" in text
    defended = frame_of({("mi", f"a@{name}", "b"): 10 for name in ("jpeg", "gblur")})
    with pytest.raises(ValueError, match="add source to rows"):
        table(defended, rows="attack", columns="target")
    found = cells_of(table(frame, rows="target", columns="source", to="markdown"))
    assert found[0] == ["target", "a", "c", "a@jpeg"]
    assert "average" not in table(ordinary(), rows="source", columns="attack", to="markdown")


def test_a_caption_names_the_attack_that_no_row_names():
    frame = frame_of({("fgsm", source, target): 10 for source in "ab" for target in "ab"})
    text = table(frame, rows="source", to="latex", names={"fgsm": "FGSM"})
    assert "under FGSM at eps" in text and "under" not in table(frame, to="latex")
