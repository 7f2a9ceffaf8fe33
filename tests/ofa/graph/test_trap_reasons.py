"""Why channels stay, in words for the user; a rule that is missing or fails costs channels only."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from every_trap import TRAPS, example_of
from permuted_units import TOLERANCE, difference, grouping_of, outputs_of, permuted_state
from torch import Tensor, nn
from trap_networks import Pooled, conv

from ofa.graph.capture import CaptureError, capture
from ofa.graph.groups import Grouping
from ofa.graph.labels.call import RULES, Call
from ofa.graph.labels.store import Axes

# Network, parameter, axis, reason.
REASONS = [
    ("Concat", "a.weight", 1, "reads channels that stay in conv2d (trap_networks.py:"),
    ("Concat", "a.weight", 2, "is convolved as space by conv2d"),
    ("Concat", "head.weight", 0, "is an output of the model"),
    ("Grouped", "b.weight", 1, "is an axis within the groups of conv2d"),
    ("UnknownOperator", "a.weight", 0, "meets operator logcumsumexp, which has no rule (trap_networks.py:"),
    ("Ordered", "b.weight", 0, "is used in its order by roll"),
    ("Ordered", "c.weight", 0, "is used in its order by flip"),
    ("PooledChannels", "a.weight", 0, "is resized as space by avg_pool1d"),
    ("PaddedChannels", "a.weight", 0, "is padded with its own values by pad"),
    ("PaddedShortcut", "conv2.weight", 0, "is padding of pad"),
    (
        "LayerScaleNorms",
        "position",
        1,
        "is combined with channels that stay by add (trap_networks_of_tokens.py:",
    ),
    ("AttentionBias", "table", 0, "is read by index in index"),
    ("AttentionBias", "index", 0, "has one index or holds no channels"),
    ("Text", "table.weight", 0, "is looked up by embedding"),
    ("Unused", "spare.weight", 0, "is not used in eval mode"),
    ("Recurrent", "a.weight", 0, "meets operator gru, which has no rule"),
    ("Recurrent", "gru.weight_hh_l0", 1, "meets operator gru, which has no rule"),
    ("TwoOutputs", "a.weight", 0, "is an output of the model"),
    ("Dictionaries", "b.weight", 0, "is an output of the model"),
]


def trap_grouping(name: str) -> Grouping:
    network = TRAPS[name]()
    return grouping_of(network, example_of(network))


@pytest.mark.parametrize(("name", "parameter", "axis", "reason"), REASONS)
def test_what_stays_has_its_reason(name: str, parameter: str, axis: int, reason: str) -> None:
    assert trap_grouping(name).labelled.reason(parameter, axis).startswith(reason)


def test_what_is_elastic_has_no_reason() -> None:
    grouping = trap_grouping("Concat")
    assert {grouping.labelled.reason(*key) for group in grouping.groups for key in group.axes} == {""}


def test_an_operator_without_a_rule_is_named_with_its_place() -> None:
    (name, place), *others = trap_grouping("UnknownOperator").labelled.unknown_operators.items()
    line = inspect.getsource(Pooled.forward).splitlines()
    start = inspect.getsourcelines(Pooled.forward)[1]
    assert (name, place, others) == ("logcumsumexp", f"trap_networks.py:{start + len(line) - 1}", [])


class TakesNumber(nn.Module):
    """The forward pass takes a size from data."""

    def forward(self, values: Tensor) -> Any:
        return values[:, : int(values.sum().item())]


class Raises(nn.Module):
    """The forward pass fails."""

    def forward(self, values: Tensor) -> Any:
        raise ValueError("of the user\nin two lines")


@pytest.mark.parametrize(
    ("kind", "function", "code", "message"),
    [
        (TRAPS["PythonBranch"], "features", "if hidden.sum", "the code branches on values of tensors"),
        (
            TakesNumber,
            "forward",
            "return",
            "the code branches on values of tensors, or takes sizes from them",
        ),
        (Raises, "forward", "raise", "ValueError: of the user"),
    ],
)
def test_what_cannot_be_captured_names_its_line(
    kind: type[nn.Module], function: str, code: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    lines, start = inspect.getsourcelines(getattr(kind, function))
    line = start + next(index for index, text in enumerate(lines) if code in text)
    file = Path(inspect.getfile(kind)).name
    network = kind()
    with pytest.raises(CaptureError, match=f"^{message}.* ?\\({re.escape(file)}:{line}\\)$"):
        capture(network, example_of(network), {})
    assert capfd.readouterr().err == ""


def failing(_: Call) -> Axes:
    raise ZeroDivisionError


def of_wrong_rank(call: Call) -> Axes:
    return call.axes()[:-1]


def blind(call: Call) -> Axes:
    return list(call.axes())


class Product(Pooled):
    """A product of two layers."""

    def __init__(self) -> None:
        super().__init__(16, a=conv(3, 16), b=conv(3, 16), c=conv(16, 16))

    def features(self, images: Tensor) -> Any:
        return self.c(self.a(images) * self.b(images))


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (failing, "meets operator mul, whose rule fails with ZeroDivisionError"),
        (of_wrong_rank, "meets operator mul in a shape that its rule does not cover"),
        (blind, "is an operand that the rule of mul does not know"),
    ],
)
def test_a_rule_that_fails_costs_channels_only(
    rule: Callable[[Call], Axes], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Product().double().eval()
    args = (torch.randn(2, 3, 8, 8, dtype=torch.float64),)
    assert [group.name for group in grouping_of(network, args).groups] == ["a", "c"]
    monkeypatch.setitem(RULES, "mul", rule)
    grouping = grouping_of(network, args)
    assert grouping.labelled.reason("b.weight", 0).startswith(reason)
    assert "b" not in [group.name for group in grouping.groups]
    state = permuted_state(network, [group for group in grouping.groups if group.name == "c"], seed=0)
    assert difference(outputs_of(network, args), outputs_of(network, args, state)) < TOLERANCE
