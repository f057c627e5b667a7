"""Number formats in which PyTorch computes, and errors of a device without free memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def arithmetic(device: str, precision: str) -> Iterator[None]:
    """Compute in a number format, regardless of what the caller has set.

    The caller's autocast and switches return at the end.

    Args:
        device: Type of the device, such as `cuda`.
        precision: `32-true`, float32 with whole mantissas; `tf32`, float32 whose products have
            short mantissas; `bf16` or `bf16-mixed`, autocasting to bfloat16.
    """
    low = precision.startswith("bf16")
    with (
        torch.autocast(device, torch.bfloat16 if low else None, enabled=low),
        _products("tf32" if precision == "tf32" else "ieee"),
    ):
        yield


@contextmanager
def _products(precision: str) -> Iterator[None]:
    """Set the precision of products of float32, `ieee` or `tf32`."""
    backends: Any = torch.backends
    switches = [backends, backends.cudnn]  # the others follow these two, unless they were set
    switches += [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    if precision == "ieee":  # few CPUs have TF32
        switches += [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    changed = []
    try:
        for switch in switches:
            if (before := switch.fp32_precision) != precision:
                changed.append((switch, before))
                switch.fp32_precision = precision
        yield
    finally:
        for switch, before in reversed(changed):
            switch.fp32_precision = before


_FULL = (
    "CUBLAS_STATUS_ALLOC_FAILED",  # cuBLAS and cuDNN allocate outside PyTorch's allocator
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "can't allocate memory",  # on CPUs
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error says that a device has too little free memory."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _FULL)
