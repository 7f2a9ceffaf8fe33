"""The Python in a bundle's README: from a picture's file to class and probability."""

from __future__ import annotations

from collections.abc import Sequence

from ofa.data.settings import CLASSIFICATION, MULTI_LABEL, SEGMENTATION
from ofa.export.card import ModelCard
from ofa.export.description import DESCRIPTION_FILE
from ofa.export.record import ExportedFile

PICTURE = "photo.jpg"
"""The file that the examples read."""


def engine_example(card: ModelCard, logits_lines: str) -> str:
    """Return code that runs a file for an engine on a picture, without this project.

    Args:
        card: description of the network.
        logits_lines: lines that compute `logits` from the array `images`.
    """
    names = f'json.load(open("{DESCRIPTION_FILE}", encoding="utf-8"))["class_names"]'
    answer = _answer_lines(card, "class_names")
    lines = ["import json"] if answer else []
    lines += ["import numpy as np"]
    lines += _picture_lines(card) if reads_pictures(card) else _zero_lines(card)
    lines += [_input_line(card), *logits_lines.splitlines()]
    return "\n".join([*lines, *([f"class_names = {names}", *answer] if answer else [])])


def subnet_example(card: ModelCard) -> str:
    """Return code that runs the weights of a sub-network on a picture, with this project."""
    lines = [
        "import numpy as np",
        "from ofa.export import load_bundle  # of the project that made this bundle",
        'bundle = load_bundle(".")',
    ]
    if reads_pictures(card):
        lines += [f'images = bundle.card.read_image("{PICTURE}")']
    else:
        pixels = f"torch.zeros(1, {card.input_shape[0]}, 64, 64, dtype=torch.uint8)"
        lines.insert(1, "import torch")
        lines += [f"pixels = {pixels}  # your image, any size", "images = bundle.preprocess(pixels)"]
    lines += ["logits = bundle.network(images).detach().numpy()"]
    return "\n".join([*lines, *_answer_lines(card, "bundle.card.class_names")])


def with_several_outputs(code: str) -> str:
    """Return an example for a network that returns several tensors: it computes the list `outputs`.

    Args:
        code: an example whose last line computes `logits`: as the first result of a call, or as an array of
            the only one; any other example stays as it is.
    """
    *lines, last = code.splitlines()
    call = last.removeprefix("logits = ")
    if call == last:
        return code
    for end, several in ((".detach().numpy()", "[part.detach().numpy() for part in {}]"), ("[0]", "{}")):
        if call.endswith(end):
            return "\n".join([*lines, f"outputs = {several.format(call.removesuffix(end))}"])
    return code


def weights_example(file: ExportedFile) -> str:
    """Return code that reads the weights of a module whose code is not in the bundle."""
    return f"""from safetensors.torch import load_file
state = load_file("{file.file}")  # for module.load_state_dict, or: load_bundle(".", network=module)"""


def reads_pictures(card: ModelCard) -> bool:
    """Return whether the network takes what a picture has: grey, or red, green and blue."""
    return card.input_shape[0] in (1, 3)


def _picture_lines(card: ModelCard) -> list[str]:
    """Return lines that compute `pixels` from a file as `ModelCard.read_image` does."""
    (channels, height, width), share = card.input_shape, card.preprocessing.centre_share
    mode, axes = ("RGB", ".transpose(2, 0, 1)[None]") if channels == 3 else ("L", "[None, None]")
    lines = [
        "from PIL import Image, ImageOps",
        f'image = ImageOps.exif_transpose(Image.open("{PICTURE}"))  # upright',
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
            f"side = max(1, round({share!r} * min(image.size)))  # the centred square",
            "x, y = (image.width - side) // 2, (image.height - side) // 2",
        ]
    return [
        *lines,
        f"image = image.resize(({width}, {height}), Image.Resampling.BILINEAR{box})",
        f"pixels = np.asarray(image){axes}",
    ]


def _zero_lines(card: ModelCard) -> list[str]:
    channels, height, width = card.input_shape
    return [f"pixels = np.zeros((1, {channels}, {height}, {width}), np.uint8)  # your image, 0 to 255"]


def _input_line(card: ModelCard) -> str:
    """Return the line that computes the input `images` from pixels."""
    values = card.preprocessing
    scale = "/ 255" if values.pixel_scale == 1 / 255 else f"* {values.pixel_scale!r}"
    mean, std = _per_channel(values.mean), _per_channel(values.std)
    return f"images = ((pixels {scale} - {mean}) / {std}).astype(np.float32, order='C')"


def _per_channel(values: Sequence[float]) -> str:
    """Return numbers as a nested list that broadcasts over height and width."""
    return "[" + ", ".join(f"[[{value!r}]]" for value in values) + "]"


def _answer_lines(card: ModelCard, names: str) -> list[str]:
    """Return lines that print what the outputs say: classes, shares of pixels, labels or numbers."""
    if card.task == SEGMENTATION:
        return [
            "classes = logits[0].argmax(0)  # the class of each pixel",
            "for position in np.unique(classes):",
            f'    print(f"{{{names}[position]}}: {{100 * (classes == position).mean():.1f}} %")',
        ]
    if card.task == MULTI_LABEL:
        return [
            "shares = 1 / (1 + np.exp(-logits[0]))  # the probability of each label",
            f"for name, share in zip({names}, shares):",
            '    print(f"{name}: {100 * share:.1f} %")',
        ]
    if card.target_scale is not None:
        mean, std = ([*values] for values in (card.target_scale.mean, card.target_scale.std))
        return [
            f"numbers = logits[0] * np.array({std}) + np.array({mean})  # from the scale of the training",
            f"for name, number in zip({names}, numbers):",
            '    print(f"{name}: {number:.6g}")',
        ]
    if card.task != CLASSIFICATION:
        return []
    return [
        "shares = np.exp(logits[0] - logits[0].max())",
        "shares = shares / shares.sum()",
        "for position in shares.argsort()[::-1][:3]:",
        f'    print(f"{{{names}[position]}}: {{100 * shares[position]:.1f}} %")',
    ]
