"""`SupernetInfo`: what stands beside the weights of a trained supernet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.common.plain_values import checked_number, checked_object
from ofa.common.reading import read_json
from ofa.data.settings import DataSettings
from ofa.data.target_scale import TargetScale
from ofa.graph.network_source import NetworkSource
from ofa.graph.space import GraphSpace, ImageSpace, family_space
from ofa.space.space import check_fingerprint
from ofa.space.staged import StagedSpace
from ofa.training.phases import Phase

SUPERNET_SCHEMA = 1


@dataclass(frozen=True)
class SupernetInfo:
    """What stands beside a trained supernet: its space and how it was made.

    Attributes:
        network: what makes the network of a user's model; None for a published family.
        graph: graph that computes its sub-networks, as plain values; None where its own forward does.
    """

    schema_version: int
    space: ImageSpace
    fingerprint: str
    sha256: str
    date: str
    provenance: dict[str, Any]
    network: NetworkSource | None = None
    graph: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check what later stages take from the provenance.

        Raises:
            UserError: naming what is wrong.
        """
        try:
            if isinstance(self.space, GraphSpace) != (self.network is not None):
                raise ValueError("a space of a user's model and its network belong together")
            _ = self.dropout, self.class_names, self.target_scale, self.last_phase, self.data
        except UserError:
            raise
        except (ValueError, TypeError) as error:
            raise UserError(f"provenance: {error}.") from error

    @property
    def family(self) -> StagedSpace:
        """The space of a published family.

        Raises:
            UserError: for a user's model.
        """
        return family_space(self.space, "The supernet")

    @property
    def dropout(self) -> float:
        """Dropout probability before the classifier in training; 0 if it was not trained here."""
        training = checked_object(self._config.get("training", {}), "training")
        return checked_number(training.get("dropout", 0.0), "training.dropout", 0)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes; None if they are not known."""
        names = self.provenance.get("class_names")
        if names is not None and not isinstance(names, list):
            raise ValueError("class_names is no list")
        return None if names is None else tuple(map(str, names))

    @property
    def target_scale(self) -> TargetScale | None:
        """Scale of the outputs; None for a task without numbers."""
        values = self.provenance.get("target_scale")
        return None if values is None else build(TargetScale, values, "target_scale")

    @property
    def last_phase(self) -> Phase | None:
        """Last phase of the training; None if it was not trained here."""
        phases = checked_object(self._config.get("phases", {}), "phases")
        return build(Phase, [*phases.values()][-1], "phases") if phases else None

    @property
    def data(self) -> DataSettings | None:
        """The images of the training, without their folder; None if it was not trained here."""
        values = self._config.get("data")
        return None if values is None else build(DataSettings, values, "data")

    @property
    def _config(self) -> Mapping[str, Any]:
        return checked_object(self.provenance.get("config", {}), "config")


def trained_space(info: SupernetInfo) -> ImageSpace:
    """Return the space of a supernet, restricted to the networks that the last phase of its training opened.

    The whole space, if it was not trained here.
    """
    phase = info.last_phase
    return info.space if phase is None else phase.space(info.space)


def read_supernet_info(path: Path) -> SupernetInfo:
    """Read what stands beside the supernet at `path`; its weights are not needed.

    Raises:
        UserError: if the description is missing, damaged or of another version.
    """
    file = path.with_suffix(".json")
    values = read_json(file, "supernet description", "train")
    if values.get("schema_version") != SUPERNET_SCHEMA:
        raise UserError(
            f"{file} has schema version {values.get('schema_version')}; this version reads "
            f"{SUPERNET_SCHEMA}. Train again or use the version that wrote it."
        )
    info = build(SupernetInfo, values, str(file))
    check_fingerprint(info.fingerprint, info.space, f"supernet {path}")
    return info
