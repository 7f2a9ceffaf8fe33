"""Recalibration of batch norm: time, peak memory and errors of the statistics.

Both packages use the same extracted sub-networks of the full MobileNetV3 space, weights and images, with 200
images a batch, the published package's default. This project and, if --published names its folder (pip
install --no-deps --target DIR ofa==0.1.0.post202307202001 tqdm pyyaml), the published package take turns,
each in a separate process. Errors are against two-pass float64 statistics of each layer's inputs: of the mean
in standard deviations, of the variance as a share of it.

Run: python benchmarks/bn_recalibration.py [--published DIR] [--images 2000] [--resolution 160] [--rounds 2]
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from our_training import full_space
from turns import Worker

from ofa.space.subnet import SubnetConfig

BATCH_SIZE = 200
COLUMNS = ("mean_error", "mean_error_median", "variance_error", "variance_error_median")


def print_network(
    name: str, config: SubnetConfig, workers: Mapping[str, Worker], tasks: Sequence[str], clock: str
) -> None:
    """Print the row of each package for one sub-network, and the ratio of their times."""
    with tempfile.TemporaryDirectory() as folder:
        request = {"config": config.to_dict(), "state": str(Path(folder) / "state.pt")}
        workers["ours"].ask({"task": "extract", **request})
        answers: dict[str, list[dict[str, float]]] = {key: [] for key in workers}
        for task in tasks:
            for key, worker in workers.items():
                answers[key].append(worker.ask({"task": task, **request}))
    for key, found in answers.items():
        errors = "".join(f"{found[-1].get(column, float('nan')):10.1e}" for column in COLUMNS)
        median = statistics.median(answer[clock] for answer in found)
        print(f"{name:9s} {key:10s} {median:8.2f} {found[0]['mib']:9.0f} {errors}", flush=True)
    if "published" in workers:
        pairs = zip(answers["ours"], answers["published"], strict=True)
        ratios = [theirs[clock] / ours[clock] for ours, theirs in pairs]
        print(
            f"{name:9s} time published / ours: {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}), at least 2"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time and errors of batch-norm recalibration.")
    parser.add_argument("--published", type=Path, help="folder that the published package is installed to")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--resolution", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--without-errors", action="store_true", help="which take two more runs each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument(
        "--networks", nargs="+", default=["middle"], choices=["smallest", "middle", "largest"]
    )
    arguments = parser.parse_args()
    task = ["recalibrate", arguments.images, arguments.resolution, BATCH_SIZE]
    workers = {"ours": Worker("our_training.py", [arguments.threads, *task])}
    if arguments.published:
        options = [arguments.threads, arguments.published, *task]
        workers["published"] = Worker("published_training.py", options)
    print(f"{arguments.images} images at {arguments.resolution} px, {arguments.threads} threads")
    print("network              seconds  peak MiB   errors: mean (max, median), variance (max, median)")
    # The last turn is timed like the others, before its errors are computed.
    tasks = ["run"] * (arguments.rounds - 1) + ["run" if arguments.without_errors else "error"]
    space = full_space()
    for name in arguments.networks:
        config = {"smallest": space.smallest, "middle": space.middle, "largest": space.largest}[name]
        config = dataclasses.replace(config, resolution=arguments.resolution)
        print_network(name, config, workers, tasks, arguments.clock)
    for worker in workers.values():
        worker.close()


if __name__ == "__main__":
    main()
