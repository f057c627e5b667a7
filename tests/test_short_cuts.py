"""The short cut of tests composes what Hydra composes."""

import pytest


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["attack=bim", "attack.steps=2", "hydra.run.dir=out"], marks=pytest.mark.slow),
        ["-m", "attack=fgsm,bim", "source=coarse,fine", "seed=1", "hydra.sweep.dir=out"],
        pytest.param(
            ["experiment=demo", "+dataset.note=1", "~attack.norm", "targets=[coarse]"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_short_cut_composes_what_the_command_composes(run_job, command_line, capsys, words):
    texts = set()
    for run in (command_line, run_job, run_job):
        assert run("--cfg=all", *words) == 0
        texts.add(capsys.readouterr().out)
    (text,) = texts
    assert "config_sources:" in text and "\nattack:" in text
