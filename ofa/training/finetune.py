"""Fine-tuning: training a static network further on its own."""

from __future__ import annotations

import math

import torch
from torch import nn

from ofa.common.errors import UserError
from ofa.common.progress import ProgressCallback, silent
from ofa.data.base import ImageData, resize
from ofa.evaluation.task import ClassificationTask
from ofa.modules.static import StaticNetwork
from ofa.training.losses import loss_terms, sum_terms
from ofa.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from ofa.training.precision import autocast, check_precision, gradient_scaler
from ofa.training.settings import FinetuneSettings


def finetune(
    network: StaticNetwork,
    data: ImageData,
    resolution: int,
    settings: FinetuneSettings,
    teacher: nn.Module | None = None,
    progress: ProgressCallback = silent,
) -> None:
    """Train `network` in place at one resolution and leave it in eval mode.

    Args:
        network: on the device to train on.
        data: training images.
        resolution: of the network, in pixels.
        settings: length, learning rate and losses.
        teacher: frozen network in eval mode whose logits are the soft targets, if and only if the
            distillation ratio is not 0.
        progress: told about every tenth step, with the mean loss since the last time.

    Raises:
        UserError: if the device cannot train in the precision, or the loss or a weight stops being finite;
            the network must not be used then.
        ValueError: if a teacher is missing or superfluous.
    """
    if (teacher is None) != (settings.distillation_ratio == 0):
        raise ValueError("A teacher is needed if and only if the distillation ratio is not 0.")
    device, precision = next(network.parameters()).device, settings.precision
    check_precision(precision, device)
    scaler = gradient_scaler(precision, device)
    steps_per_epoch = data.num_batches(settings.batch_size)
    total = settings.epochs * steps_per_epoch
    peak = settings.lr * settings.batch_size / 64
    network.to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(network, 0.0, settings.momentum, settings.weight_decay)
    run = torch.compile(network) if settings.compile else network
    step, shown, losses = 0, 0, torch.zeros((), device=device)
    for epoch in range(settings.epochs):
        for images, labels in data.train_batches(settings.batch_size, settings.seed, epoch, device):
            images = resize(images, resolution)
            with torch.no_grad(), autocast(precision, device):
                soft = teacher(images).float() if teacher is not None else None
            set_learning_rate(optimizer, learning_rate(step, total, 0, peak))
            optimizer.zero_grad(set_to_none=True)
            with autocast(precision, device):
                logits = run(images)
            task, ratio = ClassificationTask(settings.loss), settings.distillation_ratio
            loss = sum_terms(loss_terms(task, ratio, logits.float(), labels, soft))
            torch.autograd.backward(scaler.scale(loss))
            scaler.step(optimizer)
            scaler.update()
            losses += loss.detach()
            step += 1
            if step % 10 == 0 or step == total:
                # The only time that the processor waits for the device.
                mean = float(losses) / (step - shown)
                if not math.isfinite(mean):
                    raise UserError(
                        f"The loss of steps {shown} to {step - 1} is {mean}; lower lr. Nothing was exported."
                    )
                progress(step, total, f"epoch {epoch + 1}/{settings.epochs} loss {mean:.3f}")
                shown, losses = step, torch.zeros_like(losses)
    if not all(bool(torch.isfinite(parameter).all()) for parameter in network.parameters()):
        raise UserError(f"Weights are not finite after step {step}; lower lr. Nothing was exported.")
    network.to(memory_format=torch.contiguous_format).eval()
