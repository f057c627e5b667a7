"""Commands that are killed, damaged or run into a full disk, and run again: see tests/drill.py."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drill import KINDS, Drill, prepared

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drill() -> Iterator[Drill]:
    with prepared() as drill:
        yield drill


@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_the_same_command_after_a_fault_leaves_equal_tables_or_names_the_damage(drill, kind):
    for seed in range(15 if kind == "kill" else 5):
        trial, outcome = drill.fault(seed, kind)
        assert not trial.wrong, (seed, trial.what, outcome)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """A function that makes a small disk, or changes it; the folder is `disk`."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def sized(kilobytes: int, access: str = "rw") -> Path:
        option = f"{access},size={kilobytes}k" + (",remount" if os.path.ismount(folder) else "")
        command = ["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only who may mount can make a small disk")
        return folder

    yield sized
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


@pytest.mark.parametrize("kilobytes", [20, 120, 300, 700, 1500])
def test_a_full_disk_is_named_and_nothing_half_written_is_read(drill, disk, kilobytes):
    folder, place = drill.workspace(f"full-{kilobytes}"), disk(kilobytes)
    words = ["tracking=none", f"cache_dir={place}/cache", f"hydra.sweep.dir={place}/out"]
    command = drill.begin(folder, "a", *words)
    code, said = command.code, command.printed
    assert code in (0, 1, 2) and "Traceback" not in said, said
    assert code == 0 or "No space left on device" in said, said
    disk(200_000)
    assert drill.begin(folder, "a", *words).code == 0
    assert drill.same(place / "out")


@pytest.mark.parametrize(
    ("word", "code"), [("hydra.sweep.dir", 2), ("cache_dir", 1), ("tracking.directory", 0)]
)
def test_a_read_only_folder_is_named(drill, disk, word, code):
    place = disk(1000)
    (place / "mlflow.db").touch()
    disk(1000, "ro")
    command = drill.begin(drill.workspace(f"read-only-{code}"), "a", f"{word}={place}")
    assert command.code == code, command.printed
    assert str(place) in command.printed and "Traceback" not in command.printed, command.printed
