# SPDX-License-Identifier: Apache-2.0
"""Prototypical networks with easyfsl, as its notebooks train them: a support set processed, queries scored, a loss.

Its scores are −‖z − c‖, where the paper's logits are −‖z − c‖²: they are squared here, so that both train
the same.
"""

from __future__ import annotations

import importlib.metadata

import torch
import torch.nn.functional as F
from easyfsl.methods import PrototypicalNetworks

from bench import worker
from bench.peers.torch_peer import Gradients, Task, TorchPeer


class EasyFsl(TorchPeer):
    """One task after the other; P1's workloads."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.net.head = torch.nn.Identity()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=0.001)
        # The size of its features is found by an image of its own, in float32.
        dtype = next(self.net.parameters()).dtype
        self.learner = PrototypicalNetworks(self.net.float())
        self.learner.to(dtype)

    def _logits(self, task: Task) -> torch.Tensor:
        xs, ys, xq, _ = task
        self.learner.process_support_set(xs, ys)
        return -self.learner(xq).square()

    def task_gradient(self, task: Task) -> Gradients:
        loss = F.cross_entropy(self._logits(task), task[3])
        return list(torch.autograd.grad(loss, list(self.net.parameters())))

    def task_logits(self, task: Task) -> torch.Tensor:
        with torch.no_grad():
            return self._logits(task)


if __name__ == "__main__":
    packages = {p: importlib.metadata.version(p) for p in ("torch", "easyfsl")}
    worker.serve(EasyFsl, packages)
