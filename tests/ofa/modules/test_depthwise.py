"""The depthwise convolution of training: its own weight gradient equals autograd's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ofa.modules import depthwise
from ofa.modules.depthwise import depthwise_conv2d


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [5, 7])
@pytest.mark.parametrize("size", [(1, 4), (3, 5), (6, 6), (9, 7)])
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


@pytest.mark.parametrize("case", ["narrow map", "small kernel", "no gradient"])
def test_the_plain_convolution_runs_where_strips_do_not_pay(case: str) -> None:
    images = torch.randn(2, 3, 4, 2 if case == "narrow map" else 4)
    weight = torch.randn(3, 1, 3 if case == "small kernel" else 5, 3 if case == "small kernel" else 5)
    weight.requires_grad_(case != "no gradient")
    assert not depthwise._strips_are_faster(images, weight)
    assert torch.equal(depthwise_conv2d(images, weight, 1), _plain(images, weight, 1))


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_autocast_on_a_cpu_computes_in_float32_and_returns_bfloat16(kernel_size: int) -> None:
    generator = torch.Generator().manual_seed(kernel_size)
    images = torch.randn(2, 3, 6, 6, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(3, 1, kernel_size, kernel_size, generator=generator).requires_grad_()
    # What bfloat16 cannot hold: a product in bfloat16 would lose the weight's last bits.
    exact_images, exact_weight = images.detach().float().requires_grad_(), weight.detach().requires_grad_()
    expected = _plain(exact_images, exact_weight, 1)
    with torch.autocast("cpu", torch.bfloat16):
        output = depthwise_conv2d(images, weight, 1)
        assert torch.is_autocast_enabled("cpu")
    assert output.dtype == torch.bfloat16 and torch.equal(output, expected.bfloat16())
    # The gradient that arrives is in bfloat16; from there on it is computed in float32 too.
    arriving = torch.randn(output.shape, generator=generator).bfloat16()
    found = torch.autograd.grad(output, (images, weight), arriving)
    exact = torch.autograd.grad(expected, (exact_images, exact_weight), arriving.float())
    assert found[0].dtype == torch.bfloat16 and found[1].dtype == torch.float32
    torch.testing.assert_close(found[0], exact[0].bfloat16(), atol=0, rtol=2**-7)
    torch.testing.assert_close(found[1], exact[1])
