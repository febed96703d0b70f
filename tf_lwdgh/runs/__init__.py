"""One run folder: its settings, training, checkpoints, reports and judging."""
