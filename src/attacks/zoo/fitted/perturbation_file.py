"""Perturbations read from files."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from src.utils.refusals import first_line

_ZERO = 128  # grey level in a PNG that means no change


def read_perturbation(file: str, side: int, resize: bool) -> Tensor:
    """Read a perturbation in [0, 1] units, float32 (3, side, side).

    Args:
        file: `.pt`: one tensor, (3, H, W) or (1, 3, H, W). `.npy`: an array of such a shape or
            (H, W, 3). `.safetensors`: the tensor `perturbation`, as a fit of `uap` saves it.
            Otherwise an 8-bit image, whose grey level v means (v - 128) / 255.
        side: Side of the images in pixels.
        resize: Resize the perturbation bilinearly to the images' size; False: sizes must match.

    Raises:
        ValueError: The file cannot be read without unpickling objects, or holds something else.
    """
    path = Path(file)
    try:
        values = torch.as_tensor(_load(path))
    except Exception as error:  # the type depends on the format
        reason = first_line(error).partition(". ")[0][:200]
        raise ValueError(f"{file} cannot be read as one array: {reason}.") from error
    shape = tuple(values.shape)
    values = values[0] if values.ndim == 4 and len(values) == 1 else values
    if values.ndim == 3 and values.shape[0] != 3 == values.shape[2]:
        values = values.permute(2, 0, 1)
    if values.ndim != 3 or values.shape[0] != 3 or not values.is_floating_point():
        raise ValueError(f"{file} holds {values.dtype} of shape {shape}, not floats of (3, H, W).")
    if not bool((values.abs() <= 1).all()):
        raise ValueError(f"{file} has NaN or values beyond -1 to 1; one grey level is 1/255.")
    values = values.float()
    if resize and values.shape[1:] != (side, side):
        sides = (side, side)
        values = functional.interpolate(values[None], sides, mode="bilinear", antialias=True)[0]
    if values.shape[1:] != (side, side):
        size = f"{values.shape[1]} x {values.shape[2]}"
        raise ValueError(
            f"{file} is for images of {size} pixels, not {side} x {side}; attack.resize=true "
            "resizes it."
        )
    return values


def _load(path: Path) -> Any:
    if path.suffix in (".pt", ".pth"):
        return torch.load(path, map_location="cpu", weights_only=True)
    if path.suffix == ".safetensors":
        return load_file(path)["perturbation"]
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    with Image.open(path) as image:
        return (np.asarray(image.convert("RGB"), np.float32) - _ZERO) / 255
