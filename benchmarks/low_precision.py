"""int8 and zeros after a training: rounding alone, layers left in floating point, and training with it.

    python benchmarks/low_precision.py ROOT [--models resnet20 mobilenet_v2] [--seeds 0] [--epochs 1]
        [--methods int8 int8_fall_back int8_qat int4 int4_qat sparse] [--folder FOLDER]

ROOT holds FashionMNIST/raw. Every method begins with one trained original (see `trained_originals.py`):

- "int8": rounded to int8 for ONNX Runtime, calibrated on 300 training images;
- "int8_fall_back": the same with as few operators in floating point as halve the loss on validation images;
- "int8_qat": the step `qat` of `ofa compress` for so many epochs, then int8 with the trained ranges;
- "int4", "int4_qat": the same with weights of 4 bits, without and with the training;
- "sparse": 2 of 4 weights along the input channels set to zero, trained for as many epochs with the zeros;
- "control": the original, trained for as many epochs.

Every row is judged on all test images in the precision of the file. Rows that are in the folder are not made
again.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from trained_originals import (
    BATCH_SIZE,
    DEVICE,
    MODELS,
    SIDE,
    accuracies,
    add_row,
    calibration_images,
    images_of,
    read_rows,
    trained_original,
    training,
)

from ofa.common.progress import progress_bar
from ofa.compression.facts import InputRange
from ofa.compression.fake_quantisation import fake_quantised, quantised_layers, rounded_weight
from ofa.compression.quantisation.calibration import single_images
from ofa.compression.quantisation.graph import count_operators, operator_units
from ofa.compression.quantisation.registry import QUANTISERS
from ofa.compression.quantisation.search_precision import (
    MixedPrecisionSettings,
    Samples,
    quantise_network,
)
from ofa.compression.settings import SparsePattern
from ofa.compression.sparse import make_sparse, sparse_layers, zeros_kept
from ofa.compression.trained_ranges import trained_inputs
from ofa.data.base import ImageData
from ofa.evaluation.evaluate import score
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.runtimes import onnx_runtime
from ofa.runtimes.base import INT8, Files, Logits, write_files
from ofa.runtimes.onnx_export import DYNAMIC_BATCH, export_onnx
from ofa.training.fitting import fit

METHODS = ("control", "int8", "int8_fall_back", "int8_qat", "int4", "int4_qat", "sparse")
PATTERN = SparsePattern(share=0.5, block=4)


def trained(network: nn.Module, original: nn.Module, data: ImageData, options: Any, seed: int) -> None:
    """Train a network in place with the original as the teacher."""
    settings = training(seed, lr=options.lr, epochs=options.epochs)
    with progress_bar("training") as progress:
        fit(network, data, settings, resolution=SIDE, teacher=original, progress=progress)
    recalibrate_batchnorm(network, calibration_images(data))


def loaded(files: Files) -> Logits:
    """Return the outputs of ONNX Runtime's int8 files."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), files)
        return onnx_runtime.load(Path(folder), 1, INT8)


def int8_of(
    network: nn.Module, data: ImageData, max_loss: float | None, ranges: Sequence[InputRange] = ()
) -> tuple[Logits, int]:
    """Return the outputs of a network in int8, and how many operators stay in floating point."""
    network = copy.deepcopy(network).eval()
    example = torch.zeros(2, 1, SIDE, SIDE)
    program = torch.export.export(network, (example,), dynamic_shapes=DYNAMIC_BATCH)
    files = {onnx_runtime.MODEL_FILE: export_onnx(program, example)}
    trained = trained_inputs(network, torch.randn(1, 1, SIDE, SIDE), ranges)

    def validation() -> Iterator[tuple[Tensor, Tensor]]:
        return data.batches("validation", 250, DEVICE)

    batches = data.batches("train", 250, DEVICE, 300)
    samples = Samples(single_images((images for images, _ in batches), 300), validation)
    result = quantise_network(
        operator_units(count_operators(program)),
        lambda calibration: QUANTISERS["onnx_runtime"].prepare(files, calibration, trained),
        loaded,
        network,
        samples,
        MixedPrecisionSettings() if max_loss is None else MixedPrecisionSettings("auto", max_loss),
    )
    return loaded(result.files), len(result.kept_units)


