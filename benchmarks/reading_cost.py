"""Time to read a table, a predictor, a supernet, records and a result, beside another version in turns.

The files are made once, for the MobileNetV3 space of ImageNet. Two processes read them in turns, one with
this checkout and one with the other; the order changes every round. Printed are lower
quartiles in milliseconds, as of latencies, and their ratio.

Run: python benchmarks/reading_cost.py OTHER_CHECKOUT [--rounds 15]
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from turns import Request, Worker, serve

ROOT = Path(__file__).resolve().parent.parent
SPACE = "mobilenet_v3"
ARTEFACTS = ("table", "predictor", "supernet", "records", "result")
NUM_RECORDS, NUM_WARMUPS = 500, 2


def make_files(folder: Path) -> None:
    """Write the predictor, the supernet, the records and the result into `folder`."""
    import numpy as np
    import torch

    from ofa.runs.supernet_file import save_supernet
    from ofa.space.load import load_space
    from ofa.supernet.supernet import build_supernet
    from predictors.model.features import FeatureMap
    from predictors.model.predictor import AccuracyMLP, AccuracyPredictor, PredictorInfo, TargetScale
    from predictors.records import RecordFile
    from search.algorithms.random_search import RandomSettings, search_randomly
    from search.limits.limit import Limit

    space, rng = load_space(SPACE), np.random.default_rng(0)
    torch.manual_seed(0)
    save_supernet(folder / "supernet.pt", build_supernet(space, 0), {})
    features = FeatureMap.from_space(space)
    info = PredictorInfo({}, {}, 0, NUM_RECORDS, 0, {})
    scale = TargetScale(0.7, 0.02, 0.1, 1.0)
    predictor = AccuracyPredictor(features, AccuracyMLP(features.num_inputs, 400, 17), scale, info)
    predictor.save(folder / "predictor.pt")
    records = RecordFile.open(folder / "accuracy.jsonl", space, {})
    for genome in space.sample(NUM_RECORDS, rng):
        records.append(space.config(genome), float(rng.random()))
    limits = [Limit("macs_m", lambda genomes: genomes.sum(1).astype(float), 1e9, "M")]
    result = search_randomly(space, predictor, limits, RandomSettings(evaluations=2000), rng)
    dataclasses.replace(result, ranked=result.ranked[:20]).save(folder / "result.json", {})


def readers(folder: Path, checkout: Path) -> dict[str, Callable[[], object]]:
    """Return the readers of the version that is imported, by artefact."""
    import torch

    from latency_tables.table.table import LatencyTable
    from ofa.runs.supernet_file import load_supernet
    from ofa.space.load import load_space
    from predictors.load import load_predictor
    from predictors.records import RecordFile
    from search.result.result import SearchResult

    torch.set_num_threads(1)
    space, table = load_space(SPACE), checkout / "latency_tables" / "data" / SPACE / "cascadelake_onnx.json"
    return {
        "table": lambda: LatencyTable.load(table),
        "predictor": lambda: load_predictor(folder / "predictor.pt", space),
        "supernet": lambda: load_supernet(folder / "supernet.pt"),
        "records": lambda: RecordFile.read(folder / "accuracy.jsonl", space),
        "result": lambda: SearchResult.load(folder / "result.json", space),
    }


def work(folder: Path, checkout: Path) -> None:
    """Answer requests for one artefact with the milliseconds that reading it takes."""
    sys.path.insert(0, str(checkout))
    by_artefact = readers(folder, checkout)

    def answer(request: Request) -> float:
        start = time.perf_counter()
        by_artefact[str(request["artefact"])]()
        return 1e3 * (time.perf_counter() - start)

    serve(answer)


def compare(other: Path, num_rounds: int) -> None:
    """Print the times of both versions."""
    with tempfile.TemporaryDirectory() as name:
        make_files(Path(name))
        workers = [Worker("reading_cost.py", ["--work", name, checkout]) for checkout in (ROOT, other)]
        print(f"{'':10s} {'this ms':>9s} {'other ms':>9s} {'ratio':>6s}")
        for artefact in ARTEFACTS:
            times: list[list[float]] = [[], []]
            for number in range(NUM_WARMUPS + num_rounds):
                for index in (0, 1) if number % 2 else (1, 0):
                    milliseconds = workers[index].ask({"artefact": artefact})
                    if number >= NUM_WARMUPS:
                        times[index].append(milliseconds)
            ours, theirs = (statistics.quantiles(values, n=4)[0] for values in times)
            print(f"{artefact:10s} {ours:9.2f} {theirs:9.2f} {ours / theirs:6.2f}")
        for worker in workers:
            worker.close()


def main() -> None:
    """Compare two checkouts, or work as one of the processes."""
    parser = argparse.ArgumentParser(description="Time to read files, beside another version.")
    parser.add_argument("other", type=Path, nargs="?", help="folder of the other checkout")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--work", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(*arguments.work)
    else:
        compare(arguments.other.resolve(), arguments.rounds)


if __name__ == "__main__":
    main()
