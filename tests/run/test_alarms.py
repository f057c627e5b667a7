from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from rich.console import Console

from src.analysis.sanity_checks import Alarm
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
