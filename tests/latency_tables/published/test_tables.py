"""Published latency tables: those of the shared data, and small ones with everything that can be wrong."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from latency_tables.published.export import export_table
from latency_tables.published.keys import KeyStyle, key_style_named, published_key
from latency_tables.published.table import import_table, read_published_tables
from latency_tables.table.calibration import Calibration
from latency_tables.table.device import DeviceSpec
from latency_tables.table.table import LatencyTable
from latency_tables.table.timing import ImportedTiming, Timing
from ofa.architecture.common_layers import ConvSpec, LinearSpec, MaxPoolSpec, PoolSpec
from ofa.architecture.lowering import distinct_layers, lower
from ofa.architecture.mobilenet import MBConvSpec
from ofa.common.errors import UserError
from ofa.published.convert import subnet_of
from ofa.published.network import read_network
from ofa.space.staged import StagedSpace

PHONE = DeviceSpec("phone", "imported", "other", precision="other")
NOTE10 = (160, 176, 192, 208, 224)


@pytest.fixture
def tables_folder(shared_data: Path) -> Path:
    return shared_data / "latency"


@pytest.fixture
def wide_space(full_space: StagedSpace) -> StagedSpace:
    return dataclasses.replace(full_space, width_multiplier=1.2)


def rows_of(space: StagedSpace, resolution: int) -> dict[str, Any]:
    """A table of invented latencies; keys are written here by hand, apart from the code under test."""
    rows: dict[str, Any] = {}

    def add(key: str) -> None:
        rows[key] = {"mean": round(0.01 + len(rows) * 0.003 + resolution / 1e4, 6), "std": 0.002, "count": 50}

    for spec in distinct_layers(space.restrict({"resolution": [resolution]})):
        size = spec.input_size
        if isinstance(spec, MBConvSpec):
            out = (size - 1) // spec.stride + 1
            add(
                f"expanded_conv-input:{size}x{size}x{spec.in_channels}-output:{out}x{out}x{spec.out_channels}"
                f"-expand:{spec.mid_channels}-kernel:{spec.kernel_size}-stride:{spec.stride}"
                f"-idskip:{int(spec.stride == 1 and spec.in_channels == spec.out_channels)}"
                f"-se:{int(spec.squeeze_excite)}-hs:{int(spec.activation == 'hard_swish')}"
            )
        elif isinstance(spec, ConvSpec) and spec.kernel_size == 3:
            out = (size - 1) // spec.stride + 1
            add(f"Conv-input:{size}x{size}x{spec.in_channels}-output:{out}x{out}x{spec.out_channels}")
        elif isinstance(spec, ConvSpec):
            name = "Conv_1" if spec.batch_norm else "Conv_2"
            maps = f"{size}x{size}x{spec.in_channels}-output:{size}x{size}x{spec.out_channels}"
            add(f"{name}-input:{maps}")
        elif isinstance(spec, PoolSpec):
            add(f"AvgPool2D-input:{size}x{size}x{spec.in_channels}-output:1x1x{spec.in_channels}")
        elif isinstance(spec, LinearSpec):
            add(f"Logits-input:1x1x{spec.in_channels}-output:{spec.out_channels}")
    return rows


@pytest.fixture
def files(micro_space: StagedSpace, tmp_path: Path) -> Path:
    """A folder with a table for each resolution of the micro space."""
    folder = tmp_path / "tables"
    folder.mkdir()
    for resolution in micro_space.resolutions:
        (folder / f"{resolution}.yaml").write_text(yaml.safe_dump(rows_of(micro_space, resolution)))
    return folder


# -- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "channels", "ratio"),
    [
        (
            MBConvSpec(56, 32, 48, 5, 2, "relu", True, mid_channels=192),
            "expanded_conv-input:56x56x32-output:28x28x48-expand:192-kernel:5-stride:2-idskip:0-se:1-hs:0",
            "expanded_conv-input:56x56x32-output:28x28x48-expand:6-kernel:5-stride:2-idskip:0",
        ),
        (
            MBConvSpec(112, 24, 24, 3, 1, "relu", False, expand=False, mid_channels=24),
            "expanded_conv-input:112x112x24-output:112x112x24-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0",
            "expanded_conv-input:112x112x24-output:112x112x24-expand:1-kernel:3-stride:1-idskip:1",
        ),
        (
            MBConvSpec(14, 96, 96, 7, 1, "hard_swish", False, mid_channels=288),
            "expanded_conv-input:14x14x96-output:14x14x96-expand:288-kernel:7-stride:1-idskip:1-se:0-hs:1",
            "expanded_conv-input:14x14x96-output:14x14x96-expand:3-kernel:7-stride:1-idskip:1",
        ),
        (
            ConvSpec(224, 3, 24, 3, 2, "hard_swish"),
            "Conv-input:224x224x3-output:112x112x24",
            "Conv-input:224x224x3-output:112x112x24",
        ),
        (
            ConvSpec(7, 192, 1152, 1, 1, "hard_swish"),
            "Conv_1-input:7x7x192-output:7x7x1152",
            "Conv_1-input:7x7x192-output:7x7x1152",
        ),
        (
            ConvSpec(1, 1152, 1536, 1, 1, "hard_swish", batch_norm=False),
            "Conv_2-input:1x1x1152-output:1x1x1536",
            "Conv_2-input:1x1x1152-output:1x1x1536",
        ),
        (PoolSpec(7, 1152, 1152), "AvgPool2D-input:7x7x1152-output:1x1x1152", None),
        (LinearSpec(1, 1280, 1000), "Logits-input:1x1x1280-output:1000", "Logits-input:7x7x1280-output:1000"),
    ],
)
def test_keys_of_layers(spec: Any, channels: str, ratio: str | None) -> None:
    assert published_key(spec, KeyStyle.CHANNELS, 7) == channels
    assert published_key(spec, KeyStyle.RATIO, 7) == ratio


def test_layers_without_a_published_key_are_named() -> None:
    with pytest.raises(UserError, match="no key for a layer such as maxpool-in56x64"):
        published_key(MaxPoolSpec(56, 64, 64, 3, 2), KeyStyle.CHANNELS, 7)
    with pytest.raises(UserError, match="Unknown key style 'channel'; known: channels, ratio"):
        key_style_named("channel")


# -- the published tables --------------------------------------------------------------------------


def test_the_published_network_takes_its_published_time(
    wide_space: StagedSpace, tables_folder: Path, shared_data: Path
) -> None:
    table = import_table(wide_space, read_published_tables([tables_folder / "note10"]), PHONE)
    folder = shared_data / "subnets" / "note10_lat-30ms_top1-78.4_finetune-75"
    network = read_network(folder / "net.config")
    assert table.network_ms(network.specs, network.specs[0].input_size) == pytest.approx(29.97, abs=0.01)
    config = subnet_of(network, wide_space)
    estimator = table.estimator(wide_space.restrict({"resolution": NOTE10}))
    assert estimator(wide_space.genomes([config]))[0] == pytest.approx(29.97, abs=0.01)


def test_estimates_are_the_sums_of_the_table_of_the_resolution(
    wide_space: StagedSpace, tables_folder: Path
) -> None:
    published = read_published_tables([tables_folder / "note10"])
    table = import_table(wide_space, published, PHONE)
    assert table.covered_resolutions(wide_space) == NOTE10
    space = wide_space.restrict({"resolution": NOTE10})
    genomes = space.sample(1000, np.random.default_rng(0))
    estimates = table.estimator(space)(genomes)
    assert np.isfinite(estimates).all()
    for genome, estimate in list(zip(genomes, estimates, strict=True))[:50]:
        config = space.config(genome)
        file = tables_folder / "note10" / f"{config.resolution}_lookup_table.yaml"
        rows = yaml.load(file.read_text(), yaml.CSafeLoader)
        keys = [published_key(spec, KeyStyle.CHANNELS, 0) for spec in lower(space, config)]
        assert estimate == pytest.approx(sum(rows[key]["mean"] for key in keys), abs=1e-9)
        assert table.network_ms(lower(space, config), config.resolution) == pytest.approx(estimate)


def test_other_resolutions_and_widths_are_refused_with_what_is_covered(
    full_space: StagedSpace, wide_space: StagedSpace, tables_folder: Path
) -> None:
    published = read_published_tables([tables_folder / "note10"])
    covered = re.escape("resolutions 160, 176, 192, 208, 224 and blocks of 24, 32, 48, 96, 136, 192 channels")
    with pytest.raises(UserError, match=f"Conv-input:160x160x3-output:80x80x16.* and .* more.*{covered}"):
        import_table(full_space, published, PHONE)
    with pytest.raises(UserError, match=f"{covered}; space .* has the resolutions 128, 144"):
        import_table(wide_space.restrict({"resolution": [128, 144]}), published, PHONE)
    table = import_table(wide_space, published, PHONE)
    with pytest.raises(UserError, match=r"covers the resolutions 160, 176, 192, 208, 224; search with reso"):
        table.estimator(wide_space)
    with pytest.raises(UserError, match=r"lacks 85 layers"):
        table.estimator(wide_space.restrict({"resolution": [144]}))


def test_a_fused_layer_is_refused_unless_its_cost_is_given(
    wide_space: StagedSpace, tables_folder: Path
) -> None:
    published = read_published_tables([tables_folder / "ultra96"])
    message = r"lack 1 of the 96 keys .* AvgPool2D-input:7x7x1152-output:1x1x1152\. .*missing_ms.AvgPool2D="
    with pytest.raises(UserError, match=message):
        import_table(wide_space, published, PHONE)
    space = wide_space.restrict({"resolution": [224]})
    genomes = space.sample(5, np.random.default_rng(0))
    free, dear = (
        import_table(wide_space, published, PHONE, {"AvgPool2D": ms}).estimator(space)(genomes)
        for ms in (0.0, 1.5)
    )
    np.testing.assert_allclose(dear - free, 1.5)
    with pytest.raises(UserError, match="missing_ms gives Conv_2, which the tables have"):
        import_table(wide_space, published, PHONE, {"AvgPool2D": 0.0, "Conv_2": 1.0})
    with pytest.raises(UserError, match="Unknown kind of layer in missing_ms 'AvgPool'"):
        import_table(wide_space, published, PHONE, {"AvgPool": 0.0})
    with pytest.raises(UserError, match=r"missing_ms.AvgPool2D is -1.0"):
        import_table(wide_space, published, PHONE, {"AvgPool2D": -1.0})


def test_tables_by_expand_ratio(load_space: Callable[[str], StagedSpace], tables_folder: Path) -> None:
    space = dataclasses.replace(load_space("proxyless_nas"), width_multiplier=1.0)
    published = read_published_tables([tables_folder / "pixel1" / "224_lookup_table.yaml"])
    assert published.style is KeyStyle.RATIO
    with pytest.raises(UserError, match=r"lack 33 of the .*expand:4-") as caught:
        import_table(space, published, PHONE)
    assert len(re.findall("expand:4-", str(caught.value))) == 33
    space = space.restrict({"resolution": [224], "expand_ratio": [3, 6]})
    table = import_table(space, published, PHONE)
    rows = yaml.safe_load((tables_folder / "pixel1" / "224_lookup_table.yaml").read_text())
    genome = space.sample(1, np.random.default_rng(3))
    keys = [published_key(spec, KeyStyle.RATIO, 7) for spec in lower(space, space.config(genome[0]))]
    assert keys.count(None) == 1
    assert table.estimator(space)(genome)[0] == pytest.approx(sum(rows[key]["mean"] for key in keys if key))
    entry = table.entries[lower(space, space.config(genome[0]))[0].key]
    assert isinstance(entry, ImportedTiming)
    assert entry.std_ms == pytest.approx(0.2502373272875843**0.5)


# -- small tables ----------------------------------------------------------------------------------


def test_an_imported_table_is_saved_without_a_measured_error(
    micro_space: StagedSpace, files: Path, tmp_path: Path
) -> None:
    table = import_table(micro_space, read_published_tables([files]), PHONE, description="a phone")
    path = tmp_path / "phone.json"
    table.save(path)
    assert LatencyTable.load(path) == table
    assert table.validation is None
    assert table.calibration == Calibration(1.0, 0.0, ())
    assert table.error_text == "imported table: its error on whole networks was not measured"
    assert table.engine["description"] == "a phone"
    assert set(table.engine) >= {"8.yaml", "12.yaml"}
    # The layers that both resolutions share differ between the files.
    shared = [key for key in table.entries if "@" in key]
    assert {key.partition("@")[2] for key in shared} == {"8", "12"}
    genomes = micro_space.all_genomes()
    estimates = table.estimator(micro_space)(genomes)
    expected = [
        sum(
            rows_of(micro_space, config.resolution)[str(published_key(spec, KeyStyle.CHANNELS, 0))]["mean"]
            for spec in lower(micro_space, config)
        )
        for config in map(micro_space.config, genomes[::97])
    ]
    np.testing.assert_allclose(estimates[::97], expected, rtol=1e-9)


def test_genomes_outside_the_restriction_are_nan(micro_space: StagedSpace, files: Path) -> None:
    published = read_published_tables([files / "12.yaml"])
    table = import_table(micro_space, published, PHONE)
    both = import_table(micro_space, read_published_tables([files]), PHONE)
    restricted = micro_space.restrict({"resolution": [12]})
    genomes = micro_space.genomes([micro_space.smallest, micro_space.largest])
    for one in (table, both):
        assert np.isnan(one.estimator(restricted)(genomes)).tolist() == [True, False]


@pytest.mark.parametrize("style", list(KeyStyle))
def test_export_and_import_give_the_same_estimates(
    style: KeyStyle,
    load_space: Callable[[str], StagedSpace],
    micro_space: StagedSpace,
    tmp_path: Path,
) -> None:
    space = micro_space
    if style is KeyStyle.RATIO:
        stages = load_space("proxyless_nas").stages[:2]
        space = dataclasses.replace(
            load_space("proxyless_nas"), resolutions=(32, 48), stages=stages, width_multiplier=1.0
        )
    rng = np.random.default_rng(1)
    layers = distinct_layers(space)
    table = LatencyTable(
        device=DeviceSpec("here", "pytorch"),
        engine={"engine": "fake"},
        method="computed",
        date="2024-01-02",
        seed=0,
        space_name=space.name,
        space_fingerprint=space.fingerprint,
        calibration=Calibration(1.25, 0.5, ()),
        validation=None,
        entries={
            spec.key: Timing(float(ms), 1.0, 0.1, 9)
            for spec, ms in zip(layers, rng.random(len(layers)), strict=True)
        },
    )
    paths = export_table(table, space, style, tmp_path / "out")
    assert [path.name for path in paths] == [f"{r}_lookup_table.yaml" for r in space.resolutions]
    back = import_table(space, read_published_tables(paths), PHONE)
    genomes = space.sample(200, rng)
    np.testing.assert_allclose(back.estimator(space)(genomes), table.estimator(space)(genomes), rtol=1e-9)


def test_export_refuses_what_a_sum_of_keys_cannot_say(
    micro_space: StagedSpace, files: Path, tmp_path: Path
) -> None:
    table = import_table(micro_space, read_published_tables([files]), PHONE)
    with pytest.raises(UserError, match="Two layers of different latency have the key"):
        stages = tuple(
            dataclasses.replace(micro_space.stages[0], squeeze_excite=squeeze, stride=1, depths=(1,))
            for squeeze in (False, True)
        )
        space = dataclasses.replace(micro_space, stages=stages)
        entries: dict[str, Timing | ImportedTiming] = {
            spec.key: ImportedTiming(float(index)) for index, spec in enumerate(distinct_layers(space))
        }
        other = dataclasses.replace(table, entries=entries, space_fingerprint=space.fingerprint)
        export_table(other, space, KeyStyle.RATIO, tmp_path / "out")
    negative = dataclasses.replace(table, calibration=Calibration(1.0, -5.0, ()))
    with pytest.raises(UserError, match="makes Conv-input.* negative"):
        export_table(negative, micro_space, KeyStyle.CHANNELS, tmp_path / "out")
    with pytest.raises(UserError, match="was made for space"):
        export_table(table, dataclasses.replace(micro_space, num_classes=9), KeyStyle.CHANNELS, tmp_path)


def test_everything_wrong_with_the_files_is_named_at_once(files: Path) -> None:
    rows = yaml.safe_load((files / "8.yaml").read_text())
    keys = list(rows)
    rows[keys[0]] = {"mean": "nan"}
    rows[keys[1]] = {"mean": -0.25}
    rows[keys[2]] = {"count": 3}
    rows[keys[3]] = {"mean": "fast"}
    rows[keys[4]] = 0.5
    rows[keys[5]] = {"mean": 0.1, "std": "inf"}
    rows[keys[6]] = {"mean": True}
    rows["expanded_convolution-input:4x4x8"] = {"mean": 1.0}
    (files / "8.yaml").write_text(yaml.safe_dump(rows))
    with pytest.raises(UserError) as caught:
        read_published_tables([files, files / "gone.yaml"])
    text = str(caught.value)
    for key in keys[:7]:
        assert key in text
    for found in ("mean is 'nan'", "mean is -0.25", "no mean", "'fast'", "std is 'inf'", "mean is True"):
        assert found in text
    assert "'expanded_convolution-input:4x4x8' is not a published block key" in text
    assert "gone.yaml: no such table" in text
    assert len(text.splitlines()) == 9


def test_a_latency_that_is_no_number_is_named(files: Path) -> None:
    rows = yaml.safe_load((files / "8.yaml").read_text())
    key = list(rows)[3]
    rows[key]["mean"] = float("nan")
    (files / "8.yaml").write_text(yaml.safe_dump(rows))
    with pytest.raises(UserError, match=rf"8\.yaml .*it holds nan in place of a number at {key}\.mean"):
        read_published_tables([files])


def test_truncated_files_are_refused(micro_space: StagedSpace, files: Path) -> None:
    text = (files / "12.yaml").read_text()
    cut = text.index("mean", len(text) // 2) + 2
    (files / "12.yaml").write_text(text[:cut])
    with pytest.raises(UserError, match=r"12\.yaml cannot be read as YAML .*truncated"):
        read_published_tables([files])
    lines = text.splitlines(keepends=True)
    (files / "12.yaml").write_text("".join(lines[:-8]))
    with pytest.raises(UserError, match=r"lack 2 of the \d+ keys") as caught:
        import_table(micro_space, read_published_tables([files]), PHONE)
    for line in (lines[-8], lines[-4]):
        assert line.rstrip(":\n") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("!!python/object/apply:os.system ['touch ran']", "cannot be read as YAML"),
        ("- a\n- b\n", "holds no block keys"),
        ("", "holds no block keys"),
        ("Logits-input:1x1x8-output:5: {mean: 1.0}\n", "no key Conv-input"),
    ],
)
def test_files_of_another_kind_are_refused(
    content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        read_published_tables([tmp_path / "table.yaml"])
    assert not (tmp_path / "ran").exists()


def test_tables_that_do_not_belong_together_are_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No files are given"):
        read_published_tables([])
    (tmp_path / "again.yaml").write_text((files / "8.yaml").read_text())
    with pytest.raises(UserError, match="resolution 8 is in another file"):
        read_published_tables([files, tmp_path / "again.yaml"])
    key = "expanded_conv-input:16x16x8-output:16x16x8-expand:3-kernel:3-stride:1-idskip:1"
    rows = {"Conv-input:16x16x2-output:16x16x8": {"mean": 1.0}, key: {"mean": 1.0}}
    (tmp_path / "ratio.yaml").write_text(yaml.safe_dump(rows))
    with pytest.raises(UserError, match="different styles"):
        read_published_tables([files, tmp_path / "ratio.yaml"])


@pytest.mark.parametrize("value", [float("nan"), -1.0])
def test_impossible_imported_entries_are_refused(
    value: float, micro_space: StagedSpace, files: Path, tmp_path: Path
) -> None:
    table = import_table(micro_space, read_published_tables([files]), PHONE)
    table.save(tmp_path / "table.json")
    text = (tmp_path / "table.json").read_text()
    name = "NaN" if value != value else str(value)
    text = re.sub(r'"latency_ms": [\d.]+', f'"latency_ms": {name}', text, count=1)
    (tmp_path / "table.json").write_text(text)
    named = (
        "not valid.*latency_ms is" if value < 0 else r"nan in place of a number at entries\..*\.latency_ms"
    )
    with pytest.raises(UserError, match=named):
        LatencyTable.load(tmp_path / "table.json")
