"""`CompressionSource`: a trained network to compress, from a bundle or a model of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ofa.common.errors import UserError
from ofa.common.progress import Note
from ofa.common.tensors import content_digest
from ofa.common.unfinished import remove_leftovers
from ofa.compression.facts import CompressionFacts
from ofa.data.base import ImageData
from ofa.data.settings import DataSettings
from ofa.export.bundle import Bundle
from ofa.export.card import ModelCard, subnet_card
from ofa.graph.settings import ModelSettings
from ofa.graph.subnet import subnet_graph
from ofa.runs.compression_settings import CHANNELS, SPARSE, CompressionSettings
from ofa.runs.conversion import conversion_record, kept_supernet, noted_conversion, save_conversion
from ofa.runs.retarget import check_classes

_NEW_CLASSIFIER = (
    "the classifier is new, so the accuracy says nothing yet; train the network for these classes before it "
    "is compressed"
)


@dataclass(frozen=True)
class CompressionSource:
    """A trained network to compress.

    Attributes:
        name: name of the network, from which that of the new bundle is made.
        network: the network on the CPU in eval mode.
        card: its card, which says what makes its layers.
        record: plain values that tell which network it is.
    """

    name: str
    network: nn.Module
    card: ModelCard
    record: Mapping[str, Any]

    @property
    def compression(self) -> CompressionFacts | None:
        """What was changed of the network before; None for nothing."""
        assert self.card.subnet is not None
        return self.card.subnet.compression


def bundle_source(bundle: Bundle, data: ImageData, settings: CompressionSettings) -> CompressionSource:
    """Return the network of a bundle.

    Args:
        bundle: the bundle.
        data: images of the same classes.
        settings: steps that the network is to take.

    Raises:
        UserError: if the bundle is no sub-network of a space, was made for other images, or its zeros would
            be lost.
    """
    check_classes(bundle, data.info)
    compression = bundle.subnet.compression
    if compression is not None:
        _check_repeated(bundle, compression, settings)
    if bundle.subnet.space.in_channels != data.info.in_channels:
        raise UserError(
            f"The bundle {bundle.path} takes images of {bundle.subnet.space.in_channels} channels; those of "
            f"{data.info.name} have {data.info.in_channels}. Fine-tune it to these images first."
        )
    record = {"bundle": bundle.path.name, "sha256": bundle.files["weights"].sha256}
    return CompressionSource(bundle.path.name, bundle.network.cpu(), bundle.card, record)


def _check_repeated(bundle: Bundle, compression: CompressionFacts, settings: CompressionSettings) -> None:
    """Check that the steps can follow those that a bundle has behind it."""
    changing = [step for step in settings.steps if step in (CHANNELS, *settings.forms)]
    zeroing = [step for step in settings.steps if step in (*changing, SPARSE)]
    remedy = "Give the bundle that it was made of, and all steps."
    if compression.sparse_layers and zeroing:
        raise UserError(
            f"The bundle {bundle.path} has zeros already ({compression.text}), but {' and '.join(zeroing)} "
            f"would lose or mix them. {remedy}"
        )
    if compression.shapes and changing:
        raise UserError(
            f"The bundle {bundle.path} has fewer channels already ({compression.text}), but "
            f"{' and '.join(changing)} would change its layers again. {remedy}"
        )


def model_source(
    path: Path, model: ModelSettings, data: ImageData, data_settings: DataSettings, note: Note
) -> CompressionSource:
    """Return a user's own network, converted so that its bundle can be made.

    Args:
        path: file that keeps the converted network, so that a repeated call converts nothing.
        model: the network.
        data: images that it was trained for.
        data_settings: settings of these images.
        note: called with lines for the user.

    Raises:
        UserError: if the network cannot be loaded, adapted to the images or converted, or a file cannot be
            written.
    """
    remove_leftovers(path.parent)
    record = conversion_record(model, data, data_settings, seed=0)
    supernet = kept_supernet(path, record)
    if supernet is None:
        conversion = noted_conversion(model, data, data_settings, 0, note=note)
        supernet = conversion.supernet
        if conversion.report.has_new_classifier:
            note(_NEW_CLASSIFIER)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_conversion(path, conversion)
    config = supernet.eval().space.largest
    graph = subnet_graph(supernet, config)
    card = subnet_card(supernet.space, config, data.info, network=supernet.source, graph=graph)
    values = dataclasses.asdict(model)
    del values["weights"]
    identity = {"model": values, "digest": content_digest(supernet.state_dict())}
    return CompressionSource(supernet.space.name, supernet.extract(config).eval(), card, identity)
