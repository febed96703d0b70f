"""The outer loop: the meta-step, evaluation, and how tasks run."""
