"""Digests and sizes of image files, kept between runs: a known file is not read again."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from src.utils.cache import cache_entry, is_cached, sha256_of
from src.utils.files import writing

_SETTLED = 2 * 10**9  # ns; a younger file may change again and have the same time


class Content(NamedTuple):
    """SHA-256 of a file or of pixels, in hexadecimal digits, and the image's size in pixels."""

    sha256: str
    height: int
    width: int


def contents_of_files(
    files: Mapping[int, Path],
    decode: Callable[[int], np.ndarray],
    index: Path | None,
    progress: bool = False,
) -> dict[int, Content]:
    """Return the content of each file; those that the index lacks are read by several threads.

    Args:
        files: image files by number.
        decode: returns the image of a number, (H, W, 3), or raises; the first error is passed on.
        index: JSON file of contents by path, size, inode and times of change, made and added to
            here; None: nothing is kept. Of several processes one reads, and the others wait.
        progress: whether reading that takes over two seconds shows a bar.
    """
    if not files:
        return {}
    keys = {number: _key(path) for number, path in files.items()}

    def read(number: int) -> Content:
        height, width = decode(number).shape[:2]
        return Content(sha256_of(files[number]), height, width)

    with nullcontext() if index is None else _lock(index):
        kept = json.loads(index.read_bytes()) if index and is_cached(index) else {}
        found = {number: Content(*kept[key]) for number, key in keys.items() if key in kept}
        missing, new = [number for number in files if number not in found], {}
        bar = tqdm(
            missing,
            desc="reading images",
            unit=" images",
            delay=2,
            leave=False,
            disable=not progress,
            file=sys.stdout,
            dynamic_ncols=True,
        )
        try:
            with ThreadPoolExecutor() as pool:
                for number, content in zip(bar, pool.map(read, missing), strict=True):
                    found[number] = content
                    if key := keys[number]:
                        new[key] = content
        finally:  # where one is refused, those before it need no second reading
            if index is not None and new:
                with cache_entry(index) as temporary:
                    temporary.write_text(json.dumps(kept | new))
    return found


def _key(path: Path) -> str | None:
    """Return the path, size, inode and times of a file; None: it must be read anyway."""
    try:
        stat = path.stat()
    except OSError:  # which reading tells
        return None
    if time.time_ns() - stat.st_ctime_ns < _SETTLED:
        return None
    # No program can set the time of change of status, as `touch` does that of content.
    facts = (stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
    return f"{path.absolute()} {facts}"


def _lock(index: Path) -> FileLock:
    with writing(index):
        index.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(index.with_suffix(".lock"))
