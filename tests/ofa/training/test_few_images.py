"""Means against few images: mixed images, averaged weights, the best weights, weighted classes."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import torchrun
from torch import Tensor, nn
from toy_supernet import ToySupernet
from training_run import PHASES, SPACE, make_data, make_trainer
from weights import assert_equal

from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.common.metric import TOP1, Metric
from ofa.data.masks import MaskData
from ofa.data.memory import MemoryData
from ofa.data.settings import DataSettings
from ofa.evaluation.classes import balanced_weights
from ofa.evaluation.task import ClassificationTask
from ofa.runs.config import TrainConfig
from ofa.supernet.supernet import build_supernet
from ofa.training.averaging import WeightAverage
from ofa.training.early_stopping import EarlyStopping
from ofa.training.fitting import fit
from ofa.training.mixing import Mixing
from ofa.training.phases import Phase
from ofa.training.recipe import Recipe
from ofa.training.settings import FinetuneSettings, TrainSettings
from ofa.training.trainer import Trainer

SHORT = (
    Phase(lr=0.3, name="largest", steps=5, teacher=None, depths=1, kernel_sizes=1, expand_ratios=1),
    Phase(lr=0.1, name="all", steps=8, subnets_per_step=3, sandwich=True, teacher="in_place"),
)
ALL: dict[str, Any] = {
    "mixup": 0.4,
    "cutmix": 1.0,
    "ema_decay": 0.9,
    "early_stopping": 2,
    "validate_every_steps": 2,
}


def constant_images(num_images: int = 6, side: int = 8) -> Tensor:
    """Return images whose pixels are all the number of the image."""
    return torch.arange(float(num_images)).view(-1, 1, 1, 1).expand(num_images, 3, side, side).clone()


def test_mixed_images_have_the_targets_of_their_shares() -> None:
    images, labels = constant_images(), torch.tensor([0, 1, 2, 3, 0, 1])
    mixing, shares = Mixing(1.0, 0.0, 4, seed=3), []
    for step in range(200):
        mixed, targets = mixing(images, labels, step)
        assert targets.shape == (6, 4) and targets.dtype == torch.float32
        torch.testing.assert_close(targets.sum(1), torch.ones(6))
        share = float(targets[1, 1])  # image 1 has its own class and that of image 0
        shares.append(share)
        torch.testing.assert_close(mixed[1], torch.full((3, 8, 8), share))
        torch.testing.assert_close(mixed[3], torch.full((3, 8, 8), 3 * share + 2 * (1 - share)))
    # Beta(1, 1) is uniform.
    assert 0.4 < sum(shares) / 200 < 0.6 and min(shares) < 0.05 and max(shares) > 0.95


def test_pasted_rectangles_have_the_targets_of_their_areas() -> None:
    images, labels = constant_images(), torch.tensor([0, 1, 2, 3, 0, 1])
    areas = []
    for step in range(200):
        mixed, targets = Mixing(0.0, 1.0, 4, seed=3)(images, labels, step)
        is_own = mixed == images
        assert bool(((mixed == images.roll(1, 0)) | is_own).all())
        own_share = is_own[1].float().mean()
        torch.testing.assert_close(targets[1, 1], own_share)
        torch.testing.assert_close(targets[1, 0], 1 - own_share)
        rows, columns = (~is_own[1, 0]).any(1), (~is_own[1, 0]).any(0)
        assert int((~is_own[1, 0]).sum()) == int(rows.sum()) * int(columns.sum())
        areas.append(float(own_share))
    assert min(areas) < 0.2 and max(areas) == 1.0
    assert torch.equal(images, constant_images())


def test_what_is_drawn_depends_on_seed_and_step_alone() -> None:
    images, labels = torch.randn(6, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0, 1])
    both = Mixing(0.5, 0.5, 4, seed=1)
    state = torch.get_rng_state()
    kinds: Counter[bool] = Counter()
    for step in range(60):
        first, second = both(images, labels, step), Mixing(0.5, 0.5, 4, seed=1)(images, labels, step)
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
        kinds[bool((first[0] == images).any())] += 1
    assert 15 < kinds[True] < 45  # rectangles leave pixels as they are; blends do not
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(both(images, labels, 0)[0], both(images, labels, 1)[0])
    assert not torch.equal(both(images, labels, 0)[0], Mixing(0.5, 0.5, 4, seed=2)(images, labels, 0)[0])
    unmixed = Mixing(0.0, 0.0, 4, seed=1)(images, labels, 0)
    assert unmixed[0] is images and unmixed[1] is labels


def test_mixing_trains_and_leaves_the_metric_alone(tmp_path: Path) -> None:
    phases = (dataclasses.replace(SHORT[0], steps=40),)
    plain, mixed = (make_trainer(tmp_path / str(a), phases=phases, mixup=a, cutmix=a) for a in (0.0, 0.5))
    assert plain.validate() == mixed.validate()
    first, second = plain.train().state_dict(), mixed.train().state_dict()
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert mixed.validate()["largest"] >= 0.6


class Labels(ClassificationTask):
    """A task that knows labels only."""

    @property
    def takes_class_shares(self) -> bool:
        return False


def test_classes_of_another_task_cannot_be_mixed(tmp_path: Path) -> None:
    recipe = Recipe(PHASES[:1], TrainSettings(30, cutmix=1.0))
    with pytest.raises(UserError, match="mixup and cutmix mix the classes of images, which this task"):
        Trainer(ToySupernet(), make_data(), recipe, folder=tmp_path, task=Labels())
    # The task of the images is asked as well.
    images, masks = torch.zeros(40, 1, 12, 12, dtype=torch.uint8), torch.zeros(40, 12, 12, dtype=torch.uint8)
    images[0] = 9
    data = MaskData(DataSettings("made", validation_size=6), ("a", "b"), (images, masks), (images, masks))
    with pytest.raises(UserError, match="mixup and cutmix mix the classes of images, which this task"):
        Trainer(ToySupernet(), data, recipe, folder=tmp_path)


def test_a_set_balanced_by_its_loss_trains_and_fine_tunes_with_weighted_classes(tmp_path: Path) -> None:
    labels = torch.arange(90) % 6 // 3 + torch.arange(90) % 6 // 5
    images = torch.randint(0, 255, (90, 1, 12, 12), generator=torch.Generator().manual_seed(0)).byte()
    sets = {
        balance: MemoryData(
            DataSettings("made", validation_size=10, balance=balance),
            ("a", "b", "c"),
            (images, labels),
            (images, labels),
        )
        for balance in ("none", "loss")
    }
    weights = balanced_weights(sets["none"].class_counts("train"))
    tuning = FinetuneSettings(1, 0.1, 20, 0.9, 0.0, 0.1, 0.0, 0)
    recipe = Recipe(SHORT[:1], TrainSettings(20, calibration_images=20, validation_images=10))
    tuned, trained = {}, {}
    for name, balance, task in (
        ("default", "none", None),
        ("loss", "loss", None),
        ("given", "none", ClassificationTask(tuning.loss, class_weights=weights)),
    ):
        network = build_supernet(SPACE).extract(SPACE.smallest)
        fit(network, sets[balance], tuning, resolution=8, task=task)
        tuned[name] = network.state_dict()
        trainer = Trainer(
            build_supernet(SPACE),
            sets[balance],
            recipe,
            folder=tmp_path / name,
            device=torch.device("cpu"),
            task=task,
        )
        trained[name] = trainer.train().state_dict()
    for states in (tuned, trained):
        assert_equal(dict(states["loss"]), dict(states["given"]))
        assert any(not torch.equal(states["loss"][n], value) for n, value in states["default"].items())


def test_an_average_follows_its_definition() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average, decay = WeightAverage(network, 0.3), 0.3
    expected = {name: value.double().clone() for name, value in network.state_dict().items()}
    for update in range(12):
        with torch.no_grad():
            for value in network.state_dict().values():
                value.add_(torch.ones_like(value) * (update + 1))
        average.update()
        keep = min(decay, (1 + update) / (10 + update))
        for name, value in network.state_dict().items():
            new = value.double()
            expected[name] = new if "num_batches" in name else keep * expected[name] + (1 - keep) * new
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with average.swapped_in():
        for name, value in network.state_dict().items():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert_equal(dict(network.state_dict()), before)
    copy = WeightAverage(network, 0.3)
    copy.load(average.values())
    copy.take_over()
    torch.testing.assert_close(network.state_dict()["0.weight"].double(), expected["0.weight"])


def test_validation_and_the_end_of_a_phase_use_the_average(tmp_path: Path) -> None:
    """With a decay that forgets nothing after the first steps, the average stays behind the weights."""
    given: dict[str, Any] = {"phases": SHORT[:1], "validate_every_steps": 5, "dropout": 0.0}
    plain = make_trainer(tmp_path / "plain", **given)
    averaged = make_trainer(tmp_path / "averaged", **given, ema_decay=0.999)
    seen: dict[str, Tensor] = {}
    scores = averaged._validation.scores_and_losses

    def looked_at(step: int) -> tuple[dict[str, float], dict[str, float]]:
        seen.update({name: value.clone() for name, value in averaged.supernet.state_dict().items()})
        return scores(step)

    averaged._validation.scores_and_losses = looked_at  # type: ignore[method-assign]
    last, mean = dict(plain.train().state_dict()), dict(averaged.train().state_dict())
    assert_equal(seen, mean)
    name = "layers.9.linear.weight"
    # The average of the same five steps, computed again from their weights.
    follower = make_trainer(tmp_path / "follower", **given, checkpoint_every_steps=1, keep_checkpoints=9)
    expected = follower.supernet.state_dict()[name].clone()
    follower.train()
    for update in range(5):
        path = tmp_path / "follower" / "checkpoints" / f"step_{update + 1:08d}.pt"
        value = torch.load(path, weights_only=True)["supernet"][name]
        expected.lerp_(value, 1 - (1 + update) / (10 + update))
    torch.testing.assert_close(mean[name], expected, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(mean[name], last[name], rtol=1e-3)


def test_the_best_of_the_last_validations_is_restored() -> None:
    network, loss = nn.Linear(1, 1, bias=False), Metric("loss", "loss", False, False)
    for metric, values in ((TOP1, (0.5, 0.7, 0.6, 0.7)), (loss, (0.5, 0.3, 0.4, 0.3))):
        stopping = EarlyStopping(2, metric)
        for step, value in enumerate(values):
            assert not stopping.is_exhausted
            with torch.no_grad():
                network.weight.fill_(step)
            stopping.add(step, {**dict.fromkeys(("smallest", "middle"), value), "largest": value}, network)
        # An equal value is not better.
        assert stopping.is_exhausted and stopping.best_step == 1
        again = EarlyStopping(2, metric)
        again.load(stopping.values())
        line = again.restore(network, 3)
        assert float(network.weight.detach()) == 1.0
        assert line == (
            "stopped after step 3: 2 validations without a better one; the weights are those after step 1 "
            f"(mean {metric.title} {metric.show(values[1])})"
        )


def scripted(trainer: Trainer, values: list[float]) -> Trainer:
    """Let the validations of a trainer return the given values, by step."""
    names = ("smallest", "middle", "largest", "random")
    trainer._validation.scores_and_losses = lambda step: (  # type: ignore[method-assign]
        dict.fromkeys(names, values[step]),
        dict.fromkeys(names, 1.0),
    )
    return trainer


def test_training_ends_early_with_the_best_weights(tmp_path: Path) -> None:
    phases, lines = (SHORT[0], dataclasses.replace(SHORT[1], steps=30)), list[str]()
    # The first phase ends with step 5, and its validations do not count.
    values = [0.9] * 6 + [0.1, 0.2, 0.5, 0.4, 0.3, 0.2, 0.1] + [0.9] * 30
    trainer = make_trainer(
        tmp_path, phases=phases, early_stopping=3, validate_every_steps=1, note=lines.append,
        checkpoint_every_steps=1, keep_checkpoints=99,
    )  # fmt: skip
    weights = dict(scripted(trainer, values).train().state_dict())
    assert trainer.resumed_at == 11
    assert lines == [
        "stopped after step 11: 3 validations without a better one; the weights are those after step 8 "
        "(mean top-1 50.00 %)"
    ]
    best = torch.load(tmp_path / "checkpoints" / "step_00000008.pt", weights_only=True)["supernet"]
    assert_equal(weights, dict(best))
    again = make_trainer(tmp_path, phases=phases, early_stopping=3)
    assert_equal(dict(again.train().state_dict()), weights)
    assert again.resumed_at == 11


VALIDATED = [0.1] * 6 + [0.2, 0.3, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4]
"""Results of validations by step, of which that after step 8 is the best."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Weights of a training with all means that nothing stopped."""
    trainer = make_trainer(tmp_path_factory.mktemp("whole"), phases=SHORT, **ALL)
    return dict(scripted(trainer, VALIDATED).train().state_dict())


