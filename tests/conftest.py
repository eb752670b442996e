"""What all tests share: one thread, so that times and last digits do not depend on the machine; their own rows."""

import os

import pytest
import torch

from pawlib import paths

torch.set_num_threads(1)


def _of_the_tests_own(folder):
    """A data folder of a test's own is a whole one: what it publishes or releases must not reach the checkout."""
    return lambda: paths.data() / folder if "PAWLIB_DATA" in os.environ else paths.committed() / folder


paths.results, paths.checkpoints = _of_the_tests_own("results"), _of_the_tests_own("checkpoints")


@pytest.fixture(autouse=True)
def _seeded():
    """Every test draws the same numbers, in whatever order the tests run."""
    torch.manual_seed(0)
