"""Long runs are safe: killed, stopped, locked, diverging."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from train_supernet import train_supernet
from training_run import MODELS, PHASES, SPACE, STRATEGIES, arm, make_trainer
from weights import assert_equal, final_weights

from ofa.common.distributed import World
from ofa.common.errors import StoppedError, UserError
from ofa.common.tensors import load_tensors
from ofa.supernet.operators import ElasticBatchNorm2d
from ofa.supernet.supernet import Supernet
from ofa.training.checkpoints import TrainingCheckpoints
from ofa.training.gradient_step import MAX_SKIPPED
from ofa.training.summary import RunSummary

ROOT = Path(__file__).resolve().parents[3]
HELPERS = ROOT / "tests" / "helpers"


@pytest.mark.slow
def test_runs_interrupted_at_random_end_with_the_same_weights(tmp_path: Path) -> None:
    completed = subprocess.run(
        [sys.executable, str(HELPERS / "interrupted_runs.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": f".:{HELPERS}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    lines = completed.stdout.splitlines()
    num_interruptions = sum(" step " in line or " term " in line for line in lines)
    assert num_interruptions == 5 * (len(STRATEGIES) + len(MODELS)) == 45
    assert [line for line in lines if ": " in line] == [f"{name}: equal" for name in (*STRATEGIES, *MODELS)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSummary]:
    """The folder and the summary of a finished run that nothing disturbed; tests do not change it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    trainer = make_trainer(folder, keep_checkpoints=3)
    trainer.train()
    return folder, trainer.summary("mine")


@pytest.fixture
def undisturbed(finished: tuple[Path, RunSummary]) -> Path:
    """The folder of that run."""
    return finished[0]


SIGNALLED = """
import os, signal, sys
from pathlib import Path
from training_run import PHASES, SPACE
import dataclasses, torch
# A background process of a shell ignores SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
from ofa.data.settings import DataSettings
from ofa.data.folder import FolderData
from ofa.common.errors import StoppedError
from ofa.supernet.supernet import build_supernet
from ofa.training.recipe import Recipe
from ofa.training.trainer import Trainer
from ofa.training.settings import TrainSettings

settings = DataSettings("made", root=sys.argv[1], image_size=12, validation_size=6, workers=2)
space = dataclasses.replace(SPACE, in_channels=3, num_classes=2)
train = TrainSettings(8, calibration_images=6, validation_images=6)
device, folder = torch.device("cpu"), Path(sys.argv[2])
def progress(done, total, text):
    if done:
        os.killpg(os.getpgid(0), signal.Signals[sys.argv[3]])
supernet = build_supernet(space, 0, train.dropout)
trainer = Trainer(
    supernet,
    FolderData(settings),
    Recipe(tuple(PHASES), train),
    folder=folder,
    device=device,
    progress=progress,
)
try:
    trainer.train()
except StoppedError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_to_the_whole_group_saves_with_images_from_worker_processes(
    tmp_path: Path, name: str
) -> None:
    for split, number in (("train", 70), ("val", 4)):
        for label, grey in (("a", 40), ("b", 200)):
            (tmp_path / "images" / split / label).mkdir(parents=True)
            for i in range(number):
                Image.new("RGB", (16, 16), (grey, i, 0)).save(
                    tmp_path / "images" / split / label / f"{i}.png"
                )
    script = tmp_path / "signalled.py"
    script.write_text(SIGNALLED)
    completed = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "images"), str(tmp_path / "run"), name],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": f".:{HELPERS}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        check=False,
        start_new_session=True,
    )
    assert f"Stopped by {name} after step 11, which is saved" in completed.stdout, completed.stderr
    assert TrainingCheckpoints(tmp_path / "run" / "checkpoints").steps() == [11]


def test_sigterm_saves_the_step_and_says_how_to_go_on(tmp_path: Path) -> None:
    sent = False

    def progress(done: int, total: int, text: str) -> None:
        nonlocal sent
        # Not before the first step: the second phase reports when 8 steps are done.
        if done and not sent:
            os.kill(os.getpid(), signal.SIGTERM)
            sent = True

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError, match="Stopped by SIGTERM after step 9, which is saved"):
        make_trainer(tmp_path, progress).train()
    assert signal.getsignal(signal.SIGTERM) is before
    assert make_trainer(tmp_path).resumed_at == 9


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Calls of the supernet, of which those in the list return no numbers."""
    calls: list[int] = []
    count = 0
    forward = Supernet.forward

    def broken(self: Supernet, images: Tensor, config: object) -> Tensor:
        nonlocal count
        logits: Tensor = forward(self, images, config)  # type: ignore[arg-type]
        count += self.training
        return logits * math.nan if self.training and count in calls else logits

    monkeypatch.setattr(Supernet, "forward", broken)
    yield calls


