"""The NIPS 2017 adversarial competition's development set, downloaded image by image."""

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import ChunkedEncodingError
from urllib3 import Retry

from ..utils.files import atomic_write, remove_temporaries, sha256_of, write_csv
from ..utils.package import find_asset
from ..utils.refusals import first_line
from ..utils.stopping import raise_if_interrupted
from ..utils.terminal import Progress
from .dataset import LabelledImages
from .image_files import image_csv

LIST = find_asset("assets/nips17.csv")
"""Names, classes, target classes, bytes and SHA-256 of the 1,000 images."""
_AT_ONCE, _SECONDS = 8, 30
_RETRIES = Retry(
    4,
    connect=1,
    backoff_factor=1,
    status_forcelist=(429, 500, 502, 503, 504),
    respect_retry_after_header=False,  # it may ask for an hour
)


def nips17(
    split: str,
    *,
    root: str | None,
    url: str | None,
    download: bool = True,
    csv: str | Sequence[str] = ("images.csv", "dev_dataset.csv"),
    folder: str = "images",
    **columns: Any,
) -> LabelledImages:
    """Load the images in `root`; download what is missing if `root` has no list of images.

    The list, `images.csv`, is written after the last image: the next call goes on with an
    interrupted download. Files that are there are checked like those that arrive.

    Args:
        split: `test`.
        root: folder of `images/` and `images.csv`, in the layout of the competition.
        url: address of the folder that has the images as `ID.png`.
        download: False: use only what is in `root`.
        csv: names of the list in `root`; a download writes the first one.
        folder: path of the images' folder in `root`.
        columns: See `image_csv`.

    Raises:
        ValueError: An image cannot be downloaded, or is not the published one; or see `image_csv`.
    """
    names = [csv] if isinstance(csv, str) else [*csv]
    if root and url and download and names and split == "test":
        top = Path(root).expanduser()
        if not any((top / name).is_file() for name in names):
            _download(top / folder, top / names[0], url)
    return image_csv(split, root=root, url=url, csv=names, folder=folder, **columns)


def _download(folder: Path, path: Path, url: str) -> None:
    """Bring the missing images into a folder, then write their list to `path`."""
    rows = pd.read_csv(LIST, dtype=str)
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporaries(folder)  # of a killed process
    progress, threads = Progress("nips17"), ThreadPoolExecutor(_AT_ONCE)
    with requests.Session() as session:
        session.mount(url, HTTPAdapter(pool_maxsize=_AT_ONCE, max_retries=_RETRIES))
        fetch = partial(_fetch, session, url, folder)
        pending = {*map(partial(threads.submit, fetch), rows["ImageId"], rows["sha256"])}
        try:
            while pending:
                arrived, pending = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
                raise_if_interrupted()
                for image in arrived:
                    image.result()
                number = len(rows) - len(pending)
                progress.update(number / len(rows), f"{number:,}/{len(rows):,}")
        finally:
            progress.close()
            threads.shutdown(cancel_futures=True)
    write_csv(path, rows[["ImageId", "TrueLabel", "TargetClass"]])


def _fetch(session: requests.Session, url: str, folder: Path, image_id: str, digest: str) -> None:
    path = folder / f"{image_id}.png"
    if path.exists():
        if sha256_of(path) != digest:
            raise ValueError(f"{path} is not the published image. Delete it, and run this again.")
        return
    address = f"{url}/{path.name}"
    again = "Run this again to go on, or set dataset.root to a folder that has the images."
    for tries_left in (2, 1, 0):  # the session's own tries end where the content begins
        try:
            answer = session.get(address, timeout=_SECONDS)
            answer.raise_for_status()
            break
        except ChunkedEncodingError as error:
            if not tries_left:
                raise ValueError(f"{address} arrives incomplete. {again}") from error
        except requests.RequestException as error:
            cause = getattr(error.args[0], "reason", None) if error.args else None
            reason = f"{type(error).__name__}: {first_line(cause or error)[:120]}"
            raise ValueError(f"{address} cannot be downloaded ({reason}). {again}") from error
    if sha256(answer.content).hexdigest() != digest:
        raise ValueError(f"{address} is not the published image. {again}")
    with atomic_write(path) as draft:
        draft.write_bytes(answer.content)
