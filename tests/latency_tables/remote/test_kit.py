"""Kits: made, measured by their own program, interrupted, refused, and made into tables."""

from __future__ import annotations

import ast
import dataclasses
import gzip
import importlib.util
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import latency_tables.remote.kit
from latency_tables.measuring.methods import METHODS
from latency_tables.measuring.plan import TablePlan, plan_table
from latency_tables.remote.kit import PERIOD, make_table_kit, make_verification_kit, repeat_weights
from latency_tables.remote.results import (
    MEASURED_BY_KIT,
    networks_from_kit,
    read_kit,
    save_table,
    table_from_kit,
)
from latency_tables.remote.verification import MeasureByKit, MeasureHere, choose_measure
from latency_tables.table.device import DeviceSpec, device_settings
from latency_tables.table.table import LatencyTable
from latency_tables.table.timing import process_latency_ms, standard_error
from ofa.architecture.lowering import distinct_layers
from ofa.common.errors import UserError
from ofa.modules.static import StaticNetwork
from ofa.space.staged import StagedSpace
from ofa.space.stages import StageSpec

pytestmark = pytest.mark.timing

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

KIT_FILES = Path(latency_tables.remote.kit.__file__).with_name("kit_files")
SOURCES = ("measure.py", "kit_engines.py", "kit_folder.py", "kit_runs.py")
DEVICE = DeviceSpec(
    "there",
    "onnx_runtime",
    rounds=3,
    runs_per_visit=2,
    warmup_runs=1,
    processes=2,
    spread_percent=1e-9,
    minutes=60.0,
)


def make_space(num_classes: int = 4) -> StagedSpace:
    stages = (StageSpec(8, 2, (1, 2), (3, 5), (2.0, 3.0), "relu", False),)
    return StagedSpace("kit", "mobilenet_v3", (8, 12), 8, 2, stages, (16, 24), num_classes=num_classes)


def plan_of(device: DeviceSpec = DEVICE) -> TablePlan:
    return plan_table(make_space().restrict({"resolution": [8]}), device, 3, 2, 3)


