"""The command line that brings sweeps into a tracking store that did not have them."""

import argparse
import sys
from pathlib import Path

from src.config.errors import INTERRUPTED, REFUSED
from src.config.settings import TrackingSettings
from src.store.state import OUTPUTS, PLAN, read_plan


def main() -> None:
    """Run the command line; the exit code is 2 if a sweep cannot be delivered."""
    parser = argparse.ArgumentParser("python -m src.sync", description=__doc__)
    parser.add_argument(
        "folders", nargs="*", type=Path, help="of sweeps; else all of outputs/ that were tracked"
    )
    parser.add_argument("--uri", help="of the MLflow store; else the SQLite file in mlruns/")
    parser.add_argument("--directory", default="mlruns", help="of that file, if not mlruns")
    words = parser.parse_args()
    from src.experiment.delivery import deliver  # here, so that --help answers at once

    code, tried = 0, False
    for folder in words.folders or sorted(path.parent for path in OUTPUTS.glob(f"*/{PLAN}")):
        try:
            if words.folders or read_plan(folder).tracked:
                tried = True
                store = {"uri": words.uri, "directory": words.directory}
                count = deliver(folder, TrackingSettings(name="mlflow", **store))
                print(f"{folder}: {count} jobs delivered.")
        except (ValueError, OSError) as error:
            print(error, file=sys.stderr)
            code = REFUSED
        except KeyboardInterrupt:  # what is delivered is known, and not delivered again
            code = INTERRUPTED
            break
    if not tried and code == 0:
        print(f"there is no tracked sweep in {OUTPUTS}/; name the folder of one.")
    sys.exit(code)


if __name__ == "__main__":
    main()
