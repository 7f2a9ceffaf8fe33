"""The known tasks by name, the task of an image set, and its kind of outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ofa.common.errors import unknown_name
from ofa.data.base import ImageData
from ofa.data.settings import CLASSIFICATION, MULTI_LABEL, REGRESSION, SEGMENTATION
from ofa.evaluation.classes import class_weights
from ofa.evaluation.multi_label import MultiLabelTask
from ofa.evaluation.own_task import own_task, own_task_class
from ofa.evaluation.regression import RegressionTask
from ofa.evaluation.segmentation import SegmentationTask
from ofa.evaluation.settings import LossSettings
from ofa.evaluation.task import ClassificationTask, Task

TASKS: Mapping[str, Callable[..., Task]] = {
    CLASSIFICATION: ClassificationTask,
    SEGMENTATION: SegmentationTask,
    MULTI_LABEL: MultiLabelTask,
    REGRESSION: RegressionTask,
}
"""Classes that take `LossSettings`, and `class_weights` by name."""


def task_of(data: ImageData, settings: LossSettings | None = None) -> Task:
    """Return the task of an image set; its classes are weighted if its `balance` is loss.

    The module of a task of the user's own is imported, and runs.

    Args:
        data: the images; `data.info.task` names the task.
        settings: settings of the losses; None for the hard loss alone.

    Raises:
        UserError: for an unknown task; for one of the user's own as `own_task`.
    """
    name = data.info.task
    settings = settings or LossSettings(label_smoothing=0.0, distillation_ratio=1.0)
    if ":" in name:
        task: Task = own_task(name, settings, class_weights=class_weights(data))
        return task.in_units(data.info.target_scale)
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name](settings, class_weights=class_weights(data)).in_units(data.info.target_scale)


def output_kind(name: str) -> str:
    """Return the known task whose outputs a task has: its own name, or that of the class it derives from.

    A task of the user's own that derives from none of them, whose outputs can be anything, keeps its name.

    Args:
        name: a task, as `DataInfo.task`; a module of the user's own is imported, and runs.

    Raises:
        UserError: see `own_task_class`.
    """
    if ":" not in name:
        return name
    kind = own_task_class(name)
    known = (known for known, base in TASKS.items() if isinstance(base, type) and issubclass(kind, base))
    return next(known, name)
