"""Contents of images, which identify them, and the state of files, which shows that one changed."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm.contrib.concurrent import thread_map

from src.data.files import to_rgb
from src.utils.files import sha256_of


def content_of(image: Any) -> tuple[str, int, int]:
    """Decode an image; return the SHA-256 of its file, or else of its pixels, height and width."""
    pixels = to_rgb(image)
    if isinstance(image, str | Path):
        return sha256_of(Path(image)), *pixels.shape[:2]
    return hashlib.sha256(pixels.tobytes()).hexdigest(), *pixels.shape[:2]


def state_of(image: Any) -> str:
    """Return the path, size, inode and times of a file; of an image that is none, nothing."""
    if not isinstance(image, str | Path):
        return ""
    path = Path(image).absolute()
    stat = path.stat()
    # No program can set the time of change of status, as `touch` does that of content.
    return f"{path} {stat.st_size} {stat.st_ino} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def read_all(read: Callable[[int], Any], count: int, progress: bool) -> list[Any]:
    """Read the files 0 to `count` - 1 by several threads; `progress` shows a bar after 2 s."""
    return thread_map(
        read,
        range(count),
        desc="reading images",
        unit=" images",
        delay=2,
        leave=False,
        disable=not progress,
        file=sys.stdout,
        dynamic_ncols=True,
    )
