"""`ModelCard`: the description of any network that its users need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ofa.common.errors import UserError
from ofa.common.expectation import MetricValue
from ofa.common.latency_target import LatencyTarget
from ofa.common.metric import metric_named
from ofa.compression.facts import CompressionFacts, InputRange
from ofa.data.preprocessing import Preprocessing
from ofa.data.settings import CLASSIFICATION, OUTPUTS_BY_NAME, REGRESSION, DataInfo
from ofa.data.target_scale import TargetScale
from ofa.graph.network_source import NetworkSource
from ofa.graph.space import GraphSpace, ImageSpace, family_space
from ofa.space.config import AnyConfig
from ofa.space.staged import MAX_SIDE, StagedSpace


@dataclass(frozen=True)
class SubnetFacts:
    """The origin of a sub-network: its space, and its config in that space.

    Attributes:
        space: the space.
        config: the sub-network.
        network: what makes the whole network of a user's model; None for a published family.
        graph: graph of the whole network as plain values; None for a sub-network of the user's own class.
        compression: what was changed of the sub-network afterwards; None for nothing.
    """

    space: ImageSpace
    config: AnyConfig
    network: NetworkSource | None = None
    graph: Mapping[str, Any] | None = None
    compression: CompressionFacts | None = None

    def __post_init__(self) -> None:
        """Check that the space of a user's model has its network."""
        if isinstance(self.space, GraphSpace) != (self.network is not None):
            raise UserError("A space of a user's model and what makes its network belong together.")

    @property
    def family(self) -> StagedSpace:
        """The space of a published family.

        Raises:
            UserError: for a sub-network of a user's model.
        """
        return family_space(self.space, f"Sub-network {self.config.id}")

    @property
    def sparse_layers(self) -> tuple[str, ...]:
        """Names of the layers whose zeros a training keeps."""
        return () if self.compression is None else self.compression.sparse_layers

    @property
    def input_ranges(self) -> tuple[InputRange, ...]:
        """Ranges of the inputs of layers that it was trained with for int8."""
        return () if self.compression is None else self.compression.input_ranges

    @property
    def lines(self) -> list[str]:
        """Lines for the user: the sub-network, and what was changed of it."""
        compressed = [] if self.compression is None else [f"compressed: {self.compression.text}"]
        return [*self.config.lines, *compressed]

    @property
    def model_text(self) -> str:
        """What a sub-network of a user's model is, for users; empty for a published family."""
        if self.network is None:
            return ""
        if self.graph is None:
            return f"a network of the class that {self.network.name} makes, with the names of its parameters"
        return (
            f"a graph of the network that {self.network.name} makes, with the names of its parameters: the "
            "forward of its class cannot compute these widths"
        )


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Description of a bundle's network.

    Attributes:
        name: name of the network, for users.
        input_shape: shape of one input image: (channels, height, width).
        preprocessing: conversion of pixels to the network's input.
        class_names: name of each output, required for tasks of `OUTPUTS_BY_NAME`; otherwise may be empty.
        task: task of the network; for classification, the position of the largest logit is the answer.
        expected_metric: expected value of a metric; None if unknown.
        expected_latency_ms: estimated latency in milliseconds by name of the search limit.
        latency_targets: what these latencies are for, by the same names; those that are not recorded lack.
        provenance: origin of the network, as plain JSON values.
        subnet: space and config of a sub-network; None for any other network.
        target_scale: scale of the outputs of a regression, which are standardised; None for other tasks.
    """

    name: str
    input_shape: tuple[int, int, int]
    preprocessing: Preprocessing
    class_names: tuple[str, ...] = ()
    task: str = CLASSIFICATION
    expected_metric: MetricValue | None = None
    expected_latency_ms: Mapping[str, float] = field(default_factory=dict)
    latency_targets: Mapping[str, LatencyTarget] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    subnet: SubnetFacts | None = None
    target_scale: TargetScale | None = None

    def __post_init__(self) -> None:
        """Check that all parts are consistent; all mismatches are reported at once."""
        errors = [] if self.subnet is None else _subnet_errors(self, self.subnet)
        if not self.name or not self.task:
            errors.append(f"name is {self.name!r} and task {self.task!r}; expected texts.")
        if len(self.input_shape) != 3 or min(self.input_shape) < 1 or max(self.input_shape) > MAX_SIDE:
            errors.append(
                f"input_shape is {self.input_shape}; expected (channels, height, width), at most {MAX_SIDE}."
            )
        else:
            errors += _image_errors(self.input_shape, self.preprocessing)
        if self.task in OUTPUTS_BY_NAME and not self.class_names:
            errors.append(f"There are no class names; a {self.task} network needs one per output.")
        num_columns = 0 if self.target_scale is None else len(self.target_scale.mean)
        if num_columns != (len(self.class_names) if self.task == REGRESSION else 0):
            errors.append(
                f"target_scale has {num_columns} columns, task {self.task!r} {len(self.class_names)} names; "
                "expected a column for each name of a regression, and none for other tasks."
            )
        errors += _metric_errors(self.expected_metric)
        if errors:
            raise UserError("\n".join(errors))

    def check_task(self, info: DataInfo) -> None:
        """Raise the error for images that are for another task than the network.

        Raises:
            UserError: naming both.
        """
        if self.task != info.task:
            text = f"{self.name} is a network for {self.task}; {info.name} is for {info.task}."
            hint = f" If you know and trust that code, name it: task={self.task}" if ":" in self.task else ""
            raise UserError(text + hint)

    def preprocess(self, images: Tensor) -> Tensor:
        """Return the network's input for images (n, channels, h, w) of pixels 0..255."""
        _, height, width = self.input_shape
        return self.preprocessing.apply(images, (height, width))

    def read_image(self, path: str | Path) -> Tensor:
        """Return the network's input (1, channels, h, w) for the picture in a file of any format.

        Raises:
            UserError: if it cannot be read, or the network takes neither grey nor RGB images.
        """
        _, height, width = self.input_shape
        return self.preprocessing.read(path, (height, width))


