# SPDX-License-Identifier: Apache-2.0
"""The outer loop: the meta-step, evaluation, and how tasks run."""
