"""The training loop: what a step does, resuming after any interruption, and how it fails."""

from __future__ import annotations

import dataclasses
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from training_run import MODEL_PHASES, MODELS, PHASES, SPACE, STRATEGIES, make_data, make_trainer
from weights import assert_equal, final_weights

from ofa.common.errors import UserError
from ofa.common.tensors import load_tensors
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.evaluation.settings import LossSettings
from ofa.evaluation.soft_losses import soft_cross_entropy
from ofa.evaluation.task import ClassificationTask
from ofa.supernet.supernet import build_supernet
from ofa.training.losses import loss_terms, sum_terms
from ofa.training.optimizer import build_optimizer
from ofa.training.phases import Phase, check_phases
from ofa.training.precision import emulates
from ofa.training.sampling import plan_step
from ofa.training.settings import PRECISIONS, TrainSettings
from ofa.training.step import TrainStep
from ofa.training.teacher import Teacher

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "tests" / "helpers" / "training_run.py"
CUDA = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """The folder and weights of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    completed = run_script(folder)
    assert completed.returncode == 0, completed.stderr
    return folder, final_weights(folder)


def run_script(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"},
        check=False,
    )


@pytest.mark.slow
def test_killed_while_files_are_written_ends_with_the_same_weights(
    tmp_path: Path, uninterrupted: tuple[Path, dict[str, Tensor]]
) -> None:
    """Processes that are killed between files are in test_interruption."""
    # The second file after the start; then, from step 3 on, that of step 6 comes first.
    for save, file in ((2, "step_00000006.pt"), (3, "teacher.pt")):
        assert run_script(tmp_path, "--save", str(save)).returncode == -signal.SIGKILL
        half_written = list(tmp_path.rglob(".*.tmp"))
        assert [path.name.startswith(f".{file}.") for path in half_written] == [True]
    assert "finished" in run_script(tmp_path).stdout
    assert_equal(final_weights(tmp_path), uninterrupted[1])


def test_a_finished_run_is_not_trained_again(uninterrupted: tuple[Path, dict[str, Tensor]]) -> None:
    trainer = make_trainer(uninterrupted[0])
    assert trainer.resumed_at == 24
    assert_equal(dict(trainer.train().state_dict()), uninterrupted[1])


def test_a_damaged_newest_checkpoint_is_passed_over(
    tmp_path: Path, uninterrupted: tuple[Path, dict[str, Tensor]]
) -> None:
    shutil.copytree(uninterrupted[0], tmp_path, dirs_exist_ok=True)
    newest = tmp_path / "checkpoints" / "step_00000024.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    trainer = make_trainer(tmp_path)
    assert trainer.damaged_checkpoints == [str(newest)]
    assert trainer.resumed_at == 21
    assert_equal(dict(trainer.train().state_dict()), uninterrupted[1])


def test_only_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "step_00000003.pt").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match=r"No checkpoint .* can be read.*step_00000003"):
        make_trainer(tmp_path)


def test_a_checkpoint_of_another_space_is_refused(uninterrupted: tuple[Path, dict[str, Tensor]]) -> None:
    other = dataclasses.replace(SPACE, stem_channels=16)
    with pytest.raises(UserError, match=r"another|was made for the space"):
        make_trainer(uninterrupted[0], space=other)


def test_a_full_disk_while_saving_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = 0
    save = torch.save

    def full_after_two(values: object, file: BinaryIO) -> None:
        nonlocal saves
        saves += 1
        if saves > 2:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        save(values, file)

    monkeypatch.setattr(torch, "save", full_after_two)
    with pytest.raises(UserError, match=r"No space left on device.*untouched"):
        make_trainer(tmp_path).train()
    monkeypatch.undo()
    assert list(tmp_path.rglob("*.tmp")) == []
    assert make_trainer(tmp_path).resumed_at == 6


def test_training_learns_and_reports(tmp_path: Path) -> None:
    reports: list[tuple[int, int, str]] = []
    trainer = make_trainer(tmp_path, lambda done, total, text: reports.append((done, total, text)))
    before = trainer.validate()
    trainer.train()
    after = trainer.validate()
    assert set(after) == {"smallest", "middle", "largest", "random"}
    assert after["largest"] >= 0.6
    assert sum(after.values()) > sum(before.values())
    assert [done for done, _, _ in reports] == sorted(done for done, _, _ in reports)
    assert "img/s" in reports[-1][2]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    written = {name for kind in ("scalars", "histograms", "tensors") for name in events.Tags()[kind]}
    assert written >= {
        *(f"{group}/{name}" for group in ("top1", "validation_loss") for name in after),
        *("training_top1/small", "training_top1/large", "train/phase", "phases/text_summary"),
        *("loss/small", "loss/large", "sampling/macs_m", "configuration/text_summary"),
        *(f"train/{name}" for name in ("gradient_norm", "images_per_second", "data_wait_share")),
        *(f"train/{name}" for name in ("peak_memory_mb", "learning_rate", "resolution", "skipped_steps")),
    }
    (shown,) = events.Tensors("configuration/text_summary")
    assert b'"made": "up"' in shown.tensor_proto.string_val[0]
    assert [(e.step, e.value) for e in events.Scalars("train/phase")] == [(0, 1), (8, 2), (12, 3), (16, 4)]
    assert min(e.value for e in events.Scalars("training_top1/large")) >= 0
    assert max(e.value for e in events.Scalars("training_top1/large")) >= 60
    losses = [event.value for event in events.Scalars("validation_loss/largest")]
    assert losses[-1] < losses[0]
    (sheet,) = events.Images("training_images")
    assert (sheet.step, sheet.height, sheet.width) == (0, 4 * 98 + 2, 8 * 98 + 2)
    assert all(0 < event.value < 1e5 for event in events.Scalars("train/peak_memory_mb"))


def test_the_teacher_is_the_largest_network_when_the_first_phase_ends(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    evaluator = SubnetEvaluator(trainer.supernet, make_data(), calibration_images=60)
    largest = trainer.supernet.extract(SPACE.largest).state_dict()
    teacher = Teacher(trainer.supernet, tmp_path / "teacher.pt", evaluator, write=True)
    assert_equal(load_tensors(tmp_path / "teacher.pt", "teacher")["state"], largest)

    trainer.train()
    images = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    later = Teacher(trainer.supernet, tmp_path / "teacher.pt", evaluator, write=True)
    assert torch.equal(later(images), teacher(images))
    assert not later(images).requires_grad


def test_the_teacher_has_statistics_of_each_resolution(tmp_path: Path) -> None:
    supernet = build_supernet(SPACE, 0)
    evaluator = SubnetEvaluator(supernet, make_data(), calibration_images=60)
    teacher = Teacher(supernet, tmp_path / "teacher.pt", evaluator, write=False)
    assert not (tmp_path / "teacher.pt").exists()
    for resolution in (8, 12, 8):
        images = torch.randn(4, 1, resolution, resolution, generator=torch.Generator().manual_seed(0))
        config = dataclasses.replace(SPACE.largest, resolution=resolution)
        assert torch.equal(teacher(images), evaluator.network(config)(images))


def test_a_batch_larger_than_the_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch_size is 500 but made up has 120 training images"):
        make_trainer(tmp_path, batch_size=500)


def test_the_first_phase_must_not_distil() -> None:
    with pytest.raises(UserError, match="first phase"):
        check_phases([dataclasses.replace(PHASES[0], teacher="frozen")])
    with pytest.raises(UserError, match="No phases"):
        check_phases([])
    with pytest.raises(UserError, match="trains the classifier alone, but nothing is trained below it"):
        check_phases([dataclasses.replace(PHASES[0], teacher=None, trains="classifier")])


def test_fp16_needs_cuda(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fp16 needs a CUDA device"):
        make_trainer(tmp_path, precision="fp16")


@pytest.mark.parametrize(
    ("instructions", "emulated"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, False),
        ({"avx512_bf16": False, "avx2": True}, True),
        ({}, False),
    ],
)
def test_emulated_bf16_is_recognised(
    instructions: dict[str, bool], emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)
    assert emulates("bf16", torch.device("cpu")) is emulated
    assert not emulates("fp32", torch.device("cpu"))


@pytest.mark.parametrize("model", ["", *MODELS])
def test_bf16_trains_on_the_cpu(model: str, tmp_path: Path) -> None:
    phases = (dataclasses.replace(MODEL_PHASES[0], lr=0.3),) if model else PHASES
    trainer = make_trainer(tmp_path, precision="bf16", model=model, phases=phases)
    trainer.train()
    # The mean of all images has an R² of 0; a guess is right for a third of them.
    assert trainer.validate()["largest"] >= (0.5 if model == "numbers" else 0.6)


@pytest.mark.parametrize("precision", [pytest.param(name, marks=CUDA) for name in PRECISIONS])
def test_training_on_cuda(tmp_path: Path, precision: str) -> None:
    trainer = make_trainer(tmp_path, device="cuda", precision=precision)
    trainer.train()
    assert trainer.validate()["largest"] >= 0.6


@pytest.mark.parametrize("precision", [pytest.param(name, marks=CUDA) for name in PRECISIONS])
@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_a_step_on_cuda_does_not_wait_for_the_device(precision: str, max_grad_norm: float | None) -> None:
    device = torch.device("cuda")
    supernet = build_supernet(SPACE, 0).to(device).to(memory_format=torch.channels_last).train()
    settings = TrainSettings(30, precision=precision, max_grad_norm=max_grad_norm, on_non_finite="skip")
    step, optimizer = (
        TrainStep(supernet, settings, device=device),
        build_optimizer(supernet, 0.1, 0.9, 1e-4),
    )
    batches, pending = make_data().train_batches(30, 0, 0, device), []
    for number in range(4):
        plan = plan_step(SPACE, STRATEGIES["sandwich"][0], 0, number)
        if number:
            # The first step warms up what is made once.
            torch.cuda.set_sync_debug_mode("error")
        try:
            pending.append(
                step(plan, next(batches), teacher=None, in_place=True, optimizer=optimizer, seed=number)
            )
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert all(math.isfinite(loss) for waiting in pending for loss in step.read(waiting).losses)


def test_steps_are_drawn_from_seed_and_number_alone() -> None:
    phase = Phase(1, 0.1, subnets_per_step=4)
    plans = [plan_step(SPACE, phase, 3, step) for step in range(50)]
    assert plans == [plan_step(SPACE, phase, 3, step) for step in range(50)]
    assert {plan.resolution for plan in plans} == {8, 12}
    for plan in plans:
        assert {config.resolution for config in plan.configs} == {plan.resolution}
    assert len({config for plan in plans for config in plan.configs}) > 100
    assert plan_step(SPACE, phase, 4, 0) != plans[0]


def test_a_sandwich_step_trains_both_ends_of_its_space() -> None:
    space = PHASES[2].space(SPACE)
    for step in range(20):
        plan = plan_step(space, Phase(1, 0.1, subnets_per_step=3, sandwich=True), 0, step)
        ends = [dataclasses.replace(c, resolution=plan.resolution) for c in (space.largest, space.smallest)]
        assert list(plan.configs[:2]) == ends
        assert plan.configs[2] == plan_step(space, Phase(1, 0.1, subnets_per_step=3), 0, step).configs[2]
    with pytest.raises(UserError, match="largest and the smallest"):
        Phase(1, 0.1, sandwich=True)


def test_phases_open_the_largest_choices() -> None:
    space = Phase(1, 0.1, kernel_sizes=1, depths=2, expand_ratios=1).space(SPACE)
    assert space.size == 2 * 2 * 2
    assert space.largest == SPACE.largest
    assert Phase(1, 0.1).space(SPACE).size == SPACE.size


def test_losses_equal_their_definitions() -> None:
    logits, teacher = torch.randn(5, 3).double(), torch.randn(5, 3).double()
    labels = torch.tensor([0, 2, 1, 1, 0])
    log_p = logits - logits.exp().sum(1, keepdim=True).log()
    q = teacher.exp() / teacher.exp().sum(1, keepdim=True)
    soft = -(q * log_p).sum(1).mean()
    torch.testing.assert_close(soft_cross_entropy(logits, teacher), soft)
    targets = torch.full((5, 3), 0.1 / 3).double()
    targets[torch.arange(5), labels] += 0.9
    hard = -(targets * log_p).sum(1).mean()
    torch.testing.assert_close(
        loss_terms(ClassificationTask(LossSettings(0.1, 1.0)), 1.0, logits, labels, None), {"hard": hard}
    )
    terms = loss_terms(ClassificationTask(LossSettings(0.1, 0.5)), 0.5, logits, labels, teacher)
    torch.testing.assert_close(terms, {"hard": hard, "soft": 0.5 * soft})
    torch.testing.assert_close(sum_terms(terms), hard + 0.5 * soft)


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    first, second, other = (build_supernet(SPACE, seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert_equal(dict(first.state_dict()), dict(second.state_dict()))
    assert not torch.equal(
        first.state_dict()["layers.0.layer.conv.weight"], other.state_dict()["layers.0.layer.conv.weight"]
    )
