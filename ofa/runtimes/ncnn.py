"""ncnn on the processor, through the converter pnnx."""

from __future__ import annotations

import copy
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from ofa.common.errors import UserError
from ofa.runtimes.base import FP32, FileFormat, Files, NetworkSource, Offers, Runtime, Session, quiet

PARAM_FILE, WEIGHTS_FILE = "model.ncnn.param", "model.ncnn.bin"
INPUT, OUTPUT = "in0", "out0"


class NcnnSession(Session):
    """A loaded network; it takes one image at a time and drops dimensions of 1 from its output."""

    def __init__(self, net: Any) -> None:
        """Take an `ncnn.Net`."""
        self._net = net

    @override
    def __call__(self, images: Tensor, /) -> Tensor:
        """Return the output (1, ...) for one image, without trailing dimensions of size 1."""
        output = self._extract(_single(images))
        return torch.from_numpy(np.array(output))[None]

    @override
    def bind(self, images: Tensor) -> Callable[[], object]:
        array = _single(images)
        return lambda: self._extract(array)

    def _extract(self, array: Any) -> Any:
        import ncnn

        extractor = self._net.create_extractor()
        extractor.input(INPUT, ncnn.Mat(array))
        code, output = extractor.extract(OUTPUT)
        if code != 0:
            raise RuntimeError(f"ncnn failed with code {code}")
        return output


def _single(images: Tensor) -> Any:
    """Return the one image of (1, channels, h, w) as an array."""
    if len(images) != 1:
        raise UserError(f"ncnn runs one image at a time; {len(images)} were given. Use batch_size: 1.")
    return images[0].detach().contiguous().numpy()


def convert(network: nn.Module, example: Tensor, precision: str) -> Files:
    """Return `network` as ncnn's two files, for one image of the example's shape.

    Raises:
        UserError: if the example holds several images, or pnnx cannot convert the network.
    """
    _single(example)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with quiet(), torch.no_grad():
            trace: Callable[..., Any] = torch.jit.trace  # left untyped by PyTorch
            traced = trace(_copy(network), example, check_trace=False)
            traced.save(folder / "model.pt")
        _run_pnnx(folder, tuple(example.shape))
        return {name: (folder / name).read_bytes() for name in (PARAM_FILE, WEIGHTS_FILE)}


def _copy(network: nn.Module) -> nn.Module:
    """Return a copy in eval mode that ncnn interprets correctly.

    Where a pooling window extends over the edge of a map, PyTorch averages the pixels inside. ncnn does so
    only with `count_include_pad` off, which has no effect on pooling without padding.
    """
    network_copy = copy.deepcopy(network).eval()
    for module in network_copy.modules():
        if isinstance(module, nn.AvgPool2d) and module.padding == 0:
            module.count_include_pad = False
    return network_copy


def _run_pnnx(folder: Path, shape: tuple[int, ...]) -> None:
    """Convert `model.pt` in `folder`; `pnnx.export` would import the code it writes, and fail."""
    import pnnx

    dimensions = ",".join(map(str, shape))
    command = [pnnx.EXEC_PATH, "model.pt", f"inputshape=[{dimensions}]", "fp16=0"]
    process = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
    )
    if process.returncode != 0 or not (folder / PARAM_FILE).is_file():
        messages = (process.stderr or process.stdout).strip().splitlines()[-1:]
        raise UserError(
            f"pnnx could not convert the network to ncnn (exit code {process.returncode}; "
            f"{' '.join(messages)}). Choose another engine or format."
        )


def load(folder: Path, threads: int, precision: str, accelerator: str = "cpu") -> NcnnSession:
    """Return the network in `folder`, computing in fp32."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in ("use_vulkan_compute", "use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, False)
    net.opt.use_bf16_storage = False
    for read, name in ((net.load_param, PARAM_FILE), (net.load_model, WEIGHTS_FILE)):
        if read(str(folder / name)) != 0:
            raise UserError(f"ncnn cannot read {folder / name}.")
    return NcnnSession(net)


def _offers() -> Offers:
    return {"cpu": ("fp32",)}


def _facts() -> dict[str, str]:
    import ncnn
    import pnnx

    return {"version": ncnn.__version__, "exporter": f"PyTorch {torch.__version__}, pnnx {pnnx.__version__}"}


def _write(source: NetworkSource) -> Files:
    return convert(source.network, source.images(1), FP32)


def _example(paths: Sequence[str], precision: str) -> str:
    return f"""import ncnn
net = ncnn.Net()
net.load_param("{paths[0]}"), net.load_model("{paths[1]}")
extractor = net.create_extractor()
extractor.input("{INPUT}", ncnn.Mat(images[0]))
logits = np.array(extractor.extract("{OUTPUT}")[1])[np.newaxis]"""


RUNTIME = Runtime(
    name="ncnn",
    title="ncnn",
    packages=("ncnn", "pnnx"),
    extra="ncnn",
    offers=_offers,
    convert=convert,
    load=load,
    facts=_facts,
    one_image=True,
    format=FileFormat("ncnn", (PARAM_FILE, WEIGHTS_FILE), _write, _example, batch_size=1),
)
