"""Summary of a sweep: the numbers of each job alone, gathered by attack."""

import pandas as pd

from src.analysis import rates
from src.analysis.summary import summarise
from src.store.jobs import find_jobs


def test_a_summary_holds_each_jobs_rates_and_each_attacks_matrix(make_sweep):
    jobs = find_jobs([make_sweep(attacks=("fgsm", "bim"), full=True)])
    summary = summarise(jobs)
    for one, job in zip(summary.attacked, jobs, strict=True):
        own = job.record
        expected = rates(job.predictions, own.source, own.targets, own.protocol)
        pd.testing.assert_frame_equal(one.own[expected.columns].reset_index(drop=True), expected)
        (alone,) = summarise([job]).jobs
        pd.testing.assert_frame_equal(alone.rates, one.rates)
    assert [one.attack for one in summary.matrices] == ["fgsm", "bim"]
    fgsm, _ = summary.matrices
    assert fgsm.heading == "fgsm on made-up, eps = 8/255, protocol: joint"
    assert len(fgsm.cells) == 3 + 3 * 3
    row = rates(jobs[0].predictions, "vgg", ["vit"]).query("eps_255 == 8").iloc[0]
    cell = fgsm.cells.query("source == 'vgg' and target == 'vit'")["cell"].item()
    assert cell.startswith(f"{row['still_correct']} / {row['denominator']} = ")