def subnet_card(
    space: ImageSpace,
    config: AnyConfig,
    info: DataInfo,
    *,
    network: NetworkSource | None = None,
    graph: Mapping[str, Any] | None = None,
    expected_metric: MetricValue | None = None,
    expected_latency_ms: Mapping[str, float] | None = None,
    latency_targets: Mapping[str, LatencyTarget] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> ModelCard:
    """Return the card of a sub-network, named after its space and itself.

    Args:
        space: the space.
        config: the sub-network.
        info: facts of the images it was trained on: class names and how pixels are normalised.
        network: what makes the whole network of a user's model; None for a published family.
        graph: graph of the whole network; see `SubnetFacts`.
        expected_metric: expected value of a metric; None if unknown.
        expected_latency_ms: estimated milliseconds by the name of the limit that the search kept.
        latency_targets: what these latencies are for, by the same names.
        provenance: plain JSON values: how the network was made.

    Raises:
        UserError: naming every mismatch.
    """
    return ModelCard(
        name=subnet_name(space.name, config.id),
        input_shape=(space.in_channels, config.resolution, config.resolution),
        preprocessing=Preprocessing(info.mean, info.std, centre_share=info.centre_share),
        class_names=info.class_names,
        task=info.task,
        target_scale=info.target_scale,
        expected_metric=expected_metric,
        expected_latency_ms=expected_latency_ms or {},
        latency_targets=latency_targets or {},
        provenance=provenance or {},
        subnet=SubnetFacts(space, config, network, graph),
    )


def subnet_name(space_name: str, config_id: str) -> str:
    """Return the default name of a sub-network."""
    return f"{space_name}-{config_id}"


def _subnet_errors(card: ModelCard, subnet: SubnetFacts) -> list[str]:
    errors, space = [], subnet.space
    try:
        space.unrestricted.genome(subnet.config)
    except UserError as error:
        errors.append(str(error))
    side = subnet.config.resolution
    if card.input_shape != (space.in_channels, side, side):
        errors.append(
            f"input_shape is {card.input_shape}; the sub-network takes {(space.in_channels, side, side)}."
        )
    if len(card.class_names) != space.num_classes:
        errors.append(
            f"There are {len(card.class_names)} class names; "
            f"space {space.name!r} has {space.num_classes} classes."
        )
    return errors


def _image_errors(input_shape: tuple[int, int, int], preprocessing: Preprocessing) -> list[str]:
    errors = []
    channels, height, width = input_shape
    if preprocessing.in_channels != channels:
        errors.append(
            f"mean and std have {preprocessing.in_channels} channels; the network takes {channels}."
        )
    if preprocessing.centre_share < 1 and height != width:
        errors.append(
            f"centre_share is {preprocessing.centre_share:g}, which keeps a square; the network takes images "
            f"of {width} x {height} pixels."
        )
    return errors


def _metric_errors(metric: MetricValue | None) -> list[str]:
    if metric is None:
        return []
    if metric_named(metric.name).is_fraction and not 0 <= metric.value <= 1:
        return [f"The expected {metric.name} is {metric.value}; expected a share from 0 to 1."]
    if not metric.name or not math.isfinite(metric.value):
        return [f"The expected metric is {metric}; expected a name and a number."]
    if metric.deviation is not None and not (math.isfinite(metric.deviation) and metric.deviation >= 0):
        return [f"The deviation of the expected {metric.name} is {metric.deviation}; expected 0 or more."]
    return []
