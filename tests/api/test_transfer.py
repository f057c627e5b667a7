"""One call from Python: a sweep's rows, for any torch modules and images of any form."""

import json
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from src import attacks, image, load_classifier, load_sweep, matrix, rates, transfer
from src.artifacts.sweep_state import job_statuses
from src.data import load_dataset
from src.defences import BitDepth
from tests.conftest import REPOSITORY
from tests.test_golden import demo

LEVELS = [4 / 255, 8 / 255]
MINI = {"_target_": "src.data.cifar10_mini.cifar10_mini"}


@pytest.fixture(scope="module")
def images():
    """Twelve images of CIFAR-10, uint8, and their labels."""
    batch = load_dataset("test", MINI)[:12]
    return batch.images, batch.labels


def module(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    pooled = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    return nn.Sequential(pooled, nn.Linear(8 * 15 * 15, 10))


def test_the_frame_is_that_of_a_sweep_in_every_value(tmp_path, run_in):
    words = demo("attack=mi", "source=resnet_small,[resnet_small,vgg_small]")
    words += ["attack.steps=2", "n_images=8", "attack.target_label=next"]
    words += ["defences=[none,bit_depth]", "epsilon.grid=[4,8]"]
    words += ["targets=[resnet_small,vgg_small]", "controls=true", "tracking=none", "report=none"]
    run_in(tmp_path, *words, "hydra.sweep.dir=sweep", "trainer.progress_bar=false")
    wanted = load_sweep(tmp_path / "sweep").predictions
    index = sorted(wanted["index"].unique())
    batch = load_dataset("test", MINI)[index]
    vgg, resnet = (
        load_classifier(f"{name}_small", "experiment=demo") for name in ("vgg", "resnet")
    )
    found = transfer(
        {"resnet_small": resnet, "resnet_small+vgg_small": [resnet, vgg]},
        {"resnet_small": resnet, "vgg_small": vgg},
        batch.images / 255,
        batch.labels,
        attacks={"mi": {"steps": 2}},
        eps=torch.tensor([4.0, 8.0]) / 255,
        reference=4 / 255,
        target_labels="next",
        defences={"bit_depth": BitDepth()},
        controls=True,
        index=torch.tensor(index),
        progress_bar=False,
    ).predictions
    assert len(found) == len(wanted)
    frames = [  # images that were chosen otherwise have other partners
        its[its["variant"] != "shuffled"].assign(attack=its["attack"].astype(str))
        for its in (found, wanted)
    ]
    pd.testing.assert_frame_equal(*frames)


def test_modules_stay_as_they_were_and_nothing_is_written(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = module(0).train()
    two = module(1)
    before, state = {k: v.clone() for k, v in one.state_dict().items()}, torch.get_rng_state()
    results = transfer({"a": one}, {"a": one, "b": two}, *images, progress_bar=False)
    frame = results.predictions
    assert results.attack.equals(frame["attack"]) and results["attack"].equals(frame["attack"])
    assert torch.equal(state, torch.get_rng_state())
    assert one.training and all(each.requires_grad for each in one.parameters())
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())
    assert not any(tmp_path.iterdir())
    assert set(frame["eps_255"]) == {0.0, 8.0} and set(frame["target"]) == {"a", "b"}
    assert (frame.loc[frame["eps_255"] > 0, "gradients"] == 1).all()


def test_arrays_and_lists_are_taken_as_tensors_are(images):
    one, (pictures, labels) = {"a": module(0).train()}, images
    aims, index = (labels + 1) % 10, np.r_[0:4, 2**31 : 2**31 + 4, 2**40 : 2**40 + 4]
    words = {"norm": "l2", "progress_bar": False}
    tensors = transfer(one, one, *images, **words, eps=LEVELS, target_labels=aims).predictions
    arrays = transfer(
        *(one, one, pictures.numpy() / 255, labels.tolist()),
        **words,
        **{"attacks": "fgsm", "eps": np.array(LEVELS), "target_labels": aims.numpy()},
        **{"index": index, "seed": np.int64(0), "batch_size": np.int64(12)},
    ).predictions
    pd.testing.assert_frame_equal(
        arrays.drop(columns="index"), tensors.drop(columns="index"), check_like=True
    )
    assert arrays["index"].unique().tolist() == index.tolist()
    assert arrays.query("eps_255 > 0")["target_label"].tolist() == aims.tolist() * 2
    assert set(arrays["attack"]) == {"fgsm (norm=l2, target_label=data)"}


def test_any_function_is_an_attack_with_its_gradients_counted(images):
    def double(model, pictures, labels, eps):
        half = attacks.fgsm(model, pictures, labels, eps)
        return half if len(eps) > 1 else attacks.fgsm(model, half[0], labels, eps)

    double.all_budgets = True
    one = module(0)
    named = {"mine": double, "slow": partial(attacks.bim, steps=3), "bim": {"steps": 3}}
    words = {"attacks": named, "eps": LEVELS, "progress_bar": False}
    frame = transfer({"a": one}, {"a": one}, *images, **words).predictions
    assert list(frame["attack"].unique()) == ["mine", "slow", "bim (steps=3)"]
    mine, slow, bim = (rows for _, rows in frame.groupby("attack", sort=False, observed=True))
    columns = ["index", "eps_255", "predicted", "confidence", "gradients"]
    pd.testing.assert_frame_equal(
        slow[columns].reset_index(drop=True), bim[columns].reset_index(drop=True)
    )
    assert set(mine["gradients"]) == {0, 1} and set(bim["gradients"]) == {0, 1 + 2 * 2}


def test_float64_by_default_and_two_threads_change_no_row(images):
    one, keys = module(0), {"attacks": ["mi"], "progress_bar": False}
    one.register_buffer("roi", torch.empty_strided((0,), (0,)))  # as of an ONNX Resize
    expected = transfer({"a": one}, {"a": one}, *images, **keys).predictions
    torch.set_default_dtype(torch.float64)
    try:
        with ThreadPoolExecutor(2) as threads:
            calls = [threads.submit(transfer, {"a": one}, {"a": one}, *images, **keys)] * 2
            frames = [call.result().predictions for call in calls]
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    for frame in frames:
        pd.testing.assert_frame_equal(frame, expected)


def test_a_model_is_tried_in_the_arithmetic_of_the_job(images, caplog):
    one = module(0)
    torch.set_float32_matmul_precision("medium")
    try:
        transfer({"a": one}, {"a": one}, *images, progress_bar=False)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert "the same image gets different logits" not in caplog.text


def test_a_function_may_need_a_norm(images):
    def theirs(model, pictures, labels, eps, norm):
        assert norm == "linf"
        return attacks.fgsm(model, pictures, labels, torch.tensor([eps]))[0]

    one = module(0)
    named = {"theirs": theirs, "ours": attacks.fgsm}
    frame = transfer({"a": one}, {"a": one}, *images, attacks=named, progress_bar=False).predictions
    theirs, ours = (rows.reset_index(drop=True) for _, rows in frame.groupby("attack", sort=False))
    pd.testing.assert_frame_equal(theirs.drop(columns="attack"), ours.drop(columns="attack"))


def test_a_store_holds_the_jobs_of_its_last_call_and_the_users_files(images, tmp_path):
    one = module(0)
    given = ({"a": one}, {"a": one, "b": module(1)}, *images)
    call = partial(transfer, *given, eps=LEVELS, progress_bar=False)
    call(attacks=["fgsm", "bim"], store=tmp_path / "one")
    mine = tmp_path / "one" / "1-bim-a" / "mine.txt"
    mine.write_text("of the user")
    call(attacks=["mi"], store=tmp_path / "one")
    assert set(load_sweep(tmp_path / "one")["attack"]) == {"mi"} and mine.exists()
    assert [(job.name, job.state) for job in job_statuses(tmp_path / "one")] == [("0-mi-a", "done")]
    for name in ("sweep.json", "config.yaml"):  # of another sweep, or of anything else
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text('{"jobs": ["0-mi-a"], "single": false, "id": "3f2"}')
        with pytest.raises(ValueError, match=f"^store={folder} "):
            call(store=folder)
        assert [path.name for path in folder.iterdir()] == [name]


NAMES = ("aeroplane", "car", "bird", "tabby", "deer", "dog", "frog", "horse", "ship", "lorry")


def test_classes_have_the_names_of_the_call(images, tmp_path):
    given = ({"a": module(0)}, {"b": module(1)}, *images)
    named = transfer(*given, class_names=np.array(NAMES), store=tmp_path, progress_bar=False)
    drawn = json.dumps(image(0, tmp_path).to_dict())
    clean = named.predictions.query("index == 0 and eps_255 == 0 and target == 'b'")
    assert NAMES[clean["predicted"].item()] in drawn
    assert named.jobs[0].record.class_names == NAMES


def test_an_attack_called_again_returns_the_images_of_the_call(images):
    one, two = module(0).eval(), module(1).eval()
    frame = transfer({"a": one}, {"b": two}, *images, attacks="pgd", progress_bar=False)
    with torch.no_grad():
        logits = two(attacks.pgd(one, images[0] / 255, images[1], 8 / 255))
    found = frame[(frame["eps_255"] == 8) & (frame["target"] == "b")].sort_values("index")
    assert found["confidence"].to_numpy() == pytest.approx(logits.softmax(1).amax(1), abs=1e-5)


def test_functions_of_two_calls_are_never_taken_for_one(images, tmp_path):
    one = module(0)
    for strength, name in ((0, "one"), (1, "two")):

        def mine(model, images, labels, eps, strength=strength):
            return attacks.fgsm(model, images, labels, strength * eps)

        words = {"attacks": {"mine": mine}, "store": tmp_path / name}
        transfer({"a": one}, {"a": one}, *images, **words, progress_bar=False)
    both = load_sweep(tmp_path / "one", tmp_path / "two")
    assert set(both["attack"]) == {"mine (one)", "mine (two)"}
    confidences = both[both["eps_255"] > 0].groupby("attack", observed=True)["confidence"]
    assert not np.array_equal(*(part.to_numpy() for _, part in confidences))


# What a call cannot have, and what its refusal names: the key, the value or the way out.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"images": torch.rand(12, 3, 32, 32)}, r"Round them: \(255 \* images\)"),
    ({"images": torch.full((12, 3, 32, 32), 128.0)}, r"above 1. .* images.to\(torch.uint8\)"),
    ({"images": "photographs"}, "images is "),
    ({"eps": 8}, "^eps=8 .* 1e-6 / 255 to 1"),
    ({"eps": "8/255"}, "8/255"),
    ({"reference": 2}, "^reference=2 "),
    ({"attacks": {"mi": {"step": 3}}}, "Did you mean steps"),
    ({"attacks": {"di": {"transforms": [object()]}}}, "functools.partial"),
    ({"attacks": [attacks.mi]}, "attacks must be names"),
    ({"targets": {"a": nn.Flatten()}}, "a: source and target differ"),
    ({"targets": {"b": nn.Flatten()}}, "numbers of classes"),
    ({"targets": {"b": nn.Conv2d(3, 2, 1)}}, "model b: .* logits"),
    ({"sources": {1: module(0)}}, "sources must be a mapping"),
    ({"sources": {"a@none": module(0)}}, "a@none"),
    ({"labels": [0] * 5}, "labels must be 12 "),
    ({"labels": torch.full((12,), 10)}, "labels have 10"),
    ({"defences": {"none": BitDepth()}}, "defences must be a mapping"),
    ({"batch_size": 0}, "batch_size.*=0"),
    ({"index": torch.arange(-1, 11)}, "index"),
    ({"class_names": (*NAMES[:9], "car")}, "^class_names=.* 10 different names"),
]


