"""What commands may import: the libraries that compute with images take seconds."""

import json

import pytest

from tests.conftest import run_python

START = """
import json, sys
import src

LIBRARIES = {
    "altair", "matplotlib", "mlflow", "pandas", "pytorch_lightning", "scipy.stats", "timm", "torch",
    "torch._dynamo", "torchmetrics", "torchvision",
}
JOB = "experiment=demo attack=fgsm source=resnet_small targets=[vgg_small] n_images=4 trainer=cpu"
JOB += " tracking=none report=none hydra.run.dir=sweep/job"

def note(step, *words):
    assert not words or main([*words]) == 0
    noted[step] = sorted(LIBRARIES & sys.modules.keys())

noted = {}
note("import src")
"""
NEW = """
from src.main import main
note("--help", "--help")
import src.table
note("src.table")
note("new job", *JOB.split())
"""
STORED = """
from src.card import main
note("card", "sweep", "--out", "one.card")
from src.report.__main__ import main
note("report", "one.card", "out=page")
from src.main import main
note("plan", *JOB.split(), "plan=only")
note("stored job", *JOB.split())
"""
TELL = "print(json.dumps(noted))"


@pytest.mark.slow
def test_commands_import_what_they_use(tmp_path):
    def told(steps: str) -> dict[str, list[str]]:
        output = run_python("-c", START + steps + TELL, folder=tmp_path)
        assert "available" not in output  # Lightning's lines
        return json.loads(output.splitlines()[-1])

    new = told(NEW)
    assert new["import src"] == new["--help"] == [] and new["src.table"] == ["pandas"]
    assert not {"mlflow", "timm"} & {*new["new job"]}
    stored = told(STORED)
    assert stored["card"] == ["pandas"] and stored["report"] == ["altair", "pandas"]
    assert stored["plan"] == stored["stored job"] == ["altair", "pandas", "torch"]
