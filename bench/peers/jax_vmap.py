# SPDX-License-Identifier: Apache-2.0
"""MAML in JAX as its documentation writes it: pure functions, `grad` in `grad`, `vmap` over tasks, `jit`."""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bench import worker, workloads


def _conv(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _norm(x, gamma, beta):
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) * lax.rsqrt(variance + 1e-5) * gamma + beta


def _pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def convnet4(p, x):
    """Logits [B, N] of images [B, H, W, C]."""
    for i in range(1, 5):
        x = _conv(x, p[f"conv{i}/kernel"]) + p[f"conv{i}/bias"]
        x = _pool(jax.nn.relu(_norm(x, p[f"norm{i}/gamma"], p[f"norm{i}/beta"])))
    return x.reshape(len(x), -1) @ p["head/kernel"] + p["head/bias"]


def resnet12(p, x):
    """Logits [B, N] of images [B, H, W, C]."""

    def conv_norm(name, x):
        y = _conv(x, p[f"{name}_conv/kernel"])
        return _norm(y, p[f"{name}_norm/gamma"], p[f"{name}_norm/beta"])

    for b in range(1, 5):
        shortcut = conv_norm(f"block{b}_shortcut", x)
        x = jax.nn.leaky_relu(conv_norm(f"block{b}_1", x), 0.1)
        x = jax.nn.leaky_relu(conv_norm(f"block{b}_2", x), 0.1)
        x = _pool(jax.nn.leaky_relu(conv_norm(f"block{b}_3", x) + shortcut, 0.1))
    return x.mean((1, 2)) @ p["head/kernel"] + p["head/bias"]


def lwdgh(gradients):
    """Per variable, tasks weighted by softmax(-GCI)."""

    def one(rows):
        flat = rows.reshape(len(rows), -1)
        mean, norms = flat.mean(0), jnp.linalg.norm(flat, axis=1)
        cosine = flat @ mean / jnp.maximum(norms * jnp.linalg.norm(mean), 1e-30)
        return jnp.tensordot(jax.nn.softmax(-norms * (1 - cosine)), rows, 1)

    return jax.tree.map(one, gradients)


def adam(state, update, rate=0.001, b1=0.9, b2=0.999):
    """One step of Adam on (params, first moments, second moments, step)."""
    params, first, second, step = state
    step = step + 1
    first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, first, update)
    second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, second, update)
    scale = rate * jnp.sqrt(1 - b2**step) / (1 - b1**step)
    move = lambda p, m, v: p - scale * m / (jnp.sqrt(v) + 1e-8)  # noqa: E731
    return jax.tree.map(move, params, first, second), first, second, step


class JaxVmap:
    """Everything of a meta-step in one `jit`."""

    def __init__(self, w: workloads.Workload, arrays: worker.Arrays, args: argparse.Namespace) -> None:
        self.w, self.apply = w, convnet4 if w.backbone == "convnet4" else resnet12
        params = {k[2:]: jnp.asarray(v) for k, v in arrays.items() if k.startswith("w:")}
        zeros = jax.tree.map(jnp.zeros_like, params)
        self.state = (params, zeros, zeros, jnp.zeros((), params["head/bias"].dtype))
        names = ("support_x", "support_y", "query_x", "query_y")
        self.batch = [jnp.asarray(arrays[k]) for k in names]
        self.jit_step, self.jit_gradients = jax.jit(self._step), jax.jit(self._gradients)
        self.jit_adapt = jax.jit(self._adapt)

    def _loss(self, params, x, y):
        scores = jax.nn.log_softmax(self.apply(params, x))
        return -jnp.take_along_axis(scores, y[:, None], 1).mean()

    def _adapted(self, params, x, y):
        for _ in range(self.w.inner_steps):
            gradients = jax.grad(self._loss)(params, x, y)
            params = jax.tree.map(lambda p, g: p - self.w.inner_lr * g, params, gradients)
        return params

    def _gradients(self, params, batch):
        def outer(params, xs, ys, xq, yq):
            return self._loss(self._adapted(params, xs, ys), xq, yq)

        return jax.vmap(jax.grad(outer), (None, 0, 0, 0, 0))(params, *batch)

    def _step(self, state, batch):
        update = lwdgh(self._gradients(state[0], batch))
        return adam(state, jax.tree.map(lambda g: jnp.clip(g, -10, 10), update))

    def _adapt(self, params, batch):
        one = lambda xs, ys, xq, yq: self.apply(self._adapted(params, xs, ys), xq)  # noqa: E731
        return jax.vmap(one)(*batch)

    def gradients(self) -> worker.Arrays:
        found = self.jit_gradients(self.state[0], self.batch)
        return {k: np.asarray(v) for k, v in found.items()}

    def step(self) -> None:
        self.state = jax.block_until_ready(self.jit_step(self.state, self.batch))

    def adapt(self) -> np.ndarray:
        return np.asarray(self.jit_adapt(self.state[0], self.batch))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    worker.serve(JaxVmap, {"jax": jax.__version__})
