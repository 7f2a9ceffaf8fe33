"""Speed and memory of one training step, for random sub-networks of the full MobileNetV3 space.

A step is the trainer's, with one sub-network and without teacher. The following are compared, each in a
separate process, taking turns step by step:

- `elastic`: the sub-network inside its supernet, fp32; `elastic bf16`: in bf16 autocast.
- `static`: the same sub-network extracted, fp32, same memory format; its process also holds the supernet.
- `published`: the same sub-network inside the published package's supernet, with its own defaults, if
  --published names the folder that it was installed to:
  pip install --no-deps --target DIR ofa==0.1.0.post202307202001 tqdm pyyaml

Ratios are medians over the sub-networks of the ratios of the medians over the rounds. --growth prints how
time per image and peak memory of a medium sub-network grow with batch and resolution instead. On a machine
shared with others, --clock cpu --threads 1 compares processor time.

Run: python benchmarks/train_step.py [--published DIR] [--settings 224x16 64x64] [--networks 20] [--rounds 2]
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from our_training import full_space
from turns import Worker

from ofa.space.subnet import SubnetConfig

BATCH_SIZES = (8, 16, 32, 64)
RESOLUTIONS = (64, 128, 224)

Workers = Mapping[str, Worker]


@dataclass(frozen=True)
class Plan:
    """Settings of the measurement.

    Attributes:
        published: folder of the published package, if it takes part.
        threads: number of threads of each process.
        rounds: measured turns of each process per sub-network.
        clock: "wall" or "cpu".
    """

    published: Path | None
    threads: int
    rounds: int
    clock: str


def start_workers(plan: Plan, with_static: bool) -> dict[str, Worker]:
    """Return fresh processes by name, so that peak memory excludes earlier work."""
    kinds = {"elastic": ("elastic", "fp32"), "elastic bf16": ("elastic", "bf16")}
    if with_static:
        kinds["static"] = ("static", "fp32")
    workers = {name: Worker("our_training.py", [plan.threads, *kind]) for name, kind in kinds.items()}
    if plan.published:
        workers["published"] = Worker("published_training.py", [plan.threads, plan.published, "step"])
    return workers


@dataclass(frozen=True)
class Turn:
    """A step: median seconds, and the process's peak resident set so far."""

    seconds: float
    peak_memory_mib: float


def turns(workers: Workers, config: SubnetConfig, batch_size: int, plan: Plan) -> dict[str, Turn]:
    """Return time and memory of a step by worker; the first round is not timed."""
    request = {"config": config.to_dict(), "batch_size": batch_size}
    answers: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for _ in range(plan.rounds + 1):
        for name, worker in workers.items():
            answers[name].append(worker.ask(request))
    return {
        name: Turn(statistics.median(a[plan.clock] for a in found[1:]), found[-1]["mib"])
        for name, found in answers.items()
    }


def print_setting(configs: Sequence[SubnetConfig], resolution: int, batch_size: int, plan: Plan) -> None:
    """Print time, throughput, memory and ratios at one resolution and batch size."""
    configs = [dataclasses.replace(config, resolution=resolution) for config in configs]
    workers = start_workers(plan, with_static=True)
    runs = [turns(workers, config, batch_size, plan) for config in configs]
    print(f"\n{resolution} px, batch {batch_size}, {len(configs)} sub-networks, {plan.clock} time")
    print("step          median ms  images/s  peak MiB")
    for name, worker in workers.items():
        seconds = statistics.median(run[name].seconds for run in runs)
        memory = runs[-1][name].peak_memory_mib
        print(f"{name:13s} {1e3 * seconds:9.1f} {batch_size / seconds:9.1f} {memory:9.0f}")
        worker.close()
    print_ratio(runs, "elastic", "static", "at most 1.08")
    if plan.published:
        print_ratio(runs, "published", "elastic", "at least 1.35")
        print_ratio(runs, "published", "elastic bf16", "at least 1.9")


def print_ratio(runs: Sequence[Mapping[str, Turn]], above: str, below: str, bar: str) -> None:
    """Print the median and the range of the ratio of two workers' times beside the bar."""
    ratios = [run[above].seconds / run[below].seconds for run in runs]
    middle = statistics.median(ratios)
    print(f"time {above} / {below}: {middle:.3f} ({min(ratios):.3f} to {max(ratios):.3f}), {bar}", flush=True)


def print_growth(plan: Plan) -> None:
    """Print milliseconds per image and peak memory by batch and resolution, from few pixels to many.

    One process at a time: together, their largest batches need too much memory.
    """
    middle = full_space().middle
    sizes = sorted(product(RESOLUTIONS, BATCH_SIZES), key=lambda size: size[0] ** 2 * size[1])
    print(f"\nmiddle sub-network: {plan.clock} time, peak memory so far")
    for name, worker in start_workers(plan, with_static=False).items():
        for resolution, batch_size in sizes:
            config = dataclasses.replace(middle, resolution=resolution)
            turn = turns({name: worker}, config, batch_size, plan)[name]
            print(
                f"{name:13s} {resolution:4d} px, batch {batch_size:2d}: "
                f"{1e3 * turn.seconds / batch_size:7.2f} ms/image {turn.peak_memory_mib:6.0f} MiB",
                flush=True,
            )
        worker.close()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Speed and memory of one training step.")
    parser.add_argument("--published", type=Path, help="folder that the published package is installed to")
    parser.add_argument("--settings", nargs="+", default=["224x16", "64x64"], help="resolution x batch size")
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="draws the sub-networks")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--growth", action="store_true", help="print only how cost grows")
    arguments = parser.parse_args()
    plan = Plan(arguments.published, arguments.threads, arguments.rounds, arguments.clock)
    if arguments.growth:
        print_growth(plan)
        return
    space = full_space()
    genomes = space.sample(arguments.networks, np.random.default_rng(arguments.seed))
    for setting in arguments.settings:
        resolution, batch_size = map(int, setting.split("x"))
        print_setting([space.config(genome) for genome in genomes], resolution, batch_size, plan)


if __name__ == "__main__":
    main()
