"""Import a published supernet, e.g. `ofa import-supernet run_name=mine file=PATH space=mobilenet_v3`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ofa.data.settings import DataSettings
from ofa.launch import command
from ofa.runs.config import RunConfig, next_command
from ofa.space.staged import StagedSpace


@dataclass(frozen=True, kw_only=True)
class ImportCheckpointConfig(RunConfig):
    """Settings of `conf/import_checkpoint.yaml`."""

    file: str
    space: StagedSpace
    data: DataSettings


@command("import_checkpoint", ImportCheckpointConfig)
def import_checkpoint(config: ImportCheckpointConfig) -> Path:
    """Write the run directory and return the path of the supernet."""
    from ofa.common.tensors import file_hash
    from ofa.published.checkpoint import import_supernet
    from ofa.runs.imported import check_vacant, save_run

    run, path = config.directory, Path(config.file)
    check_vacant(run)
    supernet = import_supernet(config.space, path)
    save_run(run, supernet, config.data, {"file": path.name, "sha256": file_hash(path)})
    count = sum(parameter.numel() for parameter in supernet.parameters())
    print(f"supernet of {config.space.name}: {count / 1e6:.2f} M parameters\n{run.supernet}")
    print(next_command(config, "collect", {"data_root": "DIR"}))
    print(f"or {next_command(config, 'import-predictor', {'file': 'PATH'})}")
    return run.supernet


if __name__ == "__main__":
    import_checkpoint()
