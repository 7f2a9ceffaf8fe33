"""The report of a conversion: numbers counted by hand, and a reason for everything that stays."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.graph.convert import NothingElasticError, make_elastic
from ofa.graph.module_report import ModuleReport
from ofa.graph.report import ConversionReport
from ofa.graph.report_text import report_lines


class Mixed(nn.Module):
    """A network with elastic layers and one of each reason why others stay."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 5, padding=2)
        self.narrow = nn.Conv2d(32, 8, 1)
        self.wide = nn.Conv2d(8, 64, 1)
        self.scale = nn.Parameter(torch.ones(64, 1, 1))
        self.summed = nn.Conv2d(64, 64, 1)
        self.head = nn.Linear(64, 5)
        self.training_only = nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.narrow(self.stem(images).relu()).relu()
        hidden = torch.logcumsumexp(self.summed(self.wide(hidden).relu() * self.scale), 1)
        output: Tensor = self.head(hidden.mean((2, 3)))
        return output


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 16, 1)

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = images + self.second(self.first(images).relu())
        return output


def chain(num_blocks: int = 4) -> nn.Module:
    blocks = nn.Sequential(*(Block() for _ in range(num_blocks)))
    return nn.Sequential(nn.Conv2d(3, 16, 1), blocks, nn.Conv2d(16, 7, 1))


def report_of(model: nn.Module, **settings: object) -> ConversionReport:
    supernet = make_elastic(model.eval(), torch.rand(2, 3, 8, 8), **settings)  # type: ignore[arg-type]
    assert supernet.report is not None
    return supernet.report


@pytest.fixture(scope="module")
def mixed() -> ConversionReport:
    return report_of(Mixed(), name="mixed")


@pytest.fixture(scope="module")
def modules(mixed: ConversionReport) -> dict[str, ModuleReport]:
    return {module.name: module for module in mixed.modules}


def test_each_module_says_which_genes_change_it(modules: dict[str, ModuleReport]) -> None:
    assert {name: dict(module.genes) for name, module in modules.items()} == {
        "scale": {"channels": ("width:wide",)},
        "stem": {"outputs": ("width:stem",), "kernel": ("kernel_size:stem",)},
        "narrow": {"inputs": ("width:stem",)},
        "wide": {"outputs": ("width:wide",)},
        "summed": {"inputs": ("width:wide",)},
        "head": {},
        "training_only": {},
    }
    assert modules["stem"].parameters == 32 * 3 * 25 + 32
    assert (modules["scale"].kind, modules["stem"].kind) == ("parameter", "Conv2d")


def test_each_module_that_stays_says_why(modules: dict[str, ModuleReport]) -> None:
    assert modules["narrow"].reasons["outputs"] == "has fewer than 16 channels"
    assert modules["training_only"].answer == "fixed: is not used in eval mode"
    assert modules["head"].reasons["outputs"] == "is an output of the model"
    line = Mixed.forward.__code__.co_firstlineno + 2
    reason = f"meets operator logcumsumexp, which has no rule (test_report.py:{line})"
    assert modules["summed"].answer == f"elastic: inputs; outputs stay: {reason}"


def test_unknown_operators_are_named(mixed: ConversionReport) -> None:
    assert list(mixed.unknown_operators) == ["logcumsumexp"]
    assert any(
        "Operators without a rule, whose channels stay: logcumsumexp (test_report.py" in x
        for x in report_lines(mixed)
    )


def test_costs_are_those_of_the_networks(mixed: ConversionReport) -> None:
    pixels = 64
    stem, narrow, wide, summed, head = 32 * 75, 32 * 8, 8 * 64, 64 * 64, 64 * 5
    assert mixed.costs["largest"]["macs"] == pixels * (stem + narrow + wide + summed) + head
    smallest = pixels * (8 * 27 + 8 * 8 + 8 * 16 + 16 * 64) + head
    assert mixed.costs["smallest"]["macs"] == smallest
    parameters = (8 * 27 + 8) + (8 * 8 + 8) + (16 * 8 + 16) + 16 + (64 * 16 + 64) + (5 * 64 + 5) + 20
    assert mixed.costs["smallest"]["parameters"] == parameters
    assert mixed.costs["largest"]["parameters"] == sum(p.numel() for p in Mixed().parameters())
    assert mixed.macs_share == pytest.approx(1 - head / mixed.costs["largest"]["macs"])
    # 4 widths of the stem and of the wide layer, 2 kernels.
    assert 10**mixed.log10_networks == pytest.approx(4 * 4 * 2)


def test_limits_are_answered_with_the_smallest_value(mixed: ConversionReport) -> None:
    smallest = mixed.costs["smallest"]
    report = mixed.with_limits({"macs": smallest["macs"], "parameters": 1000})
    assert [limit.is_reachable for limit in report.limits] == [True, False]
    assert any("limit 0.09197 M MACs: reachable" in line for line in report_lines(report))
    with pytest.raises(
        UserError, match="No sub-network has at most .* M parameters; the smallest has 0.001889"
    ):
        report.check_limits()
    mixed.with_limits({"peak_activation_bytes": 1e9}).check_limits()
    with pytest.raises(UserError, match=r"Unknown limit 'mac'.*Did you mean 'macs'"):
        mixed.with_limits({"mac": 1.0})


