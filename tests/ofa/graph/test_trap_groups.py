"""The groups of small hard networks, written by hand."""

from __future__ import annotations

import pytest
from every_trap import TRAPS, example_of
from expected_groups import ExpectedGroup, as_expected, each, expected, heads_of_qkv, runs, strides
from permuted_units import grouping_of

HEADS, HEAD_QKV = 4, heads_of_qkv(4, 8)
LAST = expected("c", 16, "c", ">head")
STREAM = expected("patch", 32, "patch", ">qkv", "proj", ">head")
HEADS_OF_QKV = expected("qkv", HEADS, ("qkv", HEAD_QKV), (">proj", runs(HEADS, 8)), size=8)
BLOCKS = ("blocks.0", "blocks.1")
CHAIN = (
    expected(
        "stem", 16, "stem", *[p for b in BLOCKS for p in (f">{b}.conv1", f"{b}.conv2-", f"{b}.bn2!")], ">head"
    ),
    *(expected(f"{b}.conv1", 16, f"{b}.conv1-", f"{b}.bn1!", f">{b}.conv2") for b in BLOCKS),
)
SQUEEZED = (expected("a", 16, "a", ">reduce", "expand", ">head"), expected("reduce", 4, "reduce", ">expand"))
MULTIHEAD = (
    expected("patch", 32, "patch", "attention.in_proj_weight:1", "attention.out_proj", ">head"),
    expected(
        "attention.in_proj_weight",
        HEADS,
        ("attention.in_proj_weight:0", HEAD_QKV),
        ("attention.in_proj_bias:0", HEAD_QKV),
        (">attention.out_proj", runs(HEADS, 8)),
        size=8,
    ),
)
DIRECTION, LENGTH = "parametrizations.weight.original1", "parametrizations.weight.original0"
SPECTRAL = "parametrizations.weight"

