"""Few-shot meta-learning in TensorFlow with layer-wise dynamic gradient harmonization (LWDGH)."""

import os
import platform

__version__ = "0.1.0"

if platform.machine() in ("x86_64", "AMD64"):
    # TensorFlow reads it when it is imported, and without it uses oneDNN's convolutions only on CPUs
    # that have AVX512-VNNI or the like. They are faster on older ones too (docs/performance.md).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
