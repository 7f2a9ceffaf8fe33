"""The step `penni` of the command that compresses: trained, smaller, made again from its card, and killed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import own_models
import pytest
import torch
from compress_network import compress_network
from finetune_subnet import finetune_subnet

import ofa.runs.compression_training
from ofa.common.errors import UserError
from ofa.compression.programs import TimedModule
from ofa.data.sources import load_data
from ofa.evaluation.evaluate import score
from ofa.export.bundle import load_bundle
from ofa.modules.cost import module_cost
from ofa.runs.compression_run import CompressionReport
from ofa.training.fitting import fit

NET = ("model=own_nets:Net", "model.weights=Net.pth", "model.divisor=4", "data=digits", "run_name=net")
SHORT = (
    *("finetuning.epochs=1", "finetuning.batch_size=300", "harm_images=8", "calibration_images=50"),
    *("formats=[]", "threads=1"),
)
# So high a threshold that channels go.
PENNI = (*NET, *SHORT, "steps=[penni,finetune]", "penni.rank=2", "penni.threshold=1.6", "name=penni")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a module of networks, and a compression by `penni`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with own_models.own_model_folder(tmp_path_factory.mktemp("own"), patch) as folder:
            report = compress_network.run(*PENNI, "formats=[onnx]")
            assert report is not None
            (folder / "report.txt").write_text("\n".join(report.lines))
            yield folder
    sys.modules.pop("own_nets", None)


def zeros_of(network: torch.nn.Module, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    return {name: network.get_parameter(f"{name}.weight").detach() == 0 for name in names}


def test_a_bundle_has_fewer_coefficients_and_channels(folder: Path) -> None:
    bundle = load_bundle("runs/net/bundles/penni")
    facts = bundle.subnet.compression
    assert facts is not None and facts.pattern is None and facts.shapes
    assert {change.form for change in facts.changes} <= {"penni", "escalate"}
    assert all(change.ranks[0] <= 2 for change in facts.changes)
    zeros = zeros_of(bundle.network, facts.sparse_layers)
    assert sum(int(mask.sum()) for mask in zeros.values()) > 0.5 * sum(m.numel() for m in zeros.values())
    assert "zeros in" in facts.text and "channels left out" in facts.text
    # The network of the card computes what was measured.
    compressed = bundle.card.provenance["compressed"]
    names = [step["name"] for step in compressed["steps"]]
    assert names == ["uncompressed", "penni", "penni, trained", "finetune", "control"]
    data = load_data("digits")
    assert score(bundle.network, data.batches("test", 250, torch.device("cpu"))) == pytest.approx(
        compressed["test"]["compressed"]
    )
    last = compressed["steps"][3]
    assert last["macs"] == module_cost(bundle.network, bundle.card.input_shape).macs
    assert last["nonzero_macs"] < 0.6 * last["macs"]
    assert "M MACs without zeros" in (folder / "report.txt").read_text()


def test_a_second_run_has_nothing_to_train(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_bundle("runs/net/bundles/penni").network.state_dict()

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(ofa.runs.compression_training, "fit", fail)
    assert compress_network.run(*PENNI, "formats=[onnx]") is not None
    after = load_bundle("runs/net/bundles/penni").network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


def test_a_fine_tuning_keeps_the_zeros(folder: Path) -> None:
    path = finetune_subnet.run(
        "run_name=net", "bundle=penni", "data=digits", "name=tuned", "formats=[]", *SHORT[:2]
    )
    tuned, before = load_bundle(path), load_bundle("runs/net/bundles/penni")
    facts = tuned.subnet.compression
    assert facts is not None and facts == before.subnet.compression
    own, others = (zeros_of(bundle.network, facts.sparse_layers) for bundle in (tuned, before))
    assert all(torch.equal(own[name], others[name]) for name in facts.sparse_layers)
    with pytest.raises(UserError, match="has zeros already .* penni would lose or mix them"):
        compress_network.run("run_name=net", "bundle=penni", "steps=[penni]", *SHORT)


def test_the_first_training_ends_and_the_second_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*PENNI[:-1], "control=false", "name=twice")
    lengths = list[int]()

    def stopping(network, data, tuning, **arguments):  # type: ignore[no-untyped-def]
        lengths.append(tuning.length)
        if len(lengths) == 2:
            raise KeyboardInterrupt
        fit(network, data, tuning, **arguments)

    monkeypatch.setattr(ofa.runs.compression_training, "fit", stopping)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        compress_network.run(*settings, "penni.length=2")
    assert not Path("runs/net/bundles/twice").exists()
    assert compress_network.run(*settings, "penni.length=2") is not None
    # With the penalty; stopped; with the zeros kept; `finetune`.
    assert lengths == [2, 1, 1, 1]


def made_up(modules: Mapping[str, TimedModule]) -> dict[str, float]:
    """Return latencies that follow the MACs."""
    return {
        name: module_cost(program.module, program.input_shape).macs / 1e4 + 0.01
        for name, program in modules.items()
    }


def test_latency_chooses_the_order_of_all_layers_of_a_rank(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compress_network.measured_ms", lambda _, modules: made_up(modules))
    settings = (*NET, *SHORT, "steps=[penni]", "penni.rank=3", "device=my_cpu_onnx", "control=false")
    report = compress_network.run(*settings, "name=timed")
    assert isinstance(report, CompressionReport)
    latencies = [step.latency_ms for step in report.compressed.steps]
    assert None not in latencies and latencies[2] <= latencies[1]  # type: ignore[operator]
    facts = load_bundle("runs/net/bundles/timed").subnet.compression
    assert facts is not None and len(facts.changes) >= 3


def test_it_is_one_choice_of_a_plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = (*NET, *SHORT, "steps=[split,penni]", "limits.macs_share=0.4", "plan_only=true")
    assert compress_network.run(*settings, "name=plan") is None
    output = capsys.readouterr().out
    assert "penni" in output or "escalate" in output
    report = compress_network.run(*settings[:-1], "control=false", "name=plan")
    assert report is not None
    facts = load_bundle("runs/net/bundles/plan").subnet.compression
    assert facts is not None and {change.form for change in facts.changes} & {"penni", "escalate"}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["steps=[penni]", "penni.rank=0"], "penni.rank is 0"),
        (["steps=[penni]", "penni.rank=9"], "No convolution gains at rank 9; expected 1 to"),
        (["steps=[penni,sparse]"], "penni and sparse both set weights to zero"),
        (["steps=[split,penni]"], "split and penni need a limit"),
        (["steps=[finetune,penni]"], "penni comes before finetune: what is changed"),
        (["steps=[penni]", "finetuning.epochs=0"], "expected at least 1, or steps without penni"),
        (["steps=[penni]", "penni.threshold=90"], "All coefficients of .* are below 90 standard deviations"),
    ],
)
def test_mistakes_are_explained(folder: Path, settings: list[str], text: str) -> None:
    with pytest.raises(UserError, match=text):
        compress_network.run(*NET, *SHORT, "name=wrong", "control=false", *settings)
