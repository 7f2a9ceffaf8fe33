"""`fit`: one loop for any network; equal to a plain loop, resumed bit for bit, by any number of processes."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from processes import torchrun
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from training_run import SPACE, make_data
from weights import assert_equal

from ofa.common.errors import StoppedError, UserError
from ofa.data.base import resize
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.evaluation.soft_losses import kl_divergence, soft_cross_entropy
from ofa.modules.static import StaticNetwork
from ofa.supernet.supernet import build_supernet
from ofa.training.checkpoints import TrainingCheckpoints
from ofa.training.fitting import fit
from ofa.training.optimizer import build_optimizer, learning_rate
from ofa.training.settings import FinetuneSettings

CPU = torch.device("cpu")
CUDA = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
SETTINGS = FinetuneSettings(4, 0.1, 30, 0.9, 1e-4, 0.1, 0.0, 0)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Where tests run in the background of a shell, they ignore SIGINT."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def subnet(seed: int = 0, dropout: float = 0.0) -> StaticNetwork:
    return build_supernet(SPACE, seed).extract(SPACE.smallest, dropout)


def state(network: nn.Module) -> dict[str, Tensor]:
    return dict(network.state_dict())


def plain_loop(network: nn.Module, settings: FinetuneSettings, teacher: nn.Module | None) -> None:
    """What fine-tuning is, written down once more without anything that makes it safe."""
    network.to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(network, 0.0, settings.momentum, settings.weight_decay)
    total = settings.steps or 4 * (settings.epochs or 0)
    data, step = make_data(), 0
    for epoch in range(math.ceil(total / 4)):
        batches = data.train_batches(settings.batch_size, settings.seed, epoch, CPU)
        for images, labels in islice(batches, total - 4 * epoch):
            images = resize(images, 8)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, total, 0, settings.lr * settings.batch_size / 64)
            optimizer.zero_grad()
            precision = torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16")
            with torch.no_grad(), precision:
                soft = None if teacher is None else teacher(images).float()
            with precision:
                logits = network(images)
            logits = logits.float()
            loss = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
            if soft is not None:
                t = settings.temperature
                loss = loss + settings.distillation_ratio * t**2 * soft_cross_entropy(logits / t, soft / t)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1


@pytest.mark.parametrize(
    ("precision", "ratio", "temperature"),
    [("fp32", 0.0, 1.0), ("fp32", 0.7, 1.0), ("fp32", 0.7, 3.0), ("bf16", 0.7, 1.0)],
)
def test_the_numbers_are_those_of_a_plain_loop(precision: str, ratio: float, temperature: float) -> None:
    changes = {"precision": precision, "distillation_ratio": ratio, "temperature": temperature}
    settings = dataclasses.replace(SETTINGS, epochs=3, **changes)  # type: ignore[arg-type]
    teacher = build_supernet(SPACE, 7).extract(SPACE.largest).eval() if ratio else None
    ours, theirs = subnet(), subnet()
    fit(ours, make_data(), settings, resolution=8, teacher=teacher)
    plain_loop(theirs, settings, teacher)
    assert_equal(state(ours), state(theirs))


def test_a_length_in_steps_may_end_within_an_epoch() -> None:
    settings = dataclasses.replace(SETTINGS, epochs=None, steps=6)
    ours, theirs = subnet(), subnet()
    fit(ours, make_data(), settings, resolution=8)
    plain_loop(theirs, settings, None)
    assert_equal(state(ours), state(theirs))


@pytest.mark.parametrize(
    ("epochs", "steps", "message"),
    [
        (None, None, "neither epochs nor steps"),
        (1, 1, "epochs and steps"),
        (None, -1, "must not be negative"),
    ],
)
def test_the_length_is_one_of_two(epochs: int | None, steps: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SETTINGS, epochs=epochs, steps=steps)


def test_a_training_of_no_epochs_is_refused() -> None:
    with pytest.raises(UserError, match="epochs is 0; expected at least 1"):
        fit(subnet(), make_data(), dataclasses.replace(SETTINGS, epochs=0), resolution=8)


def stop_at(step: int, number: int = signal.SIGTERM) -> Any:
    """Return a progress that sends this process a signal when `step` steps are done."""

    def progress(done: int, total: int, text: str) -> None:
        if done == step:
            os.kill(os.getpid(), number)

    return progress


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_training_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path, number: signal.Signals) -> None:
    whole, stopped, again = (subnet(dropout=0.3) for _ in range(3))
    fit(whole, make_data(), SETTINGS, resolution=8, folder=tmp_path / "whole")
    handlers = [signal.getsignal(known) for known in (signal.SIGTERM, signal.SIGINT)]
    part = tmp_path / "part"
    with pytest.raises(StoppedError, match=f"Stopped by {number.name} after step 11, which is saved") as stop:
        fit(stopped, make_data(), SETTINGS, resolution=8, folder=part, progress=stop_at(10, number))
    assert stop.value.signal_number == number
    assert [signal.getsignal(known) for known in (signal.SIGTERM, signal.SIGINT)] == handlers
    done: list[int] = []
    fit(
        again,
        make_data(),
        SETTINGS,
        resolution=8,
        folder=part,
        progress=lambda count, total, text: done.append(count),
    )
    assert done == [16]
    assert_equal(state(again), state(whole))
    # What is finished is not trained again, but has its weights.
    once_more = subnet(dropout=0.3)
    fit(once_more, make_data(), SETTINGS, resolution=8, folder=part)
    assert_equal(state(once_more), state(whole))


def test_a_second_signal_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(done: int, total: int, text: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    # Two that come together are one request, sent on by a launcher.
    with pytest.raises(StoppedError):
        fit(subnet(), make_data(), SETTINGS, resolution=8, folder=tmp_path / "one", progress=twice)
    monkeypatch.setattr("ofa.training.stop.SAME_REQUEST_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(subnet(), make_data(), SETTINGS, resolution=8, folder=tmp_path / "two", progress=twice)
    assert TrainingCheckpoints(tmp_path / "two" / "checkpoints").steps() == []


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    done: list[int] = []

    def progress(count: int, total: int, text: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        done.append(count)

    fit(subnet(), make_data(), SETTINGS, resolution=8, progress=progress)
    assert done == [10, 16] and signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_stop_without_a_folder_promises_nothing() -> None:
    with pytest.raises(StoppedError, match=r"^Stopped by SIGTERM after step 11\.$"):
        fit(subnet(), make_data(), SETTINGS, resolution=8, progress=stop_at(10))


@pytest.mark.parametrize("other", ["lr", "network", "resolution"])
def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path, other: str) -> None:
    fit(subnet(), make_data(), dataclasses.replace(SETTINGS, epochs=1), resolution=8, folder=tmp_path)
    settings = dataclasses.replace(SETTINGS, epochs=1, lr=0.2 if other == "lr" else 0.1)
    network, resolution = subnet(int(other == "network")), 12 if other == "resolution" else 8
    with pytest.raises(UserError, match=rf"step_00000004.* belongs to another training: \S*{other} was"):
        fit(network, make_data(), settings, resolution=resolution, folder=tmp_path)


def test_a_checkpoint_from_before_a_setting_existed_is_continued(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, epochs=1)
    fit(subnet(), make_data(), settings, resolution=8, folder=tmp_path)
    checkpoints = TrainingCheckpoints(tmp_path / "checkpoints")
    values, _ = checkpoints.load_latest(lambda values, what: None)
    assert values is not None
    for name in ("compile", "temperature"):
        del values["identity"]["settings"][name]
    checkpoints.save(values["step"], values)
    fit(subnet(), make_data(), settings, resolution=8, folder=tmp_path)
    warmer = dataclasses.replace(settings, temperature=2.0)
    with pytest.raises(UserError, match=r"settings\.temperature was 1\.0 and is 2\.0"):
        fit(subnet(), make_data(), warmer, resolution=8, folder=tmp_path)


def test_checkpoints_and_events_are_written(tmp_path: Path) -> None:
    reports: list[str] = []
    fit(
        subnet(),
        make_data(),
        SETTINGS,
        resolution=8,
        folder=tmp_path,
        progress=lambda done, total, text: reports.append(f"{done}/{total} {text}"),
        checkpoint_every_steps=5,
    )
    assert TrainingCheckpoints(tmp_path / "checkpoints").steps() == [15, 16]
    assert [report.split(" loss")[0] for report in reports] == ["10/16 epoch 3/4", "16/16 epoch 4/4"]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss/training")] == [10, 16]
    assert {"train/learning_rate", "train/images_per_second"} <= set(events.Tags()["scalars"])


def test_a_torchvision_model_is_trained() -> None:
    torch.manual_seed(0)
    model = torchvision.models.squeezenet1_1(num_classes=3)
    model.features[0] = nn.Conv2d(1, 64, 3, 2)
    images, labels = next(make_data().batches("train", 120, CPU))
    images = resize(images, 32)
    losses = []
    for epochs in (0, 6):
        if epochs:
            fit(model, make_data(), dataclasses.replace(SETTINGS, epochs=epochs, lr=0.03), resolution=32)
        with torch.no_grad():
            losses.append(float(F.cross_entropy(model.eval()(images), labels)))
    assert losses[1] < 0.8 * losses[0]


TWO = """
import hashlib, sys
import torch
from pathlib import Path
from torch import nn
from training_run import make_data
from ofa.common.distributed import launched_world
from ofa.training.fitting import fit
from ofa.training.settings import FinetuneSettings

