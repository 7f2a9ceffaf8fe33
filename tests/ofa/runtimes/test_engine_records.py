"""An engine is one record: a made-up one appears wherever engines do, and what stands beside them agrees."""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import latency_tables.remote.kit
from latency_tables.engines.registry import ENGINES, create_engine, engines_of
from latency_tables.remote.kit import KIT_RUNTIMES, kit_runtimes_of, make_verification_kit
from latency_tables.table.device import DeviceSpec
from ofa.common.errors import UserError
from ofa.compression.quantisation.base import Quantise, Quantiser
from ofa.compression.quantisation.calibration import Images
from ofa.compression.quantisation.registry import QUANTISERS, converted, packages_of
from ofa.compression.quantisation.trained_inputs import TrainedInputs
from ofa.data.settings import DataInfo
from ofa.export.bundle import load_bundle
from ofa.export.card import ModelCard, subnet_card
from ofa.export.formats import FORMATS, formats_of
from ofa.export.fresh_run import bind_file, load_file
from ofa.export.precision import offered_precisions
from ofa.export.write import export_bundle
from ofa.runtimes.base import FileFormat, Files, NetworkSource, Runtime
from ofa.runtimes.registry import RUNTIMES
from ofa.space.staged import StagedSpace
from ofa.supernet.supernet import Supernet

# -- a made-up engine ------------------------------------------------------------------------------

TOY_FILE = "model.toy"
_NETWORKS: dict[bytes, nn.Module] = {}
"""The engine's files only name a network, which it remembers here."""


class ToySession:
    def __init__(self, network: nn.Module) -> None:
        self._network = network

    @torch.no_grad()
    def __call__(self, images: Tensor, /) -> Tensor:
        output: Tensor = self._network(images)
        return output

    def bind(self, images: Tensor) -> Callable[[], object]:
        return lambda: self(images)


def toy_convert(network: nn.Module, example: Tensor, precision: str) -> Files:
    assert precision in ("fp32", "bf16")
    name = f"{precision} {len(_NETWORKS)}".encode()
    _NETWORKS[name] = copy.deepcopy(network).eval()
    return {TOY_FILE: name}


def toy_load(folder: Path, threads: int, precision: str, accelerator: str) -> ToySession:
    return ToySession(_NETWORKS[(folder / TOY_FILE).read_bytes()])


def toy_write(source: NetworkSource) -> Files:
    return toy_convert(source.network, source.images(1), "fp32")


def toy_example(paths: Sequence[str], precision: str) -> str:
    return f"logits = toy.run({paths[0]!r}, images)  # {precision}"


TOY = Runtime(
    name="toy_engine",
    title="Toy",
    packages=("numpy",),
    extra="toy",
    offers=lambda: {"cpu": ("fp32", "bf16", "int8")},
    convert=toy_convert,
    load=toy_load,
    facts=lambda: {"version": "7"},
    format=FileFormat("toy", (TOY_FILE,), toy_write, toy_example, packages=("scipy",)),
    kit_precisions=("fp32",),
)


def toy_quantise(
    files: Files, calibration: Sequence[Images], trained: TrainedInputs | None = None
) -> Quantise:
    assert calibration and trained is None
    return lambda keep: {TOY_FILE: files[TOY_FILE].replace(b"fp32", b"int8")}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """The list of engines with one more record, and what is folded from it."""
    runtimes = (*RUNTIMES, TOY)
    monkeypatch.setattr("ofa.export.description.RUNTIMES", runtimes)
    for name, kind in formats_of(runtimes).items():
        monkeypatch.setitem(FORMATS, name, kind)
    for name, engine in engines_of(runtimes).items():
        monkeypatch.setitem(ENGINES, name, engine)
    for name, runtime in kit_runtimes_of(runtimes).items():
        monkeypatch.setitem(KIT_RUNTIMES, name, runtime)
    return TOY


@pytest.fixture
def card(micro_space: StagedSpace) -> ModelCard:
    classes = ("ant", "bee", "cat", "dog", "eel")
    return subnet_card(
        micro_space, micro_space.smallest, DataInfo("toy", 2, classes, (0.5, 0.25), (0.2, 0.4))
    )


def test_one_more_record_is_one_more_name_everywhere() -> None:
    runtimes = (*RUNTIMES, TOY)
    assert list(formats_of(runtimes)) == [*formats_of(RUNTIMES), "toy"]
    assert set(engines_of(runtimes)) == {*engines_of(RUNTIMES), "toy_engine"}
    assert list(kit_runtimes_of(runtimes)) == [*kit_runtimes_of(RUNTIMES), "toy_engine"]
    assert packages_of(runtimes) == packages_of(RUNTIMES) | {"toy": ("numpy", "scipy")}
    assert packages_of([dataclasses.replace(TOY, packages=(), extra="", format=None)]) == {}
    # What the commands know is folded from the list and from nothing else.
    assert list(FORMATS) == list(formats_of(RUNTIMES))
    assert set(ENGINES) == set(engines_of(RUNTIMES))
    assert kit_runtimes_of(RUNTIMES) == KIT_RUNTIMES


