"""One search with the published once-for-all package, as a separate process; prints one JSON line.

Started by search_speed.py: the package has the import name `ofa`, like this project. Only its public classes
are called. Missing parts are supplied from outside: its yaml.load calls lack a loader, and its tables and
weights are read from the given folder instead of being downloaded, so its downloader may be absent.

    python benchmarks/published_search.py PACKAGE_FOLDER DATA_FOLDER LIMIT_MS SEED POPULATION GENERATIONS
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import random
import sys
import time
import types
from pathlib import Path
from typing import Any


def main(package: str, data: str, limit_ms: str, seed: str, population: str, generations: str) -> None:
    """Run the search and print predicted top-1, found latency, and seconds of wall and processor time."""
    sys.path.insert(0, package)
    import numpy as np
    import torch
    import yaml

    torch.set_num_threads(1)
    sys.modules.setdefault("gdown", types.ModuleType("gdown"))
    yaml.load = functools.partial(yaml.load, Loader=yaml.CSafeLoader)
    folder = Path(data)
    latency: Any = importlib.import_module("ofa.tutorial.latency_table")
    latency.download_url = lambda url, *_, **__: str(folder / "latency" / "note10" / Path(url).name)
    accuracy = importlib.import_module("ofa.tutorial.accuracy_predictor")
    finder = importlib.import_module("ofa.tutorial.evolution_finder")

    file = folder / "predictor" / "ofa_mbv3_acc_predictor.pth"
    weights = torch.load(file, map_location="cpu", weights_only=True)
    with contextlib.redirect_stdout(sys.stderr):
        table = latency.LatencyTable("note10")
        predictor = accuracy.AccuracyPredictor(pretrained=False, device="cpu")
        predictor.model.load_state_dict(weights.get("state_dict", weights))
        random.seed(int(seed))
        np.random.seed(int(seed))  # noqa: NPY002 - the package draws from it
        search = finder.EvolutionFinder(
            "note10",
            float(limit_ms),
            table,
            predictor,
            population_size=int(population),
            max_time_budget=int(generations),
        )
        wall, processor = time.perf_counter(), time.process_time()
        _, best = search.run_evolution_search()
    found = {"top1": best[0], "latency_ms": best[2]}
    seconds = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - processor}
    print(json.dumps(found | seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
