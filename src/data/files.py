"""Folders, decoded images and their identity."""

import hashlib
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Allowed raster formats; Pillow's EPS reader starts Ghostscript."""


def existing_folder(root: str | None) -> Path:
    """Return the folder of a data set, or refuse what is none."""
    if not root:
        raise ValueError("dataset.root is not set: give the folder of the images")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise ValueError(
            f"dataset.root={root} is not a folder in {Path.cwd()}; unpack archives first"
        )
    return path


def to_rgb(image: Any) -> np.ndarray:
    """Return an image as uint8 (H, W, 3) RGB.

    It may be a Pillow image, a file of one (path or open), a uint8 array (H, W) or (H, W, 3), or a
    uint8 tensor (3, H, W). Grey images are repeated in all channels, an alpha channel is dropped,
    and rotation flags of cameras are not applied. Anything else, such as channels of 16 bits,
    raises an exception of one of many kinds.
    """
    if isinstance(image, torch.Tensor):
        image = image.permute(1, 2, 0).numpy()
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.shape[2:] == (3,):
            return image
        image = Image.fromarray(image)
    with _open(image) as picture:
        # A palette with transparency goes by way of RGBA, or Pillow warns.
        through = picture.convert("RGBA") if picture.mode == "P" else picture
        return np.array(through.convert("RGB"))


def content_of(image: Any) -> tuple[str, int, int]:
    """Return the SHA-256 of an image's file, else of its pixels, and its height and width.

    A file's header and checksums are checked, but its pixels are not decoded: 2,000 photographs
    take half a second.
    """
    if isinstance(image, str | Path):
        content = Path(image).read_bytes()
        with _open(BytesIO(content)) as picture:
            picture.verify()
            return hashlib.sha256(content).hexdigest(), picture.height, picture.width
    pixels = to_rgb(image)
    return hashlib.sha256(pixels.tobytes()).hexdigest(), *pixels.shape[:2]


def _open(image: Any) -> Image.Image:
    picture = image if isinstance(image, Image.Image) else Image.open(image, formats=FORMATS)
    tiles = str(getattr(picture, "tile", ""))  # such as ";16B" and "('RGB', 65535)"
    if picture.mode[0] in "FI" or re.search(r";16[BLN]|', \d{4,}\)", tiles):  # Pillow cuts them
        raise ValueError("its channels have more than 8 bits")
    return picture
