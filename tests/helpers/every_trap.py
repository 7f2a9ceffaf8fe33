"""All trap networks by name."""

from __future__ import annotations

import trap_networks_of_cuts
import trap_networks_of_inputs
import trap_networks_of_kernels
import trap_networks_of_tokens
from trap_networks import TRAPS, example_of

__all__ = ["TRAPS", "example_of"]

# Importing these registers their networks.
_MODULES = (trap_networks_of_cuts, trap_networks_of_inputs, trap_networks_of_kernels, trap_networks_of_tokens)
