"""Input transformations: changes of the images before the source sees them, one file each."""

from src.attacks.transforms.block_shuffle import BlockShuffle
from src.attacks.transforms.diverse_input import DiverseInput
from src.attacks.transforms.scales import Admix, Scale
from src.attacks.transforms.spectrum import Spectrum
from src.attacks.transforms.structure import StructureInvariant
