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

from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter

from src.data.dataset import LabelledImages
from src.data.files import to_rgb

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


def photos(
    split: str,
    *,
    root: str | None = None,
    n_train: int = 4000,
    n_test: int = 1000,
    crop_seed: int = 0,
) -> LabelledImages:
    """Load 32 x 32 RGB crops of ten photographs; the class is the photograph.

    The module's docstring names the photographs and says how training and test crops are kept
    apart. Crop i is of photograph i modulo their number, and the same whatever the number of crops.

    Args:
        split: `train` or `test`.
        root: the folder of the photographs; None: the one inside the scikit-image package.
        n_train: training crops, evenly over the classes.
        n_test: test crops, evenly over the classes.
        crop_seed: of the blocks and crops, at least 0.

    Raises:
        ValueError: if more crops are asked for than there are.
    """
    key, wanted = ("n_train", n_train) if split == "train" else ("n_test", n_test)
    if root is None:
        root = str(distribution("scikit-image").locate_file("skimage/data"))
    folder = Path(root).expanduser()
    crops = []
    for number, name in enumerate(PHOTOGRAPHS):
        photograph = to_rgb(folder / name)
        corners = crop_corners(photograph, split, crop_seed + number)
        count = len(range(number, wanted, len(PHOTOGRAPHS)))
        if wanted < 1 or count > len(corners):
            raise ValueError(f"{key}={wanted} is less than 1, or {name} has too few crops for it")
        crops.append([photograph[r : r + CROP, c : c + CROP] for r, c in corners[:count]])
    targets = np.arange(wanted, dtype=np.int64) % len(PHOTOGRAPHS)
    images = np.stack([crops[target][i // len(PHOTOGRAPHS)] for i, target in enumerate(targets)])
    return LabelledImages(images, targets, tuple(Path(name).stem for name in PHOTOGRAPHS))


def crop_corners(photograph: np.ndarray, split: str, seed: int) -> np.ndarray:
    """List the upper left corners of all crops of a split, in a random order.

    Args:
        photograph: uint8 (H, W, 3).
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
    grey = photograph.mean(axis=2)
    mean, mean_square = (uniform_filter(values, CROP) for values in (grey, grey**2))
    deviation: np.ndarray = np.sqrt(np.maximum(mean_square - mean**2, 0))
    first, last = CROP // 2, CROP // 2 - 1  # pixels whose window leaves the photograph
    return deviation[first:-last, first:-last]
