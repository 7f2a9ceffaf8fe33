"""Training by two processes: equal weights, the gradients of one process, restart after a kill."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from processes import HELPERS, torchrun
from torch import Tensor
from training_run import make_data, make_trainer
from weights import assert_equal, final_weights

from ofa.common.distributed import SINGLE_PROCESS, World
from ofa.common.errors import UserError

GRADIENTS = """
import sys
import torch
from torch.nn.functional import cross_entropy
from training_run import SPACE, main, make_data, parsed
from ofa.common.distributed import launched_world
from ofa.supernet.supernet import build_supernet

def gradients(images, labels, average):
    # Running statistics, so that an image's output does not depend on the others of its batch.
    supernet = build_supernet(SPACE, 0).eval()
    for config in (SPACE.smallest, SPACE.middle):
        picked = torch.nn.functional.interpolate(images, config.resolution)
        cross_entropy(supernet(picked, config), labels).backward()
    found = {name: p.grad for name, p in supernet.named_parameters() if p.grad is not None}
    average(list(found.values()))
    return found

with launched_world(torch.device("cpu")) as world:
    batches = make_data().train_batches(30, 0, 0, torch.device("cpu"), world=world)
    mine = gradients(*next(batches), world.all_reduce_mean_)
    whole = gradients(*next(make_data().train_batches(30, 0, 0, torch.device("cpu"))), lambda tensors: None)
    assert mine.keys() == whole.keys() and len(mine) > 10
    worst = max(float((mine[n] - whole[n]).abs().max() / whole[n].abs().max()) for n in mine)
    shared = world.gather({f"process {world.rank}": float(world.rank)})
    # One write per process: the lines of two processes must not mix.
    print(f"worst {worst} shared {shared}\\n", end="", flush=True)
main(parsed(sys.argv[1:]))
"""
# One process, for machines with one GPU: averages and sums are then those of the tensor itself.
NCCL = """
import torch
import torch.distributed as dist
from ofa.common.distributed import World

torch.cuda.set_device(0)
dist.init_process_group("nccl")
world, tensor = World(0, 2), torch.arange(6.0, device="cuda", requires_grad=True)
total = world.all_reduce_sum(tensor)
total.backward(torch.ones(6, device="cuda"))
assert torch.equal(total, tensor) and torch.equal(tensor.grad, torch.ones(6, device="cuda"))
halves = [torch.ones(2, 3, device="cuda"), torch.ones((), device="cuda")]
world.all_reduce_mean_(halves)
assert all(torch.equal(half, torch.full_like(half, 0.5)) for half in halves)
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Tensor]]:
    """The output of two processes that nothing disturbed, and the weights that they trained."""
    folder = tmp_path_factory.mktemp("two")
    script = folder / "gradients.py"
    script.write_text(GRADIENTS)
    completed = torchrun(str(script), str(folder / "run"))
    assert completed.returncode == 0, completed.stderr
    return completed.stdout, final_weights(folder / "run")


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights(undisturbed: tuple[str, dict[str, Tensor]]) -> None:
    digests = re.findall(r"finished (\w+)", undisturbed[0])
    assert len(digests) == 2 and len(set(digests)) == 1


@pytest.mark.slow
def test_two_processes_on_halves_have_the_gradients_of_one_on_the_whole_batch(
    undisturbed: tuple[str, dict[str, Tensor]],
) -> None:
    worst = [float(value) for value in re.findall(r"worst (\S+)", undisturbed[0])]
    assert len(worst) == 2 and max(worst) <= 1e-5
    assert undisturbed[0].count("{'process 0': 0.0, 'process 1': 1.0}") == 2


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_and_a_killed_one_that_is_restarted_change_no_weights(
    tmp_path: Path, undisturbed: tuple[str, dict[str, Tensor]]
) -> None:
    script = str(HELPERS / "training_run.py")
    stopped = torchrun(script, str(tmp_path), "--term=6")
    assert stopped.returncode != 0 and "Stopped by SIGTERM after step 7" in stopped.stderr
    completed = torchrun("--max-restarts=1", script, str(tmp_path), "--step=11")
    assert completed.returncode == 0, completed.stderr
    assert_equal(final_weights(tmp_path), undisturbed[1])


@pytest.mark.slow
def test_two_processes_of_a_users_model_of_which_one_is_killed_and_restarted(tmp_path: Path) -> None:
    script = str(HELPERS / "training_run.py")
    whole, part = tmp_path / "whole", tmp_path / "part"
    completed = torchrun(script, str(whole), "--model=halves")
    assert completed.returncode == 0, completed.stderr
    assert len(set(re.findall(r"finished (\w+)", completed.stdout))) == 1
    restarted = torchrun("--max-restarts=1", script, str(part), "--model=halves", "--step=11")
    assert restarted.returncode == 0, restarted.stderr
    assert_equal(final_weights(part), final_weights(whole))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["pixels", "labels", "numbers"])
def test_two_processes_sort_by_their_common_gradients_and_train_on_other_tasks(
    tmp_path: Path, model: str
) -> None:
    script = str(HELPERS / "training_run.py")
    completed = torchrun("--max-restarts=1", script, str(tmp_path), f"--model={model}", "--step=11")
    assert completed.returncode == 0, completed.stderr
    digests = re.findall(r"finished (\w+)", completed.stdout)
    assert len(digests) == 2 and len(set(digests)) == 1


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two CUDA devices")
def test_two_cuda_devices_connected_by_nccl_hold_identical_weights(tmp_path: Path) -> None:
    completed = torchrun(str(HELPERS / "training_run.py"), str(tmp_path), "--device=cuda")
    assert completed.returncode == 0, completed.stderr
    digests = re.findall(r"finished (\w+)", completed.stdout)
    assert len(digests) == 2 and len(set(digests)) == 1


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_collective_operations_of_nccl(tmp_path: Path) -> None:
    script = tmp_path / "nccl.py"
    script.write_text(NCCL)
    completed = torchrun("--nproc-per-node=1", str(script))
    assert completed.returncode == 0, completed.stderr


def test_the_parts_of_all_processes_are_the_batch() -> None:
    data, device = make_data(), torch.device("cpu")
    whole, labels = next(data.train_batches(30, 3, 1, device, first=2))
    parts = [next(data.train_batches(30, 3, 1, device, 2, World(rank, 3))) for rank in range(3)]
    assert torch.equal(torch.cat([images for images, _ in parts]), whole)
    assert torch.equal(torch.cat([part for _, part in parts]), labels)


def test_a_world_of_one_changes_nothing() -> None:
    tensor = torch.ones(3)
    SINGLE_PROCESS.all_reduce_mean_([tensor])
    assert torch.equal(tensor, torch.ones(3)) and SINGLE_PROCESS.gather({"a": 1.0}) == {"a": 1.0}


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch_size 30 cannot be shared equally by 4 processes"):
        make_trainer(tmp_path, world=World(0, 4))
