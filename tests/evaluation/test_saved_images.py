"""Sets that this project writes and reads back."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from src.sets import (
    AdversarialSet,
    SetWriter,
    budget_breaches,
    open_set,
    read_set,
    with_measured_budgets,
)
from src.sets.manifest import MANIFEST, content_name, digest_of
from src.utils.cache import sha256_of

INDEX = [17, 3, 5, 40, 8]
BUDGETS = (0.5, 2.0, 8.0)
SHAPE = (3, 4, 5)


def make_images(variant=0):
    """Clean images (N, 3, H, W) and, for each budget, images that use all of it."""
    random = np.random.default_rng(variant)
    clean = random.integers(20, 236, (len(INDEX), *SHAPE), dtype=np.uint8)
    signs = random.choice([-1, 1], clean.shape)
    return clean, np.stack([(clean + int(eps) * signs).astype(np.uint8) for eps in BUDGETS])


def make_info(**changes):
    return {
        "source": "vgg16",
        "attack": {"name": "bim", "steps": 10, "alpha_255": 0.8},
        "norm": "linf",
        "seed": 7,
        "dataset": {"name": "photos", "digest": "ab", "num_classes": 3, "class_names": list("abc")},
        "labels": np.array([0, 1, 2, 1, 0]),
        "target_labels": None,
        **changes,
    }


def make_writer(folder, positions=INDEX, shape=SHAPE, budgets_255=BUDGETS):
    return SetWriter(folder, positions, shape, budgets_255)


def write_set(folder, variant=0, **changes):
    clean, adversarial = make_images(variant)
    writer = make_writer(folder).create()
    writer.write(INDEX, clean, adversarial)
    writer.finish(make_info(**changes))
    return clean, adversarial


def edit(folder, change, *, sign=True):
    """Change the manifest of a set; `sign` renews its digest, as who forges it would."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    if sign:
        manifest["digest"] = digest_of(manifest)
    path.write_text(json.dumps(manifest))


@pytest.fixture
def folder(tmp_path):
    """The folder of a finished set."""
    write_set(tmp_path / "set")
    return tmp_path / "set"


def test_round_trip(tmp_path):
    targets = [2, 0, 1, 0, 2]
    clean, adversarial = write_set(tmp_path, target_labels=targets)
    found = read_set(tmp_path)
    assert found.index.tolist() == INDEX and len(found) == 5
    assert found.labels.tolist() == [0, 1, 2, 1, 0]
    assert found.target_labels.tolist() == targets
    assert found.budgets_255 == BUDGETS
    assert all(isinstance(array, np.memmap) for array in (found.clean, *found.adversarial))
    assert np.array_equal(found.clean, clean)
    assert np.array_equal(np.stack(found.adversarial), adversarial)
    assert found.attack == {"name": "bim", "steps": 10, "alpha_255": 0.8}
    assert (found.source, found.norm, found.dataset) == ("vgg16", "linf", "photos")
    assert (found.num_classes, found.class_names) == (3, ("a", "b", "c"))
    assert budget_breaches(found) == {0.5: 0, 2.0: 0, 8.0: 0}
    assert open_set(tmp_path / MANIFEST).digest == open_set(tmp_path).digest == found.digest


