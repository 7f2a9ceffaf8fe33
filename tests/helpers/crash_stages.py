"""Every stage that writes, on networks and images so small that each takes about a second."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import pkgutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from build_latency_table import build_latency_table
from classify import classify
from collect_accuracy import collect_accuracy
from compress_network import compress_network
from export_latency_table import export_latency_table
from export_subnet import export_subnet
from finetune_subnet import finetune_subnet
from fit_predictor import fit_predictor
from import_checkpoint import import_checkpoint
from import_latency_table import import_latency_table
from make_device_kit import make_device_kit
from matplotlib.figure import Figure
from PIL import Image
from prune_model import prune_model
from published_names import mobilenet_v3_name
from report_run import report_run
from search_for_device import search_for_device
from torch import nn
from train_supernet import train_supernet

from latency_tables.measuring.networks import TimedNetwork
from latency_tables.measuring.rounds import Visit
from latency_tables.table.device import DeviceSpec
from latency_tables.table.timing import Timing, summarize
from ofa.launch import Command
from ofa.runs.supernet_file import load_supernet
from ofa.supernet.supernet import Supernet
from predictors.baselines import BASELINES, LINEAR

ROOT = Path(__file__).resolve().parents[2]
Record = Callable[[Sequence[Visit]], None]

STAGE = "{channels: 8, stride: 2, depths: [1, 2], kernel_sizes: [3, 5], expand_ratios: [2, 3]"
SPACE = (
    *("space=mobilenet_v3_tiny", "space.resolutions=[8,12]", "space.stem_channels=8"),
    "space.head_channels=[16,24]",
    f"space.stages=[{STAGE}, activation: relu, squeeze_excite: false}}]",
)
TRAINING = (
    *SPACE,
    *("phases=small_uniform", "phases.largest.epochs=1", "phases.largest.warmup_epochs=0"),
    *("phases.uniform.epochs=1", "training.batch_size=600", "training.checkpoint_every_steps=1"),
    *("training.validation_images=20", "training.calibration_images=20"),
)
NETWORKS = ("calibration_networks=2", "validation_networks=2")
TABLE = (*NETWORKS, "device.processes=1", "max_table_error=1e9")
OTHER = ("device=my_cpu_onnx", "device.name=other")
IMAGES = ("calibration_images=20",)
FIT = ("predictor.hidden_units=4", "predictor.members=2", "predictor.max_iterations=2")
SEARCH = ("search.population_size=8", "search.generations=2", "search.ranked=2", "max_table_error=1e9")
TUNING = (
    *IMAGES,
    "bundle=source",
    "name=tuned",
    "formats=[]",
    "finetuning.batch_size=600",
    "finetuning.epochs=1",
)
PRUNING = (
    *IMAGES,
    *("model=crash_stages:own_network", "model.divisor=4", "data=digits", "run_name=pruned"),
    *("macs_share=0.5", "candidates=2", "validation_images=20", "formats=[]"),
    *("finetuning.batch_size=600", "finetuning.epochs=1"),
)
COMPRESSION = (
    *IMAGES,
    *("model=crash_stages:wider_network", "model.divisor=4", "data=digits", "run_name=compressed"),
    *("steps=[channels,split,sparse,finetune]", "limits.macs_share=0.5", "harm_images=8", "formats=[]"),
    *("channels.macs_share=0.7", "channels.divisor=4", "channels.candidates=2"),
    *("finetuning.batch_size=600", "finetuning.epochs=1"),
)
PENNI = (
    *COMPRESSION,
    *("steps=[penni]", "limits.macs_share=null", "channels.macs_share=null", "run_name=penni"),
)
KIT = (*OTHER, "device.name=board", "device.processes=1", *NETWORKS, "resolutions=[8]")


@dataclass(frozen=True)
class Stage:
    """A command that writes.

    Attributes:
        command: the command.
        settings: its settings; `FOLDER` stands for the folder of all files.
        earlier: settings with which it has run before, so that it replaces something; None if it has not.
    """

    command: Command[Any, Any]
    settings: tuple[str, ...]
    earlier: tuple[str, ...] | None = None

    def run(self, folder: Path, settings: Sequence[str] | None = None) -> None:
        """Run the command in a folder that `prepare` has filled, or in a copy of it."""
        stub_slow_parts()
        chosen = [text.replace("FOLDER", str(folder)) for text in settings or self.settings]
        run_name = [] if any(text.startswith("run_name=") for text in chosen) else ["run_name=run"]
        self.command.run(f"runs_dir={folder / 'runs'}", *run_name, *chosen)


STAGES = {
    "train": Stage(train_supernet, (*TRAINING, "run_name=second")),
    "train_again": Stage(train_supernet, TRAINING, TRAINING),
    "import_supernet": Stage(
        import_checkpoint, (*SPACE, "data=digits", "run_name=theirs", "file=FOLDER/theirs.pth")
    ),
    "collect": Stage(collect_accuracy, (*IMAGES, "count=14"), (*IMAGES, "count=12")),
    "fit": Stage(fit_predictor, (*FIT, "seed=1"), FIT),
    "measure": Stage(build_latency_table, (*TABLE, "device.name=new")),
    "measure_more": Stage(
        build_latency_table, (*TABLE, "device.name=part"), (*TABLE, "device.name=part", "resolutions=[8]")
    ),
    "measure_kit": Stage(build_latency_table, (*TABLE, "from_kit=FOLDER/kit", "resolutions=[8]"), None),
    "search": Stage(
        search_for_device,
        (*SEARCH, "name=small", "limits.macs_m=1", "seed=1"),
        (*SEARCH, "name=small", "limits.macs_m=2"),
    ),
    "verified_search": Stage(
        search_for_device,
        (*SEARCH, *OTHER, "name=verified", "limits.latency_ms=1e6", "resolutions=[8]", "verify=true"),
    ),
    "export": Stage(
        export_subnet,
        (*IMAGES, "name=small", "subnet=largest", "formats=[]"),
        (*IMAGES, "name=small", "subnet=smallest", "formats=[]"),
    ),
    "finetune": Stage(
        finetune_subnet,
        (*TUNING, "finetuning.epochs=1"),
        (*TUNING, "finetuning.epochs=1", "finetuning.seed=1"),
    ),
    "kit": Stage(make_device_kit, KIT),
    "export_table": Stage(export_latency_table, ("device=my_cpu",), ("device=my_cpu",)),
    "import_table": Stage(
        import_latency_table,
        ("device.name=theirs", "files=[FOLDER/runs/run/latency/my_cpu]"),
    ),
    "report": Stage(report_run, (*IMAGES, "random_networks=1", "seed=1"), (*IMAGES, "random_networks=1")),
    "classify": Stage(classify, ("bundle=small", "images=FOLDER/pictures", "output=FOLDER/sheet.png"), None),
    "prune": Stage(prune_model, PRUNING),
    "compress": Stage(compress_network, COMPRESSION),
    "compress_penni": Stage(compress_network, PENNI),
}
"""Every stage in an order in which each finds what it needs."""


def own_network() -> nn.Sequential:
    """Return a user's network for the digits."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    )


