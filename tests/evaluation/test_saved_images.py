"""Sets of adversarial images that this program saves, reads back and attacks with."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.config.settings import AttackSettings, SavedSettings
from src.data import Batch
from src.evaluation import (
    Breach,
    SavedImagesFacts,
    SavedImagesSource,
    SavedImagesWriter,
    saved_dataset,
    with_measured_budgets,
)
from src.evaluation import open_saved_images as open_settings

INDEX = torch.tensor([17, 3, 5, 40, 8])
ORDER = [1, 2, 4, 0, 3]  # by index
BUDGETS = (0.5, 2.0, 8.0)


L2 = AttackSettings(name="bim", label="bim", norm="l2")


def open_saved_images(path, **words):
    return open_settings(SavedSettings(path=str(path), **words))


def images(variant=0):
    """A batch, and for each budget adversarial images that use all of it."""
    random = np.random.default_rng(variant)
    clean = random.integers(20, 236, (len(INDEX), 3, 5, 5), dtype=np.uint8)
    signs = random.choice([-1, 1], clean.shape)
    adversarial = np.stack([(clean + int(eps) * signs).astype(np.uint8) for eps in BUDGETS])
    batch = Batch(torch.from_numpy(clean), torch.tensor([0, 1, 2, 1, 0]), INDEX)
    return batch, torch.from_numpy(adversarial)


def facts(**changes):
    return SavedImagesFacts(
        **{
            "source": "a+b",
            "ensemble": "loss",
            "weights": {"a": "0123", "b": "4567"},
            "attack": AttackSettings(name="bim", label="bim", settings={"steps": 10}),
            "dataset": "cifar10_mini",
            "num_classes": 3,
            "class_names": ("a", "b", "c"),
            "budgets_255": BUDGETS,
            **changes,
        }
    )


def save(folder, variant=0, parts=((0, 1, 2), (3, 4)), targets=None, **changes):
    """Write a set whose shards hold the given rows of `images`."""
    batch, adversarial = images(variant)
    writer = SavedImagesWriter(folder)
    writer.start()
    for rows in map(list, parts):
        part = Batch(*(column[rows] for column in batch))
        writer.write(part, adversarial[:, rows], None if targets is None else targets[rows])
    writer.finish(facts(**changes), INDEX.numpy())
    return batch, adversarial


def test_what_is_saved_comes_back_by_index(tmp_path):
    targets = torch.tensor([2, 0, 1, 0, 2])
    batch, adversarial = save(tmp_path, targets=targets)
    saved = open_saved_images(tmp_path)
    assert saved.index.tolist() == [3, 5, 8, 17, 40] and len(saved) == 5
    assert saved.labels.tolist() == batch.labels[ORDER].tolist()
    assert saved.target_labels.tolist() == targets[ORDER].tolist()
    assert torch.equal(saved.clean([4, 0]), batch.images[[3, 1]])
    assert torch.equal(saved.adversarial([4, 0, 3]), adversarial[:, [3, 1, 0]])
    assert saved.facts == facts()
    assert with_measured_budgets(saved).breaches == ()


def test_the_digest_is_of_the_content_whichever_process_wrote_it(tmp_path):
    kept = tmp_path / "kept"
    save(kept)
    digest = open_saved_images(kept).digest
    manifest = json.loads((kept / "manifest.json").read_text())
    _, second = manifest["shards"]
    (kept / second).rename(kept / "batch-1-0.safetensors")
    manifest["shards"]["batch-1-0.safetensors"] = manifest["shards"].pop(second)
    (kept / "manifest.json").write_text(json.dumps(manifest))
    assert open_saved_images(kept).digest == digest
    others = [{"variant": 1}, {"source": "vgg16"}, {"targets": torch.zeros(5, dtype=torch.int64)}]
    for number, words in enumerate(others):
        save(tmp_path / str(number), **words)
        assert open_saved_images(tmp_path / str(number)).digest != digest


def test_a_set_is_a_source_of_adversarial_images_and_a_data_set(tmp_path):
    targets = torch.tensor([2, 0, 1, 0, 2])
    batch, adversarial = save(tmp_path, targets=targets)
    saved = open_saved_images(tmp_path)
    source = SavedImagesSource(replace(saved, facts=facts(budgets_255=(2.0, 0.5, 8.0))))
    rows = [3, 0]
    part = Batch(*(column[rows] for column in batch))
    found = source(part.images / 255, part)
    assert source.budgets == BUDGETS and found.target_labels.tolist() == [0, 2]
    assert torch.equal(found.images, adversarial[[1, 0, 2]][:, rows] / 255)
    dataset = saved_dataset(saved)
    assert dataset.indices.tolist() == [3, 5, 8, 17, 40] and dataset.class_names == ("a", "b", "c")
    assert torch.equal(dataset.__getitems__([0, 4]).images, batch.images[[1, 3]])
    assert len(saved_dataset(saved, n_images=3)) == 3
    bare = replace(saved, read_clean=None, facts=facts(num_classes=None, class_names=None))
    with pytest.raises(ValueError, match="num_classes"):
        saved_dataset(bare)
    with pytest.raises(ValueError, match="labels hold 2"):
        saved_dataset(bare, num_classes=2)
    shown = saved_dataset(bare, num_classes=7)
    assert shown.num_classes == 7
    assert torch.equal(shown.__getitems__([0]).images, adversarial[0, 1:2])


def test_budgets_that_images_exceed_are_measured(tmp_path):
    save(tmp_path, budgets_255=(0.5, 1.0, 8.0))
    saved = open_saved_images(tmp_path)
    measured = with_measured_budgets(saved)
    assert measured.facts.budgets_255 == (0.5, 2.0, 8.0)
    assert measured.breaches == (Breach(1.0, 2.0, 5),)
    changed = replace(saved, facts=facts(budgets_255=(0.5, 1.0, 8.0), attack=L2))
    assert with_measured_budgets(changed).breaches[0].measured == 2
    assert with_measured_budgets(replace(saved, read_clean=None)).breaches == ()
    with pytest.raises(ValueError, match=r"2.0"):  # 2 is then stated twice
        with_measured_budgets(replace(saved, facts=facts(budgets_255=(2.0, 1.0, 8.0))))


def test_an_unfinished_writer_leaves_no_set_and_a_new_one_removes_the_old(tmp_path):
    batch, adversarial = save(tmp_path, parts=([0], [1], [2, 3, 4]))
    writer = SavedImagesWriter(tmp_path)
    writer.start()
    assert not list(tmp_path.iterdir())
    writer.write(Batch(*(column[:3] for column in batch)), adversarial[:, :3], None)
    with pytest.raises(ValueError, match=r"manifest.json"):
        open_saved_images(tmp_path)
    with pytest.raises(ValueError, match=r"2 of 5 .* image 8"):
        writer.finish(facts(), INDEX.numpy())
    writer.write(Batch(*(column[2:] for column in batch)), adversarial[:, 2:], None)
    writer.finish(facts(), INDEX.numpy())
    with pytest.raises(ValueError, match="more than once"):  # image 5 is in both shards
        open_saved_images(tmp_path)


def test_a_damaged_or_missing_shard_is_named(tmp_path):
    save(tmp_path)
    shard = sorted(tmp_path.glob("batch-*"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{shard.name} .*SHA-256"):
        open_saved_images(tmp_path)
    shard.unlink()
    with pytest.raises(ValueError, match=shard.name):
        open_saved_images(tmp_path)


JUNK = [None, True, -1, 0.5, 1e400, "", "../x", "a" * 300, [], [1], {}, {"a": 1}]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    save(folder)
    return folder, (folder / "manifest.json").read_bytes()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_manifest_is_read_or_refused(finished, data):
    folder, original = finished
    manifest = json.loads(original)
    place = data.draw(
        st.sampled_from([manifest, *(v for v in manifest.values() if type(v) is dict)])
    )
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(st.sampled_from(JUNK))
    text = json.dumps(manifest)
    (folder / "manifest.json").write_text(text[: data.draw(st.sampled_from([None, -1, 0, 40]))])
    try:
        open_saved_images(folder)
    except ValueError as error:
        assert str(folder) in str(error) and len(str(error)) < 1000
