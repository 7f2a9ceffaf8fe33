"""Import a published accuracy predictor, e.g. `import_predictor.py run_name=mine file=PATH`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ofa.launch import command
from ofa.runs.config import RunConfig
from ofa.space.staged import StagedSpace


@dataclass(frozen=True, kw_only=True)
class ImportPredictorConfig(RunConfig):
    """Settings of `conf/import_predictor.yaml`."""

    file: str
    space: StagedSpace | None
    output: str | None


@command("import_predictor", ImportPredictorConfig)
def import_published_predictor(config: ImportPredictorConfig) -> Path:
    """Write the predictor and return its path."""
    from predictors.published.predictor import import_predictor

    space = config.space or config.trained_space
    predictor = import_predictor(Path(config.file), space)
    path = Path(config.output or config.directory.predictor)
    predictor.save(path)
    low, high = 100 * predictor(space.genomes([space.smallest, space.largest]))
    print(f"predicted top-1 of the smallest and largest network: {low:.2f} and {high:.2f} %")
    print(
        f"predictor: {path}\nnext: python scripts/import_latency_table.py run_name={config.run_name} "
        "files=[DIR] device.name=NAME"
    )
    return path


if __name__ == "__main__":
    import_published_predictor()
