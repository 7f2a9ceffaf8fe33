"""The network of a bundle for images of other classes or channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import nn

from ofa.common.errors import UserError
from ofa.data.preprocessing import Preprocessing
from ofa.data.settings import DataInfo
from ofa.export.bundle import Bundle
from ofa.export.card import ModelCard, SubnetFacts, subnet_card
from ofa.graph.adaptation import adapt_to_images
from ofa.graph.adapted_costs import adapted_space
from ofa.graph.space import GraphSpace
from ofa.graph.state import state_of
from ofa.space.plain import GeneConfig
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import build_supernet
from ofa.supernet.transfer import TransferReport, transfer_weights


def retargeted(
    bundle: Bundle, info: DataInfo, seed: int
) -> tuple[nn.Module, ModelCard, TransferReport | None]:
    """Return the network of a bundle with the classes and channels of other images, and its card.

    The third value tells what was taken; None if that is everything.

    Args:
        bundle: the bundle of a sub-network; not changed.
        info: the images.
        seed: seed of a new classifier.

    Raises:
        UserError: if the bundle is no sub-network of a space, the images are for another task, or the network
            is compressed and they have other classes or channels.
    """
    facts, card = bundle.subnet, bundle.card
    card.check_task(info)
    keeps_classes = tell_same_classes(card.class_names, info.class_names)
    if keeps_classes and facts.space.in_channels == info.in_channels:
        preprocessing = Preprocessing(info.mean, info.std, centre_share=info.centre_share)
        card = dataclasses.replace(card, class_names=info.class_names, preprocessing=preprocessing)
        return bundle.network, card, None
    if facts.compression is not None:
        raise UserError(
            f"The bundle {bundle.path} is compressed ({facts.compression.text}): it has the classes and "
            "channels of the images that it was made for. Fine-tune the bundle that it was made of to these "
            "images, and compress that."
        )
    if not isinstance(facts.space, StagedSpace):
        return _retargeted_model(bundle, facts, info, seed)
    space = facts.space.unrestricted.for_data(info)
    network = build_supernet(space, seed).extract(facts.config).eval()
    report = transfer_weights(
        network,
        bundle.network.state_dict(),
        what=f"The bundle {bundle.path}",
        is_classifier_kept=keeps_classes,
    )
    return network, subnet_card(space, facts.config, info, provenance=_provenance(bundle, report)), report


def _retargeted_model(
    bundle: Bundle, facts: SubnetFacts, info: DataInfo, seed: int
) -> tuple[nn.Module, ModelCard, TransferReport]:
    """Return a sub-network of a user's model for images of other classes or channels, as `retargeted`."""
    network, source, space = bundle.network, facts.network, facts.space.unrestricted
    assert source is not None and isinstance(space, GraphSpace)
    channels, classes = info.in_channels, info.num_classes
    config = facts.config
    assert isinstance(config, GeneConfig)
    old_shapes = {name: tuple(tensor.shape) for name, tensor in state_of(network).items()}
    report = adapt_to_images(
        network,
        side=config.resolution,
        in_channels=channels,
        num_classes=classes,
        task=source.task,
        seed=seed,
    )
    card = subnet_card(
        adapted_space(space, config, network, old_shapes, in_channels=channels, num_classes=classes),
        config,
        info,
        network=dataclasses.replace(source, in_channels=channels, num_classes=classes),
        graph=facts.graph,
        provenance=_provenance(bundle, report),
    )
    return network, card, report


def _provenance(bundle: Bundle, report: TransferReport) -> dict[str, Any]:
    start = {"bundle": bundle.path.name, "sha256": bundle.files["weights"].sha256, "text": report.text}
    return {**bundle.card.provenance, "start": {**start, "new_names": list(report.new_names)}}


def check_classes(bundle: Bundle, info: DataInfo) -> None:
    """Raise the error for a network that tells other classes than those of the images.

    Raises:
        UserError: naming the tasks or the classes of both.
    """
    bundle.card.check_task(info)
    names = bundle.card.class_names
    if names and not tell_same_classes(names, info.class_names):
        raise UserError(
            f"The bundle {bundle.path} tells {_listed(names)}; the images of {info.name} have "
            f"{_listed(info.class_names)}. Fine-tune it to these images first, or give those that it was "
            "made for."
        )


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:5])}{', …' * (len(names) > 5)})"


def tell_same_classes(class_names: Sequence[str], other_names: Sequence[str]) -> bool:
    """Return whether two classifiers have the same outputs; numbers for names stand for unknown ones."""
    names, others = tuple(class_names), tuple(other_names)
    numbers = tuple(map(str, range(len(names))))
    return names == others or (len(names) == len(others) and numbers in (names, others))
