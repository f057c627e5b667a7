"""Small real images without a download: crops of ten photographs inside scikit-image's wheel.

The photographs, with source and licence as `skimage.data` states them:

- astronaut: Eileen Collins, NASA Great Images database; public domain.
- brick: a brick wall, CC0Textures (Bricks25); CC0. Grey.
- camera: a photographer, by Lav Varshney; CC0. Grey.
- chelsea: Chelsea the cat, by Stefan van der Walt; CC0.
- coffee: a cup of coffee, by Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0.
- coins: Greek coins from Pompeii, Brooklyn Museum; no known copyright restrictions. Grey.
- grass: some grass, by linolafett on DeviantArt; CC0. Grey.
- gravel: gravel, CC0Textures (Gravel04); CC0. Grey.
- hubble_deep_field: the Hubble eXtreme Deep Field, NASA; public domain.
- rocket: launch of DSCOVR on a Falcon 9, SpaceX; public domain.

Each photograph is one class. A grid of 64 x 64 blocks lies centred on it; one random block of
each 2 x 2 group of blocks belongs to the test split, the other three to training (a group cut
down to one block is training). Every crop lies wholly within one block, so that no pixel of a
test crop is in any training crop. Crops whose grey levels have a standard deviation below
`MIN_CONTRAST` (clear sky, empty space) are left out: they show nothing that tells the classes
apart.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from src.data.dataset import ImageRecords, check_split

PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "rocket.jpg",
)
CROP = 32
BLOCK = 64
MIN_CONTRAST = 8.0  # grey levels of 0..255


@dataclass(frozen=True, eq=False)
class PhotoCrops:
    """Crops of photographs by position, interleaved: crop i is of photograph i modulo their number.

    Attributes:
        photographs: uint8 (H, W, 3) RGB or (H, W) grey each.
        corners: int64 (N, 2), row and column of each crop's upper left pixel.
    """

    photographs: tuple[np.ndarray, ...]
    corners: np.ndarray

    def read(self, position: int) -> np.ndarray:
        """Return a crop as uint8 (32, 32, 3) RGB."""
        photograph = self.photographs[position % len(self.photographs)]
        row, column = self.corners[position]
        crop = photograph[row : row + CROP, column : column + CROP]
        return crop if crop.ndim == 3 else np.repeat(crop[:, :, None], 3, axis=2)

    def content(self, position: int) -> bytes:
        """Return the pixels of a crop as bytes."""
        return self.read(position).tobytes()


def photos(
    split: str,
    *,
    root: str | None = None,
    n_train: int = 4000,
    n_test: int = 1000,
    crop_seed: int = 0,
) -> ImageRecords:
    """Load 32 x 32 RGB crops of ten photographs; the class is the photograph.

    The module's docstring names the photographs and says how training and test crops are kept
    apart. Crop i is the same whatever the number of crops.

    Args:
        split: `train` or `test`.
        root: the folder of the photographs; None: the one inside the scikit-image package.
        n_train: training crops, evenly over the classes.
        n_test: test crops, evenly over the classes.
        crop_seed: of the blocks and crops, 0..2**32 - 11.

    Raises:
        ValueError: if photographs are missing, or more crops are asked for than there are.
    """
    check_split(split)
    key, wanted = ("n_train", n_train) if split == "train" else ("n_test", n_test)
    if wanted < 1:
        raise ValueError(f"{key}={wanted} is not at least 1")
    if not 0 <= crop_seed <= 2**32 - 11:
        raise ValueError(f"crop_seed={crop_seed} is not between 0 and 2**32 - 11")
    folder = photograph_folder() if root is None else Path(root).expanduser()
    photographs = tuple(read_photograph(folder / name) for name in PHOTOGRAPHS)
    labels = np.arange(wanted, dtype=np.int64) % len(PHOTOGRAPHS)
    corners = np.empty((wanted, 2), dtype=np.int64)
    for number, photograph in enumerate(photographs):
        mine = np.flatnonzero(labels == number)
        there = crop_corners(photograph, split, crop_seed + number)
        if len(mine) > len(there):
            raise ValueError(
                f"{key}={wanted} needs {len(mine)} crops of {PHOTOGRAPHS[number]}, "
                f"which has {len(there)}"
            )
        corners[mine] = there[: len(mine)]
    crops = PhotoCrops(photographs, corners)
    names = tuple(Path(name).stem for name in PHOTOGRAPHS)
    return ImageRecords(labels=labels, class_names=names, read=crops.read, content=crops.content)


def photograph_folder() -> Path:
    """Find the data folder of the installed scikit-image, without importing the package.

    Raises:
        ValueError: if scikit-image is not installed.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("dataset=photos needs the package scikit-image: install it")
    return Path(spec.submodule_search_locations[0]) / "data"


