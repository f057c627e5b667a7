"""Small real images without a download: crops of ten photographs inside scikit-image's wheel.

A grid of 64 x 64 blocks lies centred on each photograph; one random block of each 2 x 2 group of
blocks belongs to the test split, the other three to training (a group cut down to one block is
training). Every crop lies wholly within one block, so that no pixel of a test crop is in any
training crop. Crops whose grey levels have a standard deviation below `MIN_CONTRAST` (clear sky,
empty space) are left out: they show nothing that tells the classes apart.
"""

from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter

from src.data.dataset import LabelledImages
from src.data.files import to_rgb

PHOTOGRAPHS = {
    "astronaut.png": "Eileen Collins, NASA Great Images database; public domain",
    "brick.png": "a brick wall, CC0Textures (Bricks25); CC0; grey",
    "camera.png": "a photographer, by Lav Varshney; CC0; grey",
    "chelsea.png": "Chelsea the cat, by Stefan van der Walt; CC0",
    "coffee.png": "a cup of coffee, by Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0",
    "coins.png": "Greek coins from Pompeii, Brooklyn Museum; no known copyright restrictions; grey",
    "grass.png": "some grass, by linolafett on DeviantArt; CC0; grey",
    "gravel.png": "gravel, CC0Textures (Gravel04); CC0; grey",
    "hubble_deep_field.jpg": "the Hubble eXtreme Deep Field, NASA; public domain",
    "rocket.jpg": "launch of DSCOVR on a Falcon 9, SpaceX; public domain",
}
"""Files with source and licence as `skimage.data` states them; each photograph is one class."""
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

    Crop i is of photograph i modulo their number, and the same whatever the number of crops.

    Args:
        split: `train` or `test`.
        root: folder of the photographs; None: the one inside the scikit-image package.
        n_train: training crops, evenly over the classes.
        n_test: test crops, evenly over the classes.
        crop_seed: seed of blocks and crops, at least 0.

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
        corners = _crop_corners(photograph, split, crop_seed + number)
        count = len(range(number, wanted, len(PHOTOGRAPHS)))
        if wanted < 1 or count > len(corners):
            raise ValueError(f"{key}={wanted} is less than 1, or {name} has too few crops for it")
        crops.append([photograph[r : r + CROP, c : c + CROP] for r, c in corners[:count]])
    targets = np.arange(wanted, dtype=np.int64) % len(PHOTOGRAPHS)
    images = np.stack([crops[target][i // len(PHOTOGRAPHS)] for i, target in enumerate(targets)])
    return LabelledImages(images, targets, tuple(Path(name).stem for name in PHOTOGRAPHS))


def _crop_corners(photograph: np.ndarray, split: str, seed: int) -> np.ndarray:
    """List the upper left corners of all crops of a split in random order, int64 (M, 2)."""
    # RandomState, because NumPy guarantees that its stream never changes between versions.
    random = np.random.RandomState(seed)
    height, width = photograph.shape[:2]
    in_test = _test_blocks(height // BLOCK, width // BLOCK, random)
    allowed = np.zeros((height - CROP + 1, width - CROP + 1), dtype=bool)
    room = BLOCK - CROP + 1  # starts that leave a whole crop within the block
    margin = np.array([height % BLOCK // 2, width % BLOCK // 2])
    for top, left in margin + BLOCK * np.argwhere(in_test == (split == "test")):
        allowed[top : top + room, left : left + room] = True
    corners = np.argwhere(allowed & (_local_contrast(photograph) >= MIN_CONTRAST))
    return corners[random.permutation(len(corners))]


def _test_blocks(rows: int, columns: int, random: np.random.RandomState) -> np.ndarray:
    """Choose one random block of each 2 x 2 group for the test split, bool (rows, columns)."""
    chosen = np.zeros((rows, columns), dtype=bool)
    for top in range(0, rows, 2):
        for left in range(0, columns, 2):
            group = chosen[top : top + 2, left : left + 2]
            group.flat[random.randint(group.size)] = group.size > 1
    return chosen


def _local_contrast(photograph: np.ndarray) -> np.ndarray:
    """Return the standard deviation of the grey levels of every crop, (H - 31, W - 31)."""
    grey = photograph.mean(axis=2)
    mean, mean_square = (uniform_filter(values, CROP) for values in (grey, grey**2))
    deviation: np.ndarray = np.sqrt(np.maximum(mean_square - mean**2, 0))
    first, last = CROP // 2, CROP // 2 - 1  # pixels whose window leaves the photograph
    return deviation[first:-last, first:-last]
