"""The report of a conversion as text, of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from ofa.common.display import listed_names
from ofa.graph.module_report import joined_lines
from ofa.graph.name_patterns import joined_names
from ofa.graph.report import COSTS, ConversionReport, GeneReport, amount, in_millions

_WIDTH = 100
_MAX_NAME_WIDTH = 52
_MAX_LINES = 40
_KINDS = {
    "resolution": "side of the input",
    "depth": "depth",
    "width": "width",
    "rank": "rank",
    "kernel_size": "kernel",
}


def report_lines(report: ConversionReport) -> list[str]:
    """Return the report as lines: the networks, what varies, each module, and what stays."""
    return [
        *_summary(report),
        "",
        *_costs(report),
        *_limits(report),
        "",
        *_execution(report),
        *_captured_modules(report),
        *_genes(report),
        *_modules(report),
        *_fixed_parts(report),
    ]


def _summary(report: ConversionReport) -> list[str]:
    num_elastic = sum(module.is_elastic for module in report.modules)
    number = report.log10_networks
    networks = f"10^{number:.1f}" if number > 6 else f"{round(10**number):,}"
    return _paragraph(
        f"{report.name}: {networks} sub-networks by {_counted(len(_varying(report)), 'gene')}; "
        f"{num_elastic} of {len(report.modules)} modules vary, with {100 * report.macs_share:.1f} % of the "
        "multiply-accumulates (MACs)."
    )


def _costs(report: ConversionReport) -> Iterator[str]:
    yield f"{'network':10}{'M MACs':>22}{'M parameters':>22}{'activations, MB':>22}"
    largest = report.costs["largest"]
    for network, costs in report.costs.items():
        cells = []
        for name in COSTS:
            if name not in costs:
                cells.append("unknown")
                continue
            share = costs[name] / largest[name] if largest[name] else 1.0
            cells.append(f"{in_millions(costs[name])} {f'({100 * share:.0f} %)':>7}")
        yield f"{network:10}" + "".join(f"{cell:>22}" for cell in cells)
    yield "For one image; activations are the most memory that they take at once, in float32."


def _limits(report: ConversionReport) -> Iterator[str]:
    for limit in report.limits:
        text = f"limit {amount(limit.cost, limit.limit)}"
        if limit.is_reachable:
            yield f"{text}: reachable"
        else:
            yield f"{text}: NOT reachable; the smallest network has {amount(limit.cost, limit.smallest)}"


def _execution(report: ConversionReport) -> list[str]:
    if not report.bound_parts:
        return _paragraph(
            "The network's own forward computes every sub-network; an extracted network is a "
            f"{report.model_class}."
        )
    names = joined_names([(name, "") for name in report.bound_parts])
    parts = listed_names([f"{name} ({count})" if count > 1 else name for name, count, _ in names], 6)
    batch = "any batch size" if report.has_free_batch else "the example's batch size only"
    return _paragraph(
        f"The captured graph computes the sub-networks, with {batch}: the network's own forward has the "
        f"sizes of some parts written into it: {parts}. Where these are whole, an extracted network is a "
        f"{report.model_class}; otherwise a graph module."
    )


def _captured_modules(report: ConversionReport) -> list[str]:
    if not report.failures:
        return []
    path, reason = next(iter(report.failures.items()))
    return _paragraph(
        f"Not all of it can be captured ({path or 'the whole'}: {reason}); modules that were captured on "
        f"their own: {listed_names(report.captured_modules, 8)}."
    )


def _genes(report: ConversionReport) -> Iterator[str]:
    genes = _varying(report)
    yield from ("", f"What varies ({_counted(len(genes), 'gene')}):")
    rows: list[tuple[str, str]] = []
    for kind, title in _KINDS.items():
        of_kind = [(gene.part, _choices(gene)) for gene in genes if gene.kind == kind]
        for name, count, choices in joined_names(of_kind):
            rows.append((f"{title} {name}".strip() + (f" ({count})" if count > 1 else ""), choices))
    yield from _table(rows)


def _varying(report: ConversionReport) -> list[GeneReport]:
    """Return the genes with several choices: the resolution is one even where there is only one."""
    return [gene for gene in report.genes if len(gene.choices) > 1]


def _choices(gene: GeneReport) -> str:
    *others, last = map(str, gene.choices)
    listed = f"{', '.join(others)} or {last}" if others else last
    return f"{listed} {gene.unit}"


def _modules(report: ConversionReport) -> Iterator[str]:
    rows = [(name, *answer.split(": ", 1)) for name, answer in joined_lines(report.modules)]
    for title, state in (("Modules that vary", "elastic"), ("Modules that stay", "fixed")):
        number = sum(module.is_elastic == (state == "elastic") for module in report.modules)
        if number:
            yield from ("", f"{title} ({number}):")
            yield from _table([(name, text) for name, found, text in rows if found == state])


def _fixed_parts(report: ConversionReport) -> Iterator[str]:
    rows = joined_names(list(report.fixed_parts.items()))
    if rows:
        yield from ("", f"Parts that stay ({len(report.fixed_parts)}):")
        yield from _table([(f"{name} ({count})" if count > 1 else name, text) for name, count, text in rows])
    if report.unknown_operators:
        names = [f"{name} ({place})" if place else name for name, place in report.unknown_operators.items()]
        yield ""
        yield from _paragraph(f"Operators without a rule, whose channels stay: {listed_names(names)}.")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _table(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield two columns, the second one wrapped; long tables end with the number of their other lines."""
    shown = rows[:_MAX_LINES]
    width = min(_MAX_NAME_WIDTH, max((len(name) for name, _ in shown), default=0))
    for name, text in shown:
        begin = f"  {name:{width}}  "
        wrapped = textwrap.wrap(text, _WIDTH - width - 4, break_long_words=False, break_on_hyphens=False)
        if len(name) > width:
            yield f"  {name}"
            begin = " " * (width + 4)
        yield begin + (wrapped[0] if wrapped else "")
        yield from (" " * (width + 4) + line for line in wrapped[1:])
    if len(rows) > len(shown):
        yield f"  … and {len(rows) - len(shown)} more lines, which the JSON has."


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
