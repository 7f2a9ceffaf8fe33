"""Files of compressions and prunings: what a bundle's card tells of them, and what the commands keep."""

from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import torch
from fuzzed_artefacts import Artefact, Result, set_values
from fuzzed_models import INFO
from torch import nn
from training_run import OwnNet, model_supernet

from ofa.common.errors import UserError
from ofa.common.files import write_json
from ofa.common.tensors import content_digest, has_nan
from ofa.compression.changes import LayerChange, apply_changes
from ofa.compression.facts import CompressionFacts, InputRange, TensorShape
from ofa.compression.settings import SparsePattern
from ofa.compression.sparse import make_sparse
from ofa.compression.trained_ranges import kept_ranges
from ofa.compression.unused_units import with_shapes
from ofa.export.bundle import load_bundle
from ofa.export.card import subnet_card
from ofa.export.description import DESCRIPTION_FILE
from ofa.export.write import export_bundle
from ofa.graph.network_source import NetworkSource, make_known
from ofa.runs import compression_run, pruning_run
from ofa.runs.channels import NETWORK_FILE, SHAPES_FILE, narrow_channels
from ofa.runs.compression_plan import HARM_FILE, PLAN_FILE, decide_changes
from ofa.runs.compression_settings import CompressionLimits, CompressionSettings
from ofa.runs.compression_training import StepTraining
from ofa.runs.decided_changes import DecidedChanges
from ofa.runs.directory import RunDirectory
from ofa.runs.pruned_files import save_network
from ofa.runs.pruning_settings import PruningSettings
from ofa.training.settings import FinetuneSettings

CHANGES = (LayerChange("wide", "split", (4,)),)
SHAPES = (
    *(TensorShape(f"wide.{name}", shape) for name, shape in (("weight", (12, 16, 3, 3)), ("bias", (12,)))),
    *(TensorShape(f"last.{name}", (12,)) for name in ("weight", "bias", "running_mean", "running_var")),
    TensorShape("head.weight", (3, 12)),
)
IMAGES = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
FACTS_FILE = "compression.json"


def compression_artefacts(folder: Path) -> list[Artefact]:
    """Make the files of compressions and of a pruning below `folder`."""
    supernet = model_supernet("own")
    network = supernet.extract(supernet.space.largest).eval()
    return [*_card_artefacts(folder / "cards", network), *_run_artefacts(folder / "run", network)]


def _card_artefacts(folder: Path, network: nn.Module) -> list[Artefact]:
    """Make a bundle with another form, zeros and ranges of a layer, and one with fewer channels."""
    pattern = SparsePattern(0.75, 4, 0.5)
    split = CompressionFacts(CHANGES, pattern, ("head",), input_ranges=(InputRange("stem", -1.0, 2.0),))
    compressed = apply_changes(network, CHANGES)
    make_sparse(compressed, pattern, ("head",))
    narrow = CompressionFacts(shapes=SHAPES)
    return [
        _card_artefact(folder / "split", "compression on a card", compressed, split),
        _card_artefact(folder / "narrow", "shapes on a card", _narrow(network), narrow),
    ]


def _card_artefact(folder: Path, name: str, network: nn.Module, facts: CompressionFacts) -> Artefact:
    """Make a bundle, and a file of its compression alone, of which a copy's card gets the damaged values."""
    source_name = f"{OwnNet.__module__}:{OwnNet.__name__}"
    make_known(source_name, {})
    space = model_supernet("own").space
    source = NetworkSource(source_name, side=12, in_channels=1, num_classes=3)
    card = subnet_card(space, space.largest, INFO, network=source)
    assert card.subnet is not None
    card = dataclasses.replace(card, subnet=dataclasses.replace(card.subnet, compression=facts))
    export_bundle(network.eval(), card, folder / "bundle", ())
    write_json(folder / FACTS_FILE, dataclasses.asdict(facts))

    @torch.inference_mode()
    def read(copy: Path) -> Result:
        bundle = load_bundle(copy / "bundle")
        subnet = bundle.card.subnet
        assert subnet is not None
        ranges = [dataclasses.asdict(values) for values in subnet.input_ranges]
        return {"outputs": bundle.network(IMAGES).tolist(), "lines": subnet.lines, "ranges": ranges}

    def sign(copy: Path) -> None:
        path = copy / "bundle" / DESCRIPTION_FILE
        subnet = json.loads(path.read_text())["subnet"]
        set_values(path, subnet=subnet | {"compression": json.loads((copy / FACTS_FILE).read_text())})

    return Artefact(name, folder, FACTS_FILE, "json", read, (), sign)


