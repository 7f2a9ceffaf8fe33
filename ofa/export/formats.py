"""File formats of an exported network: writing them, and running the written files."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ofa.architecture.layer import LayerSpec
from ofa.common.errors import UserError, unknown_name
from ofa.compression.facts import InputRange
from ofa.compression.quantisation.graph import (
    QuantisationUnits,
    count_operators,
    layer_units,
    operator_units,
)
from ofa.compression.quantisation.trained_inputs import TrainedInputs
from ofa.compression.trained_ranges import trained_inputs
from ofa.export.weights import WEIGHTS_FILE
from ofa.modules.static import StaticNetwork
from ofa.runtimes.base import (
    FP32,
    FileFormat,
    Files,
    Logits,
    Runtime,
    check_packages,
    each_image,
    refusal_named,
)
from ofa.runtimes.onnx_export import DYNAMIC_BATCH, export_onnx
from ofa.runtimes.registry import RUNTIMES

PT2 = "pt2"
PT2_FILE = "model.pt2"


class Source:
    """The network that is exported: on the CPU, in eval mode, traced once for all formats."""

    def __init__(
        self,
        network: nn.Module,
        input_shape: tuple[int, int, int],
        metadata: Mapping[str, str] | None = None,
        input_ranges: Sequence[InputRange] = (),
    ) -> None:
        """Copy `network`.

        Args:
            network: takes images of `input_shape`.
            input_shape: channels, height and width.
            metadata: texts on the network by key.
            input_ranges: ranges of the inputs of layers that it was trained with.
        """
        self.metadata = dict(metadata or {})
        self.network = (
            copy.deepcopy(network).to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
        )
        self.network.eval().requires_grad_(False)
        self._input_shape, self._input_ranges = input_shape, input_ranges

    @cached_property
    def units(self) -> QuantisationUnits:
        """The parts that can stay in floating point: layers of a chain, operators of other modules."""
        specs = layers_of(self.network)
        return operator_units(count_operators(self.program)) if specs is None else layer_units(specs)

    @cached_property
    def trained_inputs(self) -> TrainedInputs | None:
        """The ranges that the inputs of its layers were trained with, if any."""
        return trained_inputs(self.network, self.images(1), self._input_ranges)

    def images(self, count: int) -> Tensor:
        """Return normally distributed images, equal in every call."""
        generator = torch.Generator().manual_seed(count)
        return torch.randn(count, *self._input_shape, generator=generator)

    @cached_property
    def program(self) -> ExportedProgram:
        """The network as a graph for any number of images.

        Raises:
            UserError: if PyTorch cannot export the network.
        """
        try:
            return torch.export.export(self.network, (self.images(2),), dynamic_shapes=DYNAMIC_BATCH)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"PyTorch cannot make a graph of the network for any number of images: {reason} Its forward "
                "must not depend on the values or on the number of the images; formats=() writes the weights "
                "alone."
            ) from error

    @cached_property
    def onnx(self) -> bytes:
        """The network as an ONNX model for any number of images."""
        return export_onnx(self.program, self.images(2))


def layers_of(network: nn.Module) -> tuple[LayerSpec, ...] | None:
    """Return the layers of a network that is a chain of layers; None for any other module."""
    return network.specs if isinstance(network, StaticNetwork) else None


@dataclass(frozen=True)
class Format:
    """One file format: its files for a source, and how to run the written files.

    Attributes:
        serialise: takes the source, returns the content of each file by its name in the bundle.
        load: takes the bundle's folder, returns the function from images to logits.
        example: returns the README's lines of Python; see `FileFormat.example`.
        packages: packages that the format needs.
        extra: the extra of this project that installs them.
        batch_size: the only number of images per run; None for any number. `load` runs more
            images one after another.
        runtime: the engine that runs the files; None for PyTorch itself.
        runs_code: whether a crafted file can run any code when it is loaded; see `ofa.export.trust`.
    """

    serialise: Callable[[Source], Files]
    load: Callable[[Path], Logits]
    example: Callable[[Sequence[str], str], str]
    packages: tuple[str, ...] = ()
    extra: str = ""
    batch_size: int | None = None
    runtime: Runtime | None = None
    runs_code: bool = False


def _pt2_content(source: Source) -> Files:
    buffer = io.BytesIO()
    torch.export.save(source.program, buffer)
    return {PT2_FILE: buffer.getvalue()}


def _load_pt2(folder: Path) -> Logits:
    return torch.export.load(folder / PT2_FILE).module()


def _pt2_example(paths: Sequence[str], precision: str) -> str:
    return f"""import torch
network = torch.export.load("{paths[0]}").module()
logits = network(torch.from_numpy(images)).detach().numpy()"""


def _run_by(runtime: Runtime, files: FileFormat) -> Format:
    """Return the format that a runtime reads."""

    def load(folder: Path) -> Logits:
        with refusal_named(runtime.title, folder / files.file_names[0]):
            session = runtime.load(folder, torch.get_num_threads(), FP32, "cpu")
        return session if files.batch_size is None else each_image(session)

    def serialise(source: Source) -> Files:
        content = files.write(source)
        assert tuple(content) == files.file_names, (tuple(content), files.file_names)
        return content

    packages = (*runtime.packages, *files.packages)
    return Format(serialise, load, files.example, packages, runtime.extra, files.batch_size, runtime)


def formats_of(runtimes: Iterable[Runtime]) -> dict[str, Format]:
    """Return, by name, PyTorch's own format and the formats of the engines."""
    formats = {PT2: Format(_pt2_content, _load_pt2, _pt2_example, runs_code=True)}
    file_names = {WEIGHTS_FILE, PT2_FILE}
    for runtime in runtimes:
        if runtime.format is not None:
            clash = file_names.intersection(runtime.format.file_names)
            assert not clash and runtime.format.name not in formats, (runtime.format.name, clash)
            file_names.update(runtime.format.file_names)
            formats[runtime.format.name] = _run_by(runtime, runtime.format)
    return formats


FORMATS = formats_of(RUNTIMES)


def formats_of_engines(engines: Iterable[str]) -> list[str]:
    """Return the formats that inference engines read, PyTorch's own for all others, each once.

    Raises:
        UserError: if the packages of one of them are not installed.
    """
    by_engine = {kind.runtime.name: name for name, kind in FORMATS.items() if kind.runtime is not None}
    names = list(dict.fromkeys(by_engine.get(engine, PT2) for engine in engines))
    for name in names:
        check_packages(FORMATS[name].packages, f"Exporting {name}", FORMATS[name].extra)
    return names


def format_of(key: str, precision: str) -> Format:
    """Return the format of a file of a bundle.

    Args:
        key: key in `Bundle.files`: a format, or a format and its precision such as "onnx_int8".
        precision: precision of that file.

    Raises:
        UserError: if there is no such format.
    """
    name = key.removesuffix(f"_{precision}")
    if name not in FORMATS:
        raise unknown_name("format", key, FORMATS)
    return FORMATS[name]
