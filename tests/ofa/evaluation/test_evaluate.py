"""Evaluation of sub-networks: counted by hand, on a copy, of the images asked for."""

from __future__ import annotations

import torch
from training_run import SPACE, make_data

from ofa.evaluation.evaluate import SubnetEvaluator, top1
from ofa.supernet.supernet import build_supernet


def test_top1_is_the_share_of_right_answers() -> None:
    network = torch.nn.Identity().eval()
    logits = torch.tensor([[1.0, 0.0], [0.2, 0.1], [0.0, 2.0]])
    batches = [(logits, torch.tensor([0, 1, 1])), (logits[:1], torch.tensor([0]))]
    assert top1(network, batches) == 3 / 4


def test_evaluation_recalibrates_a_copy_and_leaves_the_supernet_alone() -> None:
    supernet = build_supernet(SPACE, 0)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    network = SubnetEvaluator(supernet, make_data(), calibration_images=60).network(SPACE.largest)
    assert all(torch.equal(before[name], tensor) for name, tensor in supernet.state_dict().items())
    fresh = supernet.extract(SPACE.largest)
    name = "layers.0.bn.running_mean"
    assert not torch.equal(network.get_buffer(name), fresh.get_buffer(name))


def test_the_limit_bounds_the_images_that_count() -> None:
    evaluator = SubnetEvaluator(build_supernet(SPACE, 0), make_data(), calibration_images=60, limit=7)
    assert sum(len(labels) for _, labels in evaluator.batches(8)) == 7
