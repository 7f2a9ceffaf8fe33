"""`StepTraining`: the training of a step of a compression, taught by the uncompressed network, resumable."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from ofa.common.progress import Note
from ofa.compression.changes import BASIS_FORMS, LayerChange, apply_changes
from ofa.data.base import ImageData
from ofa.data.target_scale import TargetScale
from ofa.evaluation.batches import split_images
from ofa.evaluation.recalibrate import recalibrate_batchnorm
from ofa.evaluation.tasks import task_of
from ofa.graph.reconstruction import Reconstructor
from ofa.graph.weights import load_weights
from ofa.runs.compression_plan import Bar
from ofa.runs.compression_settings import CompressionSettings
from ofa.runs.pruned_files import save_network
from ofa.training.checks import with_losses_of
from ofa.training.fitting import fit
from ofa.training.losses import Penalty


@dataclasses.dataclass(frozen=True)
class StepTraining:
    """Trains networks in place as the steps of a compression do.

    Attributes:
        teacher: the uncompressed network.
        data: the images.
        settings: settings of the compression.
        folder: folder of the compression; each training has a folder of its own in it.
        resolution: side of the images in pixels.
        scale: scale of the outputs of a regression; None for other tasks.
        bar: opens progress bars.
        note: called with lines for the user.
    """

    teacher: nn.Module
    data: ImageData
    settings: CompressionSettings
    folder: Path
    resolution: int
    scale: TargetScale | None
    bar: Bar
    note: Note

    def __call__(
        self,
        network: nn.Module,
        name: str,
        length: int,
        *,
        context: AbstractContextManager[None] | None = None,
        penalty: Penalty | None = None,
    ) -> None:
        """Train a network and recalibrate it; what was trained before is loaded.

        Args:
            network: network on the device of training.
            name: name of the training, and of its folder.
            length: epochs, or steps where the settings of fine-tuning give these.
            context: entered while the network is trained, e.g. to keep zeros.
            penalty: a further term of the loss.
        """
        folder = self.folder / name
        tuned = folder / "tuned.safetensors"
        if tuned.exists():
            load_weights(network, tuned, f"the network of the step {name}")
        else:
            self._train(network, name, length, context or nullcontext(), penalty)
            save_network(network, tuned)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        return self.data.info.in_channels, self.resolution, self.resolution

    def recalibrate(self, network: nn.Module) -> None:
        """Recalibrate the batch norm of a network."""
        device, limit = next(network.parameters()).device, self.settings.calibration_images
        recalibrate_batchnorm(network, split_images(self.data, "train", self.resolution, device, limit))

    @property
    def fitting_images(self) -> Tensor | None:
        """Images on the device of the network that layers are fitted to; None to fit none."""
        limit = self.settings.reconstruction_images
        if not limit:
            return None
        device = next(self.teacher.parameters()).device
        return torch.cat(list(split_images(self.data, "train", self.resolution, device, limit)))

    def changed(self, network: nn.Module, changes: Sequence[LayerChange]) -> nn.Module:
        """Return a network with changed convolutions, the last layer of each fitted to what it computed.

        Those by shared bases keep the weights of their form: the training of the step `penni` makes others.
        """
        result = apply_changes(network, changes)
        last_layers = {
            f"{change.layer}.{len(result.get_submodule(change.layer)) - 1}": change.layer  # type: ignore[arg-type]
            for change in changes
            if change.form not in BASIS_FORMS
        }
        images = self.fitting_images if last_layers else None
        if images is not None:
            Reconstructor(network, images).fit_factors(result, last_layers)
        return result

    def _train(
        self,
        network: nn.Module,
        name: str,
        length: int,
        context: AbstractContextManager[None],
        penalty: Penalty | None,
    ) -> None:
        settings = self.settings.finetuning.with_length(length)
        settings = with_losses_of(settings, task_of(self.data, settings.loss), self.note)
        with self.bar("fine-tuning" if name == "finetune" else f"fine-tuning, {name}") as progress, context:
            fit(
                network,
                self.data,
                settings,
                resolution=self.resolution,
                task=task_of(self.data, settings.loss).in_units(self.scale),
                teacher=self.teacher if settings.distillation_ratio else None,
                folder=self.folder / name,
                progress=progress,
                penalty=penalty,
            )
        self.recalibrate(network)
