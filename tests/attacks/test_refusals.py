"""Refusals of attacks, naming the key and the value."""

import pytest
import torch

import src.attacks
from src.attacks import bim, bsr, di, emi, fgsm, mi, pgd, rfgsm, rpa, si_ni

NAN, INF = float("nan"), float("inf")
MEANINGLESS = [
    (bim, "steps", [0, 2.5, True, "3", None]),
    (pgd, "random_start", ["normal"]),
    (pgd, "start_radius", [-0.1, 1.1, NAN]),
    (bim, "step_size_255", [0, 256, INF]),
    (mi, "decay", [-1, NAN, INF, None]),
    (bim, "kernel_size", [-1, 4]),
    (bim, "transforms", [[3], [torch.sin]]),
    (emi, "samples", [1]),
    (di, "resize_rate", [0.9, 4.5]),
    (si_ni, "copies", [0, 2.0]),
    (rpa, "sizes", [[], [0]]),
    (fgsm, "max_batch", [0]),
]
CONTRADICTIONS = [
    (rfgsm, {"norm": "l2"}, "random_start=sign"),
    (bim, {"step_rule": "mdcs", "norm": "l2"}, "norm=linf"),
    (bim, {"step_rule": "mdcs", "normalised": False}, "normalised=true"),
    (bim, {"step_rule": "mdcs", "update": lambda momentum, _: momentum}, "attack.update"),
    (bsr, {"blocks": 13}, "blocks=13"),  # of images of 12 pixels
]


def test_refuses_values_without_a_meaning_or_that_do_not_go_together(network, batch):
    cases = [(its, {key: value}, f"^{key}") for its, key, all_ in MEANINGLESS for value in all_]
    for attack, words, named in cases + CONTRADICTIONS:
        with pytest.raises(ValueError, match=named) as caught:
            attack(network(), *batch(), torch.tensor([1, 8]) / 255, **words)
        assert "\n" not in str(caught.value)


def test_refuses_misspelt_keywords_and_defaults(network, batch):
    for attack, word in ((fgsm, "steps"), (mi, "decy"), (emi, "estimator")):
        with pytest.raises(TypeError, match=f"{attack.__name__}.*{word}"):
            attack(network(), *batch(), 0.1, **{word: 1})
    for words in ({"decy": 1.0}, {"fixed": ["step"]}):
        with pytest.raises(TypeError, match=r"decy|step"):
            src.attacks.attack(**words)
    with pytest.raises(ValueError, match="decay"):
        src.attacks.attack(decay=-1.0)(test_refuses_misspelt_keywords_and_defaults)


def test_refuses_what_is_no_budget_no_image_and_no_number_for_each_image(network, batch):
    images, labels = batch()
    given = {"images": images, "labels": labels, "eps": 0.1}
    budgets = (-0.1, 1.5, NAN, [[0.1]], [0.1, 2], [[0.1] * 3], [[0.1]] * 4, [])
    cases = [({"eps": torch.tensor(eps)}, r"^eps .* 4 images") for eps in budgets]
    for wrong in (images.numpy(), images.permute(0, 2, 3, 1), images[0], images.half()):
        cases.append(({"images": wrong}, r"^images .*\(N, 3, H, W\)"))
    for value in (-1e-3, 255.0, NAN, INF):
        odd = images.clone()
        odd[2, 1, 3, 4] = value
        cases.append(({"images": odd}, r"^images .*\[0, 1\]"))
    for numbers in (labels[:1], labels.float(), labels[None]):
        cases += [({key: numbers}, rf"^{key} .* 4 images") for key in ("labels", "true_labels")]
    for words, named in [*cases, ({"seeds": labels[:3]}, "^seeds .* 4 images")]:
        with pytest.raises(ValueError, match=named):
            pgd(network(), **given | words)


class Forgetful:
    """An estimator with a memory whose step returns something else than it must."""

    def __init__(self, result):
        self.result = result

    def init(self, problem):
        """Return no memory."""

    def step(self, gradient, state, memory):
        """Return the result of a function of the gradient and the memory."""
        return self.result(gradient(state.at), memory)


@pytest.mark.parametrize(
    "result", [lambda step, _: step, lambda *pair: (pair[0][0], 1), lambda *pair: (*pair, 1)]
)
def test_a_step_without_its_memory_or_of_another_shape_is_refused(network, batch, result):
    with pytest.raises(ValueError, match=r"Forgetful.* shape \(2, .* with a new memory"):
        mi(network(), *batch(), torch.tensor([1, 8]) / 255, estimator=Forgetful(result))


def short(gradient, state):
    return gradient(state.at)[0]


def double(gradient, state):
    return gradient(state.at).double()


@pytest.mark.parametrize("function", [short, double])
def test_a_function_is_named_if_its_step_has_another_shape_or_type(network, batch, function):
    refusal = rf"^{function.__name__}: a step is a torch.float32 tensor of shape \(2, .*\)\.$"
    with pytest.raises(ValueError, match=refusal):
        mi(network(), *batch(), torch.tensor([1, 8]) / 255, estimator=function)
