"""A task of the user's own: what its module, its class and its results have to be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_run import PHASES, SPACE, make_data

from ofa.common.errors import UserError
from ofa.common.metric import TOP1
from ofa.data.settings import DataSettings
from ofa.data.sources import load_data
from ofa.evaluation.evaluate import measure
from ofa.evaluation.own_task import own_task
from ofa.evaluation.settings import LossSettings
from ofa.evaluation.task import ClassificationTask, Task
from ofa.evaluation.tasks import output_kind, task_of
from ofa.supernet.supernet import build_supernet
from ofa.training.recipe import Recipe
from ofa.training.settings import TrainSettings
from ofa.training.trainer import Trainer

MODULE = """
import torch
from ofa.common.errors import UserError
from ofa.common.metric import Metric
from ofa.evaluation import ClassificationTask, SegmentationTask, Task
from ofa.evaluation.task import ClassMeter, Meter

class Focal(ClassificationTask):
    def loss(self, outputs, targets):
        return 2 * super().loss(outputs, targets)

class Masks(SegmentationTask):
    pass

class Unfinished(Task):
    pass

class Bare(Task):
    metrics = (Metric("hits", "hits"), Metric("misses", "misses", higher_is_better=False))
    def __init__(self, settings, *, class_weights=None): self.settings, self.weights = settings, class_weights
    def meter(self): return Hits()
    def loss(self, outputs, targets): return outputs.sum()
    def soft_loss(self, outputs, teacher_outputs, weight=1.0):
        return weight * (outputs - teacher_outputs).sum()

class Hits(Meter):
    def __init__(self): self.value = 0.5
    def add(self, outputs, targets): pass
    def values(self): return {"hits": self.value, "misses": 1 - self.value}

class Takes(Bare):
    def __init__(self): pass

class Fails(Bare):
    def __init__(self, settings, *, class_weights=None): raise KeyError("no such thing")

class Says(Bare):
    def __init__(self, settings, *, class_weights=None): raise UserError("install it first")

class NoMetrics(Bare):
    metrics = ()

class ListedMetrics(Bare):
    metrics = [Metric("hits", "hits")]

class Twice(Bare):
    metrics = (Metric("hits", "hits"), Metric("hits", "hits again"))

class Falling(Bare):
    metrics = (Metric("top1", "top-1 error", higher_is_better=False),)

class Percent(Bare):
    metrics = (Metric("mean_iou", "mean IoU", is_fraction=False),)

class Vector(Bare):
    def loss(self, outputs, targets): return outputs.sum(1)
    def soft_loss(self, outputs, teacher_outputs, weight=1.0): return 3.0

class Counted(Bare):
    def loss(self, outputs, targets): return outputs.argmax()
    def batch_score(self, outputs, targets): return outputs

class Detached(Bare):
    def loss(self, outputs, targets): return outputs.detach().sum()

class NotFinite(ClassificationTask):
    def loss(self, outputs, targets): return outputs.sum() / 0

class NoMeter(Bare):
    def meter(self): return 3

class Forgets(Bare):
    metrics = (Metric("hits", "hits"), Metric("others", "others"))

class Beyond(Bare):
    def meter(self):
        meter = Hits()
        meter.value = 3.0
        return meter

class Broken(Bare):
    def loss(self, outputs, targets): return outputs[:, targets.shape[1]].sum()
    def soft_loss(self, outputs, teacher_outputs, weight=1.0): raise UserError("no teacher, please")
    def batch_score(self, outputs, targets): raise RuntimeError("CUDA out of memory")
    def meter(self): return Falls()

class Falls(Hits):
    def add(self, outputs, targets): {}["key"]

def function(): pass
size = 7
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the module of this test in the present folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "tried_tasks.py").write_text(MODULE)
    (tmp_path / "broken_tasks.py").write_text("import no_such_package\n")
    yield
    for name in ("tried_tasks", "broken_tasks"):
        sys.modules.pop(name, None)


def made(name: str) -> Task:
    return own_task(f"tried_tasks:{name}", LossSettings(0.0, 1.0))


def test_the_task_of_the_settings_takes_the_place_of_that_of_the_images() -> None:
    data = load_data(DataSettings("digits", task="tried_tasks:Focal"))
    assert data.info.task == "tried_tasks:Focal"
    settings, logits, labels = LossSettings(0.1, 1.0), torch.randn(4, 10), torch.arange(4)
    task, plain = task_of(data, settings), ClassificationTask(settings)
    torch.testing.assert_close(task.loss(logits, labels), 2 * plain.loss(logits, labels))
    torch.testing.assert_close(task.soft_loss(logits, logits + 1), plain.soft_loss(logits, logits + 1))
    torch.testing.assert_close(task.batch_score(logits, labels), plain.batch_score(logits, labels))
    assert task.takes_class_shares and task.metric == TOP1
    batches = [(logits, labels)]
    assert measure(lambda images: images, batches, task) == measure(lambda images: images, batches, plain)
    confusion = task.detailed_meter().confusion(("a", "b"))
    assert confusion is not None and confusion.class_names == ("a", "b")


def test_the_class_gets_the_settings_and_the_weights_of_the_classes() -> None:
    data = load_data(DataSettings("digits", task="tried_tasks:Bare", balance="loss"))
    task = task_of(data, LossSettings(0.3, 1.0)).task  # type: ignore[attr-defined]
    assert task.settings.label_smoothing == 0.3 and len(task.weights) == 10