@pytest.mark.parametrize("step", [1, 4, 5, 6, 9, 10])
def test_stopped_anywhere_it_ends_with_the_same_weights(
    tmp_path: Path, whole: dict[str, Tensor], step: int
) -> None:
    given: dict[str, Any] = {"phases": SHORT, **ALL}

    def stop() -> None:
        raise KeyboardInterrupt

    stopped = scripted(make_trainer(tmp_path, **given, checkpoint_every_steps=1), VALIDATED)
    save = stopped._checkpoints.save
    stopped._checkpoints.save = lambda n, kept: (save(n, kept), stop() if n == step else None)  # type: ignore
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    again = scripted(make_trainer(tmp_path, **given), VALIDATED)
    assert again.resumed_at == step
    assert_equal(dict(again.train().state_dict()), whole)


TWO_PROCESSES = """
import os, sys, torch
from pathlib import Path
from test_few_images import ALL, SHORT
from training_run import make_trainer
from ofa.common.distributed import launched_world
from ofa.common.tensors import content_digest

torch.set_num_threads(1)
with launched_world(torch.device("cpu")) as world:
    trainer = make_trainer(Path(sys.argv[1]), world=world, phases=SHORT, checkpoint_every_steps=1, **ALL)
    if sys.argv[2] != "0" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        save = trainer._checkpoints.save
        def save_and_die(step, values):
            save(step, values)
            if step == int(sys.argv[2]):
                os._exit(3)
        trainer._checkpoints.save = save_and_die
    supernet = trainer.train()
    print(f"digest {content_digest(dict(supernet.state_dict()))}\\n", end="", flush=True)
"""


