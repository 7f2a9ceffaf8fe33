"""What a network is worth: batch-norm recalibration and evaluation."""

from typing import TYPE_CHECKING

from ofa.common.lazy import lazy_names

if TYPE_CHECKING:
    from ofa.evaluation.evaluate import SubnetEvaluator, extract, measure
    from ofa.evaluation.recalibrate import recalibrate_batchnorm
    from ofa.evaluation.task import ClassificationTask, Task

__all__ = [
    "ClassificationTask",
    "SubnetEvaluator",
    "Task",
    "extract",
    "measure",
    "recalibrate_batchnorm",
]

__getattr__ = lazy_names(
    __name__,
    {
        "evaluate": ["SubnetEvaluator", "extract", "measure"],
        "recalibrate": ["recalibrate_batchnorm"],
        "task": ["ClassificationTask", "Task"],
    },
)