def test_files_are_named_by_their_content(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    names = {entry["file"] for entry in (manifest["clean"], *manifest["budgets"])}
    assert {path.name for path in folder.iterdir()} == {MANIFEST, *names}
    assert all(content_name(sha256_of(folder / name)) == name for name in names)
    assert len(names) == 3  # at 0.5/255 no image changes: one file with the clean ones
    assert manifest["created"].endswith("+00:00")
    assert "torch" in manifest["software"]


def test_digest_depends_on_content_only(tmp_path):
    for name, variant, changes in (
        ("a", 0, {}),
        ("again", 0, {}),
        ("other images", 1, {}),
        ("other labels", 0, {"labels": [0, 0, 0, 0, 0]}),
        ("other source", 0, {"source": "resnet50"}),
    ):
        write_set(tmp_path / name, variant, **changes)
    digests = {path.name: read_set(path).digest for path in tmp_path.iterdir()}
    assert digests["a"] == digests["again"]
    assert len(set(digests.values())) == 4


def test_rows_may_be_written_in_any_order_and_again(tmp_path):
    clean, adversarial = make_images()
    writer = make_writer(tmp_path, positions={image: row for row, image in enumerate(INDEX)})
    writer.create()
    writer.write([40, 8, 17], clean[:3] * 0, adversarial[:, :3] * 0)
    for rows in ([4, 1], [0], [2, 3, 1]):
        images = torch.tensor(INDEX)[rows]
        writer.write(images, torch.from_numpy(clean[rows]), torch.from_numpy(adversarial[:, rows]))
    writer.finish(make_info())
    write_set(tmp_path / "at once")
    assert read_set(tmp_path).digest == read_set(tmp_path / "at once").digest


SECOND_PROCESS = """
import sys, numpy as np
from src.sets import SetWriter
images = np.load(sys.argv[2])
writer = SetWriter(sys.argv[1], [17, 3, 5, 40, 8], (3, 4, 5), (0.5, 2.0, 8.0)).open()
writer.write([5, 40, 8], images[0], images[1:])
writer.close()
"""


def test_two_processes_write_disjoint_rows(tmp_path):
    clean, adversarial = make_images()
    first = make_writer(tmp_path / "set").create()
    np.save(tmp_path / "share.npy", np.concatenate([clean[None, 2:], adversarial[:, 2:]]))
    arguments = [sys.executable, "-c", SECOND_PROCESS, tmp_path / "set", tmp_path / "share.npy"]
    first.write(INDEX[:1], clean[:1], adversarial[:, :1])
    subprocess.run(arguments, check=True, cwd=Path(__file__).parents[2])
    first.write(INDEX[1:2], clean[1:2], adversarial[:, 1:2])
    first.finish(make_info())
    found = read_set(tmp_path / "set")
    assert np.array_equal(found.clean, clean)
    assert np.array_equal(np.stack(found.adversarial), adversarial)


def test_interrupted_writer_leaves_no_set(tmp_path):
    clean, adversarial = make_images()
    writer = make_writer(tmp_path).create()
    writer.write(INDEX[:3], clean[:3], adversarial[:, :3])
    writer.close()
    for read in (read_set, open_set):
        with pytest.raises(ValueError, match=r"no finished set|did not finish"):
            read(tmp_path)
    with pytest.raises(ValueError, match=r"2 of 5 images were never written .* image 40"):
        make_writer(tmp_path).open().finish(make_info())
    assert not (tmp_path / MANIFEST).exists()


def test_a_discarded_writer_leaves_nothing(tmp_path):
    clean, adversarial = make_images()
    writer = make_writer(tmp_path).create()
    writer.write(INDEX, clean, adversarial)
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_how_an_ensemble_averaged_is_kept(tmp_path):
    weights = {"a": "0123", "b": "4567"}
    write_set(tmp_path / "set", source="a+b", ensemble="loss", weights=weights)
    found = read_set(tmp_path / "set")
    assert found.ensemble == "loss" and found.weights == weights
    write_set(tmp_path / "plain")
    assert read_set(tmp_path / "plain").weights == {}


def test_a_new_writer_clears_what_was_left(folder):
    before = read_set(folder).digest
    (folder / ".manifest.0123.tmp.json").write_text("{")
    make_writer(folder, budgets_255=range(1, 9)).create().close()
    assert not (folder / MANIFEST).exists()
    write_set(folder, variant=1)
    assert read_set(folder).digest != before
    assert len(list(folder.iterdir())) == 4  # manifest, clean, two budgets that change images


def test_l2_budgets_are_checked_as_such(tmp_path):
    clean, adversarial = make_images()
    adversarial[:, :, 0, 0, 0] = clean[:, 0, 0, 0] + 2
    with pytest.raises(ValueError, match=r"5 stored images .* eps_255=0.5 in the linf .* image 17"):
        writer = make_writer(tmp_path).create()
        writer.write(INDEX, clean, adversarial)
        writer.finish(make_info())
    assert not (tmp_path / MANIFEST).exists()
    writer.finish(make_info(norm="l2"))  # a root mean square of 2 / sqrt(60)
    assert budget_breaches(read_set(tmp_path)) == {0.5: 0, 2.0: 0, 8.0: 0}


def test_breaches_are_counted_on_the_stored_bytes(folder):
    found = read_set(folder)
    changed = np.array(found.adversarial[1])
    changed[:2, 0, 0, 0] = found.clean[:2, 0, 0, 0] + 3
    kept = {name: getattr(found, name) for name in found.__dataclass_fields__}
    kept["adversarial"] = (found.adversarial[0], changed, found.adversarial[2])
    assert budget_breaches(AdversarialSet(**kept)) == {0.5: 0, 2.0: 2, 8.0: 0}
    alike = {
        "budgets_255": (0.5, 2.0, 3.0),
        "adversarial": (found.adversarial[0], changed, changed),
    }
    with pytest.raises(ValueError, match="not all different"):  # 3 would be told of two
        with_measured_budgets(AdversarialSet(**{**kept, **alike}))
    (breach,) = with_measured_budgets(AdversarialSet(**{**kept, "norm": "l2"})).breaches
    assert breach.told == 2 and 2 < breach.measured < 2.1
    assert budget_breaches(AdversarialSet(**{**kept, "clean": None})) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": [1, 1]}, "more than once"),
        ({"positions": []}, "non-empty"),
        ({"positions": [-1]}, "numbers from 0"),
        ({"positions": {4: 0, 5: 2}}, r"rows 0\.\.1, each once"),
        ({"shape": (4, 4, 3)}, r"\(3, height, width\)"),
        ({"budgets_255": []}, "at least one eps_255"),
        ({"budgets_255": [1, 1.0]}, "not all different"),
        ({"budgets_255": [300]}, r"eps_255 must be a number in \[0, 255\]"),
    ],
)
def test_writers_that_cannot_be(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        make_writer(tmp_path, **changes)


def test_writes_that_cannot_be(tmp_path):
    clean, adversarial = make_images()
    writer = make_writer(tmp_path)
    with pytest.raises(ValueError, match=r"closed: call create\(\) or open\(\)"):
        writer.write(INDEX, clean, adversarial)
    with pytest.raises(ValueError, match="no writer has created this set"):
        writer.open()
    writer.create()
    with pytest.raises(ValueError, match="must hold uint8"):
        make_writer(tmp_path, shape=(3, 5, 4)).open()
    with pytest.raises(ValueError, match="Image 99 is not among"):
        writer.write([17, 99], clean[:2], adversarial[:, :2])
    with pytest.raises(ValueError, match="clean must be uint8"):
        writer.write(INDEX, clean / 255, adversarial)
    with pytest.raises(ValueError, match="adversarial must be uint8"):
        writer.write(INDEX, clean, adversarial[:2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": ["a", "b"]}, "source must be a name"),
        ({"norm": "l1"}, "norm must be linf or l2"),
        ({"seed": "7"}, "seed must be a whole number or null"),
        ({"attack": {"kernel": np.zeros(2)}}, "plain data"),
        ({"attack": {"decay": float("nan")}}, "plain data"),
        ({"labels": [0, 1]}, "lists index, label and target_label"),
        ({"labels": [0, 1, 2, 3, 0]}, "labels hold 3, which is not between 0 and 2"),
        ({"target_labels": [0, 1, 2, 0, -1]}, "target_labels hold -1"),
        ({"dataset": {"name": "photos"}}, "dataset must be name, digest"),
    ],
)
def test_descriptions_that_are_wrong(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        write_set(tmp_path, **changes)
    assert not (tmp_path / MANIFEST).exists()


def test_description_that_lacks_something(tmp_path):
    writer = make_writer(tmp_path).create()
    info = make_info()
    del info["norm"]
    with pytest.raises(ValueError, match="without norm"):
        writer.finish(info)


def test_one_changed_byte_is_noticed(folder):
    path = folder / json.loads((folder / MANIFEST).read_text())["budgets"][2]["file"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path.name} is damaged: its SHA-256"):
        read_set(folder)
    path.unlink()
    with pytest.raises(ValueError, match=rf"{path.name} does not exist"):
        open_set(folder)


def test_arrays_are_never_unpickled(folder):
    poison = np.empty(2, dtype=object)
    np.save(folder / "x.npy", poison, allow_pickle=True)
    sha256 = sha256_of(folder / "x.npy")
    (folder / "x.npy").rename(folder / content_name(sha256))
    entry = {"sha256": sha256, "file": content_name(sha256)}
    edit(folder, lambda manifest: manifest.update(clean=entry))
    with pytest.raises(ValueError, match="nothing is ever unpickled"):
        read_set(folder)


def other(key, value):
    return lambda manifest: manifest.__setitem__(key, value)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["images"]["label"].__setitem__(0, 2),
        lambda manifest: manifest["budgets"][2].__setitem__("eps_255", 16.0),
        lambda manifest: manifest["attack"].__setitem__("steps", 100),
        other("norm", "l2"),
        other("source", "resnet50"),
        other("digest", None),
    ],
)
def test_an_edited_manifest_is_noticed(folder, change):
    edit(folder, change, sign=False)
    with pytest.raises(ValueError, match=rf"{MANIFEST} was edited"):
        read_set(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other("format", "zip"), "format 'transferability-set'"),
        (other("version", 2), "has the version 2; this code reads 1"),
        (lambda manifest: manifest.pop("budgets"), "lacks budgets"),
        (other("budgets", []), "budgets must be a list of eps_255"),
        (other("budgets", [{"eps_255": 8}]), "each with sha256 and file"),
        (other("clean", {"sha256": "ab" * 32, "file": "../secret.npy"}), "clean must be a sha256"),
        (other("clean", {"sha256": "/" * 64, "file": "/" * 16 + ".npy"}), "clean must be a sha256"),
        (other("shape", [4, 4, 3]), r"shape must be \[3, height, width\]"),
        (other("shape", [3, 4, 4]), r"must hold uint8 \(5, 3, 4, 4\), not uint8 \(5, 3, 4, 5\)"),
        (other("images", {"index": [1], "label": [1, 2], "target_label": None}), "of one length"),
        (other("images", {"index": [True], "label": [1], "target_label": None}), "lists index"),
        (other("images", {"index": [1], "label": [1]}), "lists index"),
        (lambda m: m["images"].update(index=[1, 1, 2, 3, 4]), "names an image more than once"),
        (lambda m: m["images"].update(label=[9, 0, 0, 0, 0]), "labels hold 9"),
        (lambda m: m["images"].update(label=[10**30, 0, 0, 0, 0]), "too large"),
        (lambda m: m["dataset"].update(class_names=["a"]), "as many class_names"),
        (lambda m: m["budgets"][0].update(eps_255=8.0), "not all different"),
    ],
)
def test_wrong_manifests_are_refused(folder, change, message):
    edit(folder, change)
    with pytest.raises(ValueError, match=message) as refusal:
        read_set(folder)
    assert MANIFEST in str(refusal.value) or ".npy" in str(refusal.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\x00", "[" * 100_000])
def test_files_that_are_no_manifest(folder, text):
    (folder / MANIFEST).write_text(text)
    with pytest.raises(ValueError, match=r"not a JSON file|must be a manifest"):
        open_set(folder)


def test_the_sets_of_a_sweep_are_listed(tmp_path):
    for job in ("0-fgsm-vgg16", "1-bim-vgg16"):
        write_set(tmp_path / "sweep" / job / "adversarial")
    with pytest.raises(ValueError, match=r"0-fgsm-vgg16/adversarial, .*1-bim-vgg16/adversarial"):
        open_set(tmp_path / "sweep")
    with pytest.raises(ValueError, match=r"no set .* there are .*1-bim-vgg16/adversarial\.$"):
        open_set(tmp_path / "sweep" / "1-bim-vgg16")


def test_what_the_manifest_says_cannot_be_given_again(folder):
    with pytest.raises(ValueError, match="says itself what labels, eps_255 would"):
        open_set(folder, eps_255=8, labels="x.csv")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index": np.arange(5, dtype=np.int32)}, "int64"),
        ({"labels": np.zeros(4, dtype=np.int64)}, "4 labels were given for 5 images"),
        ({"labels": np.zeros(5)}, "labels must be int64"),
        ({"target_labels": np.full(5, 3)}, "target_labels hold 3"),
        ({"budgets_255": (8.0,)}, "3 arrays were given for 1 budgets"),
        ({"norm": "l0"}, "norm=l0 is not one of linf, l2"),
        ({"clean": np.zeros((5, 3, 4, 4), dtype=np.uint8)}, "The clean images must be uint8"),
        ({"adversarial": (np.zeros((5, 3, 4), dtype=np.uint8),) * 3}, r"uint8 \(N, 3, H, W\)"),
    ],
)
def test_sets_whose_parts_do_not_fit(folder, changes, message):
    found = read_set(folder)
    kept = {name: getattr(found, name) for name in found.__dataclass_fields__}
    with pytest.raises(ValueError, match=message):
        AdversarialSet(**{**kept, **changes})
