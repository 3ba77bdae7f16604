import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # `import reference`


@pytest.fixture(scope="session", autouse=True)
def _one_thread_each():
    """Tests run on all cores side by side; more threads in each would only get in each other's way."""
    torch.set_num_threads(1)
