"""What a network is worth: batch-norm recalibration and evaluation."""

from typing import TYPE_CHECKING

from ofa.common.lazy import lazy_names

if TYPE_CHECKING:
    from ofa.evaluation.confusion import Confusion
    from ofa.evaluation.evaluate import SubnetEvaluator, extract, measure, measure_confusion
    from ofa.evaluation.recalibrate import recalibrate_batchnorm
    from ofa.evaluation.task import ClassificationTask, Task

__all__ = [
    "ClassificationTask",
    "Confusion",
    "SubnetEvaluator",
    "Task",
    "extract",
    "measure",
    "measure_confusion",
    "recalibrate_batchnorm",
]

__getattr__ = lazy_names(
    __name__,
    {
        "confusion": ["Confusion"],
        "evaluate": ["SubnetEvaluator", "extract", "measure", "measure_confusion"],
        "recalibrate": ["recalibrate_batchnorm"],
        "task": ["ClassificationTask", "Task"],
    },
)
