# SPDX-License-Identifier: Apache-2.0
"""One run folder: its settings, training, checkpoints, reports and judging."""
