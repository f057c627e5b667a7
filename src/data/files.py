"""Folders of images, decoding, and digests of images."""

import csv
import hashlib
import re
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Allowed raster formats; not EPS, for which Pillow would start Ghostscript."""


CODE = sorted(Path(__file__).parent.glob("*.py"))
"""Files that decide how images are decoded."""
_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def is_image_file(name: str) -> bool:
    """Return True if a file's name has the suffix of an image, by torchvision's rule."""
    return name.lower().endswith(_SUFFIXES)


def existing_folder(root: str | None) -> Path:
    """Return the folder of a data set as a path; refuse it if it does not exist."""
    if not root:
        raise ValueError("dataset.root is not set. Set it to the folder of the images")
    path = Path(root).expanduser()
    if not path.is_dir():
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise ValueError(f"dataset.root={root} is not a folder{where}. Unpack archives first")
    return path


def read_list(path: str | Path, header: bool = True) -> pd.DataFrame:
    """Read a CSV file as text, without blanks around names and values.

    The first line shows the separator: a comma, a semicolon, a tab, a bar or blanks. Without a
    `header` the columns are named 0, 1, ...

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no text, or has rows of different lengths.
    """
    if not Path(path).is_file():  # a pipe would wait for ever
        raise FileNotFoundError("it is not a file")
    with open(path, encoding="utf-8-sig", newline="") as file:
        line = file.readline(10_000)
    if "\0" in line:
        raise ValueError("it is no text: it has NUL bytes")
    try:
        separator = csv.Sniffer().sniff(line, ",;\t| ").delimiter
    except csv.Error:  # one column
        separator = ","
    with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
        try:
            rows = pd.read_csv(
                path,
                sep=separator,
                header=0 if header else None,
                dtype=str,
                na_filter=False,
                index_col=False,
                skipinitialspace=True,
            )
        except pd.errors.ParserWarning as error:
            raise ValueError("it has rows with more values than its first line") from error
    rows = rows.apply(lambda column: column.str.strip())
    return rows.rename(columns=lambda name: name.strip() if isinstance(name, str) else name)


def to_rgb(image: Any) -> np.ndarray:
    """Return an image as uint8 (H, W, 3) RGB.

    The image may be a Pillow image, an image file (path or open), a uint8 array (H, W) or
    (H, W, 3), or a uint8 tensor (3, H, W). Grey images are repeated in all channels, an alpha
    channel is dropped, and the rotation flags of cameras are not applied. Anything else, such as
    16-bit channels, raises an exception whose type depends on the input.
    """
    if isinstance(image, torch.Tensor):
        image = image.permute(1, 2, 0).numpy()
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.shape[2:] == (3,):
            return image
        image = Image.fromarray(image)
    with _open(image) as picture:
        # Palettes with transparency are converted via RGBA to avoid a warning from Pillow.
        through = picture.convert("RGBA") if picture.mode == "P" else picture
        return np.array(through.convert("RGB"))


def content_of(image: Any) -> tuple[str, int, int]:
    """Return the SHA-256 of an image's file (else of its pixels), its height and its width.

    A file's header and checksums are verified, but its pixels are not decoded: half a second for
    2,000 photographs.
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
    tiles = str(getattr(picture, "tile", ""))  # e.g. ";16B" and "('RGB', 65535)"
    if picture.mode[0] in "FI" or re.search(r";16[BLN]|', \d{4,}\)", tiles):  # Pillow clips
        raise ValueError("its channels have more than 8 bits")
    return picture
