"""Int8 of a run's networks: accuracy, file size and latency against fp32 in the same engine.

Each network is exported by the user's function; if int8 loses more than --max-loss points on validation
images, a second row shows keep_layers=auto. Test images only evaluate. Both files are timed in this process
in turns, batch 1, one thread; the ratio is the median over the turns.

Run: python benchmarks/int8.py --runs-dir DIR --run-name NAME [--networks smallest middle largest]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from ofa.common.errors import UserError
from ofa.compression.quantisation.search_precision import MixedPrecisionSettings, Samples, samples_of
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.export.bundle import Bundle, load_bundle
from ofa.export.card import ModelCard, subnet_card
from ofa.export.evaluate import measure_file
from ofa.export.fresh_run import bind_file
from ofa.export.precision import TargetPrecision
from ofa.export.record import ExportedFile
from ofa.export.write import export_bundle
from ofa.runs.config import RunConfig
from ofa.runs.trained import TrainedRun, open_run
from search.result.select import select_subnet

TURNS, RUNS_PER_TURN, WARMUP_RUNS = 60, 5, 2
HEADER = (
    f"{'network':12s} {'engine':9s} {'kept':12s} validation fp32 int8 loss   test fp32 int8 loss   "
    "size ratio   ms fp32 int8 speed-up"
)


def median_ms(run: Callable[[], object]) -> float:
    """Return the median of a few runs after untimed ones."""
    for _ in range(WARMUP_RUNS):
        run()
    times = []
    for _ in range(RUNS_PER_TURN):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def in_turns(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float, float]:
    """Return the medians of both in ms, and the median over turns of first / second."""
    pairs = [(median_ms(first), median_ms(second)) for _ in range(TURNS)]
    ratio = statistics.median(a / b for a, b in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratio


def accuracy_on_test(run: TrainedRun, bundle: Bundle, name: str) -> float:
    """Return the accuracy of a bundle's file on the test images in percent."""
    return 100 * measure_file(bundle, name, run.data, "test").values()["top1"]


def print_row(run: TrainedRun, name: str, engine: str, bundle: Bundle) -> ExportedFile:
    """Measure a bundle with the formats `engine` in fp32 and int8, and print its row."""
    plain, small = bundle.files[engine], bundle.files[f"{engine}_int8"]
    assert small.validation_metric is not None and small.fp32_validation_metric is not None
    before, after = 100 * small.fp32_validation_metric.value, 100 * small.validation_metric.value
    test = [accuracy_on_test(run, bundle, key) for key in (engine, f"{engine}_int8")]
    images = torch.randn(1, *bundle.card.input_shape, generator=torch.Generator().manual_seed(0))
    runs = [bind_file(bundle, key, images) for key in (engine, f"{engine}_int8")]
    fp32_ms, int8_ms, ratio = in_turns(*runs)
    kept = ",".join(map(str, small.kept_layers)) or "none"
    print(
        f"{name:12s} {engine:9s} {kept:12s} {before:15.2f} {after:5.2f} {before - after:5.2f}"
        f" {test[0]:10.2f} {test[1]:5.2f} {test[0] - test[1]:5.2f}"
        f" {small.total_bytes / plain.total_bytes:11.3f} {fp32_ms:10.3f} {int8_ms:6.3f} {ratio:5.2f}",
        flush=True,
    )
    return small


def print_network(
    run: TrainedRun,
    name: str,
    engines: Sequence[str],
    max_loss: float,
    network: nn.Module,
    card: ModelCard,
    samples: Samples,
) -> None:
    """Print the rows of one network."""
    for engine in engines:
        for choice in ("none", "auto"):
            target = TargetPrecision("int8", samples, MixedPrecisionSettings(choice, max_loss))
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                try:
                    report = export_bundle(network, card, Path(folder) / "bundle", [engine], target=target)
                except UserError as error:
                    print(f"{name:12s} {engine:9s} {error}")
                    break
                seconds = time.perf_counter() - start
                small = print_row(run, name, engine, load_bundle(report.path))
            assert small.validation_metric is not None and small.fp32_validation_metric is not None
            if 100 * (small.fp32_validation_metric.value - small.validation_metric.value) <= max_loss:
                break
        print(f"{'':12s} {engine:9s} exported in {seconds:.0f} s", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Accuracy, size and latency of int8 networks.")
    parser.add_argument("--runs-dir", default="runs")
    parser.add_argument("--run-name", required=True)
    parser.add_argument("--data-root")
    parser.add_argument("--networks", nargs="+", default=["smallest", "middle", "largest"])
    parser.add_argument("--engines", nargs="+", default=["onnx", "openvino"])
    parser.add_argument("--max-loss", type=float, default=0.5)
    parser.add_argument("--calibration-images", type=int, default=300)
    arguments = parser.parse_args()
    run = open_run(
        RunConfig(
            run_name=arguments.run_name,
            runs_dir=arguments.runs_dir,
            data_root=arguments.data_root,
            accelerator="cpu",
            threads=1,
        )
    )
    evaluator = SubnetEvaluator(run.supernet, run.data)
    print(HEADER)
    for name in arguments.networks:
        config = select_subnet(run.info.space, name, run.directory.path / "search").config
        card = subnet_card(run.info.space, config, run.data.info)
        samples = samples_of(evaluator, config.resolution, arguments.calibration_images)
        network = evaluator.network(config)
        print_network(run, name, arguments.engines, arguments.max_loss, network, card, samples)


if __name__ == "__main__":
    main()
