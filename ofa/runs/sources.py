"""Sources of weights that a supernet can start from: runs, bundles, and files of tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ofa.common.errors import UserError
from ofa.common.tensors import file_hash
from ofa.export.bundle import Bundle, load_bundle
from ofa.export.description import DESCRIPTION_FILE
from ofa.graph.space import family_space
from ofa.graph.supernet import GraphSupernet
from ofa.modules.static import StaticNetwork
from ofa.published.fitting import own_state
from ofa.published.state import read_state
from ofa.runs.directory import RunDirectory
from ofa.runs.supernet_file import load_supernet
from ofa.space.staged import StagedSpace
from ofa.space.structure import structure_differences
from ofa.supernet.supernet import Supernet, build_supernet
from ofa.supernet.transfer import fill_largest


@dataclass(frozen=True)
class WeightSource:
    """A place of weights.

    Attributes:
        name: the source as the user wrote it.
        kind: "run" for a supernet with its description, "bundle", or "file" for tensors by name.
        path: file of the weights, or folder of the bundle.
        sha256: hash of the file of weights.
    """

    name: str
    kind: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class SourceWeights:
    """The weights of a source for one supernet.

    Attributes:
        state: tensors by the supernet's names.
        names: names of the tensors in the source, where they differ.
        class_names: classes of the source; None if unknown.
        original: tensors by their names in the source; None if its space is known to fit.
    """

    state: Mapping[str, Tensor]
    names: Mapping[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    original: Mapping[str, Tensor] | None = None


def find_source(name: str | Path, runs_dir: str) -> WeightSource:
    """Return the run of that name, or else the folder or file at that path.

    Args:
        name: name of a run of `runs_dir`; or a run's folder, a bundle's folder, or a file of weights.
        runs_dir: folder of all runs.

    Raises:
        UserError: if there is no such run, bundle or file, or the run is not finished.
    """
    text, path = str(name), Path(name).expanduser()
    for folder in (Path(runs_dir) / text, path):
        run = RunDirectory(str(folder.parent), folder.name)
        if run.supernet.is_file():
            return WeightSource(text, "run", run.supernet, file_hash(run.supernet))
    weights = path / "weights.safetensors" if path.is_dir() else path
    if not weights.is_file():
        raise _nothing_found(text, path, runs_dir)
    digest = file_hash(weights)
    if (weights.parent / DESCRIPTION_FILE).is_file() and weights.suffix == ".safetensors":
        return WeightSource(text, "bundle", weights.parent, digest)
    has_description = weights.name == "supernet.pt" and weights.with_suffix(".json").is_file()
    return WeightSource(text, "run" if has_description else "file", weights, digest)


def read_source(source: WeightSource, supernet: Supernet) -> SourceWeights:
    """Return the weights of a source for `supernet`, which may differ in classes, channels and resolutions.

    Raises:
        UserError: if a file is damaged, the elastic structure of its space is another one, or it is a bundle
            of a network that is not the largest of its space.
    """
    if source.kind == "run":
        trained, info = load_supernet(source.path)
        _check_structure(source, family_space(info.space, source.name), supernet.space)
        return SourceWeights(trained.state_dict(), class_names=info.class_names)
    if source.kind == "bundle":
        return _read_bundle(source, supernet)
    state = read_state(source.path, "file of weights")
    own, names = own_state(supernet, state, f"The file {source.path}")
    return SourceWeights(own, names, original=state)


def _read_bundle(source: WeightSource, supernet: Supernet) -> SourceWeights:
    bundle = _uncompressed_bundle(source)
    facts, network = bundle.subnet, bundle.network
    space = family_space(facts.space, source.name)
    _check_structure(source, space, supernet.space)
    largest = dataclasses.replace(space.unrestricted.largest, resolution=facts.config.resolution)
    if facts.config != largest:
        raise UserError(
            f"{source.name} is a bundle of {facts.config.id}, a part of its supernet; a supernet can start "
            f"from a bundle of the largest network, {largest.id}, alone. Start from the run that the bundle "
            "came from, or fine-tune the bundle by itself."
        )
    assert isinstance(network, StaticNetwork)
    filled = build_supernet(space)
    fill_largest(filled, facts.config, network)
    return SourceWeights(filled.state_dict(), class_names=bundle.card.class_names)


def _uncompressed_bundle(source: WeightSource) -> Bundle:
    """Return the bundle of a source.

    Raises:
        UserError: if it is damaged, or its network has other layers than a supernet.
    """
    bundle = load_bundle(source.path)
    compression = bundle.subnet.compression
    if compression is not None:
        raise UserError(
            f"{source.name} is a bundle of a compressed network ({compression.text}), which no supernet can "
            "start from. Give the bundle that it was made of."
        )
    return bundle


def read_model_source(source: WeightSource) -> SourceWeights:
    """Return the weights of a source for the supernet of a user's model: a run of it, or a bundle.

    Raises:
        UserError: if a file is damaged, or the source is a file of weights or of a published family.
    """
    if source.kind == "run":
        trained, info = load_supernet(source.path)
        if isinstance(trained, GraphSupernet):
            return SourceWeights(trained.state_dict(), class_names=info.class_names)
    if source.kind == "bundle":
        bundle = _uncompressed_bundle(source)
        state = {f"model.{name}": tensor for name, tensor in bundle.network.state_dict().items()}
        return SourceWeights(state, class_names=bundle.card.class_names)
    if source.kind == "file":
        raise UserError(
            f"{source.name} is a file of weights; a user's model takes it as model.weights, not as init."
        )
    raise UserError(f"{source.name} is a run of a published family; expected a run of the same model.")


def _check_structure(source: WeightSource, space: StagedSpace, own_space: StagedSpace) -> None:
    texts = structure_differences(space, own_space)
    if texts:
        raise UserError(
            f"The weights of {source.name} belong to a space of another structure, {space.name!r}: "
            f"{'; '.join(texts)}. Train with that space; classes, channels and resolutions may differ."
        )


def _nothing_found(name: str, path: Path, runs_dir: str) -> UserError:
    for folder in (Path(runs_dir) / name, path):
        if any(folder.glob("checkpoints/step_*.pt")):
            return UserError(
                f"The run {folder} is not finished: it has no supernet.pt. Go on with it, or give one of its "
                f"checkpoints, e.g. {max(folder.glob('checkpoints/step_*.pt'))}."
            )
    finished = sorted(file.parent.name for file in Path(runs_dir).glob("*/supernet.pt"))
    return UserError(
        f"No weights at {name!r}; expected the name of a finished run of {runs_dir} "
        f"({', '.join(finished) or 'there is none'}), the folder of a run or bundle, or a file of weights."
    )
