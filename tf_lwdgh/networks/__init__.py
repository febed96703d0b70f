# SPDX-License-Identifier: Apache-2.0
"""Keras backbones, and the bridge from them to pure functions."""
