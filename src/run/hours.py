"""Hours of a sweep: seconds per gradient, which jobs on this machine note beside the cache."""

import platform
from contextlib import suppress
from pathlib import Path

import torch
from pydantic import PositiveFloat, TypeAdapter

from ..cache.keys import content_key
from ..config.settings import Settings
from ..utils.devices import device_of, is_cuda
from ..utils.files import WriteError, write_text

_NOTES = TypeAdapter(dict[str, PositiveFloat])


def read_seconds(settings: Settings) -> dict[str, float]:
    """Return the noted seconds per gradient by `speed_key`; none if the file is damaged."""
    file = _file(settings)
    try:
        return _NOTES.validate_json(file.read_bytes()) if file.is_file() else {}
    except (OSError, ValueError):
        return {}


def note_seconds(settings: Settings, image_size: int, seconds: float) -> None:
    """Note the seconds per gradient of a job; they serve plans only."""
    notes = read_seconds(settings) | {speed_key(settings, image_size): seconds}
    with suppress(WriteError):  # a read-only cache
        write_text(_file(settings), _NOTES.dump_json(notes, indent=1).decode())


def speed_key(settings: Settings, image_size: int) -> str:
    """Return the source, size of images, precision and device that a speed is noted for."""
    device = device_of(settings.trainer.accelerator)
    if is_cuda(device):
        device = torch.cuda.get_device_name()
    else:
        device = f"{device} of {platform.node()} with {torch.get_num_threads()} threads"
    networks = [
        settings.model[name].model_dump(include={"network", "input_size"})
        for name in settings.source
    ]
    source = f"{settings.attack.kind} {settings.attacked} ({content_key(networks)})"
    return f"{source}, {image_size} pixels, {settings.trainer.attack_precision}, {device}"


def _file(settings: Settings) -> Path:
    return Path(settings.cache.dir) / "seconds.json"
