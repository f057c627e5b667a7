"""The command line: compose a job from conf/, run it, or say in one sentence why it cannot be."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from src.config.compose import check_groups
from src.config.errors import INTERRUPTED, REFUSALS, REFUSED, explain, refuse
from src.config.hydra_speedups import speed_up_hydra
from src.utils import stopping

_HERE = Path(__file__).resolve().parent
# Beside this package in a checkout, inside it where a wheel was installed.
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"
HARMLESS = (
    r".isinstance\(treespec, LeafSpec\). is deprecated",  # Lightning 2.6 with torch 2.15
    "The ``noload`` loader strategy is deprecated",  # MLflow 3.17 with SQLAlchemy 2.1
    "Checkpoint directory .* exists and is not empty",  # of a training that goes on
    ".*does not have many workers",  # attacks take far longer than decoding
)

GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA, AMD, and Linux in Windows
JOB_MEMORY = 3 * 2**30  # bytes; three full-size networks on 32-pixel images took 2 GB


def _joined(attack: str, source: str | list[str] | None) -> str:
    """Return the name of a job's folder, such as `bim-vgg16`."""
    attack = attack.rpartition("/")[2]
    source = source if isinstance(source, str) else "+".join(source or [])
    return f"{attack}-{source[:100]}".strip("-")


def _own_gpu() -> int:
    """Return the GPU of a sweep's job, by its number; 0 before the jobs are numbered."""
    import torch

    job = HydraConfig.get().job if HydraConfig.initialized() else OmegaConf.create({"num": 0})
    number = 0 if OmegaConf.is_missing(job, "num") else int(job.num)
    return number % max(1, torch.cuda.device_count())


def _device_of(accelerator: str) -> str:
    """Return `gpu` or `cpu`, the kind of device that a trainer will have here.

    torch, which takes seconds to load, is asked only where the system knows a GPU.
    """
    if accelerator != "auto":
        return "cpu" if accelerator == "cpu" else "gpu"
    if sys.platform != "darwin" and not any(Path(file).exists() for file in GPU_FILES):
        return "cpu"
    import torch

    return "gpu" if torch.cuda.is_available() or torch.backends.mps.is_available() else "cpu"


def _jobs_at_once(accelerator: str) -> int:
    """Return how many jobs this machine runs side by side: one a GPU, or one a core in memory."""
    if _device_of(accelerator) == "gpu":
        import torch

        return max(1, torch.cuda.device_count())
    from joblib import cpu_count  # which knows containers' limits

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cpu_count(only_physical_cores=True), memory // JOB_MEMORY))


RESOLVERS: dict[str, Callable[..., Any]] = {
    "joined": _joined,
    "device_of": _device_of,
    "by_device": lambda device, on_cpu, on_gpu: on_gpu if device == "gpu" else on_cpu,
    "own_gpu": _own_gpu,
    "jobs_at_once": _jobs_at_once,
}
for name, resolver in RESOLVERS.items():
    OmegaConf.register_new_resolver(name, resolver, replace=True)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(config: DictConfig) -> None:
    """Run one job; what fails is noted beside the job's files, and the sweep goes on."""
    stopping.raise_if_interrupted()
    ignore_harmless_warnings()
    # Here, so that --help and --cfg answer without torch.
    from src.run.attempt import attempt
    from src.utils.processes import keep_freed_memory

    keep_freed_memory()
    attempt(config, Path(HydraConfig.get().runtime.output_dir))


def ignore_harmless_warnings() -> None:
    """Keep the libraries' known chatter off the terminal, also in a launcher's workers."""
    for harmless in HARMLESS:
        warnings.filterwarnings("ignore", message=harmless)


def command_line(run: Callable[[], None]) -> None:
    """Run a command line, or say in a sentence why it cannot be, with exit code 2.

    Ctrl-C or SIGTERM leaves what is finished and exits with 130.
    """
    ignore_harmless_warnings()
    logging.raiseExceptions = False  # a log that a full disk does not take stops nothing
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & {*os.environ}:
        # Threads sleep sooner while they wait: as soon as one of their cores has another process,
        # they otherwise wait for one another most of the time.
        os.environ["GOMP_SPINCOUNT"] = "10000"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    with stopping.handle_signals():
        try:
            run()
            sys.stdout.flush()
        except KeyboardInterrupt as interrupt:
            stopping.shut_down(interrupt)
            sys.exit(INTERRUPTED)
        except REFUSALS as error:
            print(explain(error), file=sys.stderr)
            sys.exit(REFUSED)
        except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except (OSError, RuntimeError) as error:  # of Hydra's files, or of a launcher's workers
            stopping.shut_down(error)
            sys.exit(1)


def main() -> None:
    """Attack, evaluate and track, as the words of the command line say.

    In a sweep over attacks Hydra tries `attack.steps=20` on the default attack too, which has no
    steps; with `++` it does not. Each attack refuses what its function does not take.
    """
    given, parser = sys.argv[1:], get_args_parser()
    parser.error = lambda message: refuse(f"{message}; --help lists the flags")  # type: ignore[method-assign]
    overrides = parser.parse_intermixed_args(given).overrides
    for word in overrides:
        given.remove(word)
    # Hydra wants the words that are no flags in one place.
    forced = [f"++{word}" if word.startswith("attack.") else word for word in overrides]
    sys.argv[1:] = [*given, *forced]
    speed_up_hydra()

    def checked() -> None:
        check_groups(overrides, CONF)
        run()

    command_line(checked)


if __name__ == "__main__":
    main()
