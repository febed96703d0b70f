"""Few-shot meta-learning in TensorFlow with layer-wise dynamic gradient harmonization (LWDGH)."""

__version__ = "0.1.0"
