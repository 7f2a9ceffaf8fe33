"""The depthwise convolution of training: its own weight gradient equals autograd's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ofa import depthwise
from ofa.depthwise import depthwise_conv2d


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [5, 7])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (6, 6), (9, 4)])
def test_gradients_equal_those_of_the_plain_convolution(
    size: tuple[int, int], kernel_size: int, stride: int
) -> None:
    generator = torch.Generator().manual_seed(sum(size))
    images = torch.randn(3, 4, *size, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 1, kernel_size, kernel_size, generator=generator, dtype=torch.float64)
    found: list[torch.Tensor] = []
    expected: list[torch.Tensor] = []
    for function, gradients in ((depthwise_conv2d, found), (_plain, expected)):
        inputs = images.clone().requires_grad_(), weight.clone().requires_grad_()
        output = function(inputs[0], inputs[1], stride)
        gradients += [output, *torch.autograd.grad((output**2).sum(), inputs)]
    assert found[0].grad_fn is not None and "StripGradient" in found[0].grad_fn.name()
    torch.testing.assert_close(found, expected)


def _plain(images: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
    return F.conv2d(images, weight, None, stride, weight.shape[-1] // 2, groups=images.shape[1])


@pytest.mark.parametrize("case", ["small kernel", "no gradient", "autocast"])
def test_the_plain_convolution_runs_where_strips_do_not_pay(case: str) -> None:
    images = torch.randn(2, 3, 4, 4)
    weight = torch.randn(3, 1, 3 if case == "small kernel" else 5, 3 if case == "small kernel" else 5)
    weight.requires_grad_(case != "no gradient")
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        assert not depthwise._strips_pay(images, weight)
        output = depthwise_conv2d(images, weight, 1)
    torch.testing.assert_close(output, _plain(images, weight, 1).to(output.dtype), atol=0.1, rtol=0.1)
