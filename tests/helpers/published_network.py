"""A small network in the published form, as plain values."""

from __future__ import annotations

from typing import Any


def conv(
    channels: int, out: int, kernel: int, stride: int, act: str | None, bn: bool = True
) -> dict[str, Any]:
    return {
        "name": "ConvLayer",
        "in_channels": channels,
        "out_channels": out,
        "kernel_size": kernel,
        "stride": stride,
        "dilation": 1,
        "groups": 1,
        "bias": False,
        "use_bn": bn,
        "act_func": act,
        "has_shuffle": False,
        "ops_order": "weight_bn_act",
    }


def block(
    channels: int, out: int, kernel: int, stride: int, ratio: float, act: str, se: bool
) -> dict[str, Any]:
    inner = {
        "name": "MBInvertedConvLayer",
        "in_channels": channels,
        "out_channels": out,
        "kernel_size": kernel,
        "stride": stride,
        "expand_ratio": ratio,
        "mid_channels": None,
        "act_func": act,
        "use_se": se,
    }
    identity = {"name": "IdentityLayer", "use_bn": False, "act_func": None}
    shortcut = identity if stride == 1 and channels == out else None
    return {"name": "MobileInvertedResidualBlock", "mobile_inverted_conv": inner, "shortcut": shortcut}


def description() -> dict[str, Any]:
    """A small MobileNetV3 in the published form."""
    return {
        "name": "MobileNetV3",
        "bn": {"momentum": 0.1, "eps": 1e-05},
        "first_conv": conv(3, 8, 3, 2, "h_swish"),
        "blocks": [
            block(8, 8, 3, 1, 1, "relu", False),
            block(8, 16, 5, 2, 3, "relu", True),
            block(16, 16, 3, 1, 4, "relu", True),
            block(16, 24, 7, 2, 6, "h_swish", False),
        ],
        "final_expand_layer": conv(24, 32, 1, 1, "h_swish"),
        "feature_mix_layer": conv(32, 40, 1, 1, "h_swish", bn=False),
        "classifier": {
            "name": "LinearLayer",
            "in_features": 40,
            "out_features": 6,
            "bias": True,
            "use_bn": False,
            "act_func": None,
            "dropout_rate": 0.2,
        },
    }
