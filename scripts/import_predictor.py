"""Import a published accuracy predictor, e.g. `ofa import-predictor run_name=mine file=PATH`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ofa.common.locks import sole_writer
from ofa.common.text_settings import PathText
from ofa.launch import command
from ofa.runs.config import RunConfig, next_command
from ofa.space.staged import StagedSpace


@dataclass(frozen=True, kw_only=True)
class ImportPredictorConfig(RunConfig):
    """Settings of `conf/import_predictor.yaml`."""

    file: PathText
    space: StagedSpace | None
    output: PathText | None


@command("import_predictor", ImportPredictorConfig)
def import_predictor(config: ImportPredictorConfig) -> Path:
    """Write the predictor and return its path."""
    import predictors.published.predictor

    space = config.space or config.trained_family
    predictor = predictors.published.predictor.import_predictor(Path(config.file), space)
    path = Path(config.output or config.directory.predictor)
    with sole_writer(path, "predictor", setting="output"):
        predictor.save(path)
    low, high = 100 * predictor(space.genomes([space.smallest, space.largest]))
    print(f"predicted top-1 of the smallest and largest network: {low:.2f} and {high:.2f} %")
    settings = {"files": "[DIR]", "device.name": "NAME"}
    print(f"predictor: {path}\n{next_command(config, 'import-table', settings)}")
    return path


if __name__ == "__main__":
    import_predictor()
