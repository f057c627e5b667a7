"""Downloads of public weights from a server on this machine: whole, damaged, missing, at once."""

import hashlib
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models

from src.models import weights_digest
from src.models.providers import load_network

TIMM, VISION = "timm/resnet18.a1_in1k", "torchvision/squeezenet1_1.IMAGENET1K_V1"
COMMIT = "0123456789" * 4


class Hub(BaseHTTPRequestHandler):
    """Server of one file, as Hugging Face has it, too; it sends a part, or the whole."""

    body = b""
    sent = 1.0
    status = 200
    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.do_HEAD()
        if self.status == 200 and self.command == "GET" and "/api/" not in self.path:
            self.wfile.write(self.body[: int(self.sent * len(self.body))])

    def do_HEAD(self):
        self.asked.append(self.path)
        known = self.status == 200 and ("/api/" in self.path or "config" not in self.path)
        self.send_response(self.status if known or self.status != 200 else 404)
        body = b'{"id": "timm/resnet18.a1_in1k", "sha": "%s"}' % COMMIT.encode()
        size = len(body if "/api/" in self.path else self.body) * known
        self.send_header("Content-Length", str(size))
        self.send_header("ETag", f'"{hashlib.sha256(self.body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if "/api/" in self.path and known:
            self.wfile.write(body)

    def log_message(self, *_):
        """Print nothing."""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server of the weights of both models, and the digests of the networks."""
    network = models.squeezenet1_1().eval()
    torch.save(network.state_dict(), tmp_path / "squeezenet.pth")
    server = type("Server", (Hub,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_port}"
        server.body = (tmp_path / "squeezenet.pth").read_bytes()
        digest = hashlib.sha256(server.body).hexdigest()[:8]
        weights = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.value
        monkeypatch.setattr(weights, "url", f"{address}/squeezenet1_1-{digest}.pth")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server, weights_digest(network)
        running.shutdown()


def cached(folder: Path) -> list[Path]:
    return [*folder.glob("torch/hub/checkpoints/*"), *folder.glob("hf/*/snapshots/*/*")]


def test_weights_are_fetched_once(hub, tmp_path):
    server, digest = hub
    for _ in range(2):
        assert weights_digest(load_network(VISION)) == digest
    assert len(server.asked) == 1


def test_two_processes_fetch_at_once(hub, tmp_path, at_once):
    at_once(*[partial(load_network, VISION)] * 2)
    assert weights_digest(load_network(VISION)) == hub[1]
    assert len(cached(tmp_path)) == 1


@pytest.mark.parametrize("name", [TIMM, VISION])
@pytest.mark.parametrize("damage", [{"sent": 0.5}, {"status": 404}, {"body": b"other" * 9}])
def test_what_is_damaged_or_missing_is_refused_and_not_kept(hub, tmp_path, name, damage):
    for key, value in damage.items():
        setattr(hub[0], key, value)
    with pytest.raises(ValueError, match=rf"^{name}: "):
        load_network(name)
    kept_by_its_size = name == TIMM and "body" in damage  # Hugging Face checks no digest
    assert bool(cached(tmp_path)) == kept_by_its_size


@pytest.mark.slow
def test_weights_come_from_hugging_face(hub, tmp_path):
    network = timm.create_model("resnet18")
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    hub[0].body = (tmp_path / "model.safetensors").read_bytes()
    assert weights_digest(load_network(TIMM)) == weights_digest(network)
    assert cached(tmp_path)
