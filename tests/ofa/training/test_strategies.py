"""Strategies and losses of training: what is drawn, who teaches, and the losses by their definitions."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import torchrun
from torch import Tensor
from training_run import SPACE, STRATEGIES, make_data, make_trainer

from ofa.common.errors import UserError
from ofa.evaluation.settings import LossSettings
from ofa.evaluation.soft_losses import (
    SOFT_LOSSES,
    adaptive_alpha_divergence,
    kl_divergence,
    soft_cross_entropy,
)
from ofa.evaluation.task import ClassificationTask
from ofa.space.stages import StageSpec
from ofa.supernet.supernet import build_supernet
from ofa.training.losses import loss_terms
from ofa.training.optimizer import build_optimizer
from ofa.training.phases import Phase
from ofa.training.sampling import plan_step
from ofa.training.settings import TrainSettings
from ofa.training.step import TrainStep


def random_logits(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    return logits, torch.randn(6, 4, generator=generator, dtype=torch.float64)


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits, retain_graph=True)[0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_learns(tmp_path: Path, strategy: str) -> None:
    trainer = make_trainer(tmp_path, phases=STRATEGIES[strategy])
    trainer.train()
    top1 = trainer.validate()
    assert top1["largest"] >= 0.6
    assert top1["smallest"] >= 0.5


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("family", ["micro_proxyless", "micro_resnet"])
def test_every_strategy_trains_every_family(
    tmp_path: Path, family: str, strategy: str, request: pytest.FixtureRequest
) -> None:
    space = dataclasses.replace(request.getfixturevalue(family), in_channels=1, num_classes=3)
    phases = [dataclasses.replace(phase, epochs=1, warmup_epochs=0) for phase in STRATEGIES[strategy]]
    trainer = make_trainer(tmp_path, phases=phases, space=space)
    before = {name: weight.clone() for name, weight in trainer.supernet.named_parameters()}
    trainer.train()
    still = {n for n, weight in trainer.supernet.named_parameters() if torch.equal(weight, before[n])}
    # A few steps need not draw every kernel size of every block.
    assert {name for name in still if ".matrices." not in name} == set()
    assert trainer.summary("all").steps == 4 * len(phases)


def test_kernel_and_width_follow_the_depth() -> None:
    compound = SPACE.restrict(compound=True)
    rng = np.random.default_rng(0)
    drawn = compound.sample(200, rng)
    for genome in np.concatenate([drawn, compound.mutate(drawn, 0.5, rng)]):
        for stage in SPACE.config(genome).stages:
            deep = len(stage) == 2
            assert {(b.kernel_size, b.expand_ratio) for b in stage} == {(5, 4.0) if deep else (3, 2.0)}


def test_a_compound_space_is_a_restriction_of_the_whole_one() -> None:
    compound = SPACE.restrict(compound=True)
    assert compound.fingerprint == SPACE.fingerprint and compound.unrestricted == SPACE
    assert compound.size == len(compound.all_genomes()) == 2 * 2 * 2
    assert np.array_equal(compound.canonical(compound.all_genomes()), compound.all_genomes())
    assert (compound.smallest, compound.largest) == (SPACE.smallest, SPACE.largest)
    assert compound.contains(compound.middle)
    outside = dataclasses.replace(SPACE.smallest, stages=SPACE.largest.stages[:1] + SPACE.smallest.stages[1:])
    assert compound.contains(outside)
    block = dataclasses.replace(outside.stages[0][1], kernel_size=3)
    outside = dataclasses.replace(outside, stages=((outside.stages[0][0], block), outside.stages[1]))
    assert SPACE.contains(outside)
    with pytest.raises(UserError, match="stages.0.blocks.1.kernel_size is 3; in this compound restriction"):
        compound.genome(outside)
    # A further restriction changes no network that is left; stages that have one depth stay free.
    deep = compound.restrict({"depth": (2,)})
    assert deep.size == 2 and set(map(deep.config, deep.all_genomes())) <= set(
        map(compound.config, compound.all_genomes())
    )
    assert compound.restrict({"kernel_size": (5,)}).smallest.stages[0][0].kernel_size == 5
    rigid = dataclasses.replace(
        SPACE, stages=(SPACE.stages[0], StageSpec(16, 2, (2,), (3, 5), (2.0, 4.0), "relu", False))
    )
    assert rigid.restrict(compound=True).size == 2 * 2 * (2 * 2) ** 2


def test_a_compound_phase_draws_compound_networks() -> None:
    phase = Phase(1, 0.1, subnets_per_step=4, compound=True)
    space = phase.space(SPACE)
    configs = {config for step in range(30) for config in plan_step(space, phase, 0, step).configs}
    assert len(configs) == space.size and all(map(space.contains, configs))


def test_in_place_the_largest_network_learns_from_labels_and_the_others_from_it() -> None:
    supernet = build_supernet(SPACE, 0)
    settings = TrainSettings(30, label_smoothing=0.0, dropout=0.0)
    step = TrainStep(supernet, settings, device=torch.device("cpu"))
    phase = STRATEGIES["sandwich"][0]
    plan = plan_step(SPACE, phase, 0, 0)
    images, labels = next(make_data().train_batches(30, 0, 0, torch.device("cpu")))
    supernet.train()
    resized = torch.nn.functional.interpolate(images, plan.resolution, mode="bilinear", antialias=True)
    images = resized if plan.resolution != images.shape[-1] else images
    largest, smallest, _ = (supernet(images, config).detach() for config in plan.configs)
    hard = [float(torch.nn.functional.cross_entropy(logits, labels)) for logits in (largest, smallest)]
    optimizer = build_optimizer(supernet, 0.1, 0.9, 0.0)
    report = step.read(step(plan, (images, labels), teacher=None, in_place=True, optimizer=optimizer, seed=0))
    assert report.losses[0] == pytest.approx(hard[0], rel=1e-5)
    assert report.losses[1] == pytest.approx(hard[1] + float(soft_cross_entropy(smallest, largest)), rel=1e-4)


def test_an_in_place_teacher_needs_a_sandwich() -> None:
    with pytest.raises(UserError, match="in_place distils from the largest network of each step"):
        Phase(1, 0.1, teacher="in_place")
    with pytest.raises(UserError, match="Unknown teacher 'best'; known: frozen, in_place"):
        Phase(1, 0.1, teacher="best")


def test_kl_divergence_is_cross_entropy_without_the_teachers_entropy() -> None:
    logits, teacher = random_logits()
    entropy = -(teacher.softmax(1) * teacher.log_softmax(1)).sum(1).mean()
    kl, soft = kl_divergence(logits, teacher), soft_cross_entropy(logits, teacher)
    torch.testing.assert_close(kl, soft - entropy)
    torch.testing.assert_close(gradient(kl, logits), gradient(soft, logits))
    torch.testing.assert_close(kl_divergence(teacher, teacher), torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize("alpha", [-1.0, 0.5, 1.0, 2.0])
def test_alpha_divergence_and_its_gradient_equal_the_definition(alpha: float) -> None:
    logits, teacher = random_logits()
    p, q = teacher.softmax(1), logits.softmax(1)
    if alpha == 1.0:
        defined = torch.sum(p * torch.log(p / q), 1).mean()
    else:
        defined = torch.sum(q * ((p / q) ** alpha - 1), 1).mean() / (alpha * (alpha - 1))
    found = adaptive_alpha_divergence(logits, teacher, (alpha, alpha), max_importance=1e9)
    torch.testing.assert_close(found, defined)
    torch.testing.assert_close(gradient(found, logits), gradient(defined, logits))


def test_the_larger_divergence_of_each_image_counts() -> None:
    logits, teacher = random_logits(1)
    both = adaptive_alpha_divergence(logits, teacher, max_importance=1e9)
    rows = [
        max(
            adaptive_alpha_divergence(logits[i : i + 1], teacher[i : i + 1], (a, a), 1e9).item()
            for a in (-1.0, 1.0)
        )
        for i in range(len(logits))
    ]
    assert both.item() == pytest.approx(np.mean(rows))


def test_importances_are_clipped() -> None:
    logits = torch.tensor([[9.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[0.0, 9.0, 0.0]], dtype=torch.float64)
    alphas = (-1.0, -1.0)
    plain = adaptive_alpha_divergence(logits, teacher, (1.0, 1.0), max_importance=1e9)
    assert torch.equal(adaptive_alpha_divergence(logits, teacher, (1.0, 1.0)), plain)
    wild = gradient(adaptive_alpha_divergence(logits, teacher, alphas, max_importance=1e9), logits)
    tame = gradient(adaptive_alpha_divergence(logits, teacher, alphas), logits)
    # By hand, q being (s, r, r) and the importances (e^9, e^-9, 1) or (5, e^-9, 1):
    # the gradient of sum q i log q, with q i held, by the first logit is q_0 i_0 - q_0 sum q i.
    s, r = (float(value) for value in logits.softmax(1)[0, :2].detach())
    for found, importance in ((wild, math.exp(9)), (tame, 5.0)):
        total = s * importance + r * math.exp(-9) + r
        assert found[0, 0].item() == pytest.approx(s * importance - s * total)


def test_a_temperature_softens_and_keeps_the_gradients_size() -> None:
    logits, teacher = random_logits()
    for name, function in SOFT_LOSSES.items():
        task = ClassificationTask(LossSettings(0.0, 0.5, name, temperature=4.0))
        terms = loss_terms(task, 0.5, logits, torch.zeros(6, dtype=torch.int64), teacher)
        torch.testing.assert_close(terms["soft"], 0.5 * 16 * function(logits / 4, teacher / 4))
    warm, cold = (gradient(t**2 * kl_divergence(logits / t, teacher / t), logits).norm() for t in (4.0, 1.0))
    assert 0.5 < float(warm / cold) < 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"soft_loss": "l2"}, "Unknown soft_loss 'l2'; known: adaptive_alpha_divergence, kl_div"),
        ({"temperature": 0.0}, "temperature is 0.0; expected a positive number"),
        ({"distillation_ratio": -1.0}, "distillation_ratio is -1.0; expected 0 or more"),
        ({"batch_norm": "group"}, "Unknown batch_norm 'group'; known: per_process, synchronised"),
        ({"on_non_finite": "hope"}, "Unknown on_non_finite 'hope'; known: skip, stop"),
        ({"keep_checkpoints": 0}, "keep_checkpoints is 0; expected at least 1"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0; expected a positive number, or null"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        TrainSettings(30, **settings)  # type: ignore[arg-type]


SYNCHRONISED = """
import sys
from pathlib import Path
import torch
from training_run import STRATEGIES, make_trainer
from ofa.common.distributed import launched_world
from ofa.supernet.supernet import build_supernet
from torch.nn.utils import parameters_to_vector
import dataclasses

