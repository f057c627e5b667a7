"""`experiment=audit`: from the command to its sentence, compared with the stored predictions."""

import re
from dataclasses import replace
from hashlib import sha256
from html import unescape

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from scipy.stats import chi2_contingency

from src import load_classifier, tries
from src.analysis.tries import left_by_class
from src.api.frames import frame_of
from src.artifacts.jobs import FinishedJob
from src.attacks.__main__ import listed
from src.report.beside import read_preset
from tests.analysis.test_tries import outcomes_of
from tests.conftest import REPOSITORY, TINY_RUN

AUDIT = REPOSITORY / "conf" / "experiment" / "audit.yaml"
OWN = ("source=", "dataset=", "report=", "epsilon.", "targets=", "n_images=")
WORDS = [word for word in TINY_RUN if not word.startswith(OWN)]
WORDS += ["-m", "experiment=audit", "source=coarse", "attack=fgsm,bim", "n_images=60"]
SENTENCE = re.compile(
    r"an attacker needs (\d+) candidates? to fool ([\d.]+)%.* of the images of (\S+) at "
    r"4/255; all (\d+) fool ([\d.]+)%"
)


@pytest.fixture(scope="module")
def audited(new_workspace, run_in, printed_by):
    """The workspace of an audit of `fine`, also behind JPEG, and what the command has printed."""
    folder = new_workspace()
    words = ["targets=[fine,coarse]", "defences=[none,jpeg]", "hydra.sweep.dir=out"]
    code, printed = printed_by(run_in, folder, *WORDS, *words, "report.figures=true")
    assert code == 0
    return folder, printed


def test_the_sentence_is_that_of_the_stored_predictions(audited):
    folder, printed = audited
    rows = pd.concat(pd.read_parquet(path) for path in folder.glob("out/*/predictions.parquet"))
    rows = rows.assign(right=rows["predicted"] == rows["label"])
    said = {target: numbers for *numbers, target in map(_numbers, SENTENCE.findall(printed))}
    assert said.keys() == {"fine", "fine@jpeg"}  # the only source of the others is coarse
    assert "coarse: No image is left" in printed and "coarse@jpeg: No image is left" in printed
    for target, (q, share, every, reached) in said.items():
        name, _, defence = target.partition("@")
        its = rows[(rows["target"] == name) & (rows["defence"] == (defence or "none"))]
        source = rows[(rows["target"] == "coarse") & (rows["eps_255"] == 0)]
        source = source[(source["defence"] == "none") & source["right"]]
        clean = its[(its["eps_255"] == 0) & its["right"]]
        units = {*clean["index"]} & {*source["index"]}
        attacked = its[(its["eps_255"] == 4) & its["index"].isin(units)]
        left = attacked.groupby("index")["right"].all()
        assert every == 2 and reached == pytest.approx(100 * (1 - left.mean()), abs=0.051)
        assert 1 <= q <= 2 and 0.95 * reached <= share + 0.051
        assert f"the {len(units)} of 60 images" in printed
        labels = attacked.drop_duplicates("index").set_index("index")["label"]
        counts = left.groupby(labels).agg(["sum", "size"])
        texts = {f"{row['sum']} / {row['size']} = " for _, row in counts.iterrows()}
        line = printed.partition(f"images of {target} at")[2].partition("Easiest classes")[2]
        assert set(re.findall(r"\d+ / \d+ = ", line.partition("\n")[0])) <= texts


def _numbers(found: tuple[str, ...]) -> tuple[int, float, int, float, str]:
    q, share, target, every, reached = found
    return int(q), float(share), int(every), float(reached), target


def test_page_summary_and_figure_show_the_audit(audited):
    folder, printed = audited
    page = unescape((folder / "out" / "report.html").read_text())
    summary = (folder / "out" / "summary.txt").read_text()
    for line in printed.splitlines():
        if SENTENCE.search(line) or line.startswith(("Easiest", "Counted")):
            assert line in page and line in summary
    curves = pd.read_csv(folder / "out" / "figures" / "tries.csv").groupby("target")
    assert {*curves.groups} == {"fine", "fine@jpeg"}
    for *_, reached, target in map(_numbers, SENTENCE.findall(printed)):
        rows = curves.get_group(target)
        assert reached == pytest.approx(100 * rows["fooled"].iloc[-1], abs=0.051)
        assert (rows["fooled_low"] < rows["fooled_high"]).all()