def _run_artefacts(folder: Path, network: nn.Module) -> list[Artefact]:
    """Make the files that an interrupted compression and an interrupted pruning leave."""
    names, ranges = ("stem", "wide"), {"stem": (-1.0, 2.0), "wide": (0.0, 1.5)}
    limits = CompressionLimits(macs_share=0.9)
    tuning = FinetuneSettings(
        1,
        lr=0.01,
        batch_size=8,
        momentum=0.9,
        weight_decay=0.0,
        label_smoothing=0.0,
        distillation_ratio=1.0,
        seed=0,
    )
    settings = CompressionSettings(steps=("split",), limits=limits, finetuning=tuning)
    pruning = PruningSettings(method="one_step", macs_share=0.5, finetuning=tuning)
    records: list[dict[str, Any]] = json.loads(
        json.dumps([{"settings": settings.record()}, {"pruning": pruning.record(), "model": {"name": "own"}}])
    )

    def decided(copy: Path) -> DecidedChanges:
        return decide_changes(
            network, IMAGES, ["split"], limits, copy, bar=lambda _: nullcontext(print), note=lambda _: None
        )

    def plan(copy: Path) -> Result:
        values = decided(copy)
        changed = apply_changes(network, values.changes)
        return {"state": content_digest(changed.state_dict()), "text": values.text, "lines": values.lines}

    def harms(copy: Path) -> Result:
        (copy / PLAN_FILE).unlink(missing_ok=True)
        return plan(copy)

    def trained_ranges(copy: Path) -> Result:
        values = kept_ranges(copy / "ranges.jsonl", names, {})
        return {"ranges": [dataclasses.asdict(limits) for limits in values]}

    def channels(copy: Path) -> Result:
        values = SimpleNamespace(teacher=network, folder=copy, image_shape=(1, 12, 12), settings=settings)
        # A network that is not there is made anew, which takes too long here.
        with patch("ofa.runs.channels.elastic_channels", side_effect=UserError("made anew")):
            state = narrow_channels(cast(StepTraining, values)).state_dict()
        return {"state": content_digest(state), "is_nan": has_nan(state)}

    def compression_record(copy: Path) -> Result:
        compression_run._claim(copy, records[0])
        return {"goes_on": True}

    def pruning_record(copy: Path) -> Result:
        pruning_run._claim(RunDirectory(str(copy.parent), copy.name), records[1])
        return {"goes_on": True}

    for name in ("channels", "pruning/step_1"):
        (folder / name).mkdir(parents=True)
    assert decided(folder).changes
    kept_ranges(folder / "ranges.jsonl", names, ranges)
    write_json(folder / "channels" / SHAPES_FILE, {"shapes": [dataclasses.asdict(shape) for shape in SHAPES]})
    save_network(_narrow(network), folder / "channels" / NETWORK_FILE)
    write_json(folder / "record.json", records[0])
    write_json(folder / "pruning.json", records[1])
    return [
        Artefact("plan of a compression", folder, PLAN_FILE, "json", plan),
        Artefact("harms of a compression", folder, HARM_FILE, "lines", harms),
        Artefact("trained ranges", folder, "ranges.jsonl", "lines", trained_ranges),
        Artefact("shapes of a compression", folder, f"channels/{SHAPES_FILE}", "json", channels, ("is_nan",)),
        Artefact("narrow network", folder, f"channels/{NETWORK_FILE}", "bytes", channels, ("is_nan",)),
        Artefact("record of a compression", folder, "record.json", "json", compression_record),
        Artefact("record of a pruning", folder, "pruning.json", "json", pruning_record),
    ]


def _narrow(network: nn.Module) -> nn.Module:
    """Return a network with fewer channels and known weights."""
    narrow = with_shapes(network, SHAPES)
    for value in narrow.state_dict().values():
        value.fill_(1)
    return narrow.eval()
