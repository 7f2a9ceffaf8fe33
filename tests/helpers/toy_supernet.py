"""A supernet of one convolution whose number of channels is elastic: the smallest that can be trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ofa.space.estimator import Estimator
from ofa.space.genes import Gene, Genomes
from ofa.space.plain import GeneConfig, GeneSpace
from ofa.space.space import SearchSpace
from ofa.supernet.protocol import AbstractSupernet

TOY_SPACE = GeneSpace("toy", (Gene("resolution", (8, 12)), Gene("channels", (2, 4, 8), "width")))


class ToySupernet(AbstractSupernet[nn.Sequential]):
    """The first channels are used."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.space = TOY_SPACE
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv, self.norm, self.linear = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, images: Tensor, config: GeneConfig) -> Tensor:
        maps = self.norm(self.conv(images)).relu() * self._mask(config)[:, None, None]
        outputs: Tensor = self.linear(maps.mean((2, 3)))
        return outputs

    def _mask(self, config: GeneConfig) -> Tensor:
        return (torch.arange(8) < dict(config.values)["channels"]).float()

    def extract(self, config: GeneConfig, dropout: float = 0.0) -> nn.Sequential:
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), _Mean(), nn.Dropout(dropout), nn.Linear(8, 3)
        )
        for index, layer in {0: self.conv, 1: self.norm, 5: self.linear}.items():
            network[index].load_state_dict(layer.state_dict())
        with torch.no_grad():
            network[5].get_parameter("weight").mul_(self._mask(config))
        return network.train(self.training)

    def sort_channels(self, trained_space: SearchSpace, importance: str = "l1") -> None:
        self.sorted_for = trained_space

    @property
    def costs(self) -> Mapping[str, Estimator]:
        return {"macs": made_up_macs}


class _Mean(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3))


def made_up_macs(genomes: Genomes, /) -> NDArray[np.float64]:
    """Return a made-up cost."""
    return np.asarray(1.0 + genomes.sum(1), np.float64)
