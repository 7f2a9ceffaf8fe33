"""What may vary: genes, search spaces and sub-networks; loads without PyTorch."""

from ofa.space.config import Config
from ofa.space.estimator import Estimator
from ofa.space.genes import Condition, Gene, Genomes
from ofa.space.load import load_space
from ofa.space.plain import GeneSpace
from ofa.space.space import SearchSpace
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec, StemSpec
from ofa.space.subnet import SubnetConfig

__all__ = [
    "Condition",
    "Config",
    "Estimator",
    "Gene",
    "GeneSpace",
    "Genomes",
    "SearchSpace",
    "StageSpec",
    "StagedSpace",
    "StemSpec",
    "SubnetConfig",
    "load_space",
]