@pytest.mark.parametrize(
    ("name", "kind"),
    [("Focal", "classification"), ("Masks", "segmentation"), ("Bare", "tried_tasks:Bare")],
)
def test_outputs_are_those_of_the_class_that_it_derives_from(name: str, kind: str) -> None:
    assert output_kind(f"tried_tasks:{name}") == kind
    assert output_kind("segmentation") == "segmentation"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no_such_module:Task", "Unknown module 'no_such_module'"),
        ("tried_task:Focal", r"Unknown module 'tried_task'; similar: tried_tasks"),
        ("broken_tasks:Task", r"cannot be imported: ModuleNotFoundError.*broken_tasks.py:1"),
        (
            "tried_tasks.py:Focal",
            "is a file; a module is named from .* on: tried_tasks:Focal",
        ),
        ("tried_tasks:Fokal", r"Unknown name in module tried_tasks 'Fokal'; similar: Focal"),
        ("tried_tasks:function", "is a function; expected a class derived from ofa.evaluation.Task"),
        ("tried_tasks:size", "is of type int; expected a class derived from ofa.evaluation.Task"),
        ("tried_tasks:Hits", "is the class Hits; expected a class derived from ofa.evaluation.Task"),
        ("tried_tasks:Unfinished", "does not define loss, meter, metrics, soft_loss; see docs/tasks.md"),
        ("tried_tasks:Takes", r"failed when it was made with \(LossSettings, class_weights=…\): TypeError"),
        ("tried_tasks:Fails", "KeyError: 'no such thing'"),
        ("tried_tasks:Says", "^install it first$"),
        ("tried_tasks:NoMetrics", "it has no metrics; expected at least one"),
        ("tried_tasks:ListedMetrics", "expected a tuple of ofa.common.metric.Metric"),
        ("tried_tasks:Twice", "its metrics have a name twice: hits"),
        ("tried_tasks:Falling", "metric top1 has higher_is_better=False; the known one .* has True"),
        ("tried_tasks:Percent", "metric mean_iou has is_fraction=False; the known one .* has True"),
    ],
)
def test_what_is_no_task_is_an_error(name: str, text: str) -> None:
    with pytest.raises(UserError, match=text):
        own_task(name, LossSettings(0.0, 1.0))


@pytest.mark.parametrize("name", ["segmentation", "Focal", ":Focal", "tried_tasks:"])
def test_a_task_that_is_no_reference_is_an_error(name: str) -> None:
    with pytest.raises(UserError, match=f"task is '{name}'; expected a class of your own, package.module:"):
        DataSettings("digits", task=name)


def test_losses_are_scalars_with_a_gradient() -> None:
    outputs: Tensor = torch.randn(3, 4, requires_grad=True)
    targets = torch.arange(3)
    wrong = {
        "Vector": r"loss of the task tried_tasks:Vector is a tensor \(3,\); expected a scalar of floats",
        "Counted": r"loss of .* is a tensor \(\) of torch.int64; expected a scalar of floats",
        "Detached": "does not depend on the outputs by operations with a gradient",
    }
    for name, text in wrong.items():
        with pytest.raises(UserError, match=text):
            made(name).loss(outputs, targets)
    with pytest.raises(UserError, match="soft_loss of .* is a float; expected a scalar"):
        made("Vector").soft_loss(outputs, outputs)
    with pytest.raises(UserError, match=r"batch_score of .* is a tensor \(3, 4\)"):
        made("Counted").batch_score(outputs, targets)
    assert made("Bare").batch_score(outputs, targets) is None
    # Evaluation has no gradients.
    assert made("Detached").loss(outputs.detach(), targets).ndim == 0


def test_an_error_of_a_task_names_its_tensors_and_its_line() -> None:
    outputs, targets, task = torch.randn(3, 4), torch.arange(3), made("Broken")
    with pytest.raises(UserError, match=r"loss of .* failed for \(3, 4\), \(3,\): IndexError: .*tried"):
        task.loss(outputs, targets)
    with pytest.raises(UserError, match="^no teacher, please$"):
        task.soft_loss(outputs, outputs)
    with pytest.raises(UserError, match=r"meter of .* failed for \(3, 4\), \(3,\): KeyError: 'key'"):
        task.meter().add(outputs, targets)
    # Memory is no fault of the task.
    with pytest.raises(RuntimeError, match="out of memory"):
        task.batch_score(outputs, targets)


def test_a_loss_that_is_not_finite_ends_a_training(tmp_path: Path) -> None:
    task = made("NotFinite")
    recipe = Recipe(tuple(PHASES), TrainSettings(batch_size=16))
    with pytest.raises(UserError, match="has diverged at step 0: hard inf"):
        Trainer(build_supernet(SPACE), make_data(), recipe, folder=tmp_path, task=task).train()


def test_meters_have_a_value_of_every_metric() -> None:
    assert made("Bare").meter().values() == {"hits": 0.5, "misses": 0.5}
    with pytest.raises(UserError, match="The meter of the task tried_tasks:NoMeter is a int"):
        made("NoMeter").meter()
    with pytest.raises(UserError, match="has no value of others; it has hits, misses"):
        made("Forgets").meter().values()
    with pytest.raises(UserError, match=r"hits is 3.0; expected a fraction from 0 to 1. misses is -2.0"):
        made("Beyond").detailed_meter().values()
