"""What a network is worth: batch-norm recalibration and evaluation."""

from typing import TYPE_CHECKING

from ofa.common.lazy import lazy_names

if TYPE_CHECKING:
    from ofa.evaluation.confusion import Confusion
    from ofa.evaluation.evaluate import SubnetEvaluator, extract, measure, measure_confusion
    from ofa.evaluation.recalibrate import recalibrate_batchnorm
    from ofa.evaluation.segmentation import SegmentationTask
    from ofa.evaluation.task import ClassificationTask, Task
    from ofa.evaluation.tasks import task_of

__all__ = [
    "ClassificationTask",
    "Confusion",
    "SegmentationTask",
    "SubnetEvaluator",
    "Task",
    "extract",
    "measure",
    "measure_confusion",
    "recalibrate_batchnorm",
    "task_of",
]

__getattr__ = lazy_names(
    __name__,
    {
        "confusion": ["Confusion"],
        "evaluate": ["SubnetEvaluator", "extract", "measure", "measure_confusion"],
        "recalibrate": ["recalibrate_batchnorm"],
        "segmentation": ["SegmentationTask"],
        "task": ["ClassificationTask", "Task"],
        "tasks": ["task_of"],
    },
)
