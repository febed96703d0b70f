# SPDX-License-Identifier: Apache-2.0
"""MAML with TorchOpt, as its tutorial writes it: MetaSGD, and the network's state put back for each task."""

from __future__ import annotations

import importlib.metadata

import torch
import torch.nn.functional as F
import torchopt

from bench import worker
from bench.peers.torch_peer import Gradients, Task, TorchPeer


class TorchOptLoop(TorchPeer):
    """One task after the other."""

    def __init__(self, w, arrays, args) -> None:
        super().__init__(w, arrays, args)
        self.meta = list(self.net.parameters())
        self.inner = torchopt.MetaSGD(self.net, lr=w.inner_lr)

    def _adapt(self, task: Task) -> None:
        xs, ys, _, _ = task
        for _ in range(self.w.inner_steps):
            self.inner.step(F.cross_entropy(self.net(xs), ys))

    def _run(self, task: Task, use):
        net = torchopt.extract_state_dict(self.net, by="reference", detach_buffers=True)
        inner = torchopt.extract_state_dict(self.inner, by="reference")
        self._adapt(task)
        result = use()
        torchopt.recover_state_dict(self.net, net)
        torchopt.recover_state_dict(self.inner, inner)
        return result

    def task_gradient(self, task: Task) -> Gradients:
        _, _, xq, yq = task
        loss = lambda: F.cross_entropy(self.net(xq), yq)  # noqa: E731
        return self._run(task, lambda: list(torch.autograd.grad(loss(), self.meta)))

    def task_logits(self, task: Task) -> torch.Tensor:
        return self._run(task, lambda: self.net(task[2]).detach())


if __name__ == "__main__":
    packages = {p: importlib.metadata.version(p) for p in ("torch", "torchopt")}
    worker.serve(TorchOptLoop, packages)