def test_answers_give_the_audit_of_the_network_that_answered(audited, run_in, printed_by):
    folder, _ = audited
    saving = ["targets=coarse", "storage=uint8", "save_adversarial=true", "hydra.sweep.dir=images"]
    assert run_in(folder, *WORDS, *saving) == 0
    network = load_classifier("fine", "dataset=cifar10_mini", config_dir=folder / "conf")
    files = {sha256(file.read_bytes()).hexdigest(): file for file in folder.glob("images/**/*.png")}
    pixels = np.array([np.asarray(Image.open(file)) for file in files.values()])
    answers = network(torch.tensor(pixels).permute(0, 3, 1, 2) / 255).argmax(dim=1)
    table = pd.DataFrame({"sha256": list(files), "predicted": answers.tolist()})
    table.to_csv(folder / "answers.csv", index=False)
    asked = ["targets=answers", "model.answers.network.file=answers.csv", "storage=uint8"]
    found = []
    for words in ([*asked, "model.answers.network.images=[images]"], ["targets=fine", asked[-1]]):
        code, printed = printed_by(run_in, folder, *WORDS, *words)
        assert code == 0
        found.append(printed[printed.index("With public models") :].partition("report:")[0])
    assert found[0].replace("answers", "fine") == found[1]


def test_names_with_markup_and_targets_without_images_are_shown_as_they_are(
    audited, run_in, printed_by
):
    folder, _ = audited
    names = ["'<b>x</b>'", "'[red]y[/]'", *[f"c{number}" for number in range(8)]]
    words = [f"dataset.class_names=[{','.join(names)}]", "targets=[fine,coarse]"]
    more = ["n_images=60", "attack.target_label=next", "hydra.sweep.dir=marked"]
    code, printed = printed_by(run_in, folder, *WORDS, *words, *more)
    assert code == 0 and "to reach the target class on" in printed
    shown = [name.strip("'") for name in names if f" {name.strip(chr(39))} " in printed]
    page = (folder / "marked" / "report.html").read_text()
    assert shown and "<b>x</b>" not in page
    (line,) = (one for one in printed.splitlines() if one.startswith("Easiest classes"))
    assert line in unescape(page)


def test_classes_are_counted_and_compared():
    """With many images the permutation test agrees with Pearson's, which it is a form of."""
    random = np.random.default_rng(3)
    labels = random.integers(0, 5, 4000)
    counted = np.ones((2, 1, 4000), bool)
    counted[:, 0, :300] = False
    for shift in (0, 0.04, 0.1):
        fooled = random.random((2, 1, 4000)) < 0.3 + shift * (labels == 2)
        rows, p = left_by_class(outcomes_of([("a", "s"), ("b", "s")], "t", fooled, counted), labels)
        left = pd.Series(~fooled.any(axis=0)[0, 300:]).groupby(labels[300:]).agg(["sum", "size"])
        found = rows.set_index("label").sort_index()
        assert found["left"].tolist() == left["sum"].tolist()
        assert found["n"].tolist() == left["size"].tolist()
        assert found["share"].tolist() == (left["sum"] / left["size"]).tolist()
        assert ((found["share_low"] < found["share"]) & (found["share_high"] < 1)).all()
        assert rows["share"].is_monotonic_increasing
        pearson = chi2_contingency([left["sum"], left["size"] - left["sum"]]).pvalue
        assert p == pytest.approx(pearson, abs=0.02)
    alone = outcomes_of([("a", "s")], "t", random.random((1, 1, 40)) < 0.5)
    assert left_by_class(alone, np.arange(40))[1] == 1  # a class per image tells nothing


@pytest.mark.slow
def test_the_attacks_are_the_first_of_the_stored_ones():
    """Of those that work with any network at up to 20 gradients, in the order that tries learns."""
    params = yaml.safe_load(AUDIT.read_text())["hydra"]["sweeper"]["params"]
    sources = {*params["source"].split(",")}
    able = {name for name, _, about in listed() if not (about.needs or about.fit_gradients)}
    jobs = dict[str, list[FinishedJob]]()
    for job in read_preset("small")[1]:
        if job.row_title == job.record.attack and job.record.attack in able:
            jobs.setdefault(job.record.attack, []).append(job)
    chosen = []
    for its in jobs.values():
        cost = max(job.record.gradients / job.record.images for job in its)
        if {job.record.source for job in its} == sources and cost <= 20:
            chosen += its
    code = chosen[0].record.code  # later versions gave the same rows
    alike = [replace(job, record=job.record.model_copy(update={"code": code})) for job in chosen]
    found = tries(frame_of(alike))
    assert list(dict.fromkeys(found["attack"]))[:5] == params["attack"].split(",")