@pytest.mark.parametrize(("change", "named"), REFUSED)
def test_what_cannot_be_is_refused(images, change, named):
    one = module(0)
    given = {"sources": {"a": one}, "targets": {"a": one}, "images": images[0]}
    with pytest.raises(ValueError, match=named):
        transfer(**{**given, "labels": images[1], **change}, progress_bar=False)


def test_budgets_from_a_millionth_of_a_grey_level_are_in_0_to_1(images):
    one = {"a": module(0)}
    for eps in (1e-5 / 255, 0.3):
        frame = transfer(one, one, *images, eps=eps, progress_bar=False)
        assert frame["eps_255"].max() == pytest.approx(255 * eps, rel=1e-5)
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode"):
        transfer(one, one, *images, progress_bar=False)


def test_a_frame_of_predictions_has_rates_and_no_jobs(images):
    one = {"a": module(0)}
    results = transfer(one, one, *images, progress_bar=False)
    frame = results[results.eps_255 >= 0]
    assert len(rates(frame)) == 2
    with pytest.raises(ValueError, match="load_sweep or transfer"):
        matrix(frame)
    with pytest.raises(AttributeError, match="predictions"):
        results.groupby("attack")


PAGE = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```diff\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
DIFFS = dict(zip(("torchattacks", "foolbox"), BLOCKS, strict=True))


def make_values() -> dict[str, Any]:
    """Return what users of other libraries have, by the names that the page gives to it."""
    torch.manual_seed(0)
    model, other = (nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).eval() for _ in range(2))
    images = torch.randint(256, (8, 3, 8, 8)) / 255
    preprocessing = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "axis": -3}
    labels = model(images).argmax(1)
    return dict(model=model, other=other, images=images, labels=labels, preprocessing=preprocessing)


@pytest.mark.parametrize("library", DIFFS)
def test_the_changed_lines_of_the_page_give_the_predictions_of_another_library(library):
    pytest.importorskip(library)
    lines = DIFFS[library].splitlines()
    old, new = ("\n".join(line[1:] for line in lines if not line.startswith(sign)) for sign in "+-")
    theirs, ours = make_values(), make_values()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        exec(old, theirs)
        exec(new, ours)
    frame = ours["results"]
    frame = frame[(frame.target == frame.target.unique()[1]) & (frame.eps_255 > 0)]
    predicted = theirs["predicted"]
    predicted = torch.cat(predicted) if isinstance(predicted, list) else predicted
    assert frame.sort_values(["eps_255", "index"]).predicted.tolist() == predicted.tolist()


def evaluate(images, *labels) -> pd.DataFrame:
    one = {"a": module(0)}
    frame = transfer(one, one, images, *labels, progress_bar=False)
    return frame[["index", "label", "eps_255", "predicted"]].reset_index(drop=True)


@pytest.fixture(scope="module")
def expected(images):
    frame = evaluate(*images)
    clean = frame[frame["eps_255"] == 0]["predicted"].tolist()
    with torch.no_grad():
        assert clean == module(0).eval()(images[0] / 255).argmax(1).tolist()
    return frame


class Pairs(Dataset):
    """A map-style data set that never raises IndexError."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i % len(self)], self.labels[i % len(self)]


class Stream(IterableDataset):
    def __init__(self, pairs):
        self.pairs = pairs

    def __iter__(self):
        return iter(self.pairs)


FORMS = {
    "NHWC floats": lambda x, y: ((x.permute(0, 2, 3, 1) / 255).numpy(), y.numpy()),
    "pictures": lambda x, y: (pictures(x), y.tolist()),
    "tensors": lambda x, y: (list(x / 255), list(y)),
    "data set": lambda x, y: (TensorDataset(x, y),),
    "endless data set": lambda x, y: (Pairs(pictures(x), y.tolist()),),
    "images alone": lambda x, y: (TensorDataset(x), y),
    "stream": lambda x, y: (Stream([*zip(x, y.tolist(), strict=True)]),),
    "loader": lambda x, y: (DataLoader(TensorDataset(x / 255, y), batch_size=5),),
    "loader without batches": lambda x, y: (DataLoader(TensorDataset(x, y), batch_size=None),),
    "own data set": lambda x, y: (load_dataset("test", {**MINI, "n_test": 12}),),
}


def pictures(images):
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]


@pytest.mark.parametrize("form", FORMS)
def test_images_in_other_forms_give_the_same_rows(images, expected, form):
    assert evaluate(*FORMS[form](*images)).equals(expected)


def test_a_column_of_a_hugging_face_data_set(images, expected):
    datasets = pytest.importorskip("datasets", reason="the extra `huggingface` is not installed")
    values = {"image": pictures(images[0]), "label": images[1].tolist()}
    kinds = {"image": datasets.Image(), "label": datasets.Value("int64")}
    data = datasets.Dataset.from_dict(values, features=datasets.Features(kinds))
    for column in (data, data.with_format("torch")):
        assert evaluate(column["image"], column["label"]).equals(expected)
    with pytest.raises(ValueError, match=r"Pass columns: data\['image'\]"):
        evaluate(data)


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        (lambda x, y: (TensorDataset(x, y), y.flip(0)), "images have labels of their own"),
        (lambda x, y: (TensorDataset(x),), "images come without labels"),
        (lambda x, y: ([Image.new("RGB", (n, 8)) for n in (8, 9)], [0, 1]), "images have 2 sizes"),
        (lambda x, y: (x[..., :30], y), r"not \(12, 3, 32, 30\)"),
        (lambda x, y: (DataLoader(Stream([{"image": x[0]}] * 2)), y), "are not images"),
        (lambda x, y: (TensorDataset(x, y / 2),), "whole numbers"),
    ],
)
def test_other_forms_are_refused_in_a_sentence(images, form, sentence):
    with pytest.raises(ValueError, match=sentence) as refused:
        evaluate(*form(*images))
    assert "\n" not in str(refused.value)
