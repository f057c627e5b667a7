"""The images of NIPS 2017 arrive from a server one by one, each checked, and a stop loses none."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src.data import load_dataset, nips17
from src.data.nips17 import LIST

IDS = [f"{number:016x}" for number in range(20)]


def png(number: int) -> bytes:
    """Return an image file of 8 x 8 pixels, another for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(file := BytesIO(), "png")
    return file.getvalue()


class Server(BaseHTTPRequestHandler):
    """It has the images, apart from those with a fault."""

    files: ClassVar = {f"/images/{name}.png": png(place) for place, name in enumerate(IDS)}
    faults: ClassVar[dict[str, str]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name, fault = Path(self.path).stem, self.faults.get(Path(self.path).stem)
        content = self.files[self.path]
        self.send_response(404 if fault == "missing" else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "half once" and self.asked.count(self.path) == 1:
            fault = "half"
        half, other = content[: len(content) // 2], png(len(name))
        self.wfile.write({"half": half, "other": other[: len(content)]}.get(fault, content))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """A data set's section whose images a server on this machine has."""
    rows = {"ImageId": IDS, "TrueLabel": range(1, 21), "TargetClass": range(2, 22)}
    digests = [sha256(png(place)).hexdigest() for place in range(20)]
    pd.DataFrame(rows | {"sha256": digests}).to_csv(tmp_path / "list.csv", index=False)
    monkeypatch.setattr(nips17, "LIST", tmp_path / "list.csv")
    monkeypatch.setattr(Server, "faults", {})
    monkeypatch.setattr(Server, "asked", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/images"
        target = "src.data.nips17.nips17"
        yield {"_target_": target, "root": str(tmp_path / "set"), "url": url, "download": True}
        server.shutdown()


def test_all_images_arrive_once_in_the_order_of_the_list(section, tmp_path):
    for _ in range(2):
        data = load_dataset("test", section, lock_folder=tmp_path / "locks", num_classes=30)
        assert data.labels.tolist() == [*range(20)]
        assert data.target_labels.tolist() == [*range(1, 21)]
        expected = [np.asarray(Image.open(BytesIO(png(place)))) for place in range(20)]
        pixels = data[:].images.permute(0, 2, 3, 1).numpy()
        assert np.array_equal(pixels, np.stack(expected))
    assert sorted(Server.asked) == sorted(Server.files)
    written = pd.read_csv(tmp_path / "set" / "images.csv")
    assert written.columns.tolist() == ["ImageId", "TrueLabel", "TargetClass"]


@pytest.mark.slow
def test_one_cut_connection_is_tried_again(section, tmp_path):
    Server.faults[IDS[5]] = "half once"
    assert len(load_dataset("test", section, lock_folder=tmp_path / "locks", num_classes=30)) == 20
    assert len(Server.asked) == 21


@pytest.mark.slow
def test_two_at_once_share_one_download(section, tmp_path):
    def load(_):
        return load_dataset("test", section, lock_folder=tmp_path / "locks", num_classes=30)

    with ThreadPoolExecutor(2) as threads:
        assert [len(data) for data in threads.map(load, range(2))] == [20, 20]
    assert sorted(Server.asked) == sorted(Server.files)


@pytest.mark.parametrize(
    "fault",
    ["half", *(pytest.param(fault, marks=pytest.mark.slow) for fault in ("missing", "other"))],
)
def test_a_failed_image_is_named_and_the_others_are_kept(fault, section, tmp_path):
    Server.faults[IDS[11]] = fault
    with pytest.raises(ValueError, match=f"{IDS[11]}.png "):
        load_dataset("test", section, lock_folder=tmp_path / "locks", num_classes=30)
    arrived = {path.stem for path in (tmp_path / "set" / "images").iterdir()}
    assert IDS[11] not in arrived and {*IDS[:4]} <= arrived
    assert not (tmp_path / "set" / "images.csv").exists()
    Server.faults.clear()
    Server.asked.clear()
    assert len(load_dataset("test", section, lock_folder=tmp_path / "locks", num_classes=30)) == 20
    assert {Path(path).stem for path in Server.asked} == {*IDS} - arrived


def test_a_file_with_other_bytes_is_not_replaced(section, tmp_path):
    path = tmp_path / "set" / "images" / f"{IDS[3]}.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(png(99))
    with pytest.raises(ValueError, match=f"{path} "):
        load_dataset("test", section, lock_folder=tmp_path / "locks", num_classes=30)
    assert path.read_bytes() == png(99)


def test_no_server_and_no_download(section, tmp_path):
    section["url"] = "http://127.0.0.1:1/images"
    with pytest.raises(ValueError, match="cannot be downloaded"):
        load_dataset("test", section, lock_folder=tmp_path / "locks", num_classes=30)
    with pytest.raises(ValueError, match="set"):
        load_dataset("test", section | {"root": str(tmp_path / "none"), "download": False})


def test_a_folder_with_a_list_is_used_as_it_is(section, tmp_path):
    folder = tmp_path / "set" / "images"
    folder.mkdir(parents=True)
    (folder / "mine.png").write_bytes(png(5))
    text = "ImageId,TrueLabel,TargetClass\nmine,7,8\n"
    (tmp_path / "set" / "dev_dataset.csv").write_text(text)
    data = load_dataset("test", section, lock_folder=tmp_path / "locks", num_classes=30)
    assert data.labels.tolist() == [6]
    assert not Server.asked


def test_the_list_is_the_published_one():
    rows = pd.read_csv(LIST)
    assert len(rows) == rows["ImageId"].nunique() == rows["sha256"].nunique() == 1000
    assert rows["TrueLabel"].between(1, 1000).all() and rows["TargetClass"].between(1, 1000).all()
    assert (rows["TrueLabel"] != rows["TargetClass"]).all()
    assert rows["bytes"].sum() == pytest.approx(153e6, rel=0.001)
