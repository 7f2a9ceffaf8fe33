"""Files of users' models: a supernet whose graph computes it, and a bundle of one of its sub-networks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fuzzed_artefacts import Artefact, Result, digest, set_values
from training_run import Halves, model_supernet

from ofa.architecture.cost import space_costs
from ofa.common.config import build
from ofa.common.tensors import content_digest, has_nan
from ofa.data.settings import DataInfo
from ofa.export.bundle import load_bundle
from ofa.export.card import subnet_card
from ofa.export.description import DESCRIPTION_FILE
from ofa.export.write import export_bundle
from ofa.graph.graph_values import with_digest
from ofa.graph.network_source import NetworkSource, make_known
from ofa.graph.space import GraphSpace
from ofa.graph.subnet import subnet_graph
from ofa.graph.supernet import GraphSupernet
from ofa.runs.supernet_file import load_supernet, save_supernet

INFO = DataInfo("made up", 1, ("dark", "middle", "bright"), (0.5,), (0.25,))


def model_artefacts(folder: Path) -> list[Artefact]:
    """Make the files of a model below `folder`."""
    name = f"{Halves.__module__}:{Halves.__name__}"
    make_known(name, {})
    supernet = model_supernet("halves")
    supernet.source = NetworkSource(name, side=12, in_channels=1, num_classes=3)
    folder.mkdir()
    save_supernet(folder / "supernet.pt", supernet, {})
    config, info = supernet.space.smallest, INFO
    network, graph = supernet.extract(config).eval(), subnet_graph(supernet, config)
    card = subnet_card(supernet.space, config, info, network=supernet.source, graph=graph)
    export_bundle(network, card, folder / "bundle", ())
    images = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def read_supernet(copy: Path) -> Result:
        loaded, _ = load_supernet(copy / "supernet.pt")
        assert isinstance(loaded, GraphSupernet)
        space = loaded.space
        costs, ends = space_costs(space), space.genomes([space.smallest, space.largest])
        return {
            "state": content_digest(loaded.state_dict()),
            "space": space.fingerprint,
            "is_nan": has_nan(loaded.state_dict()),
            "outputs": loaded.extract(space.smallest)(images).tolist(),
            "costs": {name: cost(ends).tolist() for name, cost in costs.items()},
        }

    @torch.inference_mode()
    def read_bundle(copy: Path) -> Result:
        bundle = load_bundle(copy / "bundle")
        return {"outputs": bundle.network(images).tolist(), "classes": bundle.card.class_names}

    def sign(copy: Path) -> None:
        values = json.loads((copy / "supernet.json").read_text())
        set_values(copy / "supernet.json", **signed(values), sha256=digest(copy / "supernet.pt")[:16])

    def sign_card(copy: Path) -> None:
        path = copy / "bundle" / DESCRIPTION_FILE
        subnet = json.loads(path.read_text())["subnet"]
        set_values(path, subnet=subnet | signed(subnet))

    description = f"bundle/{DESCRIPTION_FILE}"
    names = ("state", "space", "is_nan", "outputs", "costs")
    return [
        Artefact("model.json", folder, "supernet.json", "json", read_supernet, names),
        Artefact("signed model.json", folder, "supernet.json", "json", read_supernet, ("is_nan",), sign),
        Artefact("model", folder, "supernet.pt", "tensors", read_supernet, names),
        Artefact("card of a model", folder, description, "json", read_bundle, ("outputs",)),
        Artefact("signed card of a model", folder, description, "json", read_bundle, (), sign_card),
    ]


def signed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the digests of a space and a graph as somebody would make them fit on purpose."""
    space = build(GraphSpace, values["space"])
    graph = {name: value for name, value in values["graph"].items() if name != "sha256"}
    return {"fingerprint": space.fingerprint, "graph": with_digest(graph)}
