"""`DenseLogits`: the logits of torchvision's segmentation networks, which return dictionaries."""

from __future__ import annotations

from torch import Tensor, nn

KEY = "out"


class DenseLogits(nn.Module):
    """A network that returns the logits (n, classes, h, w) of another one's dictionary."""

    def __init__(self, network: nn.Module) -> None:
        """Take a network whose dictionary has the logits as `out`."""
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of each pixel of images (n, channels, h, w)."""
        logits: Tensor = self.network(images)[KEY]
        return logits
