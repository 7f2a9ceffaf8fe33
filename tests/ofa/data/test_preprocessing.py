"""Preprocessing of photographs: the centred square that evaluation keeps."""

from __future__ import annotations

import pytest
import torch

from ofa.common.errors import UserError
from ofa.data.preprocessing import Preprocessing


def test_the_centred_square_is_kept_and_the_rest_left_out() -> None:
    images = torch.zeros(1, 1, 16, 40)
    images[:, :, 1:15, 13:27] = 255
    found = Preprocessing((0.5,), (0.5,), centre_share=0.875).apply(images, 7)
    assert torch.equal(found, torch.ones(1, 1, 7, 7))
    whole = Preprocessing((0.5,), (0.5,)).apply(images, 7)
    assert float(whole.min()) == -1


def test_a_share_outside_the_image_is_refused() -> None:
    with pytest.raises(UserError, match="centre_share is 1.5"):
        Preprocessing((0.5,), (0.5,), centre_share=1.5)
