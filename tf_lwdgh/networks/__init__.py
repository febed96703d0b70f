"""Keras backbones, and the bridge from them to pure functions."""