def test_the_error_names_step_network_and_term_and_what_it_recommends_is_possible(
    tmp_path: Path, poisoned: list[int]
) -> None:
    poisoned.append(10)
    with pytest.raises(UserError, match=r"diverged at step 9: hard nan, soft nan of 12px: 3x4 ") as caught:
        make_trainer(tmp_path).train()
    assert "skip such steps with training.on_non_finite=skip" in str(caught.value)
    state = load_tensors(tmp_path / "checkpoints" / "step_00000009.pt", "checkpoint")["supernet"]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values())
    poisoned.clear()
    trainer = make_trainer(tmp_path, on_non_finite="skip")
    assert trainer.resumed_at == 9
    trainer.train()
    skipping, stopping = (train_supernet.config(f"training.on_non_finite={c}") for c in ("skip", "stop"))
    assert skipping.record() == stopping.record()


class AsOnCuda:
    """The event of a copy that is there at once."""

    def synchronize(self) -> None:
        pass


@pytest.fixture
def read_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are read when the next one is under way, as on CUDA devices."""
    monkeypatch.setattr(
        "ofa.training.gradient_step._copy_to_host_async", lambda numbers: (numbers, AsOnCuda())
    )


def test_steps_that_are_not_finite_can_be_skipped_also_where_they_are_read_late(
    tmp_path: Path, poisoned: list[int], request: pytest.FixtureRequest
) -> None:
    poisoned += [3, 10]
    trainer = make_trainer(tmp_path / "at_once", on_non_finite="skip")
    at_once = trainer.train().state_dict()
    assert trainer.resumed_at == 24
    assert all(bool(torch.isfinite(tensor).all()) for tensor in at_once.values())
    assert trainer.validate()["largest"] >= 0.6
    request.getfixturevalue("read_late")
    calls = sum(4 * (phase.epochs or 0) * phase.subnets_per_step for phase in PHASES)
    poisoned[:] = [calls + 3, calls + 10]
    late = make_trainer(tmp_path / "late", on_non_finite="skip").train().state_dict()
    assert all(torch.equal(tensor, at_once[name]) for name, tensor in late.items())


@pytest.mark.usefixtures("read_late")
def test_an_error_read_late_names_its_step_and_saves_nothing(tmp_path: Path, poisoned: list[int]) -> None:
    poisoned.append(10)
    with pytest.raises(UserError, match="diverged at step 9: hard nan"):
        make_trainer(tmp_path, checkpoint_every_steps=1000).train()
    # That of the end of the first phase.
    assert TrainingCheckpoints(tmp_path / "checkpoints").steps() == [8]


@pytest.mark.usefixtures("read_late")
def test_sigterm_read_late_is_obeyed_a_step_later(tmp_path: Path, undisturbed: Path) -> None:
    trainer = make_trainer(tmp_path, checkpoint_every_steps=1000)
    arm(trainer, term=9)
    with pytest.raises(StoppedError, match="after step 11"):
        trainer.train()
    # The undisturbed run read its steps at once.
    assert_equal(dict(make_trainer(tmp_path).train().state_dict()), final_weights(undisturbed))


@pytest.fixture
def overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is due by time after every step."""
    monkeypatch.setattr("ofa.training.loop.CHECKPOINT_EVERY_S", 0.0)


