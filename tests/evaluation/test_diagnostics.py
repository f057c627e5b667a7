"""Probes inside the pass: they change nothing, and work wherever an attack does."""

from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from src.attacks import bim, fgsm, pgd
from src.data import ImageDataset, LabelledImages, to_unit
from src.diagnostics import DiagnosticSettings, make_diagnostics
from src.evaluation import AdversarialSource, Attacker, Variants, evaluate
from src.evaluation.lightning_module import Transfer
from src.models import Ensemble

TRAINER = {
    "accelerator": "cpu",
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "precision": "32-true",
    "batch_size": 4,
    "num_workers": 0,
    "progress_bar": False,
}
ALL = DiagnosticSettings("full", bisection=3, spectra=True, filters=True, similarity=True)
GRID = (0.5, 2.0, 8.0)


def network(seed: int, classes: int = 7, side: int = 12) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 8, 3, stride=2), nn.Tanh(), nn.Flatten()]
        layers.append(nn.Linear(8 * ((side - 1) // 2) ** 2, classes))
    return nn.Sequential(*layers).eval().requires_grad_(False)


def dataset(count: int = 11, classes: int = 7, side: int = 12) -> ImageDataset:
    def pixels(position: int) -> np.ndarray:
        random = np.random.default_rng(position)
        return random.integers(0, 256, (side, side, 3), dtype=np.uint8)

    stack = np.stack([pixels(position) for position in range(count)]).transpose(0, 3, 1, 2)
    clean = to_unit(torch.from_numpy(stack))
    labels = network(0, classes, side)(clean).argmax(1).numpy()  # right, so that some can flip
    names = tuple(map(str, range(classes)))
    return ImageDataset(LabelledImages([pixels(i) for i in range(count)], labels, names))


def run(
    data: ImageDataset,
    source: nn.Module,
    networks: dict[str, nn.Module],
    attack,
    analysis: DiagnosticSettings,
    precision: str = "32-true",
    forms: Variants | None = None,
    **words,
):
    torch.manual_seed(5)
    np.random.seed(5)
    return evaluate(
        data,
        networks,
        TRAINER | {"precision": precision},
        label="test",
        maker=Attacker(source, attack, GRID, num_classes=data.num_classes, **words),
        forms=forms,
        diagnostics=make_diagnostics(analysis, list(networks), 8.0, 4),
    )


def careless(model, images: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
    """Draw from the global generators, of torch and of numpy."""
    noise = torch.rand_like(images) - 0.5 + np.random.random()
    return images + eps.reshape(-1, 1, 1, 1, 1) * noise


@pytest.mark.parametrize("attack", [partial(pgd, steps=2), careless], ids=["pgd", "careless"])
@pytest.mark.parametrize("headline", ["float32", "uint8"])
def test_predictions_stay_the_same_to_the_last_bit(attack, headline):
    networks = {"a": network(0), "b": network(1)}
    also = () if headline == "float32" else ("float32",)
    forms = Variants(headline=headline, also=also, controls=True)
    results = [
        run(dataset(), networks["a"], networks, attack, analysis, forms=forms)
        for analysis in (DiagnosticSettings(), ALL)
    ]
    assert list(results[0].tables) == [headline, *also, "noise", "shuffled"]
    for form, table in results[0].tables.items():
        assert results[1].tables[form].equals(table)
    assert results[0].gradients == results[1].gradients
    assert results[0].zero_gradients == pytest.approx(results[1].zero_gradients, nan_ok=True)
    assert results[0].diagnostics == {} and len(results[1].diagnostics) == 5
    assert len(results[1].diagnostics["flips"]) > 0  # attacks were made in between


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("average", ["logits", "probabilities", "loss"])
@pytest.mark.parametrize("aim", [None, "least_likely"])
def test_every_kind_of_job_has_finite_tables(precision, average, aim):
    networks = {"a": network(0), "b": network(1), "c": network(2)}
    source = Ensemble([networks["a"], networks["b"]], average)
    attack = partial(bim, steps=2)
    forms = Variants(controls=True)
    result = run(dataset(), source, networks, attack, ALL, precision, forms=forms, aim=aim)
    tables = {name: table.to_pandas() for name, table in result.diagnostics.items()}
    assert list(tables) == ["flips", "spectra", "filtered", "low_passed", "similarity"]
    for frame in tables.values():
        numbers = frame.select_dtypes("number")
        assert len(frame) and np.isfinite(numbers.to_numpy(float)).all()
    assert len(tables["filtered"]) == 11 * 3 * 16 and len(tables["similarity"]) == 11 * 3
    flips = tables["flips"]
    assert (flips["below_eps_255"] < flips["eps_255"]).all()
    assert (flips["predicted"] != flips["label"]).all()
    white = tables["similarity"].groupby("target")["cosine"].mean()
    assert white["a"] > 0.3 and white["b"] > 0.3 and white["c"].max() < 0.9


@pytest.mark.parametrize(("count", "classes", "side"), [(1, 2, 12), (3, 1000, 35), (2, 10, 5)])
def test_any_number_of_images_and_classes(count, classes, side):
    networks = {"a": network(0, classes, side)}
    result = run(dataset(count, classes, side), networks["a"], networks, fgsm, ALL)
    assert len(result.diagnostics["low_passed"]) == count * 5
    top = result.diagnostics["flips"].schema.field("top5_classes").type
    assert top == pa.list_(pa.int32(), min(5, classes))


def test_batches_do_not_matter():
    """Rows come back by index, whatever batches they were seen in."""
    networks = {"a": network(0), "b": network(1)}
    tables = []
    for size in (2, 11):
        trainer = TRAINER | {"batch_size": size}
        maker = Attacker(networks["a"], partial(pgd, steps=2), GRID, num_classes=7)
        diagnostics = make_diagnostics(ALL, list(networks), 8.0)
        result = evaluate(
            dataset(), networks, trainer, label="test", maker=maker, diagnostics=diagnostics
        )
        tables.append(result.diagnostics)
    for name, table in tables[0].items():
        first, second = table.to_pandas(), tables[1][name].to_pandas()
        for column in first:
            if column.startswith("top5"):
                continue
            if first[column].dtype.kind == "f":
                np.testing.assert_allclose(first[column], second[column], atol=1e-4, err_msg=name)
            else:
                assert first[column].tolist() == second[column].tolist()


def test_a_second_pass_forgets_the_first():
    networks = {"a": network(0)}
    diagnostics = make_diagnostics(ALL, ["a"], 8.0)
    maker = Attacker(networks["a"], fgsm, GRID, num_classes=7)
    first, second = (
        evaluate(
            dataset(), networks, TRAINER, label="test", maker=maker, diagnostics=diagnostics
        ).diagnostics
        for _ in range(2)
    )
    assert all(second[name].equals(table) for name, table in first.items())


def test_probes_see_unrounded_images_whatever_the_headline():
    networks = {"a": network(0), "b": network(1)}
    first, second = (
        run(dataset(), networks["a"], networks, fgsm, ALL, forms=forms)
        for forms in (Variants(), Variants(headline="uint8", also=("png", "float32")))
    )
    assert not second.table.equals(second.tables["float32"])  # rounding changes answers
    assert second.tables["float32"].equals(first.table)
    for name, table in first.diagnostics.items():
        assert second.diagnostics[name].equals(table)


class Stored(AdversarialSource):
    def forward(self, images, batch):
        raise NotImplementedError


def test_probes_need_an_attack_and_its_unrounded_images():
    diagnostics = make_diagnostics(ALL, ["a"], 8.0)
    maker = Attacker(network(0), fgsm, GRID, num_classes=7)
    for made_by, forms in (
        (None, None),
        (Stored(GRID, "linf"), None),
        (maker, Variants(headline="uint8")),
    ):
        with pytest.raises(ValueError, match="diagnostics need an attack and the form float32"):
            Transfer({"a": network(0)}, made_by, forms, diagnostics=diagnostics)


def test_only_what_is_asked_for_is_computed():
    for key, value, tables in (
        ("bisection", 1, ["flips"]),
        ("spectra", True, ["spectra"]),
        ("filters", True, ["filtered", "low_passed"]),
        ("similarity", True, ["similarity"]),
    ):
        diagnostics = make_diagnostics(DiagnosticSettings(**{key: value}), ["a"], 8.0)
        assert [diagnostic.table for diagnostic in diagnostics] == tables