def made(method: str, original: nn.Module, data: ImageData, options: Any, seed: int) -> dict[str, Any]:
    """Return the accuracies of one method, and what else is worth telling."""
    network = copy.deepcopy(original)
    bits, ranges = 4 if method.startswith("int4") else 8, list[InputRange]()
    if method == "sparse":
        names, _ = sparse_layers(network, PATTERN)
        make_sparse(network, PATTERN, names)
        with zeros_kept(network, names):
            trained(network, original, data, options, seed)
        weights = [network.get_submodule(name).weight for name in names]
        zeros = [float((weight == 0).float().mean()) for weight in weights if isinstance(weight, Tensor)]
        return {**accuracies(network, data), "zeros": float(np.mean(zeros)), "layers": len(names)}
    if method == "control" or method.endswith("_qat"):
        names = () if method == "control" else quantised_layers(network)
        with fake_quantised(network, names, bits) as limits:
            trained(network, original, data, options, seed)
        ranges = [InputRange(name, *limits[name]) for name in names]
    if method == "control":
        return accuracies(network, data)
    if method == "int4":
        with torch.no_grad():
            for name in quantised_layers(network):
                weight = network.get_submodule(name).weight
                assert isinstance(weight, Tensor)
                weight.copy_(rounded_weight(weight, bits))
        recalibrate_batchnorm(network, calibration_images(data))
    max_loss = None
    if method == "int8_fall_back":
        outputs_of, _ = int8_of(network, data, None)
        losses = [_top1(function, data, "validation") for function in (network, outputs_of)]
        max_loss = 50 * max(losses[0] - losses[1], 0)
    outputs_of, num_kept = int8_of(network, data, max_loss, ranges)
    top1 = {f"{split}_top1": _top1(outputs_of, data, split) for split in ("test", "validation")}
    return {**top1, "kept": num_kept, "max_loss": max_loss}


def _top1(outputs_of: Callable[[Tensor], Tensor], data: ImageData, split: str) -> float:
    return score(outputs_of, data.batches(split, 250, DEVICE))


def main() -> None:
    """Make the missing rows and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["resnet20", "mobilenet_v2"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--lr", type=float, default=0.005, help="per 64 images")
    parser.add_argument("--folder", type=Path, default=Path("runs/low_precision"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = images_of(options.root)
    path = options.folder / "rows.jsonl"
    known = {(row["model"], row["method"], row["seed"], row["epochs"]) for row in read_rows(path)}
    for seed in options.seeds:
        for name in options.models:
            original = trained_original(name, data, options.folder)
            for method in ("original", *options.methods):
                if (name, method, seed, options.epochs) in known:
                    continue
                row = {"model": name, "method": method, "seed": seed, "epochs": options.epochs}
                if method == "original":
                    row |= accuracies(original, data)
                else:
                    row |= made(method, original, data, options, seed)
                add_row(path, {**row, "batch_size": BATCH_SIZE, "lr": options.lr})
    print("| network | method | seeds | test top-1 | validation | notes |\n|---|---|---|---|---|---|")
    rows = read_rows(path)
    for model, method in dict.fromkeys((row["model"], row["method"]) for row in rows):
        group = [row for row in rows if (row["model"], row["method"]) == (model, method)]
        test, validation = (
            100 * np.mean([row[name] for row in group]) for name in ("test_top1", "validation_top1")
        )
        notes = {key: group[0][key] for key in ("kept", "zeros", "layers") if key in group[0]}
        print(f"| {model} | {method} | {len(group)} | {test:.2f} % | {validation:.2f} % | {notes or ''} |")


if __name__ == "__main__":
    main()
