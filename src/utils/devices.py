"""Capabilities of devices, and constants on them."""

import platform
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@lru_cache(maxsize=256)
def constant(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return nested tuples as a tensor that is copied to a device once; do not modify it."""
    with torch.inference_mode(False):  # later calls may need its gradient
        return torch.tensor(values, dtype=dtype, device=device)


def is_cuda(device: torch.device | str) -> bool:
    """Return True if a device is a GPU of CUDA; nothing else here asks for this type."""
    return torch.device(device).type == "cuda"


def device_of(accelerator: str) -> str:
    """Return the type of device that `trainer.accelerator` means on this machine."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return "cuda"
    return "cpu" if accelerator == "auto" else accelerator


def computes_in_tf32(device: str) -> bool:
    """Return True if a device (`cpu`, `cuda`, ...) has instructions for TF32."""
    return device == "cuda" and torch.cuda.is_tf32_supported()


def computes_in_bfloat16(device: str) -> bool:
    """Return True if a device (`cpu`, `cuda`, ...) has instructions for bfloat16.

    Without them, bfloat16 is emulated and many times slower than float32.
    """
    if is_cuda(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    x86 = platform.machine() in ("x86_64", "AMD64")
    # oneDNN accepts bfloat16 on every x86 with AVX-512, but few of these have instructions for it.
    native = torch.cpu._is_avx512_bf16_supported() if x86 else True
    return bool(native and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def move_states(states: Mapping[float, Mapping[str, Tensor]], device: torch.device) -> Any:
    """Return states on a device if a quarter of its free memory holds them; else as they are."""
    tensors = (value for state in states.values() for value in state.values())
    size = sum(value.nbytes for value in tensors)
    if not is_cuda(device) or 4 * size > torch.cuda.mem_get_info(device)[0]:
        return states
    return {
        budget: {name: value.to(device) for name, value in state.items()}
        for budget, state in states.items()
    }