def read_photograph(path: Path) -> np.ndarray:
    """Read a photograph as uint8 (H, W, 3) RGB or (H, W) grey.

    Raises:
        ValueError: if it is missing or no image.
    """
    try:
        with Image.open(path) as image:
            return np.array(image if image.mode == "L" else image.convert("RGB"))
    except OSError as error:
        raise ValueError(f"the photograph {path} cannot be read: {error}") from error


def crop_corners(photograph: np.ndarray, split: str, seed: int) -> np.ndarray:
    """List the upper left corners of all crops of a split, in a random order.

    Args:
        photograph: uint8 (H, W, 3) or (H, W).
        split: `train` or `test`.
        seed: of the choice of blocks and of the order.

    Returns:
        int64 (M, 2), row and column.
    """
    # RandomState, because NumPy guarantees that its stream never changes between versions.
    random = np.random.RandomState(seed)
    height, width = photograph.shape[:2]
    in_test = test_blocks(height // BLOCK, width // BLOCK, random)
    wanted = in_test if split == "test" else ~in_test
    # Which corners belong to which block, and leave room for a whole crop in it.
    rows = np.arange(height - CROP + 1) - (height % BLOCK) // 2
    columns = np.arange(width - CROP + 1) - (width % BLOCK) // 2
    row_block, row_fits = fit(rows, in_test.shape[0])
    column_block, column_fits = fit(columns, in_test.shape[1])
    allowed = wanted[row_block[:, None], column_block[None, :]]
    allowed &= row_fits[:, None] & column_fits[None, :]
    allowed &= local_contrast(photograph) >= MIN_CONTRAST
    corners = np.argwhere(allowed)
    return corners[random.permutation(len(corners))]


def test_blocks(rows: int, columns: int, random: np.random.RandomState) -> np.ndarray:
    """Choose one random block of each 2 x 2 group for the test split, bool (rows, columns)."""
    chosen = np.zeros((rows, columns), dtype=bool)
    for top in range(0, rows, 2):
        for left in range(0, columns, 2):
            tall, wide = min(2, rows - top), min(2, columns - left)
            pick = random.randint(tall * wide)
            if tall * wide > 1:
                chosen[top + pick // wide, left + pick % wide] = True
    return chosen


def fit(starts: np.ndarray, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the block of each crop's start along one axis, and whether the crop fits into it."""
    block, offset = starts // BLOCK, starts % BLOCK
    fits = (block >= 0) & (block < blocks) & (offset <= BLOCK - CROP)
    return np.clip(block, 0, blocks - 1), fits


def local_contrast(photograph: np.ndarray) -> np.ndarray:
    """Return the standard deviation of the grey levels of every crop, (H - 31, W - 31)."""
    levels = photograph.astype(np.float64)
    grey = levels.mean(axis=2) if levels.ndim == 3 else levels
    mean, mean_square = window_mean(grey), window_mean(grey**2)
    deviation: np.ndarray = np.sqrt(np.maximum(mean_square - mean**2, 0))
    return deviation


def window_mean(values: np.ndarray) -> np.ndarray:
    """Average over every crop-sized window by means of a summed-area table."""
    table = np.pad(values, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    total = (
        table[CROP:, CROP:] - table[:-CROP, CROP:] - table[CROP:, :-CROP] + table[:-CROP, :-CROP]
    )
    mean: np.ndarray = total / CROP**2
    return mean
