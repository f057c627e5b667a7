"""Folders, unpacked archives and decoded images."""

import hashlib
import logging
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from PIL import Image

from src.utils.checks import first_line
from src.utils.files import writing

log = logging.getLogger(__name__)

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Allowed raster formats; Pillow's EPS reader starts Ghostscript."""


def open_folder(root: str | None, key: str, cache_dir: str) -> Path:
    """Return a folder, or the folder of an archive's files, unpacked into `cache_dir`.

    `root` is a folder, a tar (also compressed by gzip, xz or bzip2) or a zip; `key` names it in
    messages. An archive is unpacked once, to a folder known by its path, size, and times of change
    of content and of status (which nothing sets back). That is filled under a lock and moved into
    place when complete, so several processes may ask at once.

    Raises:
        ValueError: if there is no such folder or archive, or the archive is damaged, or a tar
            holds members or links that lead out of it; those of a zip stay inside.
    """
    path = Path(root or "").expanduser()
    if root and path.is_dir():
        return path
    if not path.is_file():
        raise ValueError(f"{key}={root or 'null'} is no folder and no archive (in {Path.cwd()})")
    stat = path.stat()
    identity = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = Path(cache_dir).expanduser() / "archives" / f"{path.name}-{digest}"
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                log.info("Unpacking %s once to %s.", path, folder)
                with TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
                    files = Path(temporary, "files")
                    files.mkdir()
                    _extract(path, files)
                    files.rename(folder)
    return folder


def _extract(archive: Path, folder: Path) -> None:
    """Unpack an archive; both libraries keep its members inside the folder."""
    try:
        if tarfile.is_tarfile(archive):  # first, since a tar that ends in a zip passes for one
            # Not torchvision's extract_archive, which extracts unfiltered in older versions.
            with tarfile.open(archive) as members:
                members.extractall(folder, filter="data")
        else:
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(folder)
    except Exception as error:  # of many kinds, depending on where the damage lies
        raise ValueError(f"{archive} cannot be unpacked: {first_line(error)[:400]}") from error


def to_rgb(image: Any) -> np.ndarray:
    """Return an image as uint8 (H, W, 3) RGB.

    It may be a Pillow image, a file of one (path or open), a uint8 array (H, W) or (H, W, 3), or a
    uint8 tensor (C, H, W). Grey images are repeated in all channels, 16-bit greys scaled to 8 bits;
    an alpha channel is dropped, and rotation flags of cameras are not applied. Anything else raises
    an exception of one of many kinds.
    """
    if isinstance(image, torch.Tensor):
        image = image.permute(1, 2, 0).numpy()
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.shape[2:] == (3,):
            return image
        image = Image.fromarray(image[:, :, 0] if image.shape[2:] == (1,) else image)
    with image if isinstance(image, Image.Image) else Image.open(image, formats=FORMATS) as picture:
        if picture.mode[0] in "FI":  # also I;16 and the like
            grey = np.asarray(picture)
            if picture.mode == "F" or grey.min() < 0 or grey.max() > 65535:
                raise ValueError("its grey levels are not whole numbers of 16 bits")
            if picture.mode == "I" and 0 < grey.max() < 256:
                raise ValueError("its grey levels, of 32 bits, may be meant as 8 or as 16 bits")
            return np.repeat(np.rint(grey / 257).astype(np.uint8)[:, :, None], 3, axis=2)
        # A palette with transparency goes by way of RGBA, or Pillow warns.
        through = picture.convert("RGBA") if picture.mode == "P" else picture
        return np.array(through.convert("RGB"))
