# SPDX-License-Identifier: Apache-2.0
"""learn2learn's MAML algorithm without the package, which does not build on Python 3.11 and later.

As `learn2learn.algorithms.MAML`: clone the parameters, `autograd.grad(create_graph=True)`, update the
clone, differentiate the query loss through all of it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.func import functional_call

from bench import worker
from bench.peers.torch_peer import Gradients, Task, TorchPeer


class Learn2LearnLoop(TorchPeer):
    """One task after the other."""

    def _adapted(self, task: Task, create_graph: bool) -> dict[str, torch.Tensor]:
        xs, ys, _, _ = task
        fast = {k: p.clone() for k, p in self.net.named_parameters()}
        for _ in range(self.w.inner_steps):
            loss = F.cross_entropy(functional_call(self.net, fast, (xs,)), ys)
            gradients = torch.autograd.grad(loss, fast.values(), create_graph=create_graph)
            fast = {k: p - self.w.inner_lr * g for (k, p), g in zip(fast.items(), gradients)}
            if not create_graph:
                fast = {k: p.detach().requires_grad_() for k, p in fast.items()}
        return fast

    def task_gradient(self, task: Task) -> Gradients:
        _, _, xq, yq = task
        fast = self._adapted(task, True)
        loss = F.cross_entropy(functional_call(self.net, fast, (xq,)), yq)
        return list(torch.autograd.grad(loss, list(self.net.parameters())))

    def task_logits(self, task: Task) -> torch.Tensor:
        fast = self._adapted(task, False)
        with torch.no_grad():
            return functional_call(self.net, fast, (task[2],))


if __name__ == "__main__":
    worker.serve(Learn2LearnLoop, {"torch": torch.__version__})
