"""Commands end with status 2 and one named error for a damaged file, without a traceback."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from published_network import description

from ofa.common.cli import main

EARLIER_RUN = Path(__file__).parents[1] / "data" / "earlier_run" / "before"
BUNDLE = "bundles/my_cpu-0.8ms"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of a run, in the present folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ofa"])
    variables = dict(os.environ)
    yield Path(shutil.copytree(EARLIER_RUN, tmp_path / "runs" / "before"))
    os.environ.clear()
    os.environ.update(variables)


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def escaped(path: Path) -> None:
    path.write_text(json.dumps({"schema_version": "\x1b[2J\x1b]0;title\x07", "space": {"x" * 50_000: 1}}))


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(1000))


def a_list(path: Path) -> None:
    torch.save([1], path)


def bomb(path: Path) -> None:
    lines = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    path.write_text(f"a0: &a0 [x, x, x, x, x, x, x, x, x]\n{lines}")


def a_network(path: Path) -> None:
    path.write_text(json.dumps({**description(), "first_conv": {"in_channels": 1e999}}))


SEARCH = ("search", "limits.macs_m=1", "search.generations=2", "name=x")
LATENCY = ("search", "limits.latency_ms=1", "device=my_cpu", "search.generations=2", "name=x")
CASES: list[tuple[tuple[str, ...], str, Callable[[Path], object], str]] = [
    (("collect", "count=12"), "supernet.pt", garbage, "is no file of weights"),
    (("collect", "count=12"), "supernet.pt", a_list, "holds a list"),
    (("collect", "count=12"), "supernet.json", deep, "nested more than 64 deep"),
    (("collect", "count=12"), "config.json", escaped, "name is missing"),
    (("fit",), "accuracy.jsonl", garbage, "is not a file of accuracy records"),
    (SEARCH, "predictor.pt", garbage, "do not match predictor.json"),
    (SEARCH, "predictor.json", deep, "nested more than 64 deep"),
    (LATENCY, "latency/my_cpu.json", escaped, "has schema version"),
    (LATENCY, "latency/my_cpu.json", deep, "nested more than 64 deep"),
    (("export", "subnet=my_cpu-0.8ms", "formats=[]"), "search/my_cpu-0.8ms.json", escaped, "schema_version"),
    (
        ("evaluate", "bundle=my_cpu-0.8ms", "latency=false"),
        f"{BUNDLE}/subnet.json",
        escaped,
        "schema version",
    ),
    (
        ("evaluate", "bundle=my_cpu-0.8ms", "latency=false"),
        f"{BUNDLE}/weights.safetensors",
        garbage,
        "weights",
    ),
    (("report",), f"{BUNDLE}/subnet.json", deep, "nested more than 64 deep"),
    (("measure", "device=my_cpu_onnx", "from_kit=runs/kit"), "../kit/manifest.json", deep, "64 deep"),
    (("import-table", "files=[runs/t.yaml]", "device.name=phone"), "../t.yaml", bomb, "refers to a value"),
    (("import-predictor", "file=runs/p.pth", "space=mobilenet_v3"), "../p.pth", a_list, "holds a list"),
    (("import-network", "net_config=runs/n", "weights=runs/w"), "../n", a_network, "inf in place"),
    (("import-supernet", "file=runs/s.pth", "run_name=new"), "../s.pth", garbage, "is no file of weights"),
]


@pytest.mark.parametrize(("arguments", "file", "damage", "reason"), CASES)
def test_a_damaged_file_ends_a_command_with_2(
    arguments: tuple[str, ...],
    file: str,
    damage: Callable[[Path], object],
    reason: str,
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = run / file
    path.parent.mkdir(exist_ok=True)
    damage(path)
    name, *settings = arguments
    if not any(setting.startswith("run_name=") for setting in settings):
        settings.append("run_name=before")
    with pytest.raises(SystemExit) as caught:
        main([name, *settings])
    output = capsys.readouterr()
    assert caught.value.code == 2, output.err
    assert output.err.startswith("error: ") and reason in output.err
    assert "Traceback" not in output.err and "\x1b" not in output.err and len(output.err) < 4000
