"""The commands: the whole pipeline on a few networks, and what they say to users' mistakes."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from any_modules import two_branches, two_branches_card
from build_latency_table import build_latency_table
from classify import classify
from collect_accuracy import collect_accuracy
from evaluate_subnet import evaluate_subnet
from export_subnet import export_subnet
from finetune_subnet import finetune_subnet
from fit_predictor import fit_predictor
from PIL import Image
from report_run import report_run
from search_for_device import search_for_device
from train_supernet import train_supernet

import ofa.common.cli
from latency_tables.table.measured import MAX_TABLE_ERROR
from latency_tables.table.table import LatencyTable
from ofa.common.accelerator import choose_accelerator
from ofa.common.errors import UserError
from ofa.common.tensors import load_tensors
from ofa.data.settings import DataInfo
from ofa.export.bundle import load_bundle
from ofa.export.card import subnet_card
from ofa.export.write import export_bundle
from ofa.launch import Command, compose
from ofa.runs.directory import RunDirectory
from ofa.runs.supernet_file import load_supernet
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import build_supernet

QUICK = (
    "space.resolutions=[8,16]",
    # Leaves 438 images for training.
    "data.validation_size=1000",
    *(f"phases.{phase}.epochs=1" for phase in ("largest", "kernel", "depth_1", "width_1", "width_2")),
    "phases.largest.warmup_epochs=0",
    "training.batch_size=200",
    "training.validation_images=50",
    "training.calibration_images=100",
)
FAST_TIMING = (
    "device.rounds=2",
    "device.runs_per_visit=1",
    "device.warmup_runs=1",
    "device.processes=1",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run `tiny`, trained, evaluated, fitted, measured and searched."""
    folder = tmp_path_factory.mktemp("runs")
    common = (f"runs_dir={folder}", "run_name=tiny")
    train_supernet.run(*common, *QUICK)
    collect_accuracy.run(*common, "count=30", "calibration_images=60", "validation_images=60")
    fit_predictor.run(*common, "predictor.hidden_units=64")
    build_latency_table.run(*common, *FAST_TIMING, "max_table_error=1000")
    search_for_device.run(*common, *FAST_TIMING, "limits.macs_m=1.2", "search.generations=10", "name=small")
    export_subnet.run(*common, "subnet=small", "calibration_images=60", "formats=[]")
    export_subnet.run(*common, "subnet=largest", "calibration_images=60", "formats=[]")
    return folder


@pytest.fixture
def common(runs: Path) -> tuple[str, str]:
    return f"runs_dir={runs}", "run_name=tiny"


def test_every_stage_leaves_its_file(runs: Path) -> None:
    run = RunDirectory(str(runs), "tiny")
    fingerprint = load_supernet(run.supernet)[1].fingerprint
    for path in (run.supernet, run.records, run.predictor, run.table("my_cpu"), run.search("small")):
        assert path.is_file(), path
        if path.suffix == ".pt":
            assert fingerprint in path.with_suffix(".json").read_text()
    assert run.search("small").with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


