# SPDX-License-Identifier: Apache-2.0
"""MAML with `higher`, as its README writes it: `innerloop_ctx` and a differentiable optimizer."""

from __future__ import annotations

import importlib.metadata

import higher
import torch
import torch.nn.functional as F

from bench import worker
from bench.peers.torch_peer import Gradients, Task, TorchPeer


class HigherLoop(TorchPeer):
    """One task after the other."""

    def _context(self, track: bool):
        inner = torch.optim.SGD(self.net.parameters(), lr=self.w.inner_lr)
        return higher.innerloop_ctx(self.net, inner, copy_initial_weights=False, track_higher_grads=track)

    def _adapt(self, fnet, inner, task: Task) -> None:
        xs, ys, _, _ = task
        for _ in range(self.w.inner_steps):
            inner.step(F.cross_entropy(fnet(xs), ys))

    def task_gradient(self, task: Task) -> Gradients:
        _, _, xq, yq = task
        with self._context(True) as (fnet, inner):
            self._adapt(fnet, inner, task)
            loss = F.cross_entropy(fnet(xq), yq)
            return list(torch.autograd.grad(loss, list(self.net.parameters())))

    def task_logits(self, task: Task) -> torch.Tensor:
        with self._context(False) as (fnet, inner):
            self._adapt(fnet, inner, task)
            with torch.no_grad():
                return fnet(task[2])


if __name__ == "__main__":
    packages = {p: importlib.metadata.version(p) for p in ("torch", "higher")}
    worker.serve(HigherLoop, packages)