@pytest.mark.usefixtures("overdue", "read_late")
def test_checkpoints_by_time_hold_the_step_and_change_nothing(tmp_path: Path, undisturbed: Path) -> None:
    trainer = make_trainer(tmp_path, checkpoint_every_steps=1000, keep_checkpoints=30)
    timed = trainer.train().state_dict()
    assert TrainingCheckpoints(tmp_path / "checkpoints").steps() == list(range(1, 25))
    assert_equal(dict(timed), final_weights(undisturbed))


@pytest.mark.usefixtures("overdue", "read_late")
def test_a_signal_read_ahead_for_a_checkpoint_is_obeyed_when_other_processes_obey_it(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, checkpoint_every_steps=1000)
    arm(trainer, term=9)
    # As without a checkpoint by time; see test_sigterm_read_late_is_obeyed_a_step_later.
    with pytest.raises(StoppedError, match="after step 11"):
        trainer.train()


def test_an_error_between_steps_is_saved_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(tmp_path, checkpoint_every_steps=1000, validate_every_steps=5)

    def fail(step: int) -> tuple[dict[str, float], dict[str, float]]:
        raise RuntimeError(f"no memory at {step}")

    monkeypatch.setattr(trainer._validation, "scores_and_losses", fail)
    with pytest.raises(RuntimeError, match="no memory at 5"):
        trainer.train()
    assert make_trainer(tmp_path, validate_every_steps=5).resumed_at == 5


def test_gradients_that_overflow_in_fp16_are_skipped_but_not_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflowing = 0

    def average(world: World, tensors: Sequence[Tensor]) -> None:
        nonlocal overflowing
        overflowing -= 1
        if overflowing >= 0:
            tensors[0].fill_(math.inf)

    monkeypatch.setattr(World, "all_reduce_mean_", average)
    for count, folder in ((3, tmp_path / "some"), (1000, tmp_path / "all")):
        overflowing, trainer = count, make_trainer(folder)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
        trainer._train_step.scaler = scaler
        if count == 3:
            assert all(bool(torch.isfinite(p).all()) for p in trainer.train().parameters())
            assert scaler.get_scale() == 2.0**13
        else:
            with pytest.raises(UserError, match=rf"diverged at step {MAX_SKIPPED}: a gradient norm of"):
                trainer.train()


def test_a_lost_teacher_is_not_replaced(tmp_path: Path) -> None:
    def stop(done: int, total: int, text: str) -> None:
        if text.startswith("width"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, stop).train()
    (tmp_path / "teacher.pt").unlink()
    with pytest.raises(UserError, match=r"teacher of this run, .*teacher\.pt, is lost"):
        make_trainer(tmp_path).train()


