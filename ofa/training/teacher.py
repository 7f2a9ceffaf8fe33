"""The teacher of distillation: the largest network as it was when distillation began, frozen."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ofa.common.errors import UserError
from ofa.common.mismatches import load_state
from ofa.common.tensors import content_digest, load_tensors, save_tensors
from ofa.evaluation.evaluate import SubnetEvaluator
from ofa.evaluation.recalibrate import batch_norms_of
from ofa.space.space import check_fingerprint
from ofa.supernet.protocol import AbstractSupernet
from ofa.training.recipe import Recipe
from ofa.training.schedule import Position


def frozen_teacher(
    supernet: AbstractSupernet[nn.Module],
    recipe: Recipe,
    position: Position,
    folder: Path,
    evaluator: SubnetEvaluator[nn.Module],
    is_main: bool,
) -> Teacher | None:
    """Return the frozen teacher of the phase at `position`; None if that phase has none.

    Args:
        supernet: supernet that is trained.
        recipe: phases and settings.
        position: position of the next step.
        folder: folder of the run.
        evaluator: provides the images for recalibration.
        is_main: whether this process writes files.

    Raises:
        UserError: if the teacher's file is damaged, of another space, or lost.
    """
    if recipe.phases[position.phase].teacher != "frozen" or recipe.settings.distillation_ratio == 0:
        return None
    earlier_phases = recipe.phases[: position.phase]
    has_begun = position.phase_step > 0 or any(phase.teacher == "frozen" for phase in earlier_phases)
    return Teacher(supernet, folder / "teacher.pt", evaluator, is_main, has_begun)


class Teacher:
    """The frozen network, with separate batch-norm statistics for each resolution.

    Running statistics of a network that is trained at many resolutions fit none of them. Recalibrated
    statistics make the teacher as accurate as possible at the step's resolution.
    """

    def __init__(
        self,
        supernet: AbstractSupernet[nn.Module],
        path: Path,
        evaluator: SubnetEvaluator[nn.Module],
        write: bool,
        has_begun: bool = False,
    ) -> None:
        """Load the teacher from `path`, or copy it from `supernet` and, if `write`, save it there.

        Args:
            supernet: supernet whose largest network becomes the teacher.
            path: file of the teacher's weights.
            evaluator: provides the images for recalibration.
            write: whether this process writes files.
            has_begun: whether the run has distilled before, so the file must exist.

        Raises:
            UserError: if the file is damaged, of another space, or lost.
        """
        self._network = supernet.extract(supernet.space.largest)
        self._evaluator = evaluator
        if path.exists():
            values = load_tensors(path, "teacher of this run (start the run anew if no copy is left)")
            # Teachers of earlier versions have no digest.
            if values.pop("digest", None) not in (None, content_digest(values)):
                raise UserError(
                    f"The teacher of this run, {path}, is damaged: its content is not what was written "
                    "(SHA-256). Bring an intact copy, or start the run anew under another run_name."
                )
            check_fingerprint(values.get("fingerprint"), supernet.space, f"teacher {path}")
            load_state(self._network, values.get("state"), f"The teacher {path}")
        elif has_begun:
            raise UserError(
                f"The teacher of this run, {path}, is lost; the supernet has been trained further. Bring "
                "the file back, or start the run anew under another run_name."
            )
        elif write:
            values = {"fingerprint": supernet.space.fingerprint, "state": self._network.state_dict()}
            save_tensors(path, {**values, "digest": content_digest(values)})
        self._network.to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self._statistics: dict[int, list[Tensor]] = {}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits (n, classes) of square images (n, channels, resolution, resolution)."""
        self._fit_statistics(images.shape[-1])
        logits: Tensor = self._network(images)
        return logits

    def _fit_statistics(self, resolution: int) -> None:
        norms, names = batch_norms_of(self._network), ("running_mean", "running_var")
        buffers = [norm.get_buffer(name) for norm in norms for name in names]
        if resolution not in self._statistics:
            self._evaluator.recalibrate(self._network, resolution)
            self._statistics[resolution] = [buffer.clone() for buffer in buffers]
        for buffer, value in zip(buffers, self._statistics[resolution], strict=True):
            buffer.copy_(value)
