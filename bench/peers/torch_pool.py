# SPDX-License-Identifier: Apache-2.0
"""The expert's PyTorch: one process a core, one thread each, tasks dealt out, gradients in shared memory.

The benchmark starts it with glibc's allocator told to keep freed memory, which is a good part of its speed.
"""

from __future__ import annotations

import argparse
import os

import numpy as np
import torch
import torch.multiprocessing as mp

from bench import worker
from bench.peers.learn2learn_loop import Learn2LearnLoop
from bench.peers.torch_peer import Gradients


class TorchPool(Learn2LearnLoop):
    """The parent keeps the meta-parameters, LWDGH and Adam; children compute tasks k, k + n, …"""

    def __init__(self, w, arrays, args: argparse.Namespace) -> None:
        super().__init__(w, arrays, args)
        self.net.share_memory()
        count = min(len(os.sched_getaffinity(0)), len(self.tasks))
        shapes = [p.shape for p in self.net.parameters()]
        dtype = next(self.net.parameters()).dtype
        self.results = [[torch.zeros(s, dtype=dtype).share_memory_() for s in shapes] for _ in self.tasks]
        queries = (len(self.tasks), len(self.tasks[0][2]), w.n_way)
        self.logits = torch.zeros(queries, dtype=dtype).share_memory_()
        context = mp.get_context("fork")
        self.pipes = []
        for k in range(count):
            ours, theirs = context.Pipe()
            mine = range(k, len(self.tasks), count)
            context.Process(target=self._child, args=(theirs, mine), daemon=True).start()
            self.pipes.append(ours)

    def _child(self, pipe, mine: range) -> None:
        torch.set_num_threads(1)
        while True:
            command = pipe.recv()
            for k in mine:
                if command == "adapt":
                    self.logits[k] = self.task_logits(self.tasks[k])
                else:
                    for out, g in zip(self.results[k], self.task_gradient(self.tasks[k])):
                        out.copy_(g)
            pipe.send("done")

    def _all(self, command: str) -> None:
        for pipe in self.pipes:
            pipe.send(command)
        for pipe in self.pipes:
            pipe.recv()

    def all_gradients(self) -> list[Gradients]:
        self._all("gradients")
        return self.results

    def adapt(self) -> np.ndarray:
        self._all("adapt")
        return self.logits.numpy().copy()


if __name__ == "__main__":
    torch.set_num_threads(1)
    worker.serve(TorchPool, {"torch": torch.__version__})
