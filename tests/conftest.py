"""The suite runs in two processes (-n 2; -n 0 for one), each with one thread, so that they do not fight for cores."""
import os

os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest  # noqa: E402
import torch  # noqa: E402

import mmfreq  # noqa: E402, F401  before any host, whose detectors would otherwise stay without nms

torch.set_num_threads(1)

# Each process takes one file after another; the longest come first, so that none is left alone at the end.
LONGEST = ['test_training.py', 'test_training_gate.py', 'test_backbones.py', 'test_freqify.py', 'test_new_config.py']


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files come first."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