EXPECTED: dict[str, tuple[ExpectedGroup, ...]] = {
    "Concat": (expected("a", 16, "a", ">c"), expected("b", 24, "b", (">c", each(24, 16))), LAST),
    "ConcatSame": (expected("a", 16, "a", (">c", strides(16, 2))), LAST),
    "ConcatThenAdd": (
        expected("a", 16, "a", "c", ">d"),
        expected("b", 16, "b", ("c", each(16, 16)), (">d", each(16, 16))),
        expected("d", 16, "d", ">head"),
    ),
    "ConcatInput": (expected("a", 16, "a", ">c"), LAST),
    "Depth": CHAIN,
    "DepthModuleList": CHAIN,
    "Residual": (
        expected("stem", 16, "stem", ">conv1", ">shortcut"),
        expected("conv1", 24, "conv1", ">conv2"),
        expected("conv2", 32, "conv2", "shortcut", ">head"),
    ),
    "InplaceResidual": (expected("conv1", 16, "conv1", "conv2", ">conv2", ">head"),),
    "InplacePart": (
        expected("conv1", 8, "conv1", "conv2", ">head"),
        expected("conv1:2", 24, ("conv1", each(24, 8)), (">head", each(24, 8))),
    ),
    "PaddedShortcut": (
        expected("conv1", 16, "conv1", ">conv2", ("conv2", each(16, 8)), (">head", each(16, 8))),
    ),
    "FlattenLinear": (
        expected("conv", 16, "conv", (">hidden", runs(16, 16))),
        expected("hidden", 32, "hidden", ">head"),
    ),
    "Grouped": (expected("a", 4, ("a", runs(4, 8)), ("b", runs(4, 16)), (">c", runs(4, 16)), size=8), LAST),
    "DepthwiseMultiplier": (expected("a", 16, "a", ("b", runs(16, 2)), (">c", runs(16, 2))), LAST),
    "Transposed": (
        expected("a", 16, "a", "up.weight:0"),
        expected(
            "up",
            4,
            ("up.weight:1", runs(4, 8)),
            ("up.bias:0", runs(4, 8)),
            ("grouped.weight:0", runs(4, 8)),
            ("grouped.bias:0", runs(4, 4)),
            (">head", runs(4, 4)),
            size=4,
        ),
    ),
    "Shared": (expected("a", 16, "a", "b", ">b", ">head"),),
    "SqueezeExcite": SQUEEZED,
    "SqueezeExciteLinear": SQUEEZED,
    "Shuffle": (expected("a", 8, ("a", strides(8, 4)), (">c", runs(8, 4)), size=4), LAST),
    "Slice": (
        expected("a", 8, "a", ">b"),
        expected("a:2", 24, ("a", each(24, 8)), (">c", each(24, 16))),
        expected("b", 16, "b", ">c"),
        LAST,
    ),
    "Chunk": (
        expected("a", 16, "a", ">b"),
        expected("a:2", 16, ("a", each(16, 16)), ">c"),
        expected("b", 16, "b", ">head"),
        expected("c", 24, "c", (">head", each(24, 16))),
    ),
    "SplitUneven": (
        expected("a", 4, "a"),
        expected("a:2", 12, ("a", each(12, 4)), ">b"),
        expected("a:3", 16, ("a", each(16, 16)), "b", ">head"),
    ),
    "Glu": (expected("a", 16, ("a", strides(16, 2)), ">b"), expected("b", 16, "b", ">head")),
    "PixelShuffle": (expected("a", 8, ("a", runs(8, 4)), ">b", size=4), expected("b", 16, "b", ">head")),
    "PixelUnshuffle": (expected("a", 8, "a", (">b", runs(8, 4)), size=4), expected("b", 16, "b", ">head")),
    "Repeat": (
        expected("b", 8, "b", ("a", strides(8, 2)), (">head", strides(8, 2)), size=2),
        expected("c", 8, "c", (">head", runs(8, 2, 16)), size=2),
    ),
    "ChannelMean": (expected("a", 32, "a", ">b"), expected("b", 16, "b", ">head")),
    "ChannelSoftmax": (expected("a", 32, "a", ">b"), expected("b", 16, "b", ">head")),
    "Functional": (
        expected("kernel1", 16, "kernel1:0", "bias1:0", "kernel2:1"),
        expected("kernel2", 24, "kernel2:0", "scale:0", "matrix:0"),
    ),
    "TwoOutputs": (expected("b", 24, "b", ">c"),),
    "UnknownOperator": (expected("b", 16, "b", ">head"),),
    "Ordered": (expected("a", 16, "a", ">b"), expected("d", 16, "d", ">head")),
    "PooledChannels": (expected("b", 16, "b", ">head"),),
    "PaddedChannels": (expected("b", 16, "b", ">head"),),
    "Clamped": (expected("a", 16, "a", "limit:0", ">head"),),
    "GroupNorms": (
        expected("a", 32, "a", "one", ">b"),
        expected("b", 8, ("b", strides(8, 4)), ("four", strides(8, 4)), (">head", strides(8, 4)), size=4),
    ),
    "InstanceNorm": (expected("a", 16, "a", "norm!", ">head"),),
    "WeightNorm": (
        expected("a", 16, f"a.{DIRECTION}:0", f"a.{LENGTH}:0", "a.bias:0", f"b.{DIRECTION}:1"),
        expected("b", 16, f"b.{DIRECTION}:0", f"b.{LENGTH}:0", "b.bias:0", ">head"),
    ),
    "SpectralNorm": (
        expected(
            "a",
            16,
            *(f"a.{SPECTRAL}.original:0", f"a.{SPECTRAL}.0._u:0", "a.bias:0", f"b.{SPECTRAL}.original:1"),
            (f"b.{SPECTRAL}.0._v:0", runs(16, 9)),
        ),
        expected("b", 16, f"b.{SPECTRAL}.original:0", f"b.{SPECTRAL}.0._u:0", "b.bias:0", ">head"),
    ),
    "WeightStandardised": (expected("a", 16, "a", ">b"), expected("b", 16, "b", ">head")),
    "SpatialGate": (expected("a", 16, "a", ">b"), expected("b", 16, "b", ">head")),
    "OtherSettings": (expected("a", 32, "a", ">b"), expected("b", 16, "b", ">head")),
    "Windows": (
        expected("a", 16, "a", (">b", runs(16, 9))),
        expected("b", 8, ("b", runs(8, 9)), ">head", size=9),
    ),
    "Sampled": (expected("a", 16, "a", ">grid", "table:0", ">head"),),
    "HeadsOfConvolution": (
        STREAM,
        expected(
            "qkv",
            HEADS,
            ("qkv", HEAD_QKV),
            *((name, runs(HEADS, 8)) for name in ("depthwise", ">proj")),
            size=8,
        ),
    ),
    "LayerScaleNorms": (
        expected("patch", 32, "patch", "position:2", "norm", ">fc1", "fc2", "gamma:0", "rms-", ">head"),
        expected("fc1", 64, "fc1", ">fc2"),
    ),
    "Attention": (STREAM, HEADS_OF_QKV),
    "AttentionUnbind": (STREAM, HEADS_OF_QKV),
    "AttentionEinsum": (
        expected("patch", 32, "patch", ">q", ">k", ">v", "proj", ">head"),
        expected("q", HEADS, *((name, runs(HEADS, 8)) for name in ("q", "k", "v", ">proj")), size=8),
    ),
    "MultiQuery": (
        expected("patch", 32, "patch", ">q", ">kv", "proj", ">head"),
        expected("q", 8, ("q", strides(8, 4)), "kv", size=4),
        expected("kv", 8, ("kv", each(8, 8)), (">proj", strides(8, 4)), size=4),
    ),
    "AttentionBias": (
        STREAM,
        expected("qkv", HEADS, ("qkv", HEAD_QKV), "table:1", (">proj", runs(HEADS, 8)), size=8),
    ),
    "AttentionBiasOfLayer": (
        STREAM,
        expected("bias", 32, "bias", ">bias_of_heads"),
        expected(
            "bias_of_heads",
            HEADS,
            *("bias_of_heads-", ("qkv", HEAD_QKV), (">proj", runs(HEADS, 8))),
            size=8,
        ),
        # Coordinates are units as well, though too few to vary.
        expected("bias:2", 2, "bias.weight:1", "distances:2"),
    ),
    "ChannelAttention": (
        STREAM,
        expected("qkv", HEADS, ("qkv", HEAD_QKV), "temperature:0", (">proj", runs(HEADS, 8)), size=8),
    ),
    "MultiheadBatchFirst": MULTIHEAD,
    "MultiheadTokensFirst": MULTIHEAD,
    "Text": (expected("table", 16, "table.weight:1", ">fc"), expected("fc", 32, "fc", ">head")),
    "TiedWeights": (expected("a", 16, "a", "b", ">b", "c.bias:0", ">head"),),
    "Unused": (expected("a", 16, "a", ">head"),),
    "Bilinear": (
        expected("a", 16, "a", "both.weight:1"),
        expected("b", 12, "b", "both.weight:2"),
        expected("both", 20, "both", ">head"),
    ),
    "Recurrent": (expected("b", 24, "b", ">head"),),
    "Signal": (
        expected(
            "a", 2, ("a", runs(2, 8)), ("bn!", runs(2, 8)), ("b", runs(2, 16)), (">head", runs(2, 16)), size=8
        ),
    ),
    "Volume": (expected("a", 16, "a", "bn!", ">b"), expected("b", 8, "b", ">head")),
    "Dictionaries": (expected("a", 16, "a", ">b"),),
    "Masked": (expected("a", 16, "a", ">b"), expected("b", 24, "b", ">head")),
    "TwoInputs": (expected("a", 8, ("a", strides(8, 2)), "b", (">head", strides(8, 3)), size=2),),
}


@pytest.mark.parametrize("name", sorted(set(TRAPS) - {"PythonBranch"}))
def test_groups_are_those_written_by_hand(name: str) -> None:
    network = TRAPS[name]()
    found = [as_expected(group) for group in grouping_of(network, example_of(network)).groups]
    assert found == list(EXPECTED[name])
