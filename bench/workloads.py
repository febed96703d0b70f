# SPDX-License-Identifier: Apache-2.0
"""The benchmark's workloads: shapes, random arrays and weights that every contestant gets, and FLOPs."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Workload:
    """One problem; under MAML all parameters adapt in the inner loop, BatchNorm's too.

    Attributes:
      kind: 'step' (a whole meta-step) or 'adapt' (adaptation and prediction, no outer gradient).
      learner: 'maml' or 'prototypical_network', which has no inner steps.
    """

    name: str
    backbone: str = "convnet4"
    image_size: int = 84
    channels: int = 3
    filters: int = 32
    n_way: int = 5
    k_shot: int = 1
    n_query: int = 15
    tasks: int = 4
    inner_steps: int = 5
    inner_lr: float = 0.01
    kind: str = "step"
    learner: str = "maml"


ALL = {
    w.name: w
    for w in (
        Workload("W1"),
        Workload("W1-5", k_shot=5),
        Workload("W2", image_size=28, channels=1, filters=64, tasks=32, inner_steps=1),
        Workload("W3", backbone="resnet12", tasks=1),
        Workload("E1", tasks=8, inner_steps=10, kind="adapt"),
        Workload("P1", filters=64, inner_steps=0, learner="prototypical_network"),
        Workload("P1-5", filters=64, k_shot=5, inner_steps=0, learner="prototypical_network"),
        Workload("PE1", filters=64, tasks=8, inner_steps=0, kind="adapt", learner="prototypical_network"),
        Workload("tiny", image_size=16, filters=4, tasks=2, inner_steps=2, n_query=2),
        Workload("tiny-adapt", image_size=16, filters=4, tasks=2, n_query=2, kind="adapt"),
    )
}
RESNET_WIDTHS = (64, 128, 256, 512)


def parse(text: str) -> Workload:
    """A workload by name, or by name and changes: 'W1,inner_steps=20,tasks=8'."""
    name, *changes = text.split(",")
    if name not in ALL:
        raise ValueError(f"a workload must be one of {', '.join(ALL)}. Received: {name!r}.")
    pairs = dict(change.split("=") for change in changes)
    typed = {k: type(getattr(ALL[name], k))(v) for k, v in pairs.items()}
    return dataclasses.replace(ALL[name], **typed)


def layers(w: Workload) -> dict[str, tuple[int, ...]]:
    """The shape of every variable by the name that tf_lwdgh gives it, kernels as HWIO."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, norm: str, size: int, inside: int, outside: int, bias: bool) -> None:
        shapes[f"{name}/kernel"] = (size, size, inside, outside)
        if bias:
            shapes[f"{name}/bias"] = (outside,)
        shapes[f"{norm}/gamma"] = shapes[f"{norm}/beta"] = (outside,)

    inside = w.channels
    if w.backbone == "convnet4":
        for i in range(1, 5):
            conv(f"conv{i}", f"norm{i}", 3, inside, w.filters, True)
            inside = w.filters
        features = (w.image_size // 16) ** 2 * w.filters
    else:
        for b, width in enumerate(RESNET_WIDTHS, 1):
            conv(f"block{b}_shortcut_conv", f"block{b}_shortcut_norm", 1, inside, width, False)
            for i in (1, 2, 3):
                conv(f"block{b}_{i}_conv", f"block{b}_{i}_norm", 3, inside, width, False)
                inside = width
        features = inside
    return shapes | {"head/kernel": (features, w.n_way), "head/bias": (w.n_way,)}


def weights(w: Workload, seed: int) -> Arrays:
    """Initial weights, 'w:<name>' -> float32."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in layers(w).items():
        if name.endswith("kernel"):
            spread = math.sqrt(2 / math.prod(shape[:-1]))
            value = rng.normal(0, spread, shape)
        elif name.endswith("gamma"):
            value = rng.uniform(0.8, 1.2, shape)
        else:
            value = rng.normal(0, 0.05, shape)
        found[f"w:{name}"] = value.astype(np.float32)
    return found


def episodes(w: Workload, seed: int, images: np.ndarray | None = None) -> Arrays:
    """A meta-batch, NHWC: random images around one pattern a class, or images [classes, n, H, W, C]."""
    rng = np.random.default_rng(seed + 1)
    each = w.k_shot + w.n_query
    size = (w.image_size, w.image_size, w.channels)
    if images is None:
        patterns = rng.normal(size=(w.tasks, w.n_way, 1, *size))
        data = patterns + rng.normal(size=(w.tasks, w.n_way, each, *size))
    else:
        classes = [rng.choice(len(images), w.n_way, replace=False) for _ in range(w.tasks)]
        data = np.stack(
            [np.stack([images[c][rng.choice(len(images[c]), each, False)] for c in task]) for task in classes]
        )
    data = data.astype(np.float32)
    labels = np.broadcast_to(np.arange(w.n_way, dtype=np.int32)[:, None], (w.tasks, w.n_way, each))
    split = lambda x: (x[:, :, : w.k_shot], x[:, :, w.k_shot :])  # noqa: E731
    flat = lambda x: np.ascontiguousarray(x.reshape(w.tasks, -1, *x.shape[3:]))  # noqa: E731
    (xs, xq), (ys, yq) = split(data), split(labels)
    return dict(support_x=flat(xs), query_x=flat(xq), support_y=flat(ys), query_y=flat(yq))


def fitting(w: Workload, paths: str) -> np.ndarray | None:
    """The images of the first of the .npy files, named by spaces, that fits; None where none is named.

    Raises:
      ValueError: none fits.
    """
    size = (w.image_size, w.image_size, w.channels)
    shapes = {}
    for path in paths.split():
        images = np.load(path, mmap_mode="r")
        shapes[path] = images.shape
        if images.shape[2:] == size:
            return images
    if shapes:
        raise ValueError(f"{w.name} wants images [classes, n, *{size}] (--images). Received: {shapes}.")
    return None


def flops(w: Workload) -> float:
    """The least float operations of the workload's convolutions, a multiplication and an addition each.

    A convolution of cost f costs f forward, f for its filter gradient and, but for the first, f for its
    input gradient. Each of these is bilinear, so that the outer gradient costs two more of each, less those
    that end at the images: 9 f - 5 f₁ a support image and inner step, 3 f - f₁ a query image. Where nothing is
    adapted a support image costs what a query does.
    """
    size, total, first = w.image_size, 0.0, 0.0
    for name, shape in layers(w).items():
        if not name.endswith("kernel") or len(shape) != 4:
            continue
        here = 2.0 * size * size * math.prod(shape)
        at_input = name == "conv1/kernel" or name.startswith(("block1_1_", "block1_shortcut"))
        total, first = total + here, first + at_input * here
        if name.startswith("conv") or "_3_conv" in name:
            size //= 2
    support, query = w.n_way * w.k_shot * w.inner_steps, w.n_way * w.n_query
    if w.learner == "prototypical_network":
        query += w.n_way * w.k_shot
    if w.kind == "adapt":
        return w.tasks * (support * (3 * total - first) + query * total)
    return w.tasks * (support * (9 * total - 5 * first) + query * (3 * total - first))
