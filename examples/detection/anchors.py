"""`Anchors`: the default boxes of SSD, and boxes as offsets from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from ofa.common.errors import UserError

ANCHORS_PER_CELL = 6
MAX_SIDE = 1024
# The usual scales of offsets of centres and of sizes, and the largest logarithm of a size.
_CENTRE_SCALE, _SIZE_SCALE, _MAX_LOG_SIZE = 10.0, 5.0, 4.0


@dataclass(frozen=True)
class Anchors:
    """Default boxes of several feature maps: six around each cell (Liu et al. 2016).

    Boxes are (x1, y1, x2, y2) in shares of the image, so that they fit images of any size.

    Attributes:
        strides: pixels between the cells of each feature map.
        min_scale: side of the boxes of the first map.
        max_scale: side of those of the last map.
    """

    strides: tuple[int, ...]
    min_scale: float
    max_scale: float

    def boxes(self, num_anchors: int, device: torch.device) -> Tensor:
        """Return all boxes (num_anchors, 4), in the order of a network's outputs.

        Args:
            num_anchors: their number, which tells the size of the images.
            device: device of the boxes.

        Raises:
            UserError: if square images of no size have so many.
        """
        return _boxes(self, num_anchors).to(device)

    def grid(self, side: int) -> list[int]:
        """Return the side of each feature map for images of `side` pixels."""
        return [-(-side // stride) for stride in self.strides]

    def num_boxes(self, side: int) -> int:
        """Return the number of boxes for images of `side` pixels."""
        return ANCHORS_PER_CELL * sum(cells**2 for cells in self.grid(side))


@cache
def _boxes(anchors: Anchors, num_anchors: int) -> Tensor:
    side = next((side for side in range(8, MAX_SIDE + 1) if anchors.num_boxes(side) == num_anchors), None)
    if side is None:
        raise UserError(
            f"The outputs are of {num_anchors} boxes; maps with strides {anchors.strides} of square images "
            "have no such number. Choose the task whose strides are those of the network."
        )
    generator = DefaultBoxGenerator([[2, 3]] * len(anchors.strides), anchors.min_scale, anchors.max_scale)
    maps = [torch.zeros(1, 1, cells, cells) for cells in anchors.grid(side)]
    boxes: Tensor
    (boxes,) = generator(ImageList(torch.zeros(1, 1, 1, 1), [(1, 1)]), maps)
    return boxes


def encoded(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return boxes (..., 4) as offsets from anchors (..., 4): of the centre and the logarithm of the size."""
    sizes, anchor_sizes = boxes[..., 2:] - boxes[..., :2], anchors[..., 2:] - anchors[..., :2]
    centres, anchor_centres = (boxes[..., :2] + boxes[..., 2:]) / 2, (anchors[..., :2] + anchors[..., 2:]) / 2
    offsets = _CENTRE_SCALE * (centres - anchor_centres) / anchor_sizes
    return torch.cat([offsets, _SIZE_SCALE * (sizes / anchor_sizes).clamp(min=1e-6).log()], -1)


def decoded(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Return the boxes (..., 4) of offsets from anchors, cut at the edges of the image."""
    anchor_sizes = anchors[..., 2:] - anchors[..., :2]
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2 + offsets[..., :2] / _CENTRE_SCALE * anchor_sizes
    sizes = (offsets[..., 2:] / _SIZE_SCALE).clamp(max=_MAX_LOG_SIZE).exp() * anchor_sizes
    return torch.cat([centres - sizes / 2, centres + sizes / 2], -1).clamp(0, 1)