@pytest.mark.usefixtures("toy")
def test_a_new_engine_is_a_format_with_its_example_in_the_readme(
    card: ModelCard, make_supernet: Callable[[StagedSpace, int], Supernet], tmp_path: Path
) -> None:
    assert card.subnet is not None
    network = make_supernet(card.subnet.family, 0).extract(card.subnet.config).eval()
    report = export_bundle(network, card, tmp_path / "bundle", ["toy"])
    assert set(report.files) == {"weights", "toy"} and report.files["toy"].file == TOY_FILE
    readme = (report.path / "README.md").read_text()
    assert f"## toy: `{TOY_FILE}`" in readme
    assert "images = ((pixels" in readme and "logits = toy.run('model.toy', images)  # fp32\n" in readme
    bundle = load_bundle(report.path)
    assert {"numpy", "scipy"} <= set(bundle.versions)
    images = torch.randn(2, *network.image_shape)
    with torch.no_grad():
        assert torch.equal(load_file(bundle, "toy")(images), network(images))
    assert bind_file(bundle, "toy", images)() is not None


@pytest.mark.usefixtures("toy")
def test_a_new_engine_measures_layers() -> None:
    engine = create_engine(DeviceSpec("d", "toy_engine", precision="bf16"))
    assert engine.describe() | {"engine": "Toy", "version": "7"} == engine.describe()
    assert engine.prepare(nn.Conv2d(1, 2, 3), torch.zeros(1, 1, 4, 4))() > 0


@pytest.mark.usefixtures("toy")
def test_a_new_engine_is_measured_by_a_kit(micro_space: StagedSpace, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    device = DeviceSpec("d", "toy_engine")
    kit = make_verification_kit(micro_space, [micro_space.smallest], device, 0, tmp_path / "kit")
    manifest = json.loads((kit.path / "manifest.json").read_text())
    assert manifest["device"]["engine"] == "toy_engine" and kit.num_programs == 1
    other = dataclasses.replace(device, precision="bf16")
    with pytest.raises(UserError, match="asks for bf16 .*; toy_engine: fp32"):
        make_verification_kit(micro_space, [micro_space.smallest], other, 0, tmp_path / "other")


@pytest.mark.usefixtures("toy")
def test_int8_comes_with_a_quantiser_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    device = DeviceSpec("d", "toy_engine", precision="int8")
    assert offered_precisions("toy") == ("fp32", "bf16")
    with pytest.raises(UserError, match="asks for int8 on cpu; engine toy_engine offers fp32, bf16 on cpu"):
        create_engine(device)
    monkeypatch.setitem(QUANTISERS, "toy_engine", Quantiser("toy_engine", (), toy_quantise))
    assert offered_precisions("toy") == ("fp32", "bf16", "int8")
    create_engine(device)
    files = converted(TOY, nn.Conv2d(1, 2, 3), torch.zeros(1, 1, 4, 4), "int8")
    assert files[TOY_FILE].startswith(b"int8 ")


def test_two_formats_cannot_share_a_file_and_files_are_those_of_the_record() -> None:
    twin = dataclasses.replace(TOY, format=FileFormat("twin", (TOY_FILE,), toy_write, toy_example))
    with pytest.raises(AssertionError, match=re.escape(TOY_FILE)):
        formats_of((TOY, twin))
    renamed = dataclasses.replace(TOY, format=FileFormat("renamed", ("other",), toy_write, toy_example))

    class FakeSource:
        network = nn.Identity()

        def images(self, count: int) -> Tensor:
            return torch.zeros(count, 1)

    source: object = FakeSource()
    with pytest.raises(AssertionError, match=re.escape(TOY_FILE)):
        formats_of([renamed])["renamed"].serialise(source)  # type: ignore[arg-type]


# -- the records and what stands beside them ---------------------------------------------------------


def test_names_are_unique_and_every_quantiser_has_its_engine() -> None:
    names = [runtime.name for runtime in RUNTIMES]
    assert len(set(names)) == len(names)
    assert not {*names} & {"pytorch", "torch_compile", "imported"}
    assert set(QUANTISERS) <= set(names)


def test_the_extras_of_the_project_install_what_the_records_need(root: Path) -> None:
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        extra: {re.split(r"[<>=!~ \[;]", requirement)[0] for requirement in requirements}
        for extra, requirements in extras.items()
    }
    for extra in ("dev", "docs", "heic", "sign", "timm", "detection"):
        del named[extra]
    assert named == {extra: set(packages) for extra, packages in packages_of(RUNTIMES).items()}


def test_the_program_of_kits_loads_the_engines_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(latency_tables.remote.kit.__file__).with_name("kit_files"))
    import kit_engines

    loaded = dict(kit_engines.ENGINES.values())
    assert loaded == {name: runtime.title for name, runtime in KIT_RUNTIMES.items()}
    assert set(kit_engines.LOADERS) == set(kit_engines.ENGINES)
    for package, (engine, _) in kit_engines.ENGINES.items():
        assert package in KIT_RUNTIMES[engine].packages


def test_runtimes_know_nothing_of_what_lies_above_them(root: Path) -> None:
    modules = set()
    for path in sorted((root / "ofa" / "runtimes").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0 and node.module is not None
                modules.add(node.module)
            elif isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
    own = {".".join(name.split(".")[:2]) for name in modules if name.split(".")[0] == "ofa"}
    assert own == {"ofa.common", "ofa.runtimes"}


def test_engines_are_imported_only_when_they_are_used() -> None:
    code = (
        "import sys, ofa.export.formats, latency_tables.remote.kit, latency_tables.engines.registry; "
        "print([name for name in ('onnx', 'onnxscript', 'onnxruntime', 'openvino', 'nncf', 'ncnn', 'pnnx', "
        "'executorch') if name in sys.modules])"
    )
    root = str(Path(__file__).resolve().parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, timeout=120
    )
    assert done.stdout.strip() == "[]"
