"""Capabilities of devices, and constants on them."""

import platform
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@lru_cache(maxsize=256)
def constant(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return nested tuples as a tensor that is copied to a device once; do not modify it."""
    with torch.inference_mode(False):  # later calls may need its gradient
        return torch.tensor(values, dtype=dtype, device=device)


def computes_in_bfloat16(device: str) -> bool:
    """Return True if a device (`cpu`, `cuda`, ...) has instructions for bfloat16.

    Without them, bfloat16 is emulated and many times slower than float32.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    x86 = platform.machine() in ("x86_64", "AMD64")
    # oneDNN accepts bfloat16 on every x86 with AVX-512, but few of these have instructions for it.
    native = torch.cpu._is_avx512_bf16_supported() if x86 else True
    return bool(native and torch.ops.mkldnn._is_mkldnn_bf16_supported())
