"""Import a published supernet, e.g. `ofa import-supernet run_name=mine file=PATH space=mobilenet_v3`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ofa.common.command_line import command_line
from ofa.common.text_settings import PathText
from ofa.data.settings import DataSettings
from ofa.launch import command
from ofa.runs.config import RunConfig, next_command
from ofa.space.staged import StagedSpace


@dataclass(frozen=True, kw_only=True)
class ImportCheckpointConfig(RunConfig):
    """Settings of `conf/import_checkpoint.yaml`."""

    file: PathText
    space: StagedSpace
    data: DataSettings


@command("import_checkpoint", ImportCheckpointConfig)
def import_checkpoint(config: ImportCheckpointConfig) -> Path:
    """Write the run directory and return the path of the supernet."""
    from ofa.common.tensors import file_hash
    from ofa.published.checkpoint import import_supernet
    from ofa.runs.imported import check_vacant, fitting_images, save_run

    run, path = config.directory, Path(config.file)
    with run.locked("training"):
        check_vacant(run)
        supernet = import_supernet(config.space, path)
        data = fitting_images(config.data, supernet.space)
        save_run(run, supernet, data, {"file": path.name, "sha256": file_hash(path)})
    count = sum(parameter.numel() for parameter in supernet.parameters())
    space = supernet.space
    print(f"supernet of {space.name}: {space.num_classes} classes, {count / 1e6:.2f} M parameters")
    print(run.supernet)
    named_root = {"data_root": "DIR"} if data.root is None else {}
    print(f"with images of its classes, {next_command(config, 'collect', named_root)}")
    print(f"with a predictor of theirs, {next_command(config, 'import-predictor', {'file': 'PATH'})}")
    own_images = {"data": "image_folder", "data.root": "DIR", "run_name": "NAME", "init": config.run_name}
    print(f"for images of yours, next: {command_line('train', own_images)}")
    return run.supernet


if __name__ == "__main__":
    import_checkpoint()
