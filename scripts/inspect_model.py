"""Report what of a PyTorch model can vary, and why the rest stays, e.g. `ofa inspect model=my_module:Net`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ofa.common.disk import check_writable
from ofa.common.errors import UserError
from ofa.common.files import json_writer, write_atomic
from ofa.common.progress import progress_bar
from ofa.common.text_settings import PathText, ShortForm
from ofa.graph.settings import CostLimits, ModelSettings
from ofa.launch import command

if TYPE_CHECKING:
    from ofa.graph.report import ConversionReport


DEFAULT_RESOLUTION = 224


@dataclass(frozen=True, kw_only=True)
class InspectModelConfig:
    """Settings of `conf/inspect_model.yaml`."""

    model: Annotated[ModelSettings, ShortForm("name")]
    input: tuple[int, ...] | None
    resolution: int | None
    limits: CostLimits
    out: PathText | None
    runs_dir: PathText
    threads: int | None

    def __post_init__(self) -> None:
        """Check that there is a network, and the shape of the input."""
        self.model.check_given()
        if self.input is not None and self.resolution is not None:
            raise UserError("input and resolution are both given; expected one of them.")
        if self.input is not None and (len(self.input) < 2 or min(self.input) < 1):
            raise UserError(
                f"input is {list(self.input)}; expected the batch and the shape of an input, "
                "e.g. [2,3,224,224]."
            )
        if self.resolution is not None and self.resolution < 1:
            raise UserError(f"resolution is {self.resolution}; expected a side in pixels, at least 1.")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input that is converted with: at least two images."""
        if self.input is not None:
            batch, *shape = self.input
            return (max(batch, 2), *shape)
        side = self.resolution or max(self.model.resolutions, default=DEFAULT_RESOLUTION)
        return (2, 3, side, side)


@command("inspect_model", InspectModelConfig)
def inspect_model(config: InspectModelConfig) -> ConversionReport:
    """Print the report, write it as JSON and return it."""
    path = Path(config.out) if config.out else None
    if path is not None:
        check_writable(path.absolute().parent)
    shape = "x".join(map(str, config.input_shape))
    print(f"converting {config.model.name} for inputs of {shape}; large networks take minutes", flush=True)

    from ofa.common.accelerator import threads_set
    from ofa.graph.from_settings import supernet_of
    from ofa.graph.report_text import report_lines

    with threads_set(config.threads), progress_bar("converting"):
        supernet = supernet_of(config.model, config.input_shape)
    assert supernet.report is not None
    report = supernet.report.with_limits(config.limits.by_cost)
    print("\n".join(report_lines(report)))
    if path is not None:
        write_atomic(path, json_writer(report.to_dict()))
        print(f"report: {path}")
    report.check_limits()
    return report


if __name__ == "__main__":
    inspect_model()
