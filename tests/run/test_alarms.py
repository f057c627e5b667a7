from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from rich.console import Console

from src import load_classifier, transfer
from src.analysis.sanity_checks import Alarm
from src.data import load_dataset
from src.defences import Jpeg
from src.report.summary import JobSummary, Summary
from src.report.terminal import print_alarms


def test_an_alarm_of_several_jobs_is_printed_once_with_its_causes():
    guessing = Alarm("clean_at_chance", "coarse: correct on 2 / 23")
    few = Alarm("few_images", "coarse -> fine: 2")
    empty = pd.DataFrame()
    jobs = [
        JobSummary(SimpleNamespace(folder=Path("out", name)), empty, empty, alarms)
        for name, alarms in (("0-fgsm", [guessing]), ("1-bim", [guessing, few]))
    ]
    console = Console(width=200, record=True)
    print_alarms(Summary(jobs), console)
    lines = console.export_text().splitlines()
    assert lines[0] == "ALARM 0-fgsm (and 1 more): clean_at_chance: coarse: correct on 2 / 23"
    assert "wrong mean or std" in lines[1]
    assert lines[2] == "ALARM 1-bim: few_images: coarse -> fine: 2" and len(lines) == 4


@pytest.mark.parametrize(("offset", "idle"), [(0, True), (4, False)])
def test_a_defence_that_hardly_changes_the_clean_images_raises_an_alarm(offset, idle, caplog):
    """The embedded images are JPEG files of this quality, on the grid without an offset."""
    data = load_dataset("test", {"_target_": "src.data.cifar10_mini.cifar10_mini"}, n_images=20)
    batch = data[:20]
    models = {"vgg_small": load_classifier("vgg_small", "experiment=demo")}
    options = {"attacks": ["fgsm"], "eps": 4 / 255, "defences": {"jpeg": Jpeg(offset=offset)}}
    transfer(models, models, batch.images, batch.labels, **options)
    found = [its.message for its in caplog.records if "defence jpeg: clean images" in its.message]
    assert len(found) == idle