def trained(**given):
    torch.manual_seed(0)
    # Without batch norm two processes have the gradients of one.
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
                            nn.Linear(128, 3))
    settings = FinetuneSettings(2, 0.05, 30, 0.9, 1e-4, 0.1, 0.0, 0)
    fit(network, make_data(), settings, resolution=8, **given)
    return torch.cat([weight.detach().reshape(-1) for weight in network.parameters()])

with launched_world(torch.device("cpu")) as world:
    shared, alone = trained(world=world, folder=Path(sys.argv[1])), trained()
    digest = hashlib.sha256(shared.numpy().tobytes()).hexdigest()
    worst = float((shared - alone).norm() / alone.norm())
    print(f"worst {worst} digest {digest}\\n", end="", flush=True)
"""


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO)
    completed = torchrun(str(script), str(tmp_path / "run"))
    assert completed.returncode == 0, completed.stderr
    found = re.findall(r"worst (\S+) digest (\S+)", completed.stdout)
    assert len(found) == 2 and len({digest for _, digest in found}) == 1
    assert max(float(worst) for worst, _ in found) <= 1e-5
    assert TrainingCheckpoints(tmp_path / "run" / "checkpoints").steps() == [8]


def test_fp16_needs_cuda() -> None:
    with pytest.raises(UserError, match="fp16 needs a CUDA device"):
        fit(subnet(), make_data(), dataclasses.replace(SETTINGS, precision="fp16"), resolution=8)
    with pytest.raises(UserError, match="Unknown precision 'fp8'; known: bf16, fp16, fp32"):
        dataclasses.replace(SETTINGS, precision="fp8")


@pytest.mark.parametrize(
    ("place", "precision", "compiled"),
    [
        ("cpu", "fp32", False),
        ("cpu", "bf16", False),
        ("cpu", "fp32", True),
        pytest.param("cuda", "bf16", False, marks=CUDA),
        pytest.param("cuda", "fp16", False, marks=CUDA),
    ],
)
def test_finetuning_improves_a_network(place: str, precision: str, compiled: bool) -> None:
    data, device = make_data(), torch.device(place)
    network = subnet().to(device)
    settings = FinetuneSettings(4, 0.1, 30, 0.9, 1e-4, 0.1, 0.0, 0, compile=compiled, precision=precision)
    images, labels = next(iter(data.batches("validation", 30, device)))
    reports: list[int] = []
    fit(network, data, settings, resolution=8, progress=lambda done, total, text: reports.append(done))
    assert not network.training
    assert reports[-1] == 4 * (120 // 30)
    small = torch.nn.functional.interpolate(images, (8, 8), mode="bilinear", antialias=True)
    recalibrate_batchnorm(network, [small])
    assert float((network(small).argmax(1) == labels).float().mean()) > 0.6


@pytest.mark.parametrize("in_channels", [1, 3])
def test_momentum_has_the_memory_format_of_what_is_fine_tuned(
    in_channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.optim.Optimizer] = []

    def spy(*given: Any) -> torch.optim.Optimizer:
        made.append(build_optimizer(*given))
        return made[-1]

    monkeypatch.setattr("ofa.training.fitting.build_optimizer", spy)
    space, data = dataclasses.replace(SPACE, in_channels=in_channels), make_data()
    network = build_supernet(space, 0).extract(space.smallest)
    images = make_data().train_batches

    def coloured(*given: Any) -> Iterator[tuple[Tensor, Tensor]]:
        return ((grey.expand(-1, in_channels, -1, -1), labels) for grey, labels in images(*given))

    monkeypatch.setattr(data, "train_batches", coloured)
    fit(network, data, FinetuneSettings(1, 0.1, 30, 0.9, 0.0, 0.0, 0.0, 0), resolution=8)
    # At the end of fine-tuning the parameters, but not the buffers, take the default format.
    network.to(memory_format=torch.channels_last)
    for parameter, state in made[0].state.items():
        assert state["momentum_buffer"].stride() == parameter.stride()


def test_divergence_ends_the_training_and_names_the_step() -> None:
    settings = FinetuneSettings(4, 1e12, 30, 0.9, 0.0, 0.0, 0.0, 0)
    with pytest.raises(
        UserError, match=r"diverged at step \d: (hard|a gradient norm of) (nan|inf).*Lower lr"
    ):
        fit(subnet(), make_data(), settings, resolution=8)


def test_finetuning_follows_its_teacher_and_needs_it() -> None:
    data, config = make_data(), SPACE.middle
    images = next(data.batches("validation", 30, torch.device("cpu")))[0]
    images = torch.nn.functional.interpolate(images, config.resolution)
    teacher = build_supernet(SPACE, 7).extract(SPACE.largest).eval()
    with torch.no_grad():
        [*teacher.parameters()][-1].copy_(torch.tensor([3.0, 0.0, 0.0]))  # it always says "dark"
    distances = {}
    for ratio in (0.0, 50.0):
        network = build_supernet(SPACE, 3).extract(config)
        settings = FinetuneSettings(4, 0.01, 30, 0.9, 0.0, 0.0, ratio, 0, "kl_divergence")
        given = teacher if ratio else None
        fit(network, data, settings, resolution=config.resolution, teacher=given)
        assert all(parameter.is_contiguous() for parameter in network.parameters())
        with torch.no_grad():
            distances[ratio] = float(kl_divergence(network(images), teacher(images)))
        with pytest.raises(ValueError, match="if and only if"):
            given = None if ratio else teacher
            fit(network, data, settings, resolution=config.resolution, teacher=given)
    assert distances[50.0] < 0.5 * distances[0.0]