@pytest.mark.slow
def test_two_processes_end_equal_also_after_a_death(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n{TWO_PROCESSES}")
    whole = torchrun(str(script), str(tmp_path / "whole"), "0")
    assert whole.returncode == 0, whole.stderr
    again = torchrun("--max-restarts=1", str(script), str(tmp_path / "died"), "7")
    assert again.returncode == 0 and "exitcode: 3" in again.stderr, again.stderr
    digests = re.findall(r"digest (\w+)", whole.stdout + again.stdout)
    assert len(digests) == 4 and len(set(digests)) == 1


def test_what_decides_a_result_is_recorded() -> None:
    def record(**training: object) -> dict[str, Any]:
        values = {
            "run_name": "a",
            "space": dataclasses.asdict(SPACE),
            "data": {"name": "digits", "validation_size": 10},
            "phases": {"all": {"steps": 3, "lr": 0.1}},
            "training": {"batch_size": 30, **training},
        }
        recorded: dict[str, Any] = build(TrainConfig, values).record()["training"]
        return recorded

    for name, value in ({"length": 0.5} | ALL | {"validate_every_steps": None}).items():
        assert (record(**{name: value}) == record()) is (name == "validate_every_steps")
    # What is validated decides only where the validations end a training.
    assert record(validate_every_steps=5, validation_images=3) == record()
    assert record(validate_every_steps=5, early_stopping=3) != record(early_stopping=3)
    assert record(validation_images=5, early_stopping=3) != record(early_stopping=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixup": -0.1}, "mixup is -0.1; expected at least 0"),
        ({"cutmix": -1.0}, "cutmix is -1.0; expected at least 0"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0; expected a number between 0 and 1, or null"),
        ({"early_stopping": 0}, "early_stopping is 0; expected at least 1"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        TrainSettings(30, **settings)
