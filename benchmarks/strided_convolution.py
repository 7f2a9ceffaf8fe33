"""Input channels for which the gradient of a 1x1 convolution with stride crashes on this processor.

    python benchmarks/strided_convolution.py

Each number of channels is tried in a process of its own. See `ofa.training.known_faults`.
"""

from __future__ import annotations

import subprocess
import sys

TRIAL = """
import sys, torch
torch.set_num_threads(1)
layer = torch.nn.Conv2d(int(sys.argv[1]), 14, 1, 2, bias=False).to(memory_format=torch.channels_last)
for _ in range(40):
    images = torch.rand(128, int(sys.argv[1]), 28, 28).contiguous(memory_format=torch.channels_last)
    layer(images).sum().backward()
"""


def main() -> None:
    """Print a line for each number of channels."""
    for channels in range(1, 17):
        command = [sys.executable, "-c", TRIAL, str(channels)]
        status = subprocess.run(command, capture_output=True, check=False).returncode
        print(f"{channels} channels: {'right' if status == 0 else f'status {status}'}", flush=True)


if __name__ == "__main__":
    main()
