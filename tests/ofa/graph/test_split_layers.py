"""Split convolutions of a user's network: their rank is a gene beside the widths."""

from __future__ import annotations

import copy
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from elastic_toys import ToyBlock
from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.graph.convert import make_elastic
from ofa.graph.genes import ChoiceRule
from ofa.graph.graph_values import graph_to_values
from ofa.graph.importance import IMPORTANCES
from ofa.graph.iterative_pruning import narrowed
from ofa.graph.pieces import find_pieces
from ofa.graph.sensitivity import measure_sensitivity
from ofa.graph.state import state_of
from ofa.graph.subnet import make_subnet
from ofa.graph.supernet import GraphSupernet
from ofa.graph.supernet_file import load_graph_supernet, save_graph_supernet
from ofa.graph.tracing import GraphTracer
from ofa.modules.cost import module_cost
from ofa.modules.split import composed_weight
from ofa.training.phases import Phase

IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    """A stem, two residual blocks of split convolutions, and a wider convolution with stride."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 1)
        self.blocks = nn.Sequential(ToyBlock(16), ToyBlock(16))
        self.wide = nn.Conv2d(16, 32, 3, stride=2, bias=False)
        self.head = nn.Linear(32, 7)

    def forward(self, images: Tensor) -> Any:
        return self.head(self.wide(self.blocks(self.stem(images).relu())).relu().mean((2, 3)))


def network() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


elastic = partial(make_elastic, widths=(0.5, 1.0), depths=(1.0,), divisor=4, min_channels=8)


@cache
def supernet() -> GraphSupernet:
    return elastic(network(), IMAGES, ranks=(0.25, 0.5, 1.0)).eval()


def choices_of(found: GraphSupernet, kind: str) -> dict[str, tuple[float, ...]]:
    return {gene.part: gene.choices for gene in found.space.genes if gene.kind == kind}


def ranks_of(found: GraphSupernet) -> dict[str, tuple[float, ...]]:
    return choices_of(found, "rank")


def test_ranks_are_genes_beside_the_widths_of_the_convolutions() -> None:
    convolutions = [f"blocks.{block}.conv{number}" for block in (0, 1) for number in (1, 2)]
    assert ranks_of(supernet()) == dict.fromkeys((*convolutions, "wide"), (12, 24, 48))
    assert set(choices_of(supernet(), "width")) == {
        "stem",
        *(f"blocks.{b}.conv1" for b in (0, 1)),
        "wide",
    }


def test_the_full_rank_computes_the_network_but_for_rounding() -> None:
    given = network()
    before = copy.deepcopy(given.state_dict())
    outputs = elastic(given, IMAGES, ranks=(0.5, 1.0)).eval()
    torch.testing.assert_close(outputs(IMAGES, outputs.space.largest), given(IMAGES), rtol=0, atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in given.state_dict().items())
    assert type(given.get_submodule("wide")) is nn.Conv2d


def test_a_lower_largest_rank_is_the_best_split_of_it() -> None:
    given = network()
    found = elastic(given, IMAGES, ranks=(0.25,), include=["wide"]).eval()
    assert ranks_of(found) == {}
    weights = dict(found.model.named_parameters())
    kernel = composed_weight(weights["wide.0.weight"], weights["wide.1.weight"])
    whole = given.get_parameter("wide.weight")
    values = torch.linalg.svdvals(whole.permute(1, 2, 0, 3).reshape(48, 96))
    torch.testing.assert_close((kernel - whole).norm(), values[12:].norm())


def test_extracted_networks_compute_what_the_supernet_does_at_counted_costs() -> None:
    space = supernet().space
    narrow_rank = space.config_of({**space.largest.to_dict(), "rank:wide": 12})
    for config in (space.largest, space.smallest, narrow_rank):
        extracted = supernet().extract(config)
        assert torch.equal(extracted(IMAGES), supernet()(IMAGES, config))
        counted = module_cost(extracted, (3, 12, 12))
        genomes = space.genomes([config])
        assert supernet().costs["macs"](genomes) == counted.macs
        assert supernet().costs["parameters"](genomes) == counted.parameters
    assert extracted.wide[0].weight.shape == (12, 16, 3, 1)  # type: ignore[index, union-attr]


def test_programs_of_tables_have_the_rank() -> None:
    found = supernet()
    assert found.graph is not None
    tracer = GraphTracer(found.graph, found.space, found.template, 1)

    def keys(**values: float) -> list[str]:
        config = found.space.config_of({**found.space.largest.to_dict(), **values})
        traced = tracer.values(config)
        return [piece.program(tracer, traced).key for piece in find_pieces(tracer.graph, traced)]

    changed = [a != b for a, b in zip(keys(), keys(**{"rank:wide": 12}), strict=True)]
    assert sum(changed) == 2


def test_rules_and_patterns_choose_what_is_split() -> None:
    rules = (ChoiceRule("blocks.0.*", ranks=()), ChoiceRule("wide", ranks=(0.75, 1.0), widths=(1.0,)))
    found = elastic(network(), IMAGES, ranks=(0.5, 1.0), rules=rules, exclude=["blocks.1.conv2"])
    assert ranks_of(found) == {"blocks.1.conv1": (24, 48), "wide": (36, 48)}
    assert "wide" not in choices_of(found, "width")
    assert [split.name for split in found.space.structure.splits] == ["blocks.1.conv1", "wide"]


def mixed_ranks(found: GraphSupernet) -> None:
    """Let every channel between split convolutions stand for several singular values."""
    for group in found.space.structure.groups:
        if group.kind == "rank":
            generator = torch.Generator().manual_seed(1)
            mixing = torch.linalg.qr(torch.randn(group.num_units, group.num_units, generator=generator))[0]
            first, last = (found.model.get_parameter(f"{group.layer}.{n}.weight") for n in (0, 1))
            with torch.no_grad():
                first.copy_(torch.einsum("rs,sikl->rikl", mixing, first))
                last.copy_(torch.einsum("oskl,rs->orkl", last, mixing))


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_sorting_finds_the_best_ranks_anew_where_one_was_trained(importance: str) -> None:
    found = copy.deepcopy(supernet())
    expected = {name: tensor.clone() for name, tensor in state_of(found.model).items()}
    mixed_ranks(found)
    config = found.space.config_of({**found.space.largest.to_dict(), "rank:wide": 12})
    with torch.no_grad():
        best, before = supernet()(IMAGES, config), found(IMAGES, found.space.largest)
        assert (found(IMAGES, config) - best).abs().max() > 1e-3
    torch.autograd.backward(found(IMAGES, found.space.largest).sum())
    found.sort_channels(found.space.keep_largest({"rank": 1}), importance)
    with torch.no_grad():
        torch.testing.assert_close(found(IMAGES, found.space.largest), before, rtol=0, atol=1e-5)
        torch.testing.assert_close(found(IMAGES, config), best, rtol=0, atol=1e-4)
    assert not torch.equal(state_of(found.model)["wide.0.weight"], expected["wide.0.weight"])


def test_sorting_leaves_the_order_of_ranks_that_were_trained() -> None:
    found = copy.deepcopy(supernet())
    mixed_ranks(found)
    before = {name: tensor.clone() for name, tensor in state_of(found.model).items()}
    config = found.space.smallest
    with torch.no_grad():
        outputs = found(IMAGES, config)
        found.sort_channels(found.space)
        torch.testing.assert_close(found(IMAGES, config), outputs)
    after = state_of(found.model)["wide.0.weight"]
    # Only the inputs changed places.
    assert torch.equal(after.sort(1).values, before["wide.0.weight"].sort(1).values)


def test_ranks_follow_the_widths_of_a_phase_unless_it_says_otherwise() -> None:
    space = supernet().space
    phase = partial(Phase, 1, 0.1, teacher=None)
    assert phase(widths=1).space(space).allowed_values("rank:wide") == (48,)
    assert phase(widths=1, ranks=2).space(space).allowed_values("rank:wide") == (24, 48)
    assert phase(ranks=1).space(space).allowed_values("width:wide") == (16, 32)
    with pytest.raises(UserError, match="ranks of a phase is 0"):
        phase(ranks=0)


def test_pruning_narrows_ranks_as_widths() -> None:
    space = supernet().space
    sensitivity = measure_sensitivity(space, lambda config: dict(config.values)["rank:wide"], num_points=1)
    found = {entry.gene: entry for entry in sensitivity}
    assert found["rank:wide"].counts == (12, 48) and found["rank:wide"].losses == (36, 0)
    assert found["width:wide"].losses == (0, 0)
    smaller = space.config_of({**space.largest.to_dict(), "rank:wide": 24})
    assert narrowed(space, smaller).allowed_values("rank:wide") == (12, 24)


def test_files_make_the_split_network_of_the_whole_one(tmp_path: Path) -> None:
    found = supernet()
    save_graph_supernet(tmp_path / "supernet.pt", found)
    loaded = load_graph_supernet(tmp_path / "supernet.pt", network())
    smallest = found.space.smallest
    assert torch.equal(loaded(IMAGES, smallest), found(IMAGES, smallest))
    subnet = make_subnet(network(), found.space, smallest, None)
    subnet.load_state_dict(found.extract(smallest).state_dict())
    assert torch.equal(subnet(IMAGES), found(IMAGES, smallest))
    other = nn.Sequential(nn.Conv2d(3, 16, 1))
    with pytest.raises(UserError, match="Sequential has no module of this name as blocks.0.conv1"):
        load_graph_supernet(tmp_path / "supernet.pt", other)


class Branching(nn.Module):
    """A body of split convolutions within a forward that cannot be captured."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, 8, 3), nn.Conv2d(8, 8, 1))

    def forward(self, images: Tensor) -> Any:
        maps = self.body(images)
        return maps if maps.sum() > 0 else -maps


