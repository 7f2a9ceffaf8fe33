"""`RunDirectory`: where the files of a run are."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from ofa.common.errors import UserError
from ofa.common.locks import locked, sole_writer
from ofa.common.text_settings import checked_name
from ofa.common.unfinished import put_back, put_back_all

FIRST_RUN_NAME = "digits"
"""What a training without any settings calls its run."""


class RunDirectory:
    """`<runs_dir>/<run_name>`: each stage finds the files of the earlier ones here."""

    def __init__(self, runs_dir: str, run_name: str) -> None:
        """Name the directory; nothing is created.

        Raises:
            UserError: if no folder can be called so; see `checked_name`.
        """
        self.path = Path(runs_dir) / checked_name(run_name, "run_name")
        self.name = run_name
        self.config = self.path / "config.json"
        self.supernet = self.path / "supernet.pt"
        self.first_supernet = self.path / "model.pt"
        self.records = self.path / "accuracy.jsonl"
        self.predictor = self.path / "predictor.pt"
        self.bundles = self.path / "bundles"

    def table(self, device_name: str) -> Path:
        """Path of the latency table of a device."""
        return self.path / "latency" / f"{checked_name(device_name)}.json"

    def bundle(self, name: str) -> Path:
        """Path of the bundle of that name in the run, or `name` itself where that is a folder.

        Raises:
            UserError: if there is neither; it names the bundles of the run.
        """
        for path in (self.bundles / name, Path(name).expanduser()):
            put_back(path)
            if path.is_dir():
                return path
        known_names = [path.name for path in self.bundle_paths()]
        raise UserError(
            f"No bundle {name!r} in {self.path}, and no folder of that name; the run has: "
            f"{', '.join(known_names) or 'none'}.",
            stage="export",
        )

    def bundle_paths(self) -> list[Path]:
        """Paths of all bundles of the run, by name."""
        put_back_all(self.bundles)
        return sorted(path.parent for path in self.bundles.glob("[!.]*/subnet.json"))

    def new_bundle(self, name: str) -> Path:
        """Path of the bundle that is made under a name.

        Raises:
            UserError: if no folder can be called so; see `checked_name`.
        """
        return self.bundles / checked_name(name)

    def finetuning(self, name: str) -> Path:
        """Path of the checkpoints and TensorBoard events of the fine-tuning that makes a bundle."""
        return self.path / "finetuning" / checked_name(name)

    def search(self, name: str) -> Path:
        """Path of a search result."""
        return self.path / "search" / f"{checked_name(name)}.json"

    def kit(self, name: str) -> Path:
        """Path of a kit for another device."""
        return self.path / "kits" / checked_name(name)

    def locked(self, stage: str, writes: bool = True) -> AbstractContextManager[None]:
        """Return the lock of a stage, for the process of it that `writes` files; see `locked`."""
        if not writes:
            return nullcontext()
        return locked(self.path / f".{stage}.lock", f"the {stage} of {self.path}")

    def writing_bundle(self, name: str, writes: bool = True) -> AbstractContextManager[None]:
        """Return the lock of the bundle that is made under a name, for the process that `writes` it."""
        if not writes:
            return nullcontext()
        return sole_writer(self.new_bundle(name), "bundle")


def newest_run(runs_dir: str) -> str:
    """Return the name of the run whose training or import began last; `FIRST_RUN_NAME` if there is none."""
    configs = [path for path in Path(runs_dir).glob("*/config.json") if path.is_file()]
    if not configs:
        return FIRST_RUN_NAME
    return max(configs, key=lambda path: path.stat().st_mtime_ns).parent.name
