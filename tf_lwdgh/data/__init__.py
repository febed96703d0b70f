# SPDX-License-Identifier: Apache-2.0
"""Data sets on disk, and the episodes made of them."""