def wider_network() -> nn.Module:
    """Return a user's network for the digits, with a convolution that can be split."""
    return nn.Sequential(nn.Conv2d(1, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), *own_network()[2:])


def load_everything() -> None:
    """Load all modules, and what settings and figures load when first used: forked processes need not."""
    for package in ("ofa", "predictors", "latency_tables", "search"):
        for info in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            if not any(part in info.name for part in ("kit_files", "__main__", "ofa.scripts")):
                importlib.import_module(info.name)
    train_supernet.config("run_name=run", *TRAINING)
    Figure().savefig(io.BytesIO(), format="png")


def prepare(folder: Path) -> None:
    """Fill a folder with a run in which every stage has what it needs."""
    STAGES["train"].run(folder, TRAINING)
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(2):
        Image.new("L", (8, 8), 100 * number).save(pictures / f"{number}.png")
    supernet, _ = load_supernet(folder / "runs" / "run" / "supernet.pt")
    assert isinstance(supernet, Supernet)
    state = {mobilenet_v3_name(n, len(supernet.layers)): t for n, t in supernet.state_dict().items()}
    torch.save(state, folder / "theirs.pth")
    STAGES["export"].run(folder, (*IMAGES, "name=source", "subnet=smallest", "formats=[]"))
    for name in ("collect", "fit", "measure_more", "search", "export", "finetune"):
        STAGES[name].run(folder, STAGES[name].earlier)
    STAGES["measure"].run(folder, TABLE)
    STAGES["measure"].run(folder, (*TABLE, *OTHER, "resolutions=[8]"))
    # A table of another machine, whose candidates only a kit can measure.
    path = folder / "runs" / "run" / "latency" / "other.json"
    path.write_text(path.read_text().replace('"processor": "', '"processor": "Z80 '))
    STAGES["kit"].run(folder, (*KIT, f"output={folder / 'kit'}"))
    measure_kit(folder / "kit")
    for name in ("export_table", "report"):
        STAGES[name].run(folder, STAGES[name].earlier)


def stub_slow_parts() -> None:
    """Let latencies be made up, models for engines be texts, and one baseline suffice."""

    def time_made_up(plan: Any, device: DeviceSpec, seed: int, record: Record, *_: Any, **__: Any) -> None:
        for workload in plan.workloads:
            record([(workload.key, [made_up_ms(workload.key)] * 2)])

    def networks_made_up(networks: Mapping[str, TimedNetwork], *_: Any) -> dict[str, Timing]:
        return {name: summarize([[made_up_ms(name)] * 2]) for name in networks}

    patch = pytest.MonkeyPatch()
    patch.setattr("latency_tables.measuring.build.time_in_fresh_process", time_made_up)
    patch.setattr("latency_tables.measuring.networks.time_in_fresh_process", time_made_up)
    patch.setattr("latency_tables.measuring.networks.measure_networks", networks_made_up)
    patch.setattr("latency_tables.remote.kit.export_onnx", lambda module, example: b"a model")
    patch.setattr("predictors.fitting.BASELINES", {LINEAR: BASELINES[LINEAR]})


def made_up_ms(key: str) -> float:
    """Return a latency that depends on a name alone."""
    return 0.01 + (10.0 if key.startswith("network") else 0.001) * (1 + zlib.crc32(key.encode()) % 9)


def measure_kit(folder: Path) -> None:
    """Write made-up measurements into a kit."""
    content = (folder / "manifest.json").read_bytes()
    manifest = json.loads(content)
    visits = [[0, p["key"], [made_up_ms(p["key"])] * 2, 0.1] for p in manifest["programs"]]
    facts = dict.fromkeys(("engine_title", "engine_version", "processor", "system"), "made up")
    values = {
        "schema_version": manifest["schema_version"],
        "manifest_sha256": hashlib.sha256(content).hexdigest(),
        "engine": "onnx_runtime",
        "threads": 1,
        "visits": visits,
        **facts,
    }
    (folder / "measurements.json").write_text(json.dumps(values))
