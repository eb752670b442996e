"""What all tests share: one thread, so that times and last digits do not depend on the machine."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    """Every test draws the same numbers, in whatever order the tests run."""
    torch.manual_seed(0)
