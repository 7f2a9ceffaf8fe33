"""Bundles: the contents of an exported folder, and loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.common.unfinished import put_back
from ofa.export.card import ModelCard, SubnetFacts
from ofa.export.description import DESCRIPTION_FILE, read_description
from ofa.export.record import ExportedFile
from ofa.export.weights import load_into, load_subnet


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    Attributes:
        path: folder of the bundle.
        card: description of the network.
        files: the exported files by format, "weights" included.
        versions: versions of Python and of the packages that wrote the bundle.
        date: date of the export, UTC.
        module: the network with the bundle's weights; None if its architecture is unknown.
        problem: why a sub-network of a user's model could not be made; empty otherwise.
    """

    path: Path
    card: ModelCard
    files: Mapping[str, ExportedFile]
    versions: Mapping[str, str]
    date: str
    module: nn.Module | None
    problem: str = ""

    @property
    def network(self) -> nn.Module:
        """The network in eval mode, with the bundle's weights.

        A sub-network is on the CPU. A module that was passed to `load_bundle` is returned itself.

        Raises:
            UserError: if the network is not a sub-network and the bundle was loaded without a module, or
                what makes a user's model fails or may not be called.
        """
        if self.problem:
            raise UserError(self.problem)
        if self.module is None:
            raise UserError(
                f"The architecture of {self.card.name!r} is not in the bundle {self.path}, only its weights. "
                "Pass a module of it: load_bundle(path, network=module), or run one of its files: "
                f"{', '.join(name for name in self.files if name != 'weights') or 'none is there'}."
            )
        return self.module

    @property
    def subnet(self) -> SubnetFacts:
        """The network's space and its config.

        Raises:
            UserError: if the network is not a sub-network of a space.
        """
        if self.card.subnet is None:
            raise UserError(
                f"The network {self.card.name!r} in the bundle {self.path} is not a sub-network of a space."
            )
        return self.card.subnet

    @property
    def info(self) -> SubnetFacts:
        """Alias of `subnet`, used in the READMEs of bundles of schema 1."""
        return self.subnet

    def preprocess(self, images: Tensor) -> Tensor:
        """Return the network's input for images (n, channels, h, w) of pixels 0..255."""
        return self.card.preprocess(images)

    def file(self, name: str) -> Path:
        """Return the path of the (first) file of format `name`.

        Raises:
            UserError: if the bundle has no such format, or one of its files is missing or differs from the
                exported one.
        """
        if name not in self.files:
            raise UserError(
                f"The bundle {self.path} has no format {name!r}; it has: {', '.join(self.files)}."
            )
        return self.files[name].checked(self.path)


def load_bundle(path: Path | str, network: nn.Module | None = None) -> Bundle:
    """Load a bundle; `load_bundle(path).network` is the network in eval mode.

    Args:
        path: folder of the bundle.
        network: a module of the bundle's architecture, whose weights are replaced by the bundle's. Not needed
            for sub-networks, nor for running one of the engines' files by `ofa.export.fresh_run.load_file`.

    Raises:
        UserError: if the folder or one of its files is missing, damaged, or does not fit the others or the
            module.
    """
    path = Path(path)
    put_back(path)
    description, card = read_description(path / DESCRIPTION_FILE)
    weights = description.files["weights"]
    module, problem = network, ""
    if network is not None:
        load_into(path, weights, network)
    elif card.subnet is not None and card.subnet.network is None:
        module = load_subnet(path, weights, card.subnet)
    elif card.subnet is not None:
        try:
            module = load_subnet(path, weights, card.subnet)
        except UserError as error:
            problem = str(error)  # The files of engines need no code of the user's.
    return Bundle(path, card, description.files, description.versions, description.date, module, problem)
