"""The README of a bundle: how to run each of its files in a few lines of Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ofa.bundle import DESCRIPTION_FILE, BundleInfo
from ofa.exported_file import ExportedFile

README_FILE = "README.md"

_Example = Callable[[ExportedFile], str]


def bundle_readme(info: BundleInfo, files: Mapping[str, ExportedFile]) -> str:
    """Return the text of a bundle's README, in Markdown.

    Args:
        info: what the bundle says about its network.
        files: its files by format.
    """
    sections = [_about(info)]
    for name, file in files.items():
        example = _EXAMPLES[_format_of(name, file)]
        code = example(file) if name == "weights" else f"{_images(info)}\n{example(file)}"
        sections.append(f"## {name}: {_names(file)}\n\n{_facts(file)}\n\n```python\n{code}\n```")
    return "\n\n".join(sections) + "\n"


def _format_of(name: str, file: ExportedFile) -> str:
    return name.removesuffix(f"_{file.precision}")


def _about(info: BundleInfo) -> str:
    side, kept = info.config.resolution, "the whole, "
    if info.preprocessing.centre_share < 1:
        kept = f"the centred square of {info.preprocessing.centre_share:g} of the short side, "
    expected = "" if info.expected_top1 is None else f" Expected top-1: {100 * info.expected_top1:.2f} %."
    return f"""# Sub-network {info.config.id}

`{info.config}` of the space `{info.space.name}`, {info.space.num_classes} classes.{expected} Everything that
is known of it is in `{DESCRIPTION_FILE}`.

Each part below runs in this folder. Images are {side} x {side} pixels; of others take {kept}scaled bilinearly
with antialiasing (Pillow: `image.resize(({side}, {side}), Image.Resampling.BILINEAR)`). The answer is the
position of the largest logit among `class_names` in `{DESCRIPTION_FILE}`."""


def _names(file: ExportedFile) -> str:
    return ", ".join(f"`{part.file}`" for part in file.every_part)


def _facts(file: ExportedFile) -> str:
    facts = [f"{file.total_bytes / 1e6:.2f} MB, {file.precision}."]
    if file.batch_size is not None:
        facts.append(f"It takes {file.batch_size} image a run.")
    if file.kept_layers:
        facts.append(f"Layers {', '.join(map(str, file.kept_layers))} are in floating point.")
    if file.validation_top1 is not None and file.fp32_validation_top1 is not None:
        facts.append(
            f"Top-1 on validation images: {100 * file.validation_top1:.2f} %, in fp32 "
            f"{100 * file.fp32_validation_top1:.2f} %."
        )
    return " ".join(facts)


def _images(info: BundleInfo) -> str:
    """Return the lines that make the input `images` of pixels."""
    side, channels, values = info.config.resolution, info.space.in_channels, info.preprocessing
    scale = "/ 255" if values.pixel_scale == 1 / 255 else f"* {values.pixel_scale!r}"
    mean, std = _per_channel(values.mean), _per_channel(values.std)
    return f"""import numpy as np
pixels = np.zeros((1, {channels}, {side}, {side}), np.uint8)  # your image, 0 to 255
images = ((pixels {scale} - {mean}) / {std}).astype(np.float32)"""


def _per_channel(values: Sequence[float]) -> str:
    """Return numbers as a nested list that broadcasts over height and width."""
    return "[" + ", ".join(f"[[{value!r}]]" for value in values) + "]"


def _weights(file: ExportedFile) -> str:
    return """import torch
from ofa.export import load_bundle  # of the project that made this bundle
bundle = load_bundle(".")
pixels = torch.zeros(1, bundle.info.space.in_channels, 64, 64, dtype=torch.uint8)  # your image, any size
logits = bundle.network(bundle.preprocess(pixels)).detach().numpy()"""


def _pt2(file: ExportedFile) -> str:
    return f"""import torch
network = torch.export.load("{file.file}").module()
logits = network(torch.from_numpy(images)).detach().numpy()"""


def _onnx(file: ExportedFile) -> str:
    return f"""import onnxruntime
session = onnxruntime.InferenceSession("{file.file}")
logits = session.run(None, {{"images": images}})[0]"""


def _openvino(file: ExportedFile) -> str:
    hint = {"bf16": "bf16"}.get(file.precision, "f32")
    return f"""import openvino
model = openvino.Core().read_model("{file.file}")
model.reshape(images.shape)  # a fixed number of images is faster
network = openvino.compile_model(model, "CPU", {{"INFERENCE_PRECISION_HINT": "{hint}"}})
logits = network(images)[0]"""


def _ncnn(file: ExportedFile) -> str:
    return f"""import ncnn
net = ncnn.Net()
net.load_param("{file.file}"), net.load_model("{file.parts[0].file}")
extractor = net.create_extractor()
extractor.input("in0", ncnn.Mat(images[0]))
logits = np.array(extractor.extract("out0")[1])[np.newaxis]"""


def _executorch(file: ExportedFile) -> str:
    return f"""import torch
from executorch.runtime import Runtime
method = Runtime.get().load_program("{file.file}").load_method("forward")
logits = method.execute([torch.from_numpy(images)])[0].numpy()"""


_EXAMPLES: dict[str, _Example] = {
    "weights": _weights,
    "pt2": _pt2,
    "onnx": _onnx,
    "openvino": _openvino,
    "ncnn": _ncnn,
    "executorch": _executorch,
}
