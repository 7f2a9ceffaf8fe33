"""The known tasks by name, and the task of an image set."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ofa.common.errors import unknown_name
from ofa.data.base import ImageData
from ofa.data.settings import CLASSIFICATION, MULTI_LABEL, REGRESSION, SEGMENTATION
from ofa.evaluation.classes import class_weights
from ofa.evaluation.multi_label import MultiLabelTask
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

    Args:
        data: the images; `data.info.task` names the task.
        settings: settings of the losses; None for the hard loss alone.
    """
    name = data.info.task
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    settings = settings or LossSettings(label_smoothing=0.0, distillation_ratio=1.0)
    return TASKS[name](settings, class_weights=class_weights(data)).in_units(data.info.target_scale)