def test_ranks_in_parts_of_a_network() -> None:
    found = elastic(Branching().eval(), IMAGES, ranks=(0.5, 1.0)).eval()
    assert found.graph is None and ranks_of(found) == {"body.2": (12, 24)}
    smallest = found.space.smallest
    assert torch.equal(found.extract(smallest)(IMAGES), found(IMAGES, smallest))


class Chunked(nn.Module):
    """Only the graph computes fewer channels of `wide`, before a split convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.last = nn.Conv2d(3, 32, 1), nn.Conv2d(16, 16, 3)

    def forward(self, images: Tensor) -> Any:
        first, second = self.wide(images).split([16, 16], 1)
        return self.last(first * second).flatten(1)


def test_ranks_beside_groups_that_only_the_graph_computes() -> None:
    found = elastic(Chunked().eval(), IMAGES, ranks=(0.5, 1.0)).eval()
    assert found.runs_graph and ranks_of(found) == {"last": (24, 48)}
    assert found.graph is not None and graph_to_values(found.graph)
    for config in (found.space.smallest, found.space.largest):
        assert torch.equal(found.extract(config)(IMAGES), found(IMAGES, config))


class ReadsWeight(Small):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images.to(self.wide.weight.dtype))


class AsksType(Small):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images if isinstance(self.wide, nn.Conv2d) else 2 * images)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (Small, {"ranks": (0.5, 2.0)}, r"ranks are \[0.5, 2.0\]; expected shares of the full rank above 0"),
        (Small, {"ranks": (0.0,)}, "expected shares of the full rank above 0, up to 1"),
        (Small, {"rules": (ChoiceRule("wide", ranks=(-1,)),)}, "expected shares of the full rank above 0"),
        (Small, {"ranks": (0.5,), "exclude": ["blocks", "wide"]}, "split: 1 of a lower rank, 5 excluded"),
        (lambda: nn.Linear(4, 4), {"ranks": (0.5,)}, "No convolution can be split: there is none"),
        (ReadsWeight, {"ranks": (0.5,)}, "ReadsWeight fails with split convolutions: AttributeError"),
        (AsksType, {"ranks": (0.5,)}, "AsksType computes something else with split convolutions"),
    ],
)
def test_what_cannot_be_split_is_said(make: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        elastic(make().eval(), IMAGES, **settings)


def test_weights_that_are_not_finite_are_named() -> None:
    given = network()
    given.get_parameter("wide.weight").data[0] = float("nan")
    with pytest.raises(UserError, match="The weights of wide are not finite"):
        elastic(given, IMAGES, ranks=(0.5,))
