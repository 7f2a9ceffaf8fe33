"""The model card of a published network."""

from __future__ import annotations

from pathlib import Path

from ofa.architecture.common_layers import LinearSpec
from ofa.common.errors import UserError
from ofa.common.reading import read_text
from ofa.common.tensors import file_hash
from ofa.data.file_data import CENTRE_SHARE, PHOTO_MEAN, PHOTO_STD
from ofa.data.settings import DataInfo
from ofa.export.card import ModelCard, subnet_card
from ofa.published.convert import own_space, subnet_of
from ofa.published.network import PublishedNetwork
from ofa.space.staged import StagedSpace


def photograph_card(
    network: PublishedNetwork, space: StagedSpace | None, weights: Path, class_names: Path | None = None
) -> ModelCard:
    """Return the card of a published network for photographs with ImageNet's normalisation.

    Args:
        network: result of `read_network`.
        space: space that contains the network; None: a space that holds just this network.
        weights: file of the published weights.
        class_names: a text file with a name per line, in the order of the outputs; None numbers them.

    Raises:
        UserError: if the network is not in the space, or a file is missing or does not fit.
    """
    home, config = own_space(network) if space is None else (space, subnet_of(network, space))
    classifier = network.specs[-1]
    assert isinstance(classifier, LinearSpec)
    names = tuple(map(str, range(classifier.out_channels))) if class_names is None else _lines(class_names)
    if not weights.is_file():
        raise UserError(f"No weights at {weights}; expected the published weights of {network.name}.")
    return subnet_card(
        home,
        config,
        DataInfo("photographs", 3, names, PHOTO_MEAN, PHOTO_STD, CENTRE_SHARE),
        provenance={"published": network.name, "weights": weights.name, "sha256": file_hash(weights)},
    )


def _lines(path: Path) -> tuple[str, ...]:
    return tuple(read_text(path, "class names").splitlines())
