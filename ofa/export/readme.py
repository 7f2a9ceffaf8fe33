"""The README of a bundle: how to run each of its files in a few lines of Python."""

from __future__ import annotations

from collections.abc import Mapping

from ofa.common.metric import metric_named
from ofa.data.settings import CLASSIFICATION, MULTI_LABEL, OUTPUTS_BY_NAME, REGRESSION, SEGMENTATION
from ofa.export.card import ModelCard
from ofa.export.description import DESCRIPTION_FILE
from ofa.export.example import (
    PICTURE,
    engine_example,
    reads_pictures,
    subnet_example,
    weights_example,
    with_several_outputs,
)
from ofa.export.formats import format_of
from ofa.export.record import ExportedFile

README_FILE = "README.md"
_OUTPUT_KINDS = {MULTI_LABEL: "labels", REGRESSION: "numbers"}


def bundle_readme(card: ModelCard, files: Mapping[str, ExportedFile], num_outputs: int = 1) -> str:
    """Return the text of a bundle's README, in Markdown.

    Args:
        card: description of the network.
        files: files of the bundle by format.
        num_outputs: number of tensors that the network returns.
    """
    sections = [_introduction(card)]
    for name, file in files.items():
        if name == "weights":
            code = subnet_example(card) if card.subnet is not None else weights_example(file)
        else:
            paths = [part.file for part in file.every_part]
            code = engine_example(card, format_of(name, file.precision).example(paths, file.precision))
        if num_outputs > 1:
            code = with_several_outputs(code)
        sections.append(f"## {name}: {_names(file)}\n\n{_facts(name, file)}\n\n```python\n{code}\n```")
    return "\n\n".join(sections) + "\n"


def _introduction(card: ModelCard) -> str:
    (_, height, width), area = card.input_shape, "the whole, "
    size = f"({width}, {height})"
    if card.preprocessing.centre_share < 1:
        area = f"the centred square of {card.preprocessing.centre_share:g} of the short side, "
    picture = f"reads `{PICTURE}`" if reads_pictures(card) else "takes pixels"
    result, answer = "computes the output of the network", ""
    if card.task == SEGMENTATION:
        result = "prints the share of the pixels of each class"
        answer = f"""
The answer is a class for each pixel, the position of its largest logit among `class_names` in
`{DESCRIPTION_FILE}`; logits may be smaller than the image. With the project that made this bundle,
`ofa segment bundle=. images={PICTURE}` draws it."""
    if card.task == MULTI_LABEL:
        result = "prints the probability of each label"
        answer = f"""
The probability of a label is 1 / (1 + exp(-logit)) of the output at its position among `class_names` in
`{DESCRIPTION_FILE}`. With the project that made this bundle, `ofa predict bundle=. images={PICTURE}` writes
them as CSV, for a picture or a folder."""
    if card.task == REGRESSION:
        result = "prints the number of each column"
        answer = f"""
Outputs are standardised: a number is output * std + mean, with the `target_scale` in `{DESCRIPTION_FILE}`, at
the position of its column among `class_names`. With the project that made this bundle,
`ofa predict bundle=. images={PICTURE}` writes them as CSV, for a picture or a folder."""
    if card.task == CLASSIFICATION:
        result = "prints the most probable classes"
        answer = f"""
The answer is the position of the largest logit among `class_names` in `{DESCRIPTION_FILE}`. With the project
that made this bundle, `ofa classify bundle=. images={PICTURE}` prints it, for a picture or a folder."""
    return f"""# {card.name}

{_kind(card)}
{_expected(card)}Its full description is in `{DESCRIPTION_FILE}`.

Each part below runs in this folder by itself: it {picture} and {result}.
Images are {width} x {height} pixels; of others take {area}scaled
bilinearly with antialiasing (Pillow: `image.resize({size}, Image.Resampling.BILINEAR)`).{answer}"""


def _kind(card: ModelCard) -> str:
    num_classes, kind = len(card.class_names), _OUTPUT_KINDS.get(card.task, "classes")
    subnet = card.subnet
    if subnet is not None:
        compressed = "" if subnet.compression is None else f", compressed: {subnet.compression.text}"
        if subnet.network is not None:
            return (
                f"Sub-network {subnet.config.id} of the model `{subnet.space.name}`, {num_classes} {kind}: "
                f"{subnet.model_text}{compressed}. The weights need that code; the other files do not."
            )
        return (
            f"Sub-network {subnet.config.id}, `{subnet.config}` of the space `{subnet.space.name}`, "
            f"{num_classes} {kind}{compressed}."
        )
    classes = f" of {num_classes} {kind}" if num_classes else ""
    return (
        f"A network for {card.task}{classes}. Its architecture is the module's own code, which is not here."
    )


def _expected(card: ModelCard) -> str:
    return " ".join([*_expected_accuracy(card), *_expected_latencies(card), ""])


def _expected_accuracy(card: ModelCard) -> list[str]:
    value = card.expected_metric
    if value is None:
        return ["Its accuracy was not measured."] if card.task in OUTPUTS_BY_NAME else []
    metric = metric_named(value.name)
    return [f"Expected {metric.title}: {value.text(metric)}{f' ({value.origin})' if value.origin else ''}."]


def _expected_latencies(card: ModelCard) -> list[str]:
    """Return a sentence for each expected latency that names its device."""
    targets = card.latency_targets.items()
    return [
        f"Expected latency: {card.expected_latency_ms[name]:.3g} ms on {target.text}."
        for name, target in targets
    ]


def _names(file: ExportedFile) -> str:
    return ", ".join(f"`{part.file}`" for part in file.every_part)


def _facts(name: str, file: ExportedFile) -> str:
    facts = [f"{file.total_bytes / 1e6:.2f} MB, {file.precision}."]
    if file.batch_size is not None:
        facts.append(f"It takes {file.batch_size} image a run.")
    if name != "weights" and format_of(name, file.precision).runs_code:
        facts.append(
            "Loading it can run code that its maker put into it: take it only from somebody you trust. The "
            "weights are the same network, and run none."
        )
    if file.kept_text:
        facts.append(f"{file.kept_text.capitalize()} are in floating point.")
    if file.validation_metric is not None and file.fp32_validation_metric is not None:
        metric = metric_named(file.validation_metric.name)
        title = metric.title[:1].upper() + metric.title[1:]
        value, fp32_value = file.validation_metric.value, file.fp32_validation_metric.value
        shown = metric.show(value), metric.show(fp32_value)
        facts.append(f"{title} on validation images: {shown[0]}, in fp32 {shown[1]}.")
    return " ".join(facts)
