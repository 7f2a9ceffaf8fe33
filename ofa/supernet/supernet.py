"""`Supernet`: one network that computes every sub-network of its space."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ofa.architecture.lowering import lower_slots, slots
from ofa.common.errors import UserError
from ofa.space.staged import StagedSpace
from ofa.space.subnet import SubnetConfig
from ofa.supernet.blocks import elastic_layer
from ofa.supernet.layer import ElasticLayer


class Supernet(nn.Module):
    """Elastic layers of a space; which sub-network runs is an argument of each call, never a state."""

    def __init__(self, space: StagedSpace, dropout: float = 0.0) -> None:
        """Create randomly initialised parameters of the largest network of the whole `space`."""
        super().__init__()
        self.space = space.unrestricted
        layers = [elastic_layer(slot.variants(self.space), dropout) for slot in slots(self.space)]
        self.layers = nn.ModuleList(layers)

    def forward(self, images: Tensor, config: SubnetConfig) -> Tensor:
        """Return logits (n, num_classes) of sub-network `config`.

        Args:
            images: shape (n, in_channels, resolution, resolution) at the config's resolution.
            config: a network of the space.

        Raises:
            UserError: if the config is outside the space or the images are not of its resolution.
        """
        if images.shape[-1] != config.resolution or images.shape[-2] != config.resolution:
            raise UserError(
                f"images are {images.shape[-2]}x{images.shape[-1]}; the sub-network's resolution is "
                f"{config.resolution}: resize them first."
            )
        for layer, spec in zip(self.layers, lower_slots(self.space, config), strict=True):
            if spec is not None:
                images = layer(images, spec)
        return images

    def active_layers(self, config: SubnetConfig) -> list[tuple[ElasticLayer, object]]:
        """Return the layers that `config` uses, each with its variant."""
        pairs = zip(self.layers, lower_slots(self.space, config), strict=True)
        return [
            (layer, spec) for layer, spec in pairs if spec is not None and isinstance(layer, ElasticLayer)
        ]


def build_supernet(space: StagedSpace, seed: int, dropout: float = 0.0) -> Supernet:
    """Return a supernet whose initial weights depend on `seed` alone; global generators stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Supernet(space, dropout)