def test_processes_that_would_go_on_from_different_steps_are_refused(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(World, "gather", lambda self, values: {**values, "1": 12.0})
    with pytest.raises(UserError, match="different steps: 24 of process 0, 12 of process 1"):
        make_trainer(undisturbed, world=World(0, 2), keep_checkpoints=3)


def test_the_gradient_norm_is_bounded(tmp_path: Path) -> None:
    phases = (dataclasses.replace(PHASES[0], epochs=1, lr=1.0, warmup_epochs=0, final_lr=1.0),)
    before = make_trainer(tmp_path / "0", phases=phases, momentum=0.0, weight_decay=0.0).supernet.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    moved = []
    for bound in (None, 1e-3):
        folder = tmp_path / str(bound)
        trainer = make_trainer(folder, phases=phases, momentum=0.0, weight_decay=0.0, max_grad_norm=bound)
        arm_steps = trainer.train().named_parameters()
        moved.append(sum(float((p.detach() - before[name]).square().sum()) for name, p in arm_steps) ** 0.5)
    # Four steps of learning rate 30 / 64.
    assert moved[1] <= 4 * 30 / 64 * 1e-3 * 1.01 < moved[0]


def test_skipping_ends_when_nothing_else_is_left(tmp_path: Path, poisoned: list[int]) -> None:
    poisoned += range(3, 100)
    with pytest.raises(UserError, match=f"diverged at step {2 + MAX_SKIPPED}"):
        make_trainer(tmp_path, on_non_finite="skip").train()


def test_a_diverging_run_leaves_no_broken_weights(tmp_path: Path) -> None:
    phases = (dataclasses.replace(PHASES[0], lr=1e12, warmup_epochs=0),)
    with pytest.raises(UserError, match="diverged"):
        make_trainer(tmp_path, phases=phases, checkpoint_every_steps=1).train()
    for file in (tmp_path / "checkpoints").glob("*.pt"):
        state = load_tensors(file, "checkpoint")["supernet"]
        parameters = [tensor for name, tensor in state.items() if "running" not in name]
        assert all(bool(torch.isfinite(tensor).all()) for tensor in parameters)


def test_running_statistics_that_are_not_finite_are_forgotten() -> None:
    norm = ElasticBatchNorm2d(3, 1e-5)
    norm.running_mean.copy_(torch.tensor([1.0, math.nan, math.inf]))
    norm.running_var.copy_(torch.tensor([2.0, math.nan, math.inf]))
    norm.forget_non_finite()
    assert norm.running_mean.tolist() == [1.0, 0.0, 0.0]
    assert norm.running_var.tolist() == [2.0, 1.0, 1.0]


def test_the_newest_checkpoints_are_kept(undisturbed: Path) -> None:
    assert TrainingCheckpoints(undisturbed / "checkpoints").steps() == [18, 21, 24]


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path: Path, undisturbed: Path) -> None:
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    newest = tmp_path / "checkpoints" / "step_00000024.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    trainer = make_trainer(tmp_path)
    assert trainer.damaged_checkpoints == [str(newest)]
    assert trainer.resumed_at == 21


def summary(run_name: str, top1: float) -> RunSummary:
    return RunSummary(
        run_name, "tiny", "digits", 24, 30, 1, "cpu", {"a": 2.0}, 0.25, "top1", {"largest": top1}, 100.0
    )


def test_the_table_of_runs_has_one_line_per_run(tmp_path: Path) -> None:
    for name, top1 in (("first", 0.5), ("second", 0.6), ("first", 0.7)):
        (tmp_path / name).mkdir(exist_ok=True)
        summary(name, top1).write(tmp_path / name, tmp_path / "runs.csv")
    lines = (tmp_path / "runs.csv").read_text().splitlines()
    assert len(lines) == 3
    assert ["0.6000" in lines[1], "0.7000" in lines[2]] == [True, True]
    found = json.loads((tmp_path / "first" / "summary.json").read_text())
    assert found["top1"] == {"largest": 0.7}
    assert found["seconds_per_phase"] == {"a": 2.0}


def test_another_table_is_not_overwritten(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("name,price\nx,1\n")
    with pytest.raises(UserError, match="is not a table of runs"):
        summary("first", 0.5).write(tmp_path, table)
    assert table.read_text() == "name,price\nx,1\n"


def test_a_run_sums_up_its_phases(finished: tuple[Path, RunSummary]) -> None:
    folder, found = finished
    assert found.steps == 24
    assert list(found.seconds_per_phase) == [phase.name for phase in PHASES]
    assert min(found.seconds_per_phase.values()) > 0
    assert set(found.scores) == {"smallest", "middle", "largest", "random"}
    assert found.space == SPACE.name
    assert (
        make_trainer(folder, keep_checkpoints=3).summary("mine").seconds_per_phase == found.seconds_per_phase
    )
