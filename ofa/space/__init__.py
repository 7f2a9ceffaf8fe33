"""What may vary: genes, search spaces and sub-networks; loads without PyTorch."""

from ofa.space.estimator import Estimator
from ofa.space.genes import Gene, Genomes
from ofa.space.space import SearchSpace
from ofa.space.stages import StageSpec, StemSpec
from ofa.space.subnet import SubnetConfig

__all__ = ["Estimator", "Gene", "Genomes", "SearchSpace", "StageSpec", "StemSpec", "SubnetConfig"]
