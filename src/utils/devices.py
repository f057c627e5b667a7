"""Capabilities of devices."""

import platform

import torch


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
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    x86 = platform.machine() in ("x86_64", "AMD64")
    # oneDNN accepts bfloat16 on every x86 with AVX-512, but few of these have instructions for it.
    native = torch.cpu._is_avx512_bf16_supported() if x86 else True
    return bool(native and torch.ops.mkldnn._is_mkldnn_bf16_supported())
