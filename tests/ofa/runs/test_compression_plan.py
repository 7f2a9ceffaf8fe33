"""Plans of a compression: measured as a whole, corrected, and decided once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from ofa.common.errors import UserError
from ofa.common.progress import silent
from ofa.compression.changes import apply_changes
from ofa.compression.programs import TimedModule
from ofa.modules.cost import module_cost
from ofa.runs.compression_plan import MAX_CORRECTIONS, PLAN_FILE, decide_changes
from ofa.runs.compression_settings import CompressionLimits
from ofa.runs.decided_changes import DecidedChanges


class MadeUpDevice:
    """Latencies that follow the MACs; in a whole network forms save less than by themselves, or more.

    The share `lost` of what they save is lost, or, once the fastest network was measured, `later_lost`.
    """

    def __init__(self, lost: float, later_lost: float | None = None) -> None:
        self.num_calls, self.num_networks = 0, 0
        self.lost = (lost, lost if later_lost is None else later_lost)

    def __call__(self, modules: Mapping[str, TimedModule]) -> dict[str, float]:
        self.num_calls += 1
        macs = {
            name: float(module_cost(program.module, program.input_shape).macs)
            for name, program in modules.items()
        }
        if "after" in macs:
            macs["after"] += self.lost[min(self.num_networks, 1)] * (macs["before"] - macs["after"])
            self.num_networks += 1
        return macs


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)).eval()


def decide(folder: Path, device: MadeUpDevice, share: float) -> DecidedChanges:
    return decide_changes(
        network(),
        torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
        ["split"],
        CompressionLimits(latency_share=share),
        folder,
        bar=lambda _: nullcontext(silent),
        note=lambda _: None,
        measure=device,
    )


def num_parameters(decided: DecidedChanges) -> int:
    """Return the number of parameters of the changed network."""
    return sum(parameter.numel() for parameter in apply_changes(network(), decided.changes).parameters())


def test_the_network_is_measured_within_the_limit(tmp_path: Path) -> None:
    device = MadeUpDevice(0.0)
    decided = decide(tmp_path, device, 0.6)
    assert decided.after == pytest.approx(decided.predicted)
    assert 0.5 * decided.before < decided.after <= 0.6 * decided.before
    assert "% of before" in decided.text and len(decided.lines) == 1 + 5
    # What was decided is read, and nothing is measured.
    num_calls = device.num_calls
    assert decide(tmp_path, device, 0.6) == decided and device.num_calls == num_calls


@pytest.mark.parametrize("lost", [0.08, -0.2])
def test_what_forms_save_in_the_whole_network_is_known(lost: float, tmp_path: Path) -> None:
    exact = decide(tmp_path / "exact", MadeUpDevice(0.0), 0.6)
    decided = decide(tmp_path / "other", MadeUpDevice(lost), 0.6)
    assert decided.after == pytest.approx(decided.predicted) and decided.after <= 0.6 * decided.before
    assert (num_parameters(decided) < num_parameters(exact)) == (lost > 0)


def test_a_network_above_the_limit_is_made_smaller(tmp_path: Path) -> None:
    exact = decide(tmp_path / "exact", MadeUpDevice(0.0), 0.6)
    slower = decide(tmp_path / "slower", MadeUpDevice(0.0, later_lost=0.08), 0.6)
    assert slower.after <= 0.6 * slower.before and num_parameters(slower) < num_parameters(exact)
    assert slower.after == pytest.approx(slower.predicted, rel=0.02)


def test_a_network_far_below_the_limit_is_made_larger(tmp_path: Path) -> None:
    exact = decide(tmp_path / "exact", MadeUpDevice(0.0), 0.6)
    faster = decide(tmp_path / "faster", MadeUpDevice(0.0, later_lost=-0.2), 0.6)
    assert num_parameters(exact) < num_parameters(faster) and faster.after <= 0.6 * faster.before
    # A plan that was measured tells what to expect of the next one.
    assert faster.after == pytest.approx(faster.predicted, rel=0.05)


def test_forms_that_save_nothing_in_the_whole_network_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"With the fastest form of every convolution .* gain nothing here"):
        decide(tmp_path, MadeUpDevice(1.5), 0.6)


def test_a_limit_that_no_network_keeps_is_told(tmp_path: Path) -> None:
    device = MadeUpDevice(0.0, later_lost=5.0)
    with pytest.raises(UserError, match="No network was measured within .* in [1-4] attempts; the last"):
        decide(tmp_path, device, 0.6)
    assert device.num_calls <= 3 + MAX_CORRECTIONS
    assert not (tmp_path / "plan.json").exists()


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("cost", "Unknown cost"),
        ("after", "expected numbers above 0"),
        ("full_cost", "expected numbers above 0"),
    ],
)
def test_a_plan_that_was_changed_is_refused(entry: str, text: str, tmp_path: Path) -> None:
    decide(tmp_path, MadeUpDevice(0.0), 0.7)
    path = tmp_path / PLAN_FILE
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, entry: "time" if entry == "cost" else 0.0}))
    with pytest.raises(UserError, match=text):
        decide(tmp_path, MadeUpDevice(0.0), 0.7)
