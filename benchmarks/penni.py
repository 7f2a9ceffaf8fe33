"""PENNI on ResNet-20 and CIFAR-10: accuracy beside the control, and what zeros and basis kernels take.

    python benchmarks/penni.py ROOT [--share 0.43 | --rank 3] [--steps 1053] [--seeds 0] [--folder FOLDER]

ROOT holds CIFAR-10; see `cifar.py`. The original, with a stride of 2 in the stem, is trained for 10 epochs of
351 steps. `ofa compress` with `steps=[penni]` trains it for `--steps` with the penalty and for as many with
the zeros kept; the control is the original trained for as long as both, with the same settings and the same
teacher. Multiply-accumulates are counted as they are executed, and without those with zeros, as the paper
counts. Latency is the processor time of one thread in ONNX Runtime, fp32, all networks interleaved. Rows that
are in the folder are not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cifar import cifar10
from latency_plans import measured
from small_networks import ResNet20
from torch import nn
from trained_originals import CALIBRATION_IMAGES, add_row, read_rows, training

from latency_tables.table.device import DeviceSpec
from ofa.common.progress import progress_bar
from ofa.compression.candidates import find_candidates
from ofa.compression.changes import LayerChange, apply_changes
from ofa.compression.programs import TimedModule
from ofa.compression.settings import PenniSettings
from ofa.data.base import ImageData
from ofa.evaluation.evaluate import score
from ofa.graph.weights import load_weights
from ofa.runs.compressed import CompressedNetwork
from ofa.runs.compression import compress
from ofa.runs.compression_settings import CompressionLimits, CompressionSettings
from ofa.runs.pruned_files import save_network
from ofa.training.fitting import fit

SIDE = 32
SHAPE = (3, SIDE, SIDE)


def make_network() -> nn.Module:
    """Return ResNet-20 for colour images with a stem of stride 2, which takes a quarter of the MACs."""
    return ResNet20(3, stem_stride=2)


def trained_original(data: ImageData, folder: Path, steps: int) -> nn.Module:
    """Return ResNet-20 in eval mode, trained if there is no file of it in the folder yet."""
    torch.manual_seed(0)
    network, path = make_network(), folder / "resnet20.safetensors"
    if path.exists():
        load_weights(network, path, "resnet20")
        return network.eval()
    settings = training(0, lr=0.05, distillation_ratio=0.0, steps=steps)
    with progress_bar("resnet20") as progress:
        fit(network, data, settings, resolution=SIDE, folder=folder / "resnet20-training", progress=progress)
    save_network(network, path)
    return network


def compressed(
    original: nn.Module, data: ImageData, options: argparse.Namespace, seed: int
) -> CompressedNetwork:
    """Return the network of `ofa compress`, and what each step came to."""
    limits = CompressionLimits(macs_share=options.share)
    settings = CompressionSettings(
        steps=("penni",),
        limits=limits,
        penni=PenniSettings(
            rank=options.rank,
            penalty=options.penalty,
            turn_epochs=options.turn_epochs,
            threshold=options.threshold,
        ),
        harm_images=256,
        calibration_images=CALIBRATION_IMAGES,
        finetuning=training(seed, lr=options.lr, steps=options.steps),
    )
    folder = options.folder / f"{_name(options)}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    note = partial(print, flush=True)
    result = compress(original, data, settings, folder, resolution=SIDE, bar=progress_bar, note=note)
    assert result is not None
    print(*result.lines, sep="\n", flush=True)
    return result


def _name(options: argparse.Namespace) -> str:
    """Return what names the settings of a row."""
    size = f"rank{options.rank}" if options.share is None else f"share{options.share:g}"
    numbers = (options.penalty, options.threshold, options.turn_epochs, options.lr, options.steps)
    return "-".join([size, *(f"{number:g}" for number in numbers)])


def row_of(original: nn.Module, data: ImageData, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Return the row of one seed, with the test accuracy of the original, the control and the network."""
    result = compressed(original, data, options, seed)
    control = make_network()
    load_weights(
        control, options.folder / f"{_name(options)}-{seed}" / "control" / "tuned.safetensors", "control"
    )
    before, *_, after, _ = result.steps
    batches = data.batches("test", 250, torch.device("cpu"))
    return {
        "settings": _name(options),
        "seed": seed,
        "original_top1": result.test[0],
        "control_top1": score(control.eval(), batches),
        "top1": result.test[1],
        "macs_share": after.macs / before.macs,
        "nonzero_macs_share": after.nonzero_macs / before.macs,
        "parameters_share": after.parameters / before.parameters,
        "zeros": after.zeros,
        "latency_shares": latency_shares(original, result.network, options),
    }


def latency_shares(original: nn.Module, network: nn.Module, options: argparse.Namespace) -> dict[str, float]:
    """Return latencies as shares of that of the original: the network, and both orders with all channels."""
    layers = [layer.layer for layer in find_candidates(original, SHAPE, ["penni"]).layers]
    networks = {"network": network}
    for form in ("penni", "escalate"):
        changes = [LayerChange(layer, form, (options.rank,)) for layer in layers]
        networks[form] = apply_changes(original, changes)
    device = DeviceSpec("onnx_runtime_fp32", "onnx_runtime", minutes=options.minutes, processes=1)
    programs = {name: TimedModule(own, SHAPE) for name, own in {"original": original, **networks}.items()}
    latencies = measured(programs, device)
    print(f"ms: {latencies}", flush=True)
    return {name: latencies[name] / latencies["original"] for name in networks}


def main() -> None:
    """Make the missing rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--share", type=float, help="share of the MACs, coefficients all counted")
    parser.add_argument("--rank", type=int, default=3, help="basis kernels of all layers, without --share")
    parser.add_argument("--penalty", type=float, default=1e-4)
    parser.add_argument("--threshold", type=float, default=1.0)
    parser.add_argument("--turn-epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1053, help="of each of both trainings")
    parser.add_argument("--lr", type=float, default=0.01, help="for 64 images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="of measuring")
    parser.add_argument("--folder", type=Path, default=Path("runs/penni"))
    parser.add_argument("--original-steps", type=int, default=3510)
    parser.add_argument("--original-only", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = cifar10(options.root)
    original = trained_original(data, options.folder, options.original_steps)
    top1 = score(original, data.batches("test", 250, torch.device("cpu")))
    print(f"original: test top-1 {100 * top1:.2f} %", flush=True)
    if options.original_only:
        return
    path = options.folder / "rows.jsonl"
    known = {(row["settings"], row["seed"]) for row in read_rows(path)}
    for seed in options.seeds:
        if (_name(options), seed) not in known:
            add_row(path, row_of(original, data, options, seed))
    for row in read_rows(path):
        print(text_of(row))


def text_of(row: Mapping[str, Any]) -> str:
    """Return a line of a Markdown table for a row."""
    shares = [f"{100 * row[f'{name}_share']:.1f} %" for name in ("nonzero_macs", "macs", "parameters")]
    top1 = [f"{100 * row[f'{name}top1']:.2f} %" for name in ("original_", "control_", "")]
    latency = f"{row['latency_shares']['network']:.2f}"
    return " | ".join(["", row["settings"], str(row["seed"]), *shares, latency, *top1, ""]).strip()


if __name__ == "__main__":
    main()
