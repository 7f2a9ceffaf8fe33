"""Every kind of file that the project reads, made once, and the readers that the commands use for them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from published_names import mobilenet_v3_name
from published_network import description
from training_run import SPACE, make_trainer

from latency_tables.measuring.journal import MeasurementJournal
from latency_tables.measuring.plan import plan_table
from latency_tables.published.export import export_table
from latency_tables.published.keys import KeyStyle
from latency_tables.published.table import import_table, read_published_tables
from latency_tables.remote.kit import make_table_kit
from latency_tables.remote.results import table_from_kit
from latency_tables.table.device import DeviceSpec
from latency_tables.table.measured import table_identity
from latency_tables.table.table import LatencyTable
from ofa.common.config import build
from ofa.common.tensors import content_digest, has_nan, has_usual_numbers, save_tensors
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.export.bundle import load_bundle
from ofa.export.description import DESCRIPTION_FILE, describe
from ofa.export.engines import runnable_file
from ofa.export.fresh_run import load_file
from ofa.published.checkpoint import load_published
from ofa.published.network import read_network
from ofa.published.state import read_state
from ofa.runs.config import TrainConfig, claim_directory, data_record, load_data_settings
from ofa.runs.directory import RunDirectory
from ofa.runs.supernet_file import load_supernet
from ofa.runs.supernet_info import trained_space
from ofa.space.load import load_space
from ofa.supernet.supernet import Supernet, build_supernet
from ofa.training.teacher import Teacher
from predictors.load import load_predictor
from predictors.published.predictor import import_predictor
from predictors.records import RecordFile
from search.result.result import SearchResult

Result = dict[str, Any]
EARLIER_RUN = Path(__file__).parents[1] / "data" / "earlier_run" / "before"
BUNDLE = "bundles/my_cpu-0.8ms"
DEVICE = DeviceSpec("there", "onnx_runtime", rounds=3, runs_per_visit=2, processes=2)


@dataclass(frozen=True)
class Artefact:
    """A file with its reader.

    Attributes:
        name: name of the artefact in reports.
        folder: folder of everything that the reader needs.
        file: path of the file in the folder.
        content: what it holds: json, lines (of JSON), yaml, tensors or bytes.
        read: takes a copy of the folder, returns plain values.
        exact: names of the values that damage must never change: all that a digest protects.
        sign: makes the digests of a copy fit its damaged file again, as somebody would on purpose.
        others: further right results, beside that of the intact file.
        missing: right result where the file is not there at all; None if that has to be an error.
    """

    name: str
    folder: Path
    file: str
    content: str
    read: Callable[[Path], Result]
    exact: tuple[str, ...] = ()
    sign: Callable[[Path], None] | None = None
    others: tuple[Result, ...] = ()
    missing: Result | None = None


def make_artefacts(root: Path) -> list[Artefact]:
    """Make the files below `root` and return all artefacts."""
    run = root / "run"
    shutil.copytree(EARLIER_RUN, run)
    return [
        *training_artefacts(root / "training"),
        *run_artefacts(run),
        *bundle_artefacts(run),
        *kit_artefacts(root / "kit"),
        *published_artefacts(root, run),
    ]


def training_artefacts(folder: Path) -> list[Artefact]:
    trainer = make_trainer(folder)
    newest, older = "checkpoints/step_00000003.pt", "checkpoints/step_00000002.pt"
    for step in (2, 3):
        trainer._state.position.phase_step = trainer._state.position.step = step
        trainer._save()
        with torch.no_grad():
            next(trainer.supernet.parameters()).add_(1)
    evaluator = cast(SubnetEvaluator[Any], None)
    Teacher(trainer.supernet, folder / "teacher.pt", evaluator, write=True)

    def checkpoint(copy: Path) -> Result:
        resumed = make_trainer(copy)
        state = resumed.supernet.state_dict()
        return {"step": resumed.resumed_at, "state": content_digest(state), "is_nan": has_nan(state)}

    def teacher(copy: Path) -> Result:
        teacher = Teacher(build_supernet(SPACE), copy / "teacher.pt", evaluator, write=False, has_begun=True)
        state = teacher._network.state_dict()
        return {"state": content_digest(state), "is_nan": has_nan(state)}

    def sign(file: str) -> Callable[[Path], None]:
        def sign_copy(copy: Path) -> None:
            values = torch.load(copy / file, weights_only=True)
            values.pop("digest", None)
            save_tensors(copy / file, {**values, "digest": content_digest(values)})

        return sign_copy

    without = folder.parent / "without"
    shutil.copytree(folder, without)
    (without / newest).unlink()
    others = (checkpoint(without),)
    anew = checkpoint(folder.parent / "nothing")
    exact = ("step", "state", "is_nan")
    return [
        Artefact("checkpoint", folder, newest, "tensors", checkpoint, exact, others=others),
        Artefact("older checkpoint", without, older, "tensors", checkpoint, exact, missing=anew),
        Artefact("signed checkpoint", folder, newest, "tensors", checkpoint, ("is_nan",), sign(newest)),
        Artefact("teacher", folder, "teacher.pt", "tensors", teacher, ("state", "is_nan")),
        Artefact("signed teacher", folder, "teacher.pt", "tensors", teacher, ("is_nan",), sign("teacher.pt")),
    ]


def run_artefacts(run: Path) -> list[Artefact]:
    _, info = load_supernet(run / "supernet.pt")
    space, config = info.family, build(TrainConfig, training_values(run))
    genomes = space.sample(16, np.random.default_rng(0))
    identity = table_identity(2, DeviceSpec("here", "pytorch"), {"engine": "PyTorch"}, "sandwich")
    with MeasurementJournal(run / "latency" / "new.partial.jsonl", identity) as journal:
        for process in (0, 1):
            journal.append(process, [(key, [1.0 + process, 1.25]) for key in ("a", "b", "c")])
        journal.finish(0)

    def read_supernet(copy: Path) -> Result:
        loaded, loaded_info = load_supernet(copy / "supernet.pt")
        return {
            "state": content_digest(loaded.state_dict()),
            "space": loaded_info.space.fingerprint,
            "is_nan": has_nan(loaded.state_dict()),
            "trained": trained_space(loaded_info).size,
            "classes": loaded_info.class_names,
        }

    def predictor(copy: Path) -> Result:
        loaded = load_predictor(copy / "predictor.pt", space)
        spread = loaded.uncertainty(genomes).tolist()  # type: ignore[attr-defined]
        return {"values": loaded(genomes).tolist(), "spread": spread, "metric": loaded.metric.title}

    def records(copy: Path) -> Result:
        file = RecordFile.read(copy / "accuracy.jsonl", space)
        assert ((file.values >= 0) & (file.values <= 1)).all()
        return {"ids": [config.id for config in file.configs], "values": file.values.tolist()}

    def table(copy: Path) -> Result:
        table = LatencyTable.load(copy / "latency" / "my_cpu.json")
        values = table.estimator(space, max_table_error=math.inf)(genomes)
        return {"values": values.tolist(), "text": table.error_text, "engine": table.engine["engine"]}

    def unfinished(copy: Path) -> Result:
        with MeasurementJournal(copy / "latency" / "new.partial.jsonl", identity) as journal:
            assert all(run > 0 for runs in journal.runs.values() for part in runs for run in part)
            return {"runs": journal.runs, "finished": [journal.is_finished(process) for process in range(3)]}

    def result(copy: Path) -> Result:
        return SearchResult.load(copy / "search" / "my_cpu-0.8ms.json", space).to_dict()

    def configuration(copy: Path) -> Result:
        directory = RunDirectory(str(copy.parent), copy.name)
        settings = load_data_settings(directory, None)
        claim_directory(directory, dataclasses.replace(config, run_name=copy.name))
        return {"data": data_record(settings)}

    def sign_supernet(copy: Path) -> None:
        set_values(copy / "supernet.json", sha256=digest(copy / "supernet.pt")[:16])

    def sign_predictor(copy: Path) -> None:
        set_values(copy / "predictor.json", weights_sha256=digest(copy / "predictor.pt"))

    all_names = ("state", "space", "is_nan", "trained", "classes")
    return [
        Artefact("supernet", run, "supernet.pt", "tensors", read_supernet, all_names),
        Artefact("signed supernet", run, "supernet.pt", "tensors", read_supernet, ("is_nan",), sign_supernet),
        Artefact("supernet.json", run, "supernet.json", "json", read_supernet, ("state", "space")),
        Artefact("predictor", run, "predictor.pt", "tensors", predictor, ("values", "spread")),
        Artefact("signed predictor", run, "predictor.pt", "tensors", predictor, sign=sign_predictor),
        Artefact("predictor.json", run, "predictor.json", "json", predictor),
        Artefact("records", run, "accuracy.jsonl", "lines", records),
        Artefact("table", run, "latency/my_cpu.json", "json", table),
        Artefact("unfinished table", run, "latency/new.partial.jsonl", "lines", unfinished),
        Artefact("search result", run, "search/my_cpu-0.8ms.json", "json", result),
        Artefact("configuration", run, "config.json", "json", configuration, ("data",)),
    ]


def training_values(run: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run / "config.json").read_text())
    return {name: value for name, value in values.items() if name != "data_root"} | {"run_name": "run"}


def bundle_artefacts(run: Path) -> list[Artefact]:
    folder = run / BUNDLE
    loaded = load_bundle(folder)
    (folder / DESCRIPTION_FILE).write_text(json.dumps(describe(loaded.card, loaded.files)))
    images = torch.randn(1, *loaded.card.input_shape, generator=torch.Generator().manual_seed(0))

    def bundle(copy: Path) -> Result:
        loaded = load_bundle(copy / BUNDLE)
        state = loaded.network.state_dict()
        card = loaded.card
        return {
            "state": content_digest(state),
            "is_nan": has_nan(state) or not all(map(has_usual_numbers, state.values())),
            "name": card.name,
            "classes": card.class_names,
            "shape": card.input_shape,
            "latencies": dict(card.expected_latency_ms),
            "file": runnable_file(loaded),
            "size": card.preprocess(torch.zeros(1, card.input_shape[0], 30, 30)).shape[-1],
        }

    @torch.inference_mode()
    def engine_file(copy: Path) -> Result:
        return {"logits": load_file(load_bundle(copy / BUNDLE), "onnx")(images).tolist()}

    def sign(copy: Path) -> None:
        path = copy / BUNDLE / DESCRIPTION_FILE
        files = json.loads(path.read_text())["files"]
        weights = copy / BUNDLE / files["weights"]["file"]
        files["weights"] |= {"sha256": digest(weights), "bytes": weights.stat().st_size}
        set_values(path, files=files)

    all_names = ("state", "is_nan", "name", "classes", "shape", "latencies", "file", "size")
    weights = f"{BUNDLE}/weights.safetensors"
    return [
        Artefact("card", run, f"{BUNDLE}/{DESCRIPTION_FILE}", "json", bundle, ("state", "is_nan")),
        Artefact("weights", run, weights, "bytes", bundle, all_names),
        Artefact("signed weights", run, weights, "bytes", bundle, ("is_nan",), sign),
        Artefact("engine file", run, f"{BUNDLE}/model.onnx", "bytes", engine_file, ("logits",)),
        Artefact("card of an engine", run, f"{BUNDLE}/{DESCRIPTION_FILE}", "json", engine_file, ("logits",)),
    ]


def kit_artefacts(folder: Path) -> list[Artefact]:
    space = SPACE.restrict({"resolution": [8]})
    plan = plan_table(space, DEVICE, 3, 2, 2)
    # The models are not read here.
    with patch("latency_tables.remote.kit.export_onnx", lambda *_: b"model"):
        make_table_kit(plan, folder)
    shutil.rmtree(folder / "models")
    keys = [workload.key for workload in plan.workloads]
    visits = [
        [process, key, [1.0 + number / 100, 1.0], 0.01]
        for process in (0, 1)
        for number, key in enumerate(keys)
    ]
    facts = {"engine": "onnx_runtime", "engine_title": "ONNX Runtime", "engine_version": "1", "threads": 1}
    values = {"schema_version": 1, **facts, "processor": "made up", "system": "x", "visits": visits}
    (folder / "measurements.json").write_text(json.dumps(values))

    def sign(copy: Path) -> None:
        set_values(copy / "measurements.json", manifest_sha256=digest(copy / "manifest.json"))

    def kit(copy: Path) -> Result:
        table = table_from_kit(copy, space)
        return {"entries": {key: dataclasses.asdict(entry) for key, entry in table.entries.items()}} | {
            "engine": table.engine,
            "device": dataclasses.asdict(table.device),
            "calibration": dataclasses.asdict(table.calibration),
        }

    sign(folder)
    names = ("entries", "engine", "device", "calibration")
    return [
        Artefact("kit manifest", folder, "manifest.json", "json", kit, names),
        Artefact("signed kit manifest", folder, "manifest.json", "json", kit, sign=sign),
        Artefact("kit results", folder, "measurements.json", "json", kit),
    ]


def published_artefacts(root: Path, run: Path) -> list[Artefact]:
    folder, (supernet, info) = root / "published", load_supernet(run / "supernet.pt")
    assert isinstance(supernet, Supernet)
    space, wide_space = info.family, load_space("mobilenet_v3")
    (folder / "tables").mkdir(parents=True)
    state = {mobilenet_v3_name(n, len(supernet.layers)): t for n, t in supernet.state_dict().items()}
    torch.save({"state_dict": state}, folder / "checkpoint.pth")
    generator = torch.Generator().manual_seed(0)
    sizes = {"0.weight": (5, 128), "0.bias": (5,), "2.weight": (1, 5), "2.bias": (1,)}
    torch.save({n: torch.randn(s, generator=generator) for n, s in sizes.items()}, folder / "predictor.pth")
    import_predictor(folder / "predictor.pth", wide_space).save(folder / "predictor.pt")
    table = LatencyTable.load(run / "latency" / "my_cpu.json")
    one = space.restrict({"resolution": [space.resolutions[0]]})
    (file,) = export_table(table, one, KeyStyle.CHANNELS, folder / "tables")
    (folder / "net.config").write_text(json.dumps(description()))
    (folder / "run.config").write_text('{"image_size": 32}')
    genomes = wide_space.sample(4, np.random.default_rng(0))
    device = DeviceSpec("phone", "imported", "other", precision="other")

    def checkpoint(copy: Path) -> Result:
        filled = Supernet(space)
        load_published(filled, read_state(copy / "checkpoint.pth"), "The checkpoint")
        tensors = filled.state_dict().values()
        return {"is_nan": not all(map(has_usual_numbers, tensors))}

    def imported(copy: Path) -> Result:
        return {"values": import_predictor(copy / "predictor.pth", wide_space)(genomes).tolist()}

    def predictor(copy: Path) -> Result:
        return {"values": load_predictor(copy / "predictor.pt", wide_space)(genomes).tolist()}

    def published_table(copy: Path) -> Result:
        published = read_published_tables([copy / "tables"])
        table = import_table(one, published, device)
        assert all(entry.latency_ms >= 0 for entry in table.entries.values())
        return {"entries": {key: dataclasses.asdict(entry) for key, entry in table.entries.items()}}

    def network(copy: Path) -> Result:
        network = read_network(copy / "net.config")
        return {"state": len(network.build().state_dict()), "dropout": network.dropout}

    yaml_file = f"tables/{file.name}"
    return [
        Artefact("published checkpoint", folder, "checkpoint.pth", "tensors", checkpoint, ("is_nan",)),
        Artefact("published predictor", folder, "predictor.pth", "tensors", imported),
        Artefact("imported predictor", folder, "predictor.pt", "tensors", predictor, ("values",)),
        Artefact("imported predictor.json", folder, "predictor.json", "json", predictor, ("values",)),
        Artefact("published table", folder, yaml_file, "yaml", published_table),
        Artefact("published network", folder, "net.config", "json", network),
        Artefact("published run.config", folder, "run.config", "json", network),
    ]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def set_values(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))
