"""Jobs and trainings on a GPU: the same answers as on a CPU. `make gpu` runs these."""

import pyarrow.parquet as pq
import pytest

from src.utils.devices import computes_in_bfloat16
from tests.conftest import run_python

pytestmark = pytest.mark.gpu
BF16 = ["trainer.attack_precision=bf16", "trainer.precision=bf16-mixed"]


@pytest.mark.parametrize("words", [[], BF16], ids=["float32", "bfloat16"])
def test_a_job_on_a_gpu_predicts_what_it_predicts_on_a_cpu(run_job, words):
    if words and not computes_in_bfloat16("cuda"):
        pytest.skip("this GPU has no bfloat16")
    job = ["attack=pgd", "attack.steps=3", "controls=true", "diagnostics=full", *words]
    for device in ("cpu", "gpu"):
        assert run_job(*job, f"trainer={device}", f"hydra.run.dir={device}") == 0
    for name in ("predictions", "predictions-noise"):
        one, other = (pq.read_table(f"{at}/{name}.parquet").to_pandas() for at in ("cpu", "gpu"))
        assert len(one) == len(other) > 23
        assert (one["predicted"] == other["predicted"]).mean() > 0.95


def test_a_network_learns_on_a_gpu(run_job):
    words = ["trainer=gpu", "model.coarse.weights=null", "training.epochs=5"]
    assert run_job("attack=fgsm", *words, "clean_accuracy_check.action=stop") == 0


UNTOUCHED = """import torch
from src.utils.devices import free_gpu

def has_context(number):
    return torch._C._cuda_hasPrimaryContext(number)

real = torch.cuda.set_device
def set_device(number):
    assert not any(map(has_context, range(torch.cuda.device_count())))
    real(number)

torch.cuda.set_device = set_device
with free_gpu() as number:
    torch.zeros(1, device="cuda")
    assert has_context(number) and torch.cuda.current_device() == number
"""


def test_a_job_locks_its_gpu_before_it_makes_a_context(tmp_path):
    run_python("-c", UNTOUCHED, folder=tmp_path)
