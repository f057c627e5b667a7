"""Attacks on a GPU: the same adversarial images as on a CPU. `make gpu` runs these."""

import pytest

from tests.attacks.test_invariants import EPS, attacked, in_float64


@pytest.mark.few
@pytest.mark.gpu
def test_an_attack_on_a_gpu_gives_the_images_that_it_gives_on_a_cpu(
    attack_name, small, source, batch
):
    images, labels, pool = in_float64(batch)
    results = []
    for device in ("cpu", "cuda"):
        model = source("logits").double().to(device)
        x, y, *others = (tensor.to(device) for tensor in (images, labels, *pool))
        results.append(attacked(small(attack_name), model, x, y, EPS.to(device), tuple(others)))
    assert results[1].is_cuda
    differ = (results[1].cpu() - results[0]).abs() > 1e-6
    assert differ.double().mean() < 0.01  # where a sign or a draw is decided by the last digit
