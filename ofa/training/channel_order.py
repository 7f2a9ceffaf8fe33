"""Sorting of channels by an importance that may need gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ofa.common.distributed import SINGLE_PROCESS, World
from ofa.data.base import resize
from ofa.evaluation.outputs import float_outputs
from ofa.evaluation.task import Task
from ofa.space.space import SearchSpace
from ofa.supernet.protocol import AbstractSupernet
from ofa.training.known_faults import check_strided_convolutions


def sort_channels(
    supernet: AbstractSupernet[nn.Module],
    trained_space: SearchSpace,
    importance: str,
    batches: Iterable[tuple[Tensor, Tensor]],
    task: Task,
    world: World = SINGLE_PROCESS,
) -> None:
    """Sort channels in place, and leave the supernet in eval mode if gradients are computed for it.

    Args:
        supernet: supernet on its device, whose `importances` name the importance.
        trained_space: networks that keep their outputs; the largest one is differentiated.
        importance: one of `ofa.training.settings.IMPORTANCES`.
        batches: images and targets on the device that gradients are summed over.
        task: loss whose gradients count.
        world: processes that sort together; their gradients are averaged, so that their order is one.

    Raises:
        UserError: for a network whose gradients PyTorch computes wrongly.
    """
    if importance == "l1":
        supernet.sort_channels(trained_space)
        return
    supernet.eval().zero_grad(set_to_none=True)
    config = trained_space.largest
    check_strided_convolutions(supernet.extract(config), next(supernet.parameters()).device)
    for images, targets in batches:
        outputs = supernet(resize(images, config.resolution), config)
        torch.autograd.backward(task.loss(float_outputs(outputs), targets))
    world.all_reduce_mean_([weight.grad for weight in supernet.parameters() if weight.grad is not None])
    supernet.sort_channels(trained_space, importance)
    supernet.zero_grad(set_to_none=True)
