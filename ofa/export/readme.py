"""The README of a bundle: how to run each of its files in a few lines of Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ofa.common.metric import TOP1
from ofa.export.card import CLASSIFICATION, ModelCard
from ofa.export.description import DESCRIPTION_FILE
from ofa.export.formats import format_of
from ofa.export.record import ExportedFile

README_FILE = "README.md"


def bundle_readme(card: ModelCard, files: Mapping[str, ExportedFile]) -> str:
    """Return the text of a bundle's README, in Markdown.

    Args:
        card: description of the network.
        files: files of the bundle by format.
    """
    sections = [_introduction(card)]
    for name, file in files.items():
        if name == "weights":
            code = _subnet_example() if card.subnet is not None else _weights_example(file)
        else:
            paths = [part.file for part in file.every_part]
            code = f"{_images(card)}\n{format_of(name, file.precision).example(paths, file.precision)}"
        sections.append(f"## {name}: {_names(file)}\n\n{_facts(file)}\n\n```python\n{code}\n```")
    if card.input_shape[0] in (1, 3):
        sections.append(_file_section(card))
    return "\n\n".join(sections) + "\n"


def _introduction(card: ModelCard) -> str:
    (_, height, width), area = card.input_shape, "the whole, "
    size = f"({width}, {height})"
    if card.preprocessing.centre_share < 1:
        area = f"the centred square of {card.preprocessing.centre_share:g} of the short side, "
    answer = ""
    if card.task == CLASSIFICATION:
        answer = f"""
The answer is the position of the largest logit among `class_names` in `{DESCRIPTION_FILE}`."""
    return f"""# {card.name}

{_kind(card)}
{_expected(card)}Its full description is in `{DESCRIPTION_FILE}`.

Each part below runs in this folder. Images are {width} x {height} pixels; of others take {area}scaled
bilinearly with antialiasing (Pillow: `image.resize({size}, Image.Resampling.BILINEAR)`).{answer}"""


def _kind(card: ModelCard) -> str:
    num_classes = len(card.class_names)
    if card.subnet is not None:
        return (
            f"Sub-network {card.subnet.config.id}, `{card.subnet.config}` of the space "
            f"`{card.subnet.space.name}`, {num_classes} classes."
        )
    classes = f" of {num_classes} classes" if num_classes else ""
    return (
        f"A network for {card.task}{classes}. Its architecture is the module's own code, which is not here."
    )


def _expected(card: ModelCard) -> str:
    return " ".join([*_expected_accuracy(card), *_expected_latencies(card), ""])


def _expected_accuracy(card: ModelCard) -> list[str]:
    value = card.expected_metric
    if value is None:
        return ["Its accuracy was not measured."] if card.task == CLASSIFICATION else []
    number = value.text(TOP1) if value.name == TOP1.name else f"{value.value:g}"
    title = TOP1.title if value.name == TOP1.name else value.name
    return [f"Expected {title}: {number}{f' ({value.origin})' if value.origin else ''}."]


def _expected_latencies(card: ModelCard) -> list[str]:
    """Return a sentence for each expected latency that names its device."""
    targets = card.latency_targets.items()
    return [
        f"Expected latency: {card.expected_latency_ms[name]:.3g} ms on {target.text}."
        for name, target in targets
    ]


def _subnet_example() -> str:
    """Return lines that compute the logits of an image of any size; they do not use `images`."""
    return """import torch
from ofa.export import load_bundle  # of the project that made this bundle
bundle = load_bundle(".")
pixels = torch.zeros(1, bundle.card.input_shape[0], 64, 64, dtype=torch.uint8)  # your image, any size
logits = bundle.network(bundle.preprocess(pixels)).detach().numpy()"""


def _weights_example(file: ExportedFile) -> str:
    """Return lines that read the weights of a module whose code is not in the bundle."""
    return f"""from safetensors.torch import load_file
state = load_file("{file.file}")  # for module.load_state_dict, or: load_bundle(".", network=module)"""


def _file_section(card: ModelCard) -> str:
    """Return the section with the code that computes `pixels` from a file as this project does."""
    (channels, height, width), share = card.input_shape, card.preprocessing.centre_share
    mode, axes = ("RGB", ".transpose(2, 0, 1)[None]") if channels == 3 else ("L", "[None, None]")
    lines = [
        "import numpy as np",
        "from PIL import Image, ImageOps",
        'image = ImageOps.exif_transpose(Image.open("photo.jpg"))  # upright',
        'if image.mode[0] in "IF":  # 16 bits, or floating point from 0 to 1',
        '    values = np.asarray(image) * (255 if image.mode == "F" else 1 / 257)',
        "    image = Image.fromarray(values.round().astype(np.uint8))",
        'image = image.convert("RGBA")',
        'white = Image.new("RGBA", image.size, "white")  # behind what is transparent',
        f'image = Image.alpha_composite(white, image).convert("{mode}")',
    ]
    box = ""
    if share < 1:
        box = ", box=(x, y, x + side, y + side)"
        lines += [
            f"side = max(1, round({share!r} * min(image.size)))",
            "x, y = (image.width - side) // 2, (image.height - side) // 2",
        ]
    lines += [
        f"image = image.resize(({width}, {height}), Image.Resampling.BILINEAR{box})",
        f"pixels = np.asarray(image){axes}",
    ]
    code = "\n".join(lines)
    return f"""## Pixels of a file

This computes `pixels` from a picture of any kind. With the project that made this bundle, the network's input
is `load_bundle(".").card.read_image("photo.jpg")`.

```python
{code}
```"""


def _names(file: ExportedFile) -> str:
    return ", ".join(f"`{part.file}`" for part in file.every_part)


def _facts(file: ExportedFile) -> str:
    facts = [f"{file.total_bytes / 1e6:.2f} MB, {file.precision}."]
    if file.batch_size is not None:
        facts.append(f"It takes {file.batch_size} image a run.")
    if file.kept_text:
        facts.append(f"{file.kept_text.capitalize()} are in floating point.")
    if file.validation_top1 is not None and file.fp32_validation_top1 is not None:
        facts.append(
            f"Top-1 on validation images: {100 * file.validation_top1:.2f} %, in fp32 "
            f"{100 * file.fp32_validation_top1:.2f} %."
        )
    return " ".join(facts)


def _images(card: ModelCard) -> str:
    """Return the lines that compute the input `images` from pixels."""
    (channels, height, width), values = card.input_shape, card.preprocessing
    scale = "/ 255" if values.pixel_scale == 1 / 255 else f"* {values.pixel_scale!r}"
    mean, std = _per_channel(values.mean), _per_channel(values.std)
    return f"""import numpy as np
pixels = np.zeros((1, {channels}, {height}, {width}), np.uint8)  # your image, 0 to 255
images = ((pixels {scale} - {mean}) / {std}).astype(np.float32)"""


def _per_channel(values: Sequence[float]) -> str:
    """Return numbers as a nested list that broadcasts over height and width."""
    return "[" + ", ".join(f"[[{value!r}]]" for value in values) + "]"
