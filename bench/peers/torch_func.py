# SPDX-License-Identifier: Apache-2.0
"""MAML with torch.func, after PyTorch's own tutorial: `grad` inside `grad`, a loop or `vmap` over tasks."""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, vmap

from bench import worker
from bench.peers.torch_peer import Gradients, Task, TorchPeer


class TorchFunc(TorchPeer):
    """`--vmap` maps over the tasks, as the tutorial does; a loop is faster on a CPU."""

    def __init__(self, w, arrays, args: argparse.Namespace) -> None:
        super().__init__(w, arrays, args)
        self.vmap = args.vmap

    def _loss(self, params, x, y):
        return F.cross_entropy(functional_call(self.net, params, (x,)), y)

    def _adapted(self, params, x, y):
        for _ in range(self.w.inner_steps):
            gradients = grad(self._loss)(params, x, y)
            params = {k: p - self.w.inner_lr * gradients[k] for k, p in params.items()}
        return params

    def _outer(self, params, xs, ys, xq, yq):
        return self._loss(self._adapted(params, xs, ys), xq, yq)

    def _params(self) -> dict[str, torch.Tensor]:
        return {k: p.detach() for k, p in self.net.named_parameters()}

    def task_gradient(self, task: Task) -> Gradients:
        return list(grad(self._outer)(self._params(), *task).values())

    def all_gradients(self) -> list[Gradients]:
        if not self.vmap:
            return super().all_gradients()
        batch = [torch.stack(tensors) for tensors in zip(*self.tasks)]
        rows = vmap(grad(self._outer), in_dims=(None, 0, 0, 0, 0))(self._params(), *batch)
        return [list(task) for task in zip(*rows.values())]

    def task_logits(self, task: Task) -> torch.Tensor:
        xs, ys, xq, _ = task
        with torch.no_grad():
            params = self._adapted(self._params(), xs, ys)
            return functional_call(self.net, params, (xq,))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--vmap", action="store_true")
    worker.serve(TorchFunc, {"torch": torch.__version__}, parser)
