"""The folder of a run and what is in it: training, exporting and fine-tuning there."""

from typing import TYPE_CHECKING

from ofa.common.lazy import lazy_names

if TYPE_CHECKING:
    from ofa.runs.config import RunConfig, TrainConfig
    from ofa.runs.directory import RunDirectory
    from ofa.runs.export import export_subnet
    from ofa.runs.finetune import finetune_bundle
    from ofa.runs.start import StartRecord, start_from
    from ofa.runs.train import train_run
    from ofa.runs.trained import TrainedRun, open_run

__all__ = [
    "RunConfig",
    "RunDirectory",
    "StartRecord",
    "TrainConfig",
    "TrainedRun",
    "export_subnet",
    "finetune_bundle",
    "open_run",
    "start_from",
    "train_run",
]

__getattr__ = lazy_names(
    __name__,
    {
        "config": ["RunConfig", "TrainConfig"],
        "directory": ["RunDirectory"],
        "export": ["export_subnet"],
        "finetune": ["finetune_bundle"],
        "start": ["StartRecord", "start_from"],
        "train": ["train_run"],
        "trained": ["TrainedRun", "open_run"],
    },
)
