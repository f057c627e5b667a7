"""The command line that describes clean images and what models say of them."""

import hydra
from omegaconf import DictConfig

from src.main import CONF, attempt_here, command_line


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="explore")
def run(config: DictConfig) -> None:
    """Show the clean images to the models; what fails is noted beside the files."""
    attempt_here(config)


def main() -> None:
    """Run the command line; Ctrl-C or SIGTERM leaves what is finished and exits with 130."""
    command_line(run)


if __name__ == "__main__":
    main()
