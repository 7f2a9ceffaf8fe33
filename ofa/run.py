"""A run's directory: where each stage's files are, and the configuration it belongs to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.config import build
from ofa.data import DataInfo, DataSettings
from ofa.errors import UserError
from ofa.files import read_json, write_json
from ofa.space import SearchSpace
from ofa.training.settings import Phase, TrainSettings


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a training run depends on; the schema of `conf/train_supernet.yaml`."""

    run_name: str
    space: SearchSpace
    data: DataSettings
    phases: dict[str, Phase]
    training: TrainSettings
    runs_dir: str = "runs"
    accelerator: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        """Give each phase the name it is listed under."""
        named = {name: dataclasses.replace(phase, name=name) for name, phase in self.phases.items()}
        object.__setattr__(self, "phases", named)

    def fitted_space(self, info: DataInfo) -> SearchSpace:
        """Return the space with the channels and classes of the data."""
        return dataclasses.replace(self.space, in_channels=info.in_channels, num_classes=info.num_classes)

    def record(self) -> dict[str, Any]:
        """Return the plain values that decide a run's result, without places and machine settings."""
        values = dataclasses.asdict(self)
        for name in ("run_name", "runs_dir", "accelerator", "threads"):
            del values[name]
        for name in ("root", "download", "workers"):
            del values["data"][name]
        del values["space"]["restriction"]
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain


class RunDirectory:
    """`<runs_dir>/<run_name>`: each stage finds the files of the earlier ones here."""

    def __init__(self, runs_dir: str, run_name: str) -> None:
        """Name the directory; nothing is created."""
        self.path = Path(runs_dir) / run_name
        self.name = run_name
        self.supernet = self.path / "supernet.pt"
        self.records = self.path / "accuracy.jsonl"
        self.predictor = self.path / "predictor.pt"
        self.bundles = self.path / "bundles"

    def table(self, device_name: str) -> Path:
        """Path of the latency table of a device."""
        return self.path / "latency" / f"{device_name}.json"

    def search(self, name: str) -> Path:
        """Path of a search result."""
        return self.path / "search" / f"{name}.json"

    def claim(self, config: TrainConfig) -> None:
        """Make the directory belong to `config`, or check that it does.

        Raises:
            UserError: if it holds a run of a different configuration, naming what differs.
        """
        file = self.path / "config.json"
        record = config.record()
        if not file.exists():
            write_json(file, {**record, "data_root": config.data.root})
            return
        found = read_json(file, "run configuration", "python scripts/train_supernet.py")
        found.pop("data_root", None)
        differing = list(_differences(found, record))
        if differing:
            raise UserError(
                f"{self.path} holds a run of a different configuration: {'; '.join(differing[:8])}. Choose "
                "another run_name, give the same settings to resume, or remove that directory."
            )

    def load_data_settings(self, root: str | None) -> DataSettings:
        """Return the run's data settings, with `root` in place of the recorded folder if given.

        Raises:
            UserError: if there is no such run.
        """
        file = self.path / "config.json"
        command = f"python scripts/train_supernet.py run_name={self.name}"
        values = read_json(file, f"run {self.name!r}", command)
        where = {"root": root or values.get("data_root")}
        return build(DataSettings, {**values.get("data", {}), **where}, str(file))


def _differences(found: Any, wanted: Any, where: str = "") -> list[str]:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        names = [*found, *(name for name in wanted if name not in found)]
        parts = (
            _differences(found.get(n), wanted.get(n), f"{where}.{n}" if where else str(n)) for n in names
        )
        return [line for part in parts for line in part]
    return [] if found == wanted else [f"{where} is {found!r} there, {wanted!r} now"]
