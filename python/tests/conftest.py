"""What all tests share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Tests compare bits, and torch's sums depend on its number of threads."""
    torch.set_num_threads(1)