def test_a_stage_that_is_done_does_nothing_again(
    runs: Path, common: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(str(runs), "tiny")
    records, table = run.records.read_bytes(), run.table("my_cpu").read_bytes()
    collect_accuracy.run(*common, "count=30", "calibration_images=60", "validation_images=60")
    build_latency_table.run(*common, *FAST_TIMING, "max_table_error=1000")
    train_supernet.run(*common, *QUICK)
    assert run.records.read_bytes() == records
    assert run.table("my_cpu").read_bytes() == table
    assert "next: ofa collect run_name=tiny runs_dir=" in capsys.readouterr().out


def test_a_table_that_is_too_wrong_is_refused_when_it_is_built(
    runs: Path, common: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my_cpu.json"
    build = (*common, *FAST_TIMING, f"output={path}", "resolutions=[16]", "device.min_rounds=1")
    effort = ("calibration_networks=2", "validation_networks=2")
    with pytest.raises(UserError) as caught:
        build_latency_table.run(*build, *effort, "max_table_error=1e-9")
    text = str(caught.value)
    for part in ("is allowed", "quiet", "device.minutes", "max_table_error=", "The same command measures it"):
        assert part in text
    assert "Make it with" not in text
    output = capsys.readouterr().out
    # What was measured is kept, and no next step is advised that would be refused.
    assert f"table: {path}" in output and "next:" not in output
    table = LatencyTable.load(path)
    assert table.validation is not None
    # An error that is accepted keeps the table, and is told to the search.
    advice = re.search(r"accept it with (max_table_error=\d+)", text)
    assert advice is not None
    setting = advice[1]
    assert build_latency_table.run(*build, *effort, setting) == table
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("next: "))
    assert f"table={path}" in line and "VALUE" not in line
    assert (setting in line) == (setting != "max_table_error=10")
    search_for_device.run(*shlex.split(line)[3:], *FAST_TIMING, "search.generations=3", "name=advised")
    with pytest.raises(UserError, match="max_table_error is 0"):
        build_latency_table.run(*build, "max_table_error=0")


def test_the_default_error_of_tables_is_the_same_everywhere() -> None:
    for name in ("build_latency_table", "search_for_device", "find_networks", "quickstart"):
        assert compose(name).max_table_error == MAX_TABLE_ERROR


def test_search_keeps_every_limit(runs: Path, common: tuple[str, str]) -> None:
    table = runs / "tiny" / "latency" / "my_cpu.json"
    search = (*common, *FAST_TIMING, "search.generations=10", "max_table_error=1000")
    limits = ("limits.latency_ms=1000", "limits.parameters_m=0.3", "limits.memory_mb=0.05")
    more = (f"+more_tables.other.table={table}", "+more_tables.other.latency_ms=900")
    name, result = search_for_device.run(*search, *limits, *more, "resolutions=[16]")
    assert {limit.name for limit in result.limits} == set(result.best.values)
    assert len(result.limits) == 4
    assert all(result.best.values[limit.name] <= (limit.maximum or 0.0) for limit in result.limits)
    assert all(candidate.config.resolution == 16 for candidate in result.ranked)
    assert (runs / "tiny" / "search" / f"{name}.json").is_file()


def test_an_int8_bundle_is_exported_and_evaluated(
    runs: Path, common: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    few = ("subnet=small", "calibration_images=60", "quantisation_images=20", "name=quantised")
    wanted = (*few, "precision=int8", "keep_layers=auto", "max_loss=100")
    with pytest.raises(UserError, match=r"Format pt2 offers fp32 .*\nformats=\[onnx\] leaves pt2 out"):
        export_subnet.run(*common, *wanted)
    path = export_subnet.run(*common, *wanted, "formats=[onnx]")
    assert "onnx_int8" in load_bundle(path).files
    capsys.readouterr()
    accuracy, latency = evaluate_subnet.run(*common, *FAST_TIMING, "bundle=quantised", "format=onnx_int8")
    text = capsys.readouterr().out
    assert "(measured on validation: " in text and "the expectation is that of the int8 file" in text
    assert 0 <= accuracy <= 1
    assert latency is not None and latency > 0
    with pytest.raises(UserError, match="quantisation_images is -1"):
        export_subnet.run(*common, *few, "quantisation_images=-1")
    shutil.rmtree(path)


def test_every_bundle_has_an_expectation_and_what_it_is_for(
    runs: Path, common: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    largest, small = (load_bundle(runs / "tiny" / "bundles" / name) for name in ("largest", "small"))
    # The largest is measured; the small one was predicted, by a predictor that knows its errors.
    measured, predicted = largest.card.expected_metric, small.card.expected_metric
    assert measured is not None and predicted is not None
    assert re.fullmatch(r"measured on validation: \d+ images of digits", measured.origin)
    assert predicted.origin == "predicted for validation: 60 images of digits"
    assert predicted.deviation is not None and predicted.deviation > 0
    assert predicted.num_records == 30 and predicted.num_candidates > 100
    top1 = evaluate_subnet.run(*common, "bundle=largest", "split=validation", "latency=false")[0]
    assert top1 == pytest.approx(measured.value)
    assert "%: within the errors" in capsys.readouterr().out
    # A search by MACs expects no latency; one by a table says on which device.
    assert small.card.expected_latency_ms == {}
    limits = ("limits.latency_ms=1000", "max_table_error=1000", "search.generations=3", "name=timed")
    search_for_device.run(*common, *FAST_TIMING, *limits)
    path = export_subnet.run(*common, "subnet=timed", "calibration_images=60", "formats=[]")
    evaluate_subnet.run(*common, *FAST_TIMING, "bundle=timed")
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"expected \S+ ms on my_cpu, measured \S+ ms: ", line) for line in lines)
    evaluate_subnet.run(*common, *FAST_TIMING, "bundle=timed", "device.threads=2")
    assert "(pytorch, fp32, 1 thread): not compared with threads 2" in capsys.readouterr().out
    shutil.rmtree(path)


def test_evaluating_and_finetuning_a_bundle(
    runs: Path, common: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    accuracy, latency = evaluate_subnet.run(*common, *FAST_TIMING, "bundle=small")
    assert 0 <= accuracy <= 1
    assert latency is not None and latency > 0
    report = json.loads((runs / "tiny" / "reports" / "small-weights-digits-test.json").read_text())
    assert report["metrics"]["top1"] == accuracy and "top5" not in report["metrics"]
    tuning = ("finetuning.epochs=2", "finetuning.lr=0.05", "formats=[]", "calibration_images=60")
    path = finetune_subnet.run(*common, *tuning, "bundle=small")
    old, new = load_bundle(runs / "tiny" / "bundles" / "small"), load_bundle(path)
    assert path.name == "small-finetuned"
    assert "before: predicted " in capsys.readouterr().out
    value = new.card.expected_metric
    assert value is not None and value.origin.startswith("measured on validation: ")
    assert new.subnet == old.subnet
    assert new.card.provenance["finetuned"]["epochs"] == 2
    weights = [next(bundle.network.parameters()) for bundle in (old, new)]
    assert not torch.equal(*weights)
    shutil.rmtree(path)


def test_a_bundle_of_another_space_is_finetuned_to_the_images_of_a_run(
    runs: Path, common: tuple[str, str], micro_space: StagedSpace, capsys: pytest.CaptureFixture[str]
) -> None:
    supernet = build_supernet(micro_space)
    info = DataInfo("others", 2, tuple("abcde"), (0.5, 0.5), (0.2, 0.2))
    config = micro_space.smallest
    source = runs / "others"
    export_bundle(supernet.extract(config), subnet_card(micro_space, config, info), source, [])
    tuning = ("finetuning.epochs=1", "formats=[]", "calibration_images=60", f"bundle={source}", "name=other")
    path = finetune_subnet.run(*common, *tuning)
    out = capsys.readouterr().out
    assert "adapted: first convolution (2 → 1 channels); new: classifier (5 → 10 classes)" in out
    assert "no teacher" in out
    card = load_bundle(path).card
    assert card.class_names == tuple(map(str, range(10))) and card.input_shape[0] == 1
    evaluate_subnet.run(*common, "bundle=other", "latency=false")
    shutil.rmtree(path)


def test_finetuning_that_was_interrupted_goes_on(
    runs: Path, common: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = ("finetuning.epochs=2", "formats=[]", "calibration_images=60", "bundle=small", "name=tuned")
    folder = runs / "tiny" / "finetuning" / "tuned"

    def interrupt(*values: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("ofa.runs.finetune.export_bundle", interrupt)
        finetune_subnet.run(*common, *tuning)
    (checkpoint,) = (folder / "checkpoints").glob("*.pt")
    trained = load_tensors(checkpoint, "checkpoint")["network"]
    with pytest.raises(UserError, match="belongs to another training: settings.lr was"):
        finetune_subnet.run(*common, *tuning, "finetuning.lr=0.5")
    with monkeypatch.context() as patch:
        patch.setattr("ofa.training.fitting.NetworkStep.__call__", interrupt)
        path = finetune_subnet.run(*common, *tuning)
    weights = dict(load_bundle(path).network.named_parameters())
    assert all(torch.equal(weight, trained[name]) for name, weight in weights.items())
    assert [file.name for file in folder.iterdir()] == ["tensorboard"]
    shutil.rmtree(path)


def test_a_bundle_of_no_space_is_evaluated_and_reported(
    runs: Path, common: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs / "tiny" / "bundles" / "other"
    facts = two_branches_card()
    card = dataclasses.replace(facts, class_names=tuple(map(str, range(10))))
    export_bundle(two_branches(num_classes=10), card, path, ["pt2"])
    evaluate = (*common, *FAST_TIMING, "bundle=other")
    accuracy, latency = evaluate_subnet.run(*evaluate, "format=pt2")
    assert 0 <= accuracy <= 1 and latency is not None and latency > 0
    out = capsys.readouterr().out
    assert "two branches\ntop-1 of pt2 on test: " in out and "worst classes: " in out
    (line,) = (line for line in out.splitlines() if line.startswith("for pictures of your own: "))
    Image.new("L", (20, 20)).save(runs / "one.png")
    words = shlex.split(line.replace("VALUE", str(runs / "one.png")))
    assert words[5:7] == ["ofa", "classify"]
    assert classify.run(*words[7:]).file == "pt2"
    elsewhere = runs / "elsewhere.json"
    evaluate_subnet.run(*evaluate, "format=pt2", "latency=false", f"output={elsewhere}")
    assert json.loads(elsewhere.read_text())["num_images"] == 359
    with pytest.raises(UserError, match=r"output is 'x\.png'; expected a file that ends in \.json"):
        evaluate_subnet.run(*evaluate, "output=x.png")
    with pytest.raises(UserError, match="architecture of 'two branches' is not in the bundle .*files: pt2"):
        evaluate_subnet.run(*evaluate)
    rows = report_run.run(*common, *FAST_TIMING, "random_networks=1", "calibration_images=60")
    (row,) = [row for row in rows if row.name == "other"]
    assert (row.predicted, row.predicted_ms) == (None, None) and row.group == "chosen"
    assert row.measured == pytest.approx(accuracy) and row.measured_ms > 0 and row.parameters > 0
    with pytest.raises(UserError, match="is not a sub-network of a space"):
        finetune_subnet.run(*common, "bundle=other")
    shutil.rmtree(path)


def test_the_report_measures_bundles_and_random_networks(
    runs: Path, common: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    networks = report_run.run(*common, *FAST_TIMING, "random_networks=2", "calibration_images=60")
    assert [network.group for network in networks] == ["chosen", "searched", "random", "random"]
    assert all(0 <= network.measured <= 1 and network.measured_ms > 0 for network in networks)
    text = capsys.readouterr().out
    for title in ("top-1", "latency"):
        assert re.search(
            rf"^{title}: predicted and measured agree within the errors for \d of 2 bundles$",
            text,
            re.MULTILINE,
        )
    assert (runs / "tiny" / "pareto.png").read_bytes()[:4] == b"\x89PNG"
    reports = runs / "tiny" / "reports"
    for network in networks[:2]:
        values = json.loads((reports / f"{network.name}-weights-digits-test.json").read_text())
        assert values["metrics"]["top1"] == network.measured
        assert (reports / f"{network.name}-weights-digits-test.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("command", "overrides", "message"),
    [
        (
            collect_accuracy,
            ("run_name=none",),
            r"No run 'none'.*\nMake it with: ofa train run_name=none",
        ),
        (fit_predictor, ("run_name=none",), "No supernet description at .*Make it with: ofa train"),
        (search_for_device, (), "needs at least one limit"),
        (search_for_device, ("limits.macs_m=0.001",), "sub-networks have"),
        (search_for_device, ("limits.macs_m=-1",), "expected a positive number"),
        (search_for_device, ("limits.latency_ms=3", "device.name=other"), "latency table"),
        (search_for_device, ("device=phone",), "my_cpu_onnx"),
        (search_for_device, ("search.generation=3", "limits.macs_m=1"), "generation"),
        (search_for_device, ("limits.macs_m=1", "resolutions=[99]"), "No resolution is left"),
        (export_subnet, ("subnet=best",), "No search result 'best'; known: .*largest.*small"),
        (export_subnet, ("subnet=small", "formats=[tflite]"), "Unknown export format 'tflite'"),
        (evaluate_subnet, ("bundle=nothing",), "No bundle 'nothing' in "),
        (evaluate_subnet, ("bundle=small", "split=all"), "Unknown split 'all'"),
        (collect_accuracy, ("count=30", "calibration_images=61"), "calibration"),
        (
            train_supernet,
            (*QUICK, "training.seed=7"),
            "different configuration: training.seed was 0 and is 7",
        ),
        (train_supernet, (*QUICK, "training.momentum=-1"), "momentum is -1.0; expected at least 0"),
        (train_supernet, (*QUICK, "threads=0"), "threads is 0; expected at least 1"),
        (search_for_device, ("limits.macs_m=1", "seed=-1"), "seed is -1; expected 0 or more"),
        (search_for_device, ("limits.latency_ms=9", "device.threads=2"), "threads was 1 and is 2"),
        (train_supernet, ("space=nothing",), "mobilenet_v3_tiny"),
        (train_supernet, ("data=nothing",), "fashion_mnist"),
    ],
)
def test_mistakes_are_explained(
    common: tuple[str, str], command: Command[object, object], overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=f"(?s){message}"):
        command.run(*common, *overrides)


@pytest.mark.parametrize("kind", ["records", "predictor", "table", "supernet"])
def test_files_of_another_space_are_refused(runs: Path, tmp_path: Path, kind: str) -> None:
    shutil.copytree(runs / "tiny", tmp_path / "tiny")
    run = RunDirectory(str(tmp_path), "tiny")
    fingerprint = load_supernet(run.supernet)[1].fingerprint
    path = {
        "records": run.records,
        "predictor": run.predictor.with_suffix(".json"),
        "table": run.table("my_cpu"),
        "supernet": run.supernet.with_suffix(".json"),
    }[kind]
    path.write_text(path.read_text().replace(fingerprint, "0123456789abcdef"))
    common = (f"runs_dir={tmp_path}", "run_name=tiny")
    with pytest.raises(UserError, match="0123456789abcdef"):
        if kind == "records":
            fit_predictor.run(*common)
        else:
            search_for_device.run(*common, "limits.latency_ms=1000", "max_table_error=1000")


@pytest.mark.parametrize("name", ["supernet.pt", "predictor.pt", "latency/my_cpu.json", "supernet.json"])
def test_truncated_files_are_refused(runs: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(runs / "tiny", tmp_path / "tiny")
    path = tmp_path / "tiny" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=path.name):
        if name == "supernet.pt":
            load_supernet(path)
        search_for_device.run(
            f"runs_dir={tmp_path}", "run_name=tiny", "limits.latency_ms=1000", "max_table_error=1000"
        )


def test_a_table_that_lacks_entries_lists_them_all(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "tiny", tmp_path / "tiny")
    path = tmp_path / "tiny" / "latency" / "my_cpu.json"
    values = json.loads(path.read_text())
    removed = sorted(values["entries"])[:3]
    for key in removed:
        del values["entries"][key]
    path.write_text(json.dumps(values))
    with pytest.raises(UserError) as caught:
        search_for_device.run(
            f"runs_dir={tmp_path}", "run_name=tiny", "limits.latency_ms=1000", "max_table_error=1000"
        )
    assert all(key in str(caught.value) for key in removed)


def test_a_mistake_does_not_claim_the_run_directory(tmp_path: Path) -> None:
    common = (f"runs_dir={tmp_path}", "run_name=new", *QUICK)
    with pytest.raises(UserError, match="batch_size is 5000"):
        train_supernet.run(*common, "training.batch_size=5000")
    assert train_supernet.run(*common).is_file()


def test_images_of_other_classes_are_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "tiny", tmp_path / "tiny")
    twin = tmp_path / "tiny" / "supernet.json"
    twin.write_text(twin.read_text().replace('"class_names": [\n      "0"', '"class_names": [\n      "zero"'))
    with pytest.raises(UserError, match="takes 1 channels and tells 10 classes: zero, 1, 2"):
        collect_accuracy.run(f"runs_dir={tmp_path}", "run_name=tiny", "count=30")


def test_weights_and_description_must_be_saved_together(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "tiny", tmp_path / "tiny")
    twin = tmp_path / "tiny" / "supernet.json"
    sha = load_supernet(tmp_path / "tiny" / "supernet.pt")[1].sha256
    twin.write_text(twin.read_text().replace(sha, "0" * len(sha)))
    with pytest.raises(UserError, match="is not the file that supernet.json describes"):
        load_supernet(tmp_path / "tiny" / "supernet.pt")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file, not a folder")
    with pytest.raises(UserError, match="Could not write .*Check the permissions"):
        train_supernet.run(f"runs_dir={tmp_path / 'runs'}", *QUICK)


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a command as from the shell and returns its exit code."""

    def run(command: Command[object, object], *arguments: str) -> int:
        monkeypatch.setattr("sys.argv", [command.name, *arguments])
        try:
            command()
        except SystemExit as stop:
            assert isinstance(stop.code, int)
            return stop.code
        return 0

    return run


def test_the_shell_sees_a_short_error_and_a_code(
    common: tuple[str, str], command_line: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert command_line(search_for_device, *common, "limits.macs_m=0.001") == 2
    errors = capfd.readouterr().err
    assert errors.startswith("error: No sub-network")
    assert "Traceback" not in errors
    for arguments, text in (
        (("space=nothing",), "Unknown space 'nothing'; known: mobilenet_v2, "),
        (("experiment=image_foldr",), "Unknown experiment 'image_foldr'; known: "),
        (("trainning.batch_size=3",), "Unknown setting 'trainning.batch_size'. Did you mean 'training.ba"),
        (("device=my_cpu",), "Unknown setting 'device'; known: space, data, "),
        (("training.batch_size=3 (4",), "training.batch_size: the value '3 (4' cannot be read; as a text "),
        (("+nonsense=3",), "nonsense is not a setting."),
        (("run_name=",), "run_name: '' is no name: it is empty."),
        (("data.root=DIR",), "The folder DIR is given, but 'digits' are embedded and read none."),
    ):
        assert command_line(train_supernet, *arguments) == 2
        errors = capfd.readouterr().err
        assert errors.startswith(f"error: {text}")
        assert len(errors.splitlines()) == 1


def test_an_interruption_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupt(settings: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ofa.runs.train.load_data", interrupt)
    assert command_line(train_supernet) == 130
    assert capfd.readouterr().err == (
        "Interrupted. The last checkpoint, if there is one, is intact; the same command goes on from it.\n"
    )
    monkeypatch.setattr("ofa.runs.trained.open_run", interrupt)
    assert command_line(export_subnet, "run_name=x", "subnet=largest") == 130
    assert capfd.readouterr().err == (
        "Interrupted. Files that it had finished are whole; the same command begins anew.\n"
    )


def test_an_interrupted_start_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupt)
    assert ofa.common.cli.main(["train"]) == 130
    assert capfd.readouterr().err == "Interrupted before anything was begun.\n"


def test_accelerators() -> None:
    assert choose_accelerator("cpu", None) == torch.device("cpu")
    with pytest.raises(UserError, match="Unknown accelerator 'tpu'"):
        choose_accelerator("tpu", None)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device is present"):
            choose_accelerator("cuda", None)


def test_each_process_takes_a_cuda_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.device] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_accelerator("auto", None) == torch.device("cuda", 1) == taken[0]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match=r"has 2 CUDA devices but more processes.*--nproc-per-node=2"):
        choose_accelerator("auto", None)
