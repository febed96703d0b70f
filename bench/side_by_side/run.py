# SPDX-License-Identifier: Apache-2.0
"""Trains by a program that `bench.side_by_side.export` wrote: python run.py FOLDER. Needs JAX and NumPy alone."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax._src.interpreters import mlir
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo


def load(folder: str, inputs: list, about: dict, precision: str):
    """The program as a JAX function of flat arguments."""
    outputs = [jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype)) for shape, dtype in about["outputs"]]

    def alike(*given):  # of the program's inputs and outputs; its module is put in this one's place
        return tuple(jnp.zeros(o.shape, o.dtype) for o in outputs)

    platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    frame = export.export(jax.jit(alike, keep_unused=True), platforms=[platform])(*inputs)
    with mlir.make_ir_context(), open(os.path.join(folder, "program.mlirbc"), "rb") as file:
        text = str(ir.Module.parse(file.read()))
        text = re.sub(r"precision = \[DEFAULT, DEFAULT\]", f"precision = [{precision}, {precision}]", text)
        module = ir.Module.parse(text)
        data = stablehlo.serialize_portable_artifact(module, stablehlo.get_current_version())
    kept = tuple(range(len(inputs)))
    return dataclasses.replace(frame, mlir_module_serialized=data, module_kept_var_idx=kept).call


def windows(step, n_variables: int, window: int, table: list[int], snapshot: list[int]):
    """A function of many steps: means of the metrics over every window, and its last step's snapshot."""

    def one(carry, given):
        state, pixels, number, total, _ = carry
        rows, labels, explores = given
        out = step(*state, pixels, rows.astype(jnp.int32), labels.astype(jnp.int32), explores, number)
        return (list(out[: 3 * n_variables]), pixels, number + 1, total + out[-2], out[-1]), None

    def of_window(carry, given):
        state, pixels, number = carry
        begin = (state, pixels, number, jnp.zeros(table), jnp.zeros(snapshot))
        (state, pixels, number, total, last), _ = jax.lax.scan(one, begin, given)
        return (state, pixels, number), (total / window, last)

    @jax.jit
    def run(state, pixels, number, given):
        cut = [v.reshape(-1, window, *v.shape[1:]) for v in given]
        (state, _, _), (metrics, snapshots) = jax.lax.scan(of_window, (state, pixels, number), tuple(cut))
        return state, metrics, snapshots

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--window", type=int, default=50, help="steps whose metrics are averaged")
    parser.add_argument("--chunk", type=int, default=100, help="steps between two lines of output")
    parser.add_argument("--keep", type=int, default=2000, help="steps between two sets of variables that are kept")
    parser.add_argument("--steps", type=int, help="fewer than the study's")
    parser.add_argument("--precision", default="HIGHEST", help="of products: HIGHEST, float32; DEFAULT, TF32 on a GPU")
    args = parser.parse_args()
    with open(os.path.join(args.folder, "about.json"), encoding="utf-8") as file:
        about = json.load(file)
    variables = list(np.load(os.path.join(args.folder, "variables.npz")).values())
    tasks = np.load(os.path.join(args.folder, "tasks.npz"))
    given = [tasks[k] for k in ("rows", "labels", "explores")]
    pixels = jnp.asarray(np.load(os.path.join(args.folder, "pixels.npy")))
    n, steps = len(variables), args.steps or about["steps"]
    if steps % args.window or args.chunk % args.window:
        parser.error(f"--window must divide --chunk and the {steps} steps. Received: {args.window}, {args.chunk}.")
    of = jax.ShapeDtypeStruct
    inputs = [of(v.shape, v.dtype) for v in variables] * 3 + [of(pixels.shape, np.uint8)]
    inputs += [of(v.shape[1:], d) for v, d in zip(given, (np.int32, np.int32, np.bool_))] + [of((), np.int32)]
    step = load(args.folder, inputs, about, args.precision)
    table, snapshot = (shape for shape, _ in about["outputs"][-2:])
    run = windows(step, n, args.window, table, snapshot)
    state = [jnp.asarray(v) for v in variables] + [jnp.zeros(v.shape, v.dtype) for v in variables] * 2
    metrics, snapshots, kept, seconds = [], [], {}, []
    for done in range(0, steps, args.chunk):
        begin, end = time.perf_counter(), min(done + args.chunk, steps)
        state, m, s = run(state, pixels, jnp.int32(done), [v[done:end] for v in given])
        metrics.append(np.asarray(m))
        snapshots.append(np.asarray(s))
        seconds.append((time.perf_counter() - begin) / (end - done))
        fine = np.isfinite(metrics[-1]).all()
        print(f"{end} of {steps} steps, {1e3 * seconds[-1]:.2f} ms each{'' if fine else ', NOT FINITE'}", flush=True)
        if end % args.keep == 0 or end == steps:
            kept |= {f"{end}_{i}": np.asarray(v) for i, v in enumerate(state[:n])}
    np.savez(os.path.join(args.folder, "kept.npz"), **kept)
    np.savez(
        os.path.join(args.folder, "metrics.npz"), metrics=np.concatenate(metrics), snapshots=np.concatenate(snapshots)
    )
    ran = {"seconds": float(np.median(seconds[1:] or seconds)), "window": args.window, "precision": args.precision}
    ran |= {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
    with open(os.path.join(args.folder, "ran.json"), "w", encoding="utf-8") as file:
        json.dump(ran, file)


if __name__ == "__main__":
    main()
