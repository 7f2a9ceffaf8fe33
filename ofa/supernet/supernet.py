"""`Supernet`: one network that computes every sub-network of its space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from ofa.architecture.cost import space_costs
from ofa.architecture.layer import LayerSpec
from ofa.architecture.lowering import lower_slots, slots
from ofa.common.errors import UserError
from ofa.modules.static import StaticNetwork
from ofa.space.estimator import Estimator
from ofa.space.space import SearchSpace
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig
from ofa.supernet.blocks import ElasticLinearLayer, elastic_layer
from ofa.supernet.extract import extract_layers
from ofa.supernet.layer import ElasticLayer
from ofa.supernet.protocol import AbstractSupernet
from ofa.supernet.sorting import sort_layers


class Supernet(AbstractSupernet[StaticNetwork]):
    """Elastic layers of a space of stages."""

    space: StagedSpace

    def __init__(self, space: StagedSpace, dropout: float = 0.0) -> None:
        """Create randomly initialised parameters of the largest network of the unrestricted `space`."""
        super().__init__()
        self.space = space.unrestricted
        layers = [elastic_layer(slot.variants(self.space), dropout) for slot in slots(self.space)]
        self.layers = nn.ModuleList(layers)

    @override
    def forward(self, images: Tensor, config: SubnetConfig) -> Tensor:
        """Return logits (n, num_classes) of sub-network `config`; see `AbstractSupernet.forward`."""
        if images.shape[-1] != config.resolution or images.shape[-2] != config.resolution:
            raise UserError(
                f"images are {images.shape[-2]}x{images.shape[-1]}; the sub-network's resolution is "
                f"{config.resolution}: resize them first."
            )
        for layer, spec in zip(self.layers, lower_slots(self.space, config), strict=True):
            if spec is not None:
                images = layer(images, spec)
        return images

    @override
    def extract(self, config: SubnetConfig, dropout: float = 0.0) -> StaticNetwork:
        """Return sub-network `config` as a static network; see `AbstractSupernet.extract`."""
        return extract_layers(self.active_layers(config), dropout).train(self.training)

    @override
    def sort_channels(self, trained_space: SearchSpace, importance: str = "l1") -> None:
        """Sort channels within and between layers; see `AbstractSupernet.sort_channels`."""
        assert isinstance(trained_space, StagedSpace) and importance in self.importances
        layers = [layer for layer in self.layers if isinstance(layer, ElasticLayer)]
        assert len(layers) == len(self.layers)
        sort_layers(self.space, layers, trained_space)

    @property
    @override
    def classifier_parameters(self) -> tuple[str, ...]:
        is_classifier = [isinstance(layer, ElasticLinearLayer) for layer in self.layers]
        prefixes = tuple(f"layers.{index}." for index, flag in enumerate(is_classifier) if flag)
        return tuple(name for name, _ in self.named_parameters() if name.startswith(prefixes))

    @property
    @override
    def costs(self) -> Mapping[str, Estimator]:
        return space_costs(self.space)

    def active_layers(self, config: SubnetConfig) -> list[tuple[ElasticLayer[Any], LayerSpec]]:
        """Return the layers that `config` uses, each with its variant."""
        active: list[tuple[ElasticLayer[Any], LayerSpec]] = []
        for layer, spec in zip(self.layers, lower_slots(self.space, config), strict=True):
            if spec is not None:
                assert isinstance(layer, ElasticLayer)
                active.append((layer, spec))
        return active


def build_supernet(space: StagedSpace, seed: int = 0, dropout: float = 0.0) -> Supernet:
    """Return a supernet whose initial weights depend on `seed` alone; global generators are unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Supernet(space, dropout)
