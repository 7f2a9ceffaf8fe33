"""Make a trained network smaller by steps, e.g. `ofa compress bundle=NAME steps=[split,finetune,int8]`.

Its images are those of the run, or settings as in a training: data=image_folder data.root=DIR.
An interrupted run is continued by the same command.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

from latency_tables.table.device import DeviceSpec, device_target
from ofa.common.errors import UserError
from ofa.common.progress import progress_bar
from ofa.common.text_settings import Name, PathText, ShortForm
from ofa.data.settings import DataSettings
from ofa.graph.settings import ModelSettings
from ofa.launch import command, job_name
from ofa.runs.compression_settings import BF16, INT8, CompressionSettings
from ofa.runs.config import RunConfig, next_command

if TYPE_CHECKING:
    from ofa.compression.programs import TimedModule
    from ofa.runs.compression_run import CompressionReport
    from ofa.runs.compression_source import CompressionSource
    from ofa.runs.trained import RunImages

ENGINES: Mapping[str | None, str] = {INT8: "onnx_runtime", BF16: "openvino"}
"""The engine for which a bundle is made in a precision, where no device is given."""


@dataclass(frozen=True, kw_only=True)
class CompressConfig(CompressionSettings, RunConfig):
    """Settings of `conf/compress_network.yaml`."""

    bundle: PathText | None
    model: Annotated[ModelSettings, ShortForm("name")]
    data: DataSettings | None
    name: Name | None
    device: DeviceSpec | None
    plan_only: bool
    formats: tuple[str, ...] | None

    def __post_init__(self) -> None:
        """Check that there is one network, and a device if latency is limited, or if all take one rank."""
        super().__post_init__()
        self.model.check_not_split()
        if (self.bundle is None) == (self.model.name is None):
            both = "bundle and model are given" if self.bundle else "There is no network"
            raise UserError(f"{both}; expected a bundle of the run, or model=NAME and data=NAME.")
        if self.model.name is not None and self.data is None:
            raise UserError("model needs its images, e.g. data=image_folder data.root=DIR.")
        has_latency = bool(self.limits.bounds) and self.limits.cost == "latency_ms"
        if (self.device is None) == has_latency and not self.is_uniform:
            raise UserError(
                "A limit of latency and a device are given together, e.g. device=my_cpu_onnx "
                "limits.latency_share=0.6, or not at all."
            )
        if self.plan_only and not self.forms:
            raise UserError("plan_only is for steps that change the form of convolutions.")


@command(
    "compress_network",
    CompressConfig,
    interrupted="What was measured and trained so far is kept; the same command goes on from it.",
)
def compress_network(config: CompressConfig) -> CompressionReport | None:
    """Plan, change, fine-tune, export and return what the compression came to; None after a plan alone."""
    from latency_tables.engines.base import processor_name
    from ofa.runs.compression_run import compress_in, compression_folder
    from ofa.runs.config import claim_images
    from ofa.runs.trained import open_images

    place = open_images(config, config.data)
    if config.data is not None:
        claim_images(place.directory, config.data)
    source = _source(config, place)
    name = job_name(config.name or f"{source.name}-compressed", ["run_name", "name", "bundle"])
    device = _deployed_device(config)
    print(f"compressing {source.card.name}")
    if device is not None and device is not config.device:
        print(_precision_gain(config.device, device, source))
    report = compress_in(
        place.directory,
        source,
        place.data,
        config,
        name,
        device=place.device,
        bar=progress_bar,
        note=partial(print, flush=True),
        formats=_formats(config, device),
        measure=None if device is None else partial(measured_ms, device),
        target=None if device is None else device_target(device, processor_name()),
        plan_only=config.plan_only,
    )
    if report is None:
        return None
    print(*report.lines, sep="\n")
    figure = compression_folder(place.directory, name) / "steps.png"
    print(f"bundle: {report.export.path}; figure: {figure}")
    print(next_command(config, "evaluate", {"bundle": report.export.path.name}))
    if config.max_loss is not None and report.loss > config.max_loss:
        raise UserError(
            f"The compressed network loses {report.loss:.2f}, more than max_loss={config.max_loss:g}. Its "
            "bundle was written; give a larger limit, a longer fine-tuning or other steps."
        )
    return report


def _source(config: CompressConfig, place: RunImages) -> CompressionSource:
    from ofa.export.bundle import load_bundle
    from ofa.runs.compression_source import bundle_source, model_source

    if config.bundle is not None:
        return bundle_source(load_bundle(place.directory.bundle(config.bundle)), place.data, config)
    assert config.data is not None
    path = place.directory.path / "compression" / "model.pt"
    return model_source(path, config.model, place.data, config.data, partial(print, flush=True))


def _deployed_device(config: CompressConfig) -> DeviceSpec | None:
    """Return the device in the precision in which the network will run there."""
    device, precision = config.device, config.precision
    if device is None or precision is None or device.precision == precision:
        return device
    print(f"{precision} is the last step: everything is measured in {precision}, not {device.precision}")
    return dataclasses.replace(device, precision=precision)


def _precision_gain(own: DeviceSpec | None, lower: DeviceSpec, source: CompressionSource) -> str:
    """Return a line with the latency of the network as it is, in both precisions."""
    from ofa.compression.programs import TimedModule

    assert own is not None
    programs = {"network": TimedModule(source.network, source.card.input_shape)}
    before, after = (measured_ms(device, programs)["network"] for device in (own, lower))
    gain = f"{100 * after / before:.0f} %" if after < before else f"{lower.precision} gains nothing here"
    return (
        f"the network takes {before:.3g} ms in {own.precision}, {after:.3g} ms in {lower.precision} ({gain})"
    )


def _formats(config: CompressConfig, device: DeviceSpec | None) -> tuple[str, ...]:
    """Return the formats of the bundle: those that are asked for, or that of the engine that will run it."""
    from ofa.export.formats import formats_of_engines
    from ofa.export.precision import offered_precisions

    formats = config.formats
    if formats is None:
        engine = ENGINES.get(config.precision) if device is None else device.engine
        formats = ("onnx", "pt2") if engine is None else tuple(formats_of_engines([engine]))
    if config.precision == INT8 and any(BF16 in offered_precisions(name) for name in formats):
        print("bf16 runs on this processor, too, loses next to nothing and needs no images: steps=[bf16]")
    return formats


def measured_ms(device: DeviceSpec, modules: Mapping[str, TimedModule]) -> dict[str, float]:
    """Return the latency (ms) of modules on a device, measured together."""
    from latency_tables.measuring.networks import TimedNetwork, measure_networks

    timed = {name: TimedNetwork(module.module, module.input_shape) for name, module in modules.items()}
    with progress_bar(f"measuring {len(timed)} programs on {device.name}") as progress:
        timings = measure_networks(timed, device, 0, progress)
    return {name: timings[name].latency_ms for name in timed}


if __name__ == "__main__":
    compress_network()
