"""Once-for-all supernets: elastic operators, search spaces, training, extraction and export."""

import os

# PyTorch reads this at its first large allocation on the processor: tensors in huge pages, where the system
# has them, spare page faults in every training step.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
