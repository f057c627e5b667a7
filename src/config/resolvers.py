"""Folder of the config files, and what they need of Python: resolvers and open sections."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from ..utils.hydra_versions import OLD
from ..utils.model_names import ModelRef
from ..utils.package import command, find_asset

CONF = find_asset("conf")
GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, Linux in Windows
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
JOB_MEMORY = 3 * 2**30  # bytes; three full-size networks on 32-pixel images took 2 GB


def _joined(attack: str, source: str | list[str] | None) -> str:
    """Return the name of a job's folder, such as `bim-vgg16`."""
    attack = attack.rpartition("/")[2]
    models = [source] if isinstance(source, str) else source or []
    source = "+".join(str(ModelRef.typed(model)) for model in models)
    return f"{attack}-{source[:100]}".strip("-")


def _device_of(accelerator: str) -> str:
    """Return `gpu` or `cpu`, the kind of device that a trainer will use on this machine.

    torch takes seconds to load, so it is imported only if the system has a GPU.
    """
    if accelerator != "auto":
        return "cpu" if accelerator == "cpu" else "gpu"
    if sys.platform != "darwin" and not any(Path(file).exists() for file in GPU_FILES):
        return "cpu"
    import torch

    return "gpu" if torch.cuda.is_available() or torch.backends.mps.is_available() else "cpu"


def _jobs_at_once(accelerator: str) -> int:
    """Return the number of parallel jobs: one per GPU, or one per CPU core as memory allows."""
    if _device_of(accelerator) == "gpu":
        import torch

        return max(1, torch.cuda.device_count())
    from joblib import cpu_count  # respects the limits of containers

    limits = [Path(file).read_text() for file in MEMORY_LIMITS if Path(file).is_file()]
    memory = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    memory += [int(limit) for limit in limits if limit.strip() != "max"]
    return max(1, min(cpu_count(only_physical_cores=True), min(memory) // JOB_MEMORY))


RESOLVERS: dict[str, Callable[..., Any]] = {
    "joined": _joined,
    "device_of": _device_of,
    "by_device": lambda device, on_cpu, on_gpu: on_gpu if device == "gpu" else on_cpu,
    "jobs_at_once": _jobs_at_once,
    "command": command,
}
register: Any = OmegaConf.register_new_resolver if OLD else OmegaConf.register_resolver
for name, resolver in RESOLVERS.items():
    register(name, resolver, replace=True)
# The first entry of the defaults list. Overrides may set keys that the chosen attack lacks: in a
# sweep, `attack.steps=20` is for those attacks that have steps. The files of models and defences
# are read later.
# A file of budgets may lack `below_one`.
OPEN = {
    name: OmegaConf.create({}, flags={"struct": False}) for name in ("attack", "model", "defence")
}
OPEN["epsilon"] = OmegaConf.create({"below_one": False})
ConfigStore.instance().store("open_sections", OPEN)
