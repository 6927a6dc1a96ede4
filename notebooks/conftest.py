"""How notebooks are run as tests: kernels inherit this environment."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a small model's threads wait for each other on shared cores
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here downloads
