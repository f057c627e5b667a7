"""Write an input's images and networks to files, so that all libraries get the same.

Networks without weights are trained by the program, once, into its cache.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import transforms

from src.config.command_line import ignore_harmless_warnings
from src.config.compose import compose_words
from src.config.read import read_job
from src.config.resolvers import CONF
from src.models import PixelClassifier
from src.run.check_job import check_job
from src.run.data import open_data
from src.run.models import ModelPool
from src.tracking import open_tracker
from src.utils.files import atomic_write

AS_TRAINED = ("trainer.fold_batch_norms=false",)


def prepare(words: list[str], folder: Path) -> None:
    """Write `images.safetensors` (images, labels, index), and `NAME.pt` of every model.

    Args:
        words: Words of the program's command line, for one job.
        folder: Folder of the files.
    """
    config = compose_words(CONF, [*words, *AS_TRAINED])
    settings = read_job(config, config.hydra)
    pool = ModelPool()
    planned, data = open_data(check_job(settings, pool.sets), pool.sets)
    tracker = open_tracker(settings.tracking, settings.dataset.name)
    models = pool.train(planned, data, settings.models, tracker)
    batch = data.images[:]._asdict()
    columns = {name: values.contiguous() for name, values in batch.items()}
    with atomic_write(folder / "images.safetensors") as temporary:
        save_file(columns, temporary, {"classes": str(data.images.num_classes)})
    for name in settings.targets:
        classifier = models[name].classifier
        assert isinstance(classifier, PixelClassifier)
        with atomic_write(folder / f"{name}.pt") as temporary:
            torch.save(_documented(classifier), temporary)


def _documented(classifier: PixelClassifier) -> nn.Sequential:
    """Return the classifier as the peers' documentation builds one, with no code of the program."""
    mean, std = (values.flatten().tolist() for values in (classifier.mean, classifier.std))
    size = classifier.input_size
    resize = [] if size is None else [transforms.Resize((size, size), antialias=True)]
    network = nn.Sequential(*resize, transforms.Normalize(mean, std), classifier.network)
    return network.eval().requires_grad_(True)


if __name__ == "__main__":
    ignore_harmless_warnings()
    try:
        prepare(sys.argv[2:], Path(sys.argv[1]))
    except ValueError as error:
        sys.exit(str(error))
