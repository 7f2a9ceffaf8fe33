"""`own_task`: a task that a class of the user's own defines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from typing_extensions import override

from ofa.common.display import short_text
from ofa.common.errors import UserError
from ofa.common.exhausted import exhaustion_text
from ofa.common.metric import Metric, known_metrics
from ofa.common.own_code import failure_text, own_value, present_folder_first
from ofa.data.target_scale import TargetScale
from ofa.evaluation.confusion import Confusion
from ofa.evaluation.outputs import parts_of, requires_grad
from ofa.evaluation.settings import LossSettings
from ofa.evaluation.task import Meter, Task

_EXPECTED = "a class derived from ofa.evaluation.Task"


def own_task_class(name: str) -> type[Task]:
    """Return the class that the user calls "package.module:Task"; the module's code runs.

    Raises:
        UserError: for an unknown module or name, a module that fails, and what is no class of tasks.
    """
    with present_folder_first():
        value = own_value(name, _EXPECTED)
    if not (isinstance(value, type) and issubclass(value, Task)):
        raise UserError(f"The task {name} is {_kind(value)}; expected {_EXPECTED}.")
    missing = sorted(getattr(value, "__abstractmethods__", ()))
    if missing:
        raise UserError(f"The task {name} does not define {', '.join(missing)}; see docs/tasks.md.")
    return value


def own_task(name: str, settings: LossSettings, *, class_weights: Sequence[float] | None = None) -> Task:
    """Return a task of the user's own, whose losses and metrics are checked as they are computed.

    Args:
        name: "package.module:Task".
        settings: settings of the losses.
        class_weights: factor of the loss for each class; None for 1.

    Raises:
        UserError: see `own_task_class`; for a class that fails when it is called with these arguments, and
            for metrics that are none, twice there, or known ones of another meaning.
    """
    kind = own_task_class(name)
    try:
        task = kind(settings, class_weights=class_weights)  # type: ignore[call-arg]
        metrics = task.metrics
    except UserError:
        raise
    except Exception as error:  # Whatever the user's class raises.
        raise UserError(
            f"The task {name} failed when it was made with (LossSettings, class_weights=…): "
            f"{failure_text(error)}"
        ) from error
    problems = _metric_problems(metrics)
    if problems:
        raise UserError(f"The task {name}: {' '.join(problems)}")
    return CheckedTask(name, task)


def _metric_problems(metrics: object) -> list[str]:
    if not isinstance(metrics, tuple) or not all(isinstance(metric, Metric) for metric in metrics):
        return [f"its metrics are {short_text(metrics, 80)}; expected a tuple of ofa.common.metric.Metric."]
    if not metrics:
        return ["it has no metrics; expected at least one, by which networks are compared."]
    names, problems = [metric.name for metric in metrics], []
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        problems.append(f"its metrics have a name twice: {', '.join(twice)}.")
    for metric in metrics:
        known = known_metrics().get(metric.name)
        if known is None:
            continue
        for what in ("higher_is_better", "is_fraction"):
            if getattr(metric, what) != getattr(known, what):
                problems.append(
                    f"its metric {metric.name} has {what}={getattr(metric, what)}; the known one of this "
                    f"name has {getattr(known, what)}. Take that, from ofa.common.metric, or another name."
                )
    return problems


class CheckedTask(Task):
    """A task of the user's own, whose results are checked before they are used."""

    def __init__(self, name: str, task: Task) -> None:
        """Take the task and the name that the user calls it by."""
        self.name, self.task = name, task

    @property
    @override
    def metrics(self) -> tuple[Metric, ...]:
        return self.task.metrics

    @property
    @override
    def takes_class_shares(self) -> bool:
        return self.task.takes_class_shares

    @override
    def meter(self) -> Meter:
        return _CheckedMeter(self.name, self.task.meter(), self.metrics)

    @override
    def detailed_meter(self) -> Meter:
        return _CheckedMeter(self.name, self.task.detailed_meter(), self.metrics)

    @override
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the task's own loss.

        Raises:
            UserError: if it fails, with its error and line; if it is no scalar, or has no gradient where the
                outputs have one.
        """
        value = _called(f"loss of the task {self.name}", self.task.loss, outputs, targets)
        return self._scalar("loss", value, outputs)

    @override
    def soft_loss(self, outputs: Tensor, teacher_outputs: Tensor, weight: float = 1.0) -> Tensor:
        """Return the task's own soft loss, checked as `loss`."""
        own = partial(self.task.soft_loss, weight=weight)
        value = _called(f"soft_loss of the task {self.name}", own, outputs, teacher_outputs)
        return self._scalar("soft_loss", value, outputs)

    @override
    def batch_score(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        """Return the task's own score of a batch, checked to be None or a scalar."""
        value = _called(f"batch_score of the task {self.name}", self.task.batch_score, outputs, targets)
        return None if value is None else self._scalar("batch_score", value)

    @property
    @override
    def problems(self) -> dict[str, object]:
        return self.task.problems

    @override
    def in_units(self, scale: TargetScale | None) -> CheckedTask:
        return CheckedTask(self.name, self.task.in_units(scale))

    @override
    def read(self, outputs: Tensor) -> Tensor:
        return self.task.read(outputs)

    def _scalar(self, what: str, value: object, outputs: Tensor | None = None) -> Tensor:
        if not isinstance(value, Tensor) or value.ndim != 0 or not value.is_floating_point():
            found = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else _kind(value)
            if isinstance(value, Tensor) and not value.is_floating_point():
                found = f"{found} of {value.dtype}"
            raise UserError(f"The {what} of the task {self.name} is {found}; expected a scalar of floats.")
        if outputs is not None and requires_grad(outputs) and not value.requires_grad:
            raise UserError(
                f"The {what} of the task {self.name} does not depend on the outputs by operations with a "
                "gradient; nothing would be learnt."
            )
        return value


class _CheckedMeter(Meter):
    """A meter of the user's own, whose values have to be those of the task's metrics."""

    def __init__(self, name: str, meter: Meter, metrics: Sequence[Metric]) -> None:
        if not isinstance(meter, Meter):
            raise UserError(f"The meter of the task {name} is {_kind(meter)}; expected an ofa Meter.")
        self._name, self._meter, self._metrics = name, meter, metrics

    @override
    def add(self, outputs: Tensor, targets: Tensor) -> None:
        _called(f"meter of the task {self._name}", self._meter.add, outputs, targets)

    @override
    def values(self) -> dict[str, float]:
        values: Mapping[str, float] = self._meter.values()
        expected = [metric.name for metric in self._metrics]
        missing = [name for name in expected if name not in values]
        if missing:
            raise UserError(
                f"The meter of the task {self._name} has no value of {', '.join(missing)}; it has "
                f"{', '.join(values) or 'none'}."
            )
        found = {metric.name: metric.problem(values[metric.name]) for metric in self._metrics}
        problems = [problem for problem in found.values() if problem]
        if problems:
            raise UserError(f"The meter of the task {self._name}: {' '.join(problems)}")
        return {name: float(value) for name, value in values.items()}

    @override
    def confusion(self, class_names: Sequence[str] | None = None) -> Confusion | None:
        return self._meter.confusion(class_names)

    @override
    def details(self, names: Sequence[str]) -> list[str]:
        return self._meter.details(names)


def _called(what: str, function: Callable[[Tensor, Tensor], Any], outputs: Tensor, others: Tensor) -> Any:
    """Return what a function of the user's task returns; its error names the tensors, and its own line.

    Raises:
        UserError: for whatever the function raises, but for exhausted memory, which is another matter.
    """
    try:
        return function(outputs, others)
    except UserError:
        raise
    except Exception as error:
        if exhaustion_text(error):
            raise
        shapes = [" and ".join(str(tuple(p.shape)) for p in parts_of(given)) for given in (outputs, others)]
        raise UserError(f"The {what} failed for {shapes[0]}, {shapes[1]}: {failure_text(error)}") from error


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