torch.set_num_threads(1)
folder = Path(sys.argv[1])
with launched_world(torch.device("cpu")) as world:
    for name, phases in STRATEGIES.items():
        # Rates at which rounding does not grow: 20 steps of a large rate are chaotic.
        calm = [dataclasses.replace(phase, lr=0.1 * phase.lr) for phase in phases]
        settings = {"phases": calm, "batch_norm": "synchronised", "dropout": 0.0}
        shared = make_trainer(folder / name / "shared", world=world, **settings).train()
        if world.rank == 0:
            alone = make_trainer(folder / name / "alone", **settings).train()
            torch.save(alone.state_dict(), folder / name / "alone.pt")
        world.gather({f"{world.rank}": 0.0})  # one waits for the other
        start, alone = build_supernet(shared.space, 0), build_supernet(shared.space, 0)
        alone.load_state_dict(torch.load(folder / name / "alone.pt"))
        # Of all weights together: single tensors, such as shifts that a later batch norm removes, have no
        # gradient but rounding.
        ours, theirs, before = (parameters_to_vector(n.parameters()) for n in (shared, alone, start))
        moved = float((theirs - before).norm() / before.norm())
        worst = float((ours - theirs).norm() / theirs.norm())
        print(f"{name} worst {worst} moved {moved}\\n", end="", flush=True)
"""


@pytest.mark.slow
def test_two_processes_with_synchronised_batch_norm_train_as_one(tmp_path: Path) -> None:
    script = tmp_path / "synchronised.py"
    script.write_text(SYNCHRONISED)
    completed = torchrun(str(script), str(tmp_path))
    assert completed.returncode == 0, completed.stderr
    found = re.findall(r"(\w+) worst (\S+) moved (\S+)", completed.stdout)
    assert sorted(name for name, _, _ in found) == sorted([*STRATEGIES, *STRATEGIES])
    assert [row for row in found if not float(row[1]) <= 1e-5 or not float(row[2]) > 1e-3] == []
