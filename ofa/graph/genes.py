"""`GenesOptions`: which choices the genes of a user's network have, and the rule that makes them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ofa.common.errors import UserError
from ofa.graph.structure import Chain, ElasticKernel, GraphStructure, Group
from ofa.space.genes import Condition, Gene


@dataclass(frozen=True)
class ChoiceRule:
    """Choices for the parts of a network whose names match a pattern; None leaves the general ones.

    Attributes:
        pattern: shell-style pattern of module names, e.g. "layer4.*".
        widths: shares of the units that may be kept.
        kernel_sizes: sides of kernels in pixels.
        depths: shares of the blocks of a chain that may be kept.
        divisor: numbers of channels are multiples of it.
        ranks: shares of the full rank that split convolutions may have; none splits no convolution.
    """

    pattern: str
    widths: tuple[float, ...] | None = None
    kernel_sizes: tuple[int, ...] | None = None
    depths: tuple[float, ...] | None = None
    divisor: int | None = None
    ranks: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Choices:
    """The choices of all genes of a user's network.

    Attributes:
        widths: shares of the units of a group that may be kept, 1 among them.
        kernel_sizes: sides of kernels in pixels; the full one is always a choice.
        depths: shares of the blocks of a chain that may be kept, 1 among them.
        resolutions: sides of the input in pixels.
        divisor: numbers of channels are multiples of it.
        min_channels: groups of fewer channels stay whole.
        rules: choices by name; the last pattern that matches counts.
        min_pointwise_width: smallest share of the units of `pointwise_groups` that may be kept.
        ranks: shares of the full rank that split convolutions may have, the largest that of the largest
            network; none splits no convolution.
    """

    resolutions: tuple[int, ...]
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    depths: tuple[float, ...] = (0.5, 0.75, 1.0)
    divisor: int = 8
    min_channels: int = 16
    rules: tuple[ChoiceRule, ...] = ()
    min_pointwise_width: float = 0.0
    ranks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 0 <= self.min_pointwise_width <= 1:
            raise UserError(
                f"min_pointwise_width is {self.min_pointwise_width}; expected a share from 0 to 1."
            )
        for name in ("widths", "depths"):
            low_end = 0 if name == "depths" else 1e-9
            self._check_shares(name, getattr(self, name), low_end)
            for rule in self.rules:
                if getattr(rule, name) is not None:
                    self._check_shares(f"{name} of {rule.pattern}", getattr(rule, name), low_end)
        for ranks in (self.ranks, *(rule.ranks or () for rule in self.rules)):
            if not all(0 < share <= 1 for share in ranks):
                raise UserError(
                    f"ranks are {list(ranks)}; expected shares of the full rank above 0, up to 1."
                )
        if self.divisor < 1:
            raise UserError(f"divisor is {self.divisor}; expected a positive integer.")

    def _check_shares(self, name: str, shares: Sequence[float], low_end: float) -> None:
        if not shares or not all(low_end <= share <= 1 for share in shares) or 1 not in shares:
            raise UserError(f"{name} are {list(shares)}; expected shares up to 1, and 1 among them.")

    def of(self, name: str) -> ChoiceRule:
        """Return the choices for the part of this name."""
        widths, kernel_sizes = self.widths, self.kernel_sizes
        depths, divisor, ranks = self.depths, self.divisor, self.ranks
        for rule in self.rules:
            if fnmatchcase(name, rule.pattern):
                widths = widths if rule.widths is None else rule.widths
                kernel_sizes = kernel_sizes if rule.kernel_sizes is None else rule.kernel_sizes
                depths = depths if rule.depths is None else rule.depths
                divisor = divisor if rule.divisor is None else rule.divisor
                ranks = ranks if rule.ranks is None else rule.ranks
        return ChoiceRule(name, widths, kernel_sizes, depths, divisor, ranks)


def unit_choices(group: Group, choices: Choices, min_width: float = 0.0) -> tuple[int, ...]:
    """Return the numbers of units that a group may keep, ascending; only all where it is too narrow.

    All but the largest make the channels a multiple of the divisor, so that engines run at full speed.

    Args:
        group: the group.
        choices: the choices of the network.
        min_width: smallest share of its units.
    """
    rule = choices.of(group.part)
    assert rule.widths is not None and rule.divisor is not None and rule.ranks is not None
    shares = [share / max(rule.ranks) for share in rule.ranks] if group.kind == "rank" else rule.widths
    if group.num_units * group.unit_size < choices.min_channels:
        return (group.num_units,)
    step = rule.divisor // math.gcd(rule.divisor, group.unit_size)
    counts = {
        min(group.num_units, max(step, round(share * group.num_units / step) * step))
        for share in shares
        if share >= min_width
    }
    return tuple(sorted(counts | {group.num_units}))


def kernel_choices(kernel: ElasticKernel, choices: Choices) -> tuple[int, ...]:
    """Return the sides that a kernel may have, ascending."""
    sizes = choices.of(kernel.name).kernel_sizes
    assert sizes is not None
    return tuple(sorted({size for size in sizes if size < kernel.side and size % 2 == 1} | {kernel.side}))


def depth_choices(chain: Chain, choices: Choices) -> tuple[int, ...]:
    """Return how many blocks of a chain may be kept, ascending."""
    shares = choices.of(chain.name).depths
    assert shares is not None
    return tuple(sorted({math.ceil(round(share * len(chain.blocks), 6)) for share in shares}))


def genes_of(
    structure: GraphStructure, choices: Choices, pointwise: Collection[str] = ()
) -> tuple[Gene, ...]:
    """Return the genes: resolution, depths, widths and kernel sizes; those with one choice are left out.

    A gene inside a block that may be left out is active while the block is there.

    Args:
        structure: what may vary.
        choices: choices of the genes.
        pointwise: names of the groups whose narrow choices are limited; see `pointwise_groups`.
    """
    genes = [Gene("resolution", tuple(sorted(choices.resolutions)), "resolution")]
    depths: dict[str, tuple[str, int]] = {}
    depth_genes: dict[str, Gene] = {}
    for chain in structure.chains:
        counts = depth_choices(chain, choices)
        if len(counts) > 1:
            name = f"depth:{chain.name}"
            depth_genes[name] = Gene(name, counts, "depth", chain.name)
            depths |= {block: (name, index) for index, block in enumerate(chain.blocks)}
    genes += depth_genes.values()

    def condition(names: Sequence[str]) -> Condition | None:
        for block, (gene, index) in depths.items():
            if all(name.startswith(f"{block}.") for name in names):
                values = tuple(float(n) for n in depth_genes[gene].choices if n > index)
                return None if len(values) == len(depth_genes[gene].choices) else Condition(gene, values)
        return None

    for group in structure.groups:
        min_width = choices.min_pointwise_width if group.name in pointwise else 0.0
        counts = unit_choices(group, choices, min_width)
        if len(counts) > 1:
            where = condition([name for name, _ in group.axes])
            genes.append(Gene(group.gene, counts, group.kind, group.part, where))
    for kernel in structure.kernels:
        sizes = kernel_choices(kernel, choices)
        if len(sizes) > 1:
            where = condition([kernel.weight])
            genes.append(Gene(f"kernel_size:{kernel.name}", sizes, "kernel_size", kernel.name, where))
    return tuple(genes)
