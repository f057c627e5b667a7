"""The images of NIPS 2017 arrive from a server one by one, each checked, and a stop loses none."""

from collections.abc import Callable, Iterator
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

from src.data import ImageDataset, nips17
from src.data.load import open_source
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
        half, other = content[: len(content) // 2], png(len(name))
        self.wfile.write({"half": half, "other": other[: len(content)]}.get(fault, content))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ImageDataset]]:
    """A function that loads a data set into `set`; a server on this machine has its images."""
    rows = {"ImageId": IDS, "TrueLabel": range(1, 21), "TargetClass": range(2, 22)}
    digests = [sha256(png(place)).hexdigest() for place in range(20)]
    pd.DataFrame(rows | {"sha256": digests}).to_csv(tmp_path / "list.csv", index=False)
    monkeypatch.setattr(nips17, "LIST", tmp_path / "list.csv")
    monkeypatch.setattr(Server, "faults", {})
    monkeypatch.setattr(Server, "asked", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/images"

        def loaded(**words: object) -> ImageDataset:
            section = {"_target_": "src.data.nips17.nips17", "root": str(tmp_path / "set")}
            section |= {"url": url, "download": True, **words}
            return ImageDataset(open_source("test", section, tmp_path / "locks"), num_classes=30)

        yield loaded
        server.shutdown()


def test_all_images_arrive_once_in_the_order_of_the_list(load, tmp_path):
    for _ in range(2):
        data = load()
        assert data.labels.tolist() == [*range(20)]
        expected = [np.asarray(Image.open(BytesIO(png(place)))) for place in range(20)]
        assert np.array_equal(data[:].images.permute(0, 2, 3, 1), np.stack(expected))
    assert sorted(Server.asked) == sorted(Server.files)
    written = pd.read_csv(tmp_path / "set" / "images.csv")
    assert written.columns.tolist() == ["ImageId", "TrueLabel", "TargetClass"]


@pytest.mark.parametrize(
    "fault",
    ["half", *(pytest.param(fault, marks=pytest.mark.slow) for fault in ("missing", "other"))],
)
def test_a_failed_image_is_named_and_the_others_are_kept(fault, load, tmp_path):
    Server.faults[IDS[11]] = fault
    with pytest.raises(ValueError, match=f"{IDS[11]}.png "):
        load()
    arrived = {path.stem for path in (tmp_path / "set" / "images").iterdir()}
    assert IDS[11] not in arrived and {*IDS[:4]} <= arrived
    assert not (tmp_path / "set" / "images.csv").exists()
    Server.faults.clear()
    Server.asked.clear()
    assert len(load()) == 20
    assert {Path(path).stem for path in Server.asked} == {*IDS} - arrived


def test_what_is_in_the_folder_is_not_replaced(load, tmp_path):
    folder = tmp_path / "set" / "images"
    folder.mkdir(parents=True)
    path = folder / f"{IDS[3]}.png"
    path.write_bytes(png(99))
    with pytest.raises(ValueError, match=f"{path} "):
        load()
    assert path.read_bytes() == png(99)
    Server.asked.clear()
    text = f"ImageId,TrueLabel,TargetClass\n{IDS[3]},7,8\n"
    (tmp_path / "set" / "dev_dataset.csv").write_text(text)
    assert load().labels.tolist() == [6] and not Server.asked


def test_no_server_is_named_and_no_download_is_tried(load, tmp_path):
    with pytest.raises(ValueError, match="cannot be downloaded"):
        load(url="http://127.0.0.1:1/images")
    with pytest.raises(ValueError, match="none"):
        load(root=str(tmp_path / "none"), download=False)


def test_the_list_is_the_published_one():
    rows = pd.read_csv(LIST)
    assert len(rows) == rows["ImageId"].nunique() == rows["sha256"].nunique() == 1000
    assert rows["TrueLabel"].between(1, 1000).all() and rows["TargetClass"].between(1, 1000).all()