def run_kit(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the kit's program where neither PyTorch nor this project can be imported."""
    code = (
        "import os, runpy, sys; sys.modules.update(torch=None, ofa=None, latency_tables=None, onnx=None); "
        "sys.path[0] = os.path.dirname(sys.argv[1]); runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    program = str(folder / "measure.py")
    # The program takes its own options from sys.argv[1:].
    code = code.replace("runpy.run_path(sys.argv[1]", "path = sys.argv.pop(1); runpy.run_path(path")
    return subprocess.run(
        [sys.executable, "-c", code, program, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit that was not measured yet."""
    folder = tmp_path_factory.mktemp("kits") / "made"
    make_table_kit(plan_of(), folder)
    return folder


@pytest.fixture(scope="module")
def measured(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit that was measured."""
    folder = tmp_path_factory.mktemp("kits") / "measured"
    shutil.copytree(made, folder)
    done = run_kit(folder)
    assert done.returncode == 0, done.stderr
    assert "measurements.json" in done.stdout
    return folder


@pytest.fixture
def kit(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "kit"))


@pytest.fixture
def result(measured: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(measured, tmp_path / "result"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


# -- making ------------------------------------------------------------------------------------------------


def test_a_kit_holds_every_program_of_the_plan(made: Path) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    programs = {p["key"]: p for p in manifest["programs"]}
    assert list(programs) == [p.key for p in plan_of().workloads]
    assert {p.key: p.visits_per_round for p in plan_of().workloads} == {
        key: p["visits_per_round"] for key, p in programs.items()
    }
    for program in plan_of().workloads:
        assert programs[program.key]["input_shape"] == [1, *program.image_shape]
    assert manifest["space"]["name"] == "kit"
    assert manifest["device"] == json.loads(json.dumps(dataclasses.asdict(DEVICE)))
    assert {p.name for p in made.iterdir()} == {*SOURCES, "manifest.json", "README.txt", "models"}


def test_the_models_compute_what_the_networks_with_repeated_weights_do(made: Path) -> None:
    import onnxruntime

    plan = plan_of()
    manifest = json.loads((made / "manifest.json").read_text())
    program = plan.workloads[-1]
    torch.manual_seed(plan.seed)
    network = program.build().eval()
    assert isinstance(network, StaticNetwork)
    images = torch.randn(1, *program.image_shape)
    repeat_weights(network)
    model = gzip.decompress((made / manifest["programs"][-1]["files"][0]["file"]).read_bytes())
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    expected = network(images).detach().numpy()
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_weights_repeat_and_keep_their_scale() -> None:
    layer = torch.nn.Conv2d(64, 96, 3)
    before = layer.weight.detach().clone()
    repeat_weights(layer)
    values = layer.weight.detach().flatten()
    assert torch.equal(values[:PERIOD], before.flatten()[:PERIOD])
    assert torch.equal(values[PERIOD : 2 * PERIOD], values[:PERIOD])
    assert torch.equal(values[-7:], values[(len(values) - 7) % PERIOD :][:7])
    assert values.std() == pytest.approx(float(before.std()), rel=0.1)
    assert layer.bias is not None and torch.unique(layer.bias).numel() == 96


def test_a_big_network_is_a_small_part_of_a_kit(full_space: StagedSpace, tmp_path: Path) -> None:
    info = make_verification_kit(full_space, [full_space.largest], DEVICE, 0, tmp_path / "kit")
    manifest = json.loads((tmp_path / "kit" / "manifest.json").read_text())
    assert manifest["programs"][0]["bytes"] > 30e6
    # 60 MB hold 22 networks and the layers of a resolution.
    assert info.size < 1e6


def test_a_folder_that_exists_is_left_alone(made: Path) -> None:
    times_ns = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    info = make_table_kit(plan_of(), made)
    assert info.path == made and info.num_programs == len(plan_of().workloads) and info.size > 0
    with pytest.raises(UserError, match="exists already; a kit needs a new folder"):
        make_table_kit(dataclasses.replace(plan_of(), seed=99), made)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == times_ns


@pytest.mark.parametrize(
    ("engine", "precision", "accelerator"),
    [("pytorch", "fp32", "cpu"), ("onnx_runtime", "bf16", "cpu"), ("onnx_runtime", "fp32", "cuda")],
)
def test_what_kits_do_not_have_is_refused(
    engine: str, precision: str, accelerator: str, tmp_path: Path
) -> None:
    device = DeviceSpec("there", engine, accelerator=accelerator, precision=precision)
    with pytest.raises(UserError, match="a kit measures on a processor with onnx_runtime: fp32"):
        make_table_kit(plan_of(device), tmp_path / "kit")
    assert not (tmp_path / "kit").exists()
    assert list(tmp_path.iterdir()) == []


# -- measuring ---------------------------------------------------------------------------------------------


def test_the_program_needs_little_and_runs_on_old_pythons() -> None:
    assert {path.name for path in KIT_FILES.glob("*.py")} == set(SOURCES)
    imported = set()
    for name in SOURCES:
        text = (KIT_FILES / name).read_text()
        for node in ast.walk(ast.parse(text, feature_version=(3, 8))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").split(".")[0])
        # What came after 3.8 in the library: these spellings give it away.
        assert not any(word in text for word in ("removeprefix", "strict=", "datetime.UTC", "match "))
    own = {name.partition(".")[0] for name in SOURCES}
    assert imported - set(sys.stdlib_module_names) - own == {"numpy", "onnxruntime", "openvino"}


@pytest.mark.parametrize("name", SOURCES[1:])
def test_a_missing_part_of_the_program_is_named(kit: Path, name: str) -> None:
    (kit / name).unlink()
    done = run_kit(kit)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert name.partition(".")[0] in done.stderr and "Copy the whole folder" in done.stderr


def test_measurements_become_a_table(measured: Path) -> None:
    table = table_from_kit(measured, make_space())
    assert set(table.entries) == {
        spec.key for spec in distinct_layers(make_space().restrict({"resolution": [8]}))
    }
    assert table.device == DEVICE
    assert table.method == METHODS[DEVICE.method].name
    assert table.engine["engine"] == "ONNX Runtime"
    assert len(table.engine[MEASURED_BY_KIT]) == 64
    assert table.space_fingerprint == make_space().fingerprint
    # 3 rounds of 2 runs in 2 processes.
    assert {timing.count for timing in table.entries.values()} == {12}
    assert table.validation is not None and len(table.validation.networks) == 3
    # Programs of some microseconds, measured for a moment: their error says nothing.
    latency = table.estimator(make_space().restrict({"resolution": [8]}), max_table_error=math.inf)
    assert (latency(make_space().restrict({"resolution": [8]}).sample(9, np.random.default_rng(0))) > 0).all()


def runs_made(values: dict[str, Any], key: str) -> list[int]:
    """Return how many runs of a program each of the two processes has made."""
    return [
        sum(len(visit[2]) for visit in values["visits"] if visit[:2] == [process, key]) for process in (0, 1)
    ]


def test_runs_are_recorded_by_process(measured: Path) -> None:
    values = json.loads((measured / "measurements.json").read_text())
    assert values["device"] == "there" and values["engine"] == "onnx_runtime" and values["threads"] == 1
    assert [visit[0] for visit in values["visits"]] == sorted(visit[0] for visit in values["visits"])
    assert all(0 < run < 1000 for _, _, runs_ms, _ in values["visits"] for run in runs_ms)
    assert all(sum(runs_ms) < 1e3 * seconds < 1e4 for _, _, runs_ms, seconds in values["visits"])
    for program in plan_of().workloads:
        assert runs_made(values, program.key) == [6 * program.visits_per_round] * 2


def test_changes_of_the_devices_speed_are_taken_out(result: Path) -> None:
    """Every other stretch of the measurement takes twice as long; what is read does not show it."""

    def change(values: dict[str, Any]) -> None:
        made = [0, 0]
        for visit in values["visits"]:
            speed = 1.0 + made[visit[0]] // 40 % 2
            made[visit[0]] += 1
            visit[2:] = [[speed * (1 + len(visit[1]) % 7) for _ in visit[2]], 0.05]

    edit(result / "measurements.json", change)
    results = read_kit(result, "table", make_space())
    for key, processes in results.runs_ms.items():
        expected = pytest.approx(1 + len(key) % 7, rel=1e-6)
        assert [process_latency_ms(runs) for runs in processes] == [expected] * 2


def test_a_finished_kit_is_not_measured_again(result: Path) -> None:
    before = json.loads((result / "measurements.json").read_text())["visits"]
    assert run_kit(result).returncode == 0
    assert json.loads((result / "measurements.json").read_text())["visits"] == before


def test_other_threads_are_told_and_do_not_mix(kit: Path, result: Path) -> None:
    assert run_kit(kit, "--threads", "2").returncode == 0
    assert table_from_kit(kit, make_space()).device == dataclasses.replace(DEVICE, threads=2)
    done = run_kit(result, "--threads", "2")
    assert done.returncode == 2
    assert "measured with another threads" in done.stderr


def test_an_int8_kit_is_quantised_here_and_only_for_its_engine(tmp_path: Path) -> None:
    device = dataclasses.replace(DEVICE, precision="int8", rounds=2, processes=1)
    make_table_kit(plan_of(device), tmp_path / "kit")
    manifest = json.loads((tmp_path / "kit" / "manifest.json").read_text())
    largest = max(manifest["programs"], key=lambda program: program["bytes"])
    model = gzip.decompress((tmp_path / "kit" / largest["files"][0]["file"]).read_bytes())
    assert b"QuantizeLinear" in model
    done = run_kit(tmp_path / "kit", "--engine", "openvino")
    assert done.returncode == 2 and "was quantised for onnxruntime" in done.stderr
    assert run_kit(tmp_path / "kit").returncode == 0
    assert table_from_kit(tmp_path / "kit", make_space()).device == device


def test_little_time_ends_the_rounds_but_measures_everything(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kit"
    device = dataclasses.replace(DEVICE, rounds=100_000, min_rounds=2, processes=1)
    make_table_kit(plan_of(device), folder)
    assert run_kit(folder, "--minutes", "0.001").returncode == 0
    counts = {t.count or 0 for t in table_from_kit(folder, make_space()).entries.values()}
    assert min(counts) >= 4 and max(counts) < 10_000


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_interrupting_twice_loses_nothing(stop: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "kit"
    rounds, runs = 90, 10  # so many that it is not done before the signal arrives
    device = dataclasses.replace(DEVICE, rounds=rounds, runs_per_visit=runs)
    make_table_kit(plan_of(device), folder)
    log = folder / "runs.jsonl"
    seen = b""
    for wanted in (300, 900):
        process = subprocess.Popen(
            [sys.executable, str(folder / "measure.py")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Tests that a shell has put into the background ignore SIGINT, and their children would too.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        wait_until(lambda wanted=wanted: log.is_file() and log.read_bytes().count(b"\n") > wanted, process)  # type: ignore[misc]
        process.send_signal(stop)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == (-stop if stop == signal.SIGKILL else 130)
        if stop == signal.SIGINT:
            assert b"run the same command to continue" in errors
        whole = log.read_bytes()[: log.read_bytes().rfind(b"\n") + 1]
        assert whole.startswith(seen)
        assert not (folder / "measurements.json").exists()
        seen = whole
    done = run_kit(folder)
    assert done.returncode == 0, done.stderr
    assert log.read_bytes().startswith(seen)
    values = json.loads((folder / "measurements.json").read_text())
    for program in plan_of().workloads:
        assert runs_made(values, program.key) == [rounds * runs * program.visits_per_round] * 2
    assert table_from_kit(folder, make_space()).validation is not None


def test_the_kit_computes_latencies_as_tables_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(KIT_FILES)
    import kit_runs

    rng = np.random.default_rng(0)
    for count in (3, 5, 12, 60):
        runs = rng.uniform(1, 2, count).tolist()
        assert kit_runs.quantile(runs) == process_latency_ms(runs)
        expected = standard_error(runs) / process_latency_ms(runs)
        assert kit_runs.relative_error(runs) == pytest.approx(expected)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_line_cut_off_by_a_power_cut_is_measured_again(result: Path) -> None:
    log = result / "runs.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:20]) + lines[20][:-5])
    assert run_kit(result).returncode == 0
    assert log.read_bytes().splitlines(keepends=True)[:20] == lines[:20]
    assert {t.count for t in table_from_kit(result, make_space()).entries.values()} == {12}


def test_damaged_records_are_named(result: Path) -> None:
    log = result / "runs.jsonl"
    lines = log.read_text().splitlines()
    lines[4] = '{"key": 1}'
    log.write_text("\n".join(lines) + "\n")
    done = run_kit(result)
    assert done.returncode == 2 and "Line 5 of" in done.stderr and "Traceback" not in done.stderr


def test_missing_and_changed_files_are_all_named(kit: Path) -> None:
    models = sorted((kit / "models").iterdir())
    models[0].unlink()
    models[3].unlink()
    models[5].write_bytes(models[5].read_bytes()[:-1] + b"x")
    (kit / "README.txt").write_text("x")
    done = run_kit(kit)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    missing, changed = done.stderr.split("changed:")
    assert f"models/{models[0].name}" in missing and f"models/{models[3].name}" in missing
    assert f"models/{models[5].name}" in changed and "README.txt" in changed
    assert not (kit / "runs.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--engine", "openvino"], "openvino is not installed"), (["--threads", "0"], "must be positive")],
)
def test_wrong_options_are_told(kit: Path, options: list[str], message: str) -> None:
    if "openvino" in options and importlib.util.find_spec("openvino") is not None:
        pytest.skip("openvino is installed")
    done = run_kit(kit, *options)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_openvino_measures_the_same_kit(kit: Path) -> None:
    pytest.importorskip("openvino")
    done = run_kit(kit, "--engine", "openvino")
    assert done.returncode == 0, done.stderr
    table = table_from_kit(kit, make_space())
    assert table.device.engine == "openvino" and table.engine["engine"] == "OpenVINO"


def test_a_manifest_of_another_version_or_damaged_is_told(kit: Path) -> None:
    edit(kit / "manifest.json", lambda m: m.update(schema_version=99))
    assert "schema version 99" in run_kit(kit).stderr
    (kit / "manifest.json").write_text("{")
    assert "is damaged" in run_kit(kit).stderr
    (kit / "manifest.json").unlink()
    done = run_kit(kit)
    assert done.returncode == 2 and "manifest.json is missing" in done.stderr


# -- what comes back ---------------------------------------------------------------------------------------


def test_models_need_not_come_back(result: Path) -> None:
    shutil.rmtree(result / "models")
    assert table_from_kit(result, make_space()).validation is not None


def test_changed_files_make_measurements_useless(result: Path) -> None:
    model = next((result / "models").iterdir())
    model.write_bytes(b"x")
    with pytest.raises(UserError, match=f"were changed: models/{model.name}"):
        table_from_kit(result, make_space())


def test_a_kit_without_measurements_says_how_to_make_them(kit: Path) -> None:
    with pytest.raises(
        UserError, match=r"No kit's measurements at .* on the device with: python3 .*measure\.py$"
    ):
        table_from_kit(kit, make_space())
    with pytest.raises(UserError, match="No kit's manifest at"):
        table_from_kit(kit / "nothing", make_space())


def test_measurements_of_another_kit_are_refused(result: Path) -> None:
    edit(result / "measurements.json", lambda m: m.update(manifest_sha256="0" * 64))
    with pytest.raises(UserError, match="not of the kit in that folder"):
        table_from_kit(result, make_space())


def test_a_changed_manifest_is_noticed(result: Path) -> None:
    edit(result / "manifest.json", lambda m: m.update(seed=4))
    with pytest.raises(UserError, match="the manifest's checksum differs"):
        table_from_kit(result, make_space())


@pytest.mark.parametrize("value", [math.nan, 0.0, -1.0, math.inf])
def test_impossible_times_are_refused(result: Path, value: float) -> None:
    keys = [p.key for p in plan_of().workloads][1:3]

    def change(values: dict[str, Any]) -> None:
        for process, key, runs_ms, _ in values["visits"]:
            if process == 1 and key in keys:
                runs_ms[1] = value

    edit(result / "measurements.json", change)
    named = (
        f"not finite or not above 0: {keys[0]}, {keys[1]}"
        if math.isfinite(value)
        else "holds (nan|inf) in place"
    )
    with pytest.raises(UserError, match=named):
        table_from_kit(result, make_space())


def test_everything_that_lacks_is_named_at_once(result: Path) -> None:
    keys = [p.key for p in plan_of().workloads]

    def change(values: dict[str, Any]) -> None:
        lost = {(0, keys[0]), (1, keys[0]), (0, keys[4]), (1, keys[4]), (1, keys[2])}
        values["visits"] = [visit for visit in values["visits"] if (visit[0], visit[1]) not in lost]
        for process, key, runs_ms, _ in values["visits"]:
            if (process, key) == (0, keys[3]):
                runs_ms.clear()
        values["visits"] += [[0, "strange", [1.0], 1e-3], [1, "strange", [1.0], 1e-3]]

    edit(result / "measurements.json", change)
    with pytest.raises(UserError) as caught:
        table_from_kit(result, make_space())
    text = str(caught.value)
    assert f"programs are missing: {keys[0]}, {keys[4]};" in text
    assert "not of the kit: strange;" in text
    assert f"without runs (2 are expected): {keys[2]}, {keys[3]}." in text


def test_damaged_measurements_are_refused(result: Path) -> None:
    path = result / "measurements.json"
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match="is truncated"):
        table_from_kit(result, make_space())
    for name in ("visits", "engine", "threads", "manifest_sha256", "processor"):
        path.write_text(json.dumps({k: v for k, v in json.loads(text).items() if k != name}))
        with pytest.raises(UserError, match=f"damaged .*{name}"):
            table_from_kit(result, make_space())
    path.write_text(json.dumps({**json.loads(text), "schema_version": 7}))
    with pytest.raises(UserError, match="schema version 7; this program reads version 1"):
        table_from_kit(result, make_space())
    path.write_text(json.dumps({**json.loads(text), "visits": [[0, "a", 3, 1.0]]}))
    with pytest.raises(UserError, match="damaged"):
        table_from_kit(result, make_space())


def test_another_space_version_or_purpose_is_refused(result: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"was made for space 'kit' .*; this is space 'kit'"):
        table_from_kit(result, make_space(num_classes=7))
    with pytest.raises(UserError, match="measured other choices"):
        table_from_kit(result, make_space().restrict({"resolution": [12]}))
    with pytest.raises(UserError, match="is for 'table'; this needs one for 'verification'"):
        networks_from_kit(result, make_space(), table_from_kit(result, make_space()))
    edit(result / "manifest.json", lambda m: m.update(schema_version=3))
    with pytest.raises(UserError, match="schema version 3"):
        table_from_kit(result, make_space())


def test_a_table_of_another_device_is_not_overwritten(measured: Path, tmp_path: Path) -> None:
    table, path = table_from_kit(measured, make_space()), tmp_path / "t.json"
    save_table(table, path)
    save_table(table, path)
    assert LatencyTable.load(path).entries == table.entries
    other = dataclasses.replace(table, engine={**table.engine, MEASURED_BY_KIT: "x"})
    with pytest.raises(UserError, match="was measured differently: engine.kit"):
        save_table(other, path)


# -- verification kits -------------------------------------------------------------------------------------


def test_candidates_are_measured_by_a_kit(measured: Path, tmp_path: Path) -> None:
    space = make_space()
    table = table_from_kit(measured, space)
    kits = tmp_path / "kits" / "name"
    measure = choose_measure(table, table.device, space, 3, kits)
    assert isinstance(measure, MeasureByKit) and not measure.is_local and measure.known_values == {}
    configs = [space.smallest, space.largest]
    assert measure(configs) == {}
    assert "from_kit=" in measure.next_step and "(2 networks" in measure.next_step
    # The same search again, after an interruption, goes on with the kit that it wrote.
    repeated = choose_measure(table, table.device, space, 3, kits)
    assert repeated(configs) == {} and repeated.next_step == measure.next_step
    assert [path.name for path in kits.parent.iterdir()] == ["name"]
    assert run_kit(kits).returncode == 0
    again = choose_measure(table, table.device, space, 3, kits, str(kits))
    assert isinstance(again, MeasureByKit)
    assert set(again.known_values) == set(configs)
    assert all(len(values) == 2 and min(values) > 0 for values in again.known_values.values())
    # A second kit takes a free name and both are to be given.
    assert again([space.middle]) == {}
    assert (tmp_path / "kits" / "name-1" / "manifest.json").is_file()
    assert f"from_kit=[{kits},{kits}-1]" in again.next_step
    for changes, text in (
        ({"name": "elsewhere"}, "name was 'elsewhere' and is 'there'"),
        ({"threads": 4, "affinity": (0,)}, r"threads was 4 and is 1; affinity was \(0,\) and is None"),
        ({"engine": "openvino"}, "engine was 'openvino' and is 'onnx_runtime'"),
        ({"precision": "int8"}, "precision was 'int8' and is 'fp32'"),
    ):
        other = dataclasses.replace(table, device=dataclasses.replace(table.device, **changes))
        with pytest.raises(UserError, match=f"another device or with other settings than the table: {text}"):
            networks_from_kit(kits, space, other)
    moved = dataclasses.replace(table, engine={**table.engine, "processor": "Z80"})
    with pytest.raises(UserError, match=r"processor was 'Z80' and is '.*'"):
        networks_from_kit(kits, space, moved)
    imported = dataclasses.replace(table, engine={}, device=DeviceSpec("there", "imported", threads=8))
    assert set(networks_from_kit(kits, space, imported)) == set(configs)


def test_this_machine_measures_at_once_and_an_imported_table_by_a_kit(measured: Path, tmp_path: Path) -> None:
    space, table = make_space(), table_from_kit(measured, make_space())
    own = dataclasses.replace(table, engine={"engine": "ONNX Runtime"})
    measure = choose_measure(own, own.device, space, 1, tmp_path)
    assert isinstance(measure, MeasureHere) and measure.is_local
    imported = DeviceSpec("phone", "imported", accelerator="other", precision="other")
    other = dataclasses.replace(table, device=imported, engine={"engine": "?"})
    assert isinstance(choose_measure(other, imported, space, 1, tmp_path / "phone"), MeasureByKit)
    with pytest.raises(UserError, match="verify=true needs a latency"):
        choose_measure(None, DEVICE, space, 1, tmp_path)


def test_a_table_of_another_processor_is_verified_there(measured: Path, tmp_path: Path) -> None:
    space, table = make_space(), table_from_kit(measured, make_space())
    there = dataclasses.replace(table, engine={"engine": "ONNX Runtime", "processor": "Z80"})
    assert isinstance(choose_measure(there, there.device, space, 1, tmp_path / "kit"), MeasureByKit)
    # A device of another name is this machine; the table is only where the search starts from.
    mine = dataclasses.replace(there.device, name="mine")
    assert isinstance(choose_measure(there, mine, space, 1, tmp_path / "kit"), MeasureHere)
    eager = dataclasses.replace(there, device=dataclasses.replace(there.device, engine="pytorch"))
    with pytest.raises(UserError, match=r"measured on 'Z80'; this machine .* cannot measure with 'pytorch'"):
        choose_measure(eager, eager.device, space, 1, tmp_path / "kit")


def test_settings_describe_the_device() -> None:
    settings = device_settings(DEVICE)
    assert settings["device.engine"] == "onnx_runtime" and settings["device.name"] == "there"
    assert "device.affinity" not in settings
    pinned = dataclasses.replace(DEVICE, affinity=(0, 2))
    assert device_settings(pinned)["device.affinity"] == "[0,2]"


def test_an_engine_that_fails_names_the_program_and_keeps_what_was_measured(kit: Path) -> None:
    engine = kit / "onnxruntime.py"
    engine.write_text(
        "__version__ = '0'\nclass SessionOptions:\n    def add_session_config_entry(self, *pair): pass\n"
        "def InferenceSession(*a, **k): raise RuntimeError('opset 99 is unknown')\n"
    )
    manifest = json.loads((kit / "manifest.json").read_text())
    done = subprocess.run(
        [sys.executable, str(kit / "measure.py")], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "The engine failed at " in done.stderr and "RuntimeError: opset 99 is unknown" in done.stderr
    assert any(program["key"] in done.stderr for program in manifest["programs"])


def test_bf16_without_its_instructions_is_refused(kit: Path) -> None:
    edit(kit / "manifest.json", lambda m: m["device"].update(precision="bf16", engine="openvino"))
    (kit / "openvino.py").write_text(
        "def get_version(): return '0'\nclass Core:\n    def get_property(self, *names): return ['FP32']\n"
    )
    done = subprocess.run(
        [sys.executable, str(kit / "measure.py")], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2 and "bf16, which this processor has no instructions for" in done.stderr
