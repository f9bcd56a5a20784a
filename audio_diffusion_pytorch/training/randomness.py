"""Key random generators by seed, step and sample."""

import numpy as np
import torch


def generator_for(
    seed: int, step: int, index: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return the generator of sample `index` of the global batch at optimiser step `step`."""
    key = np.random.SeedSequence([seed, step, index]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(key[0]) >> 1)
