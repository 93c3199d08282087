"""The suite runs in two processes (-n 2; -n 0 for one), each with one thread, so that they do not fight for cores."""
import os

os.environ.setdefault('OMP_NUM_THREADS', '1')

import torch  # noqa: E402

import mmfreq  # noqa: E402, F401  before any host, whose detectors would otherwise stay without nms

torch.set_num_threads(1)
