from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def write_classes() -> Callable[..., Path]:
    """A function that writes folders of small images; class c and image i have grey 10 c + i."""

    def write(folder: Path, classes: list[str], images: int = 2, start: int = 0) -> Path:
        for number, name in enumerate(classes):
            (folder / name).mkdir(parents=True)
            for i in range(images):
                grey = start + 10 * number + i
                Image.new("RGB", (4, 4), (grey,) * 3).save(folder / name / f"{i}.png")
        return folder

    return write