def test_the_report_is_plain_json(mixed: ConversionReport) -> None:
    values = json.loads(json.dumps(mixed.with_limits({"macs": 1.0}).to_dict()))
    assert values["genes"][-1]["choices"] == [3, 5]
    assert [module["name"] for module in values["modules"] if not module["is_elastic"]] == [
        "head",
        "training_only",
    ]
    assert values["limits"][0]["is_reachable"] is False


def test_depth_belongs_to_the_blocks_that_may_go() -> None:
    report = report_of(chain(), name="chain")
    depths = {module.name: module.genes.get("depth") for module in report.modules}
    assert depths["1.1.first"] is None and depths["1.2.first"] == ("depth:1",)
    text = "\n".join(report_lines(report))
    assert re.search(r"\n  depth 1 +2, 3 or 4 blocks\n", text)
    assert "1.{2-3}.* (4)" not in text  # names are words: "first" and "second" are lines of their own
    assert "1.{2-3}.first (2)" in text
    assert (
        "The network's own forward computes every sub-network; an extracted network is a Sequential." in text
    )


def test_long_networks_have_short_reports() -> None:
    report = report_of(chain(24), widths=(0.5, 1.0))
    assert len(report.modules) == 50
    assert len(report_lines(report)) < 30
    assert max(map(len, report_lines(report))) <= 100


def test_modules_that_vary_and_that_stay_are_told_apart_by_their_numbers() -> None:
    layers = [nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 1), nn.Conv2d(32, 8, 1), nn.Conv2d(8, 8, 1)]
    text = "\n".join(report_lines(report_of(nn.Sequential(*layers, nn.Conv2d(8, 4, 1)))))
    assert re.search(r"Modules that vary \(3\):\n  0 +outputs\n  1 +outputs, inputs\n  2 +inputs; ", text)
    assert re.search(r"Modules that stay \(2\):\n  3 .*\n  4 ", text)


def test_excluded_modules_say_so() -> None:
    report = report_of(Mixed(), exclude=["wide"])
    modules = {module.name: module for module in report.modules}
    reason = "touches a module that is excluded by wide"
    assert modules["wide"].reasons["outputs"] == reason and modules["scale"].answer == f"fixed: {reason}"
    assert modules["stem"].is_elastic


def test_parts_that_only_the_graph_varies_are_named() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 32, 1), nn.Linear(32, 5)

        def forward(self, images: Tensor) -> Tensor:
            output: Tensor = self.head(self.stem(images).reshape(-1, 32, 64).mean(2))
            return output

    report = report_of(Written())
    text = " ".join(report_lines(report))
    assert report.bound_parts == ("stem",) and report.has_free_batch
    assert "The captured graph computes the sub-networks, with any batch size" in text
    assert "written into it: stem. Where these are whole, an extracted network is a Written" in text


def test_a_network_in_which_nothing_varies_says_why() -> None:
    class Rigid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.narrow, self.summed = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 32, 1)

        def forward(self, images: Tensor) -> Tensor:
            return torch.logcumsumexp(self.summed(self.narrow(images)), 1)

    with pytest.raises(NothingElasticError) as caught:
        make_elastic(Rigid().eval(), torch.rand(2, 3, 8, 8))
    text = str(caught.value)
    assert "narrow: outputs: has fewer than 16 channels" in text
    assert "summed: outputs: meets operator logcumsumexp, which has no rule (test_report.py" in text


def test_what_cannot_be_captured_is_named_with_its_line() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, 32, 1))
            self.scale = nn.Parameter(torch.ones(32, 1, 1))

        def forward(self, images: Tensor) -> Tensor:
            features: Tensor = self.backbone(images) * self.scale
            return features if features.sum() > 0 else -features

    report = report_of(Branching())
    line = Branching.forward.__code__.co_firstlineno + 2
    modules = {module.name: module for module in report.modules}
    assert modules["backbone.0"].genes == {"outputs": ("width:backbone.0",)}
    assert modules["backbone.2"].genes == {"inputs": ("width:backbone.0",)}
    scale = modules["scale"].answer
    assert scale.startswith("fixed: is in a network, which cannot be captured: ")
    assert scale.endswith(f"(test_report.py:{line})")
    assert report.captured_modules == ("backbone",)
    assert report.costs["largest"]["macs"] == 64 * (3 * 32 + 32 * 32)
    lines = report_lines(report)
    assert any("unknown" in text for text in lines if text.startswith("smallest"))
    assert "modules that were captured on their own: backbone." in " ".join(lines)
    with pytest.raises(UserError, match="The peak_activation_bytes of Branching are unknown"):
        report.with_limits({"peak_activation_bytes": 1.0})
