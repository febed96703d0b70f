# SPDX-License-Identifier: Apache-2.0
"""What the PyTorch peers share: the backbones, LWDGH, Adam, and our names and shapes of variables."""

from __future__ import annotations

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from bench import worker, workloads

Task = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
Gradients = list[torch.Tensor]


class Convnet4(nn.Module):
    """Vinyals et al. 2016 with batch statistics."""

    def __init__(self, w: workloads.Workload) -> None:
        super().__init__()
        inside = w.channels
        for i in range(1, 5):
            setattr(self, f"conv{i}", nn.Conv2d(inside, w.filters, 3, padding=1))
            setattr(self, f"norm{i}", nn.BatchNorm2d(w.filters, track_running_stats=False))
            inside = w.filters
        self.head = nn.Linear((w.image_size // 16) ** 2 * w.filters, w.n_way)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(1, 5):
            x = getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(x))
            x = F.max_pool2d(F.relu(x), 2)
        return self.head(x.flatten(1))


class Resnet12(nn.Module):
    """The residual network of the few-shot literature, LeakyReLU 0.1."""

    def __init__(self, w: workloads.Workload) -> None:
        super().__init__()
        inside = w.channels
        for b, width in enumerate(workloads.RESNET_WIDTHS, 1):
            self._add(f"block{b}_shortcut", inside, width, 1)
            for i in (1, 2, 3):
                self._add(f"block{b}_{i}", inside, width, 3)
                inside = width
        self.head = nn.Linear(inside, w.n_way)

    def _add(self, name: str, inside: int, outside: int, size: int) -> None:
        conv = nn.Conv2d(inside, outside, size, padding=size // 2, bias=False)
        setattr(self, f"{name}_conv", conv)
        setattr(self, f"{name}_norm", nn.BatchNorm2d(outside, track_running_stats=False))

    def _conv_norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, f"{name}_norm")(getattr(self, f"{name}_conv")(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for b in range(1, len(workloads.RESNET_WIDTHS) + 1):
            shortcut = self._conv_norm(f"block{b}_shortcut", x)
            x = F.leaky_relu(self._conv_norm(f"block{b}_1", x), 0.1)
            x = F.leaky_relu(self._conv_norm(f"block{b}_2", x), 0.1)
            x = F.leaky_relu(self._conv_norm(f"block{b}_3", x) + shortcut, 0.1)
            x = F.max_pool2d(x, 2)
        return self.head(x.mean((2, 3)))


def our_name(name: str) -> str:
    """'conv1.weight' -> 'conv1/kernel'."""
    layer, kind = name.split(".")
    ours = {"weight": "gamma", "bias": "beta"} if "norm" in layer else {"weight": "kernel"}
    return f"{layer}/{ours.get(kind, kind)}"


def to_torch(name: str, value: np.ndarray, channels: int) -> np.ndarray:
    """HWIO -> OIHW; the head's rows from (h, w, c) to (c, h, w), and transposed."""
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    if name == "head/kernel":
        rows = value.reshape(-1, channels, value.shape[1])
        return rows.transpose(2, 1, 0).reshape(value.shape[1], -1)
    return value


def to_ours(name: str, value: np.ndarray, channels: int) -> np.ndarray:
    """The inverse of `to_torch`."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if name == "head/kernel":
        return value.reshape(len(value), channels, -1).transpose(2, 1, 0).reshape(-1, len(value))
    return value


def lwdgh(gradients: list[Gradients]) -> Gradients:
    """The paper's update: per variable, tasks weighted by softmax(-GCI)."""
    update = []
    for variable in zip(*gradients):
        rows = torch.stack(variable)
        flat = rows.flatten(1)
        mean = flat.mean(0)
        norms = flat.norm(dim=1)
        cosine = (flat @ mean) / (norms * mean.norm()).clamp_min(1e-30)
        weights = torch.softmax(-norms * (1 - cosine), 0)
        update.append(torch.tensordot(weights, rows, 1))
    return update


class TorchPeer:
    """A contestant; a peer gives `task_gradient` and `task_logits`."""

    def __init__(self, w: workloads.Workload, arrays: worker.Arrays, args: argparse.Namespace) -> None:
        self.w = w
        self.channels = w.filters if w.backbone == "convnet4" else workloads.RESNET_WIDTHS[-1]
        self.net = (Convnet4 if w.backbone == "convnet4" else Resnet12)(w)
        self.net.to(getattr(torch, args.dtype))
        with torch.no_grad():
            for name, p in self.net.named_parameters():
                ours = our_name(name)
                p.copy_(torch.tensor(to_torch(ours, arrays[f"w:{ours}"], self.channels).copy()))
        nchw = [torch.tensor(arrays[k]).permute(0, 1, 4, 2, 3).contiguous()
                for k in ("support_x", "query_x")]  # fmt: skip
        labels = [torch.tensor(arrays[k]).long() for k in ("support_y", "query_y")]
        self.tasks = list(zip(nchw[0], labels[0], nchw[1], labels[1]))
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=0.001)

    def task_gradient(self, task: Task) -> Gradients:
        """∂ query loss / ∂ meta-parameters, in the order of `net.parameters()`."""
        raise NotImplementedError

    def task_logits(self, task: Task) -> torch.Tensor:
        """The query's logits after adaptation, without an outer gradient."""
        raise NotImplementedError

    def all_gradients(self) -> list[Gradients]:
        """Of each task in turn."""
        return [self.task_gradient(task) for task in self.tasks]

    def step(self) -> None:
        for p, g in zip(self.net.parameters(), lwdgh(self.all_gradients())):
            p.grad = g.clamp(-10, 10)
        self.optimizer.step()

    def gradients(self) -> worker.Arrays:
        tasks = self.all_gradients()
        names = [our_name(name) for name, _ in self.net.named_parameters()]
        return {
            name: np.stack([to_ours(name, g[i].detach().numpy(), self.channels) for g in tasks])
            for i, name in enumerate(names)
        }

    def adapt(self) -> np.ndarray:
        return np.stack([self.task_logits(task).detach().numpy() for task in self.tasks])
