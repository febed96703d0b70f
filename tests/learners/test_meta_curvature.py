# SPDX-License-Identifier: Apache-2.0
"""Meta-Curvature: its transform against the definition in NumPy, MAML at the identity, facts."""

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.learners import tiny_tasks
from tf_lwdgh.learners import MAML, MetaCurvature
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.learners.meta_curvature import curved, identities

DRAW = np.random.default_rng(2)


def oracle(gradient, factors):
    """MC(G), entry by entry from its definition."""
    if gradient.ndim == 1:
        return gradient * factors["vector"]
    cube = gradient.reshape(-1, *gradient.shape[-2:])
    out = np.zeros_like(cube)
    for p, i, o in np.ndindex(*cube.shape):
        weights = np.multiply.outer(np.multiply.outer(factors["positions"][p], factors["in"][i]), factors["out"][o])
        out[p, i, o] = (weights * cube).sum()
    return out.reshape(gradient.shape)


def random_factors(shape):
    if len(shape) == 1:
        return {"vector": DRAW.normal(size=shape)}
    sizes = {"positions": int(np.prod(shape[:-2])), "in": shape[-2], "out": shape[-1]}
    found = {m: DRAW.normal(size=(n, n)) for m, n in sizes.items()}
    if sizes["positions"] == 1:
        found["positions"] = np.ones((1, 1))
    return found


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (1, 1, 3, 2), (5, 3), (4,)], ids=str)
def test_the_transform_is_a_product_with_a_matrix_a_mode(shape):
    gradient, factors = DRAW.normal(size=shape), random_factors(shape)
    given = [tf.constant(f) for f in factors.values() if f.shape != (1, 1)]
    found = curved(tf.constant(gradient), given)
    np.testing.assert_allclose(found, oracle(gradient, factors), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (1, 1, 3, 2), (5, 3), (4,)], ids=str)
def test_it_starts_as_the_identity(shape):
    gradient = tf.constant(DRAW.normal(size=shape))
    factors = identities("v", gradient)
    assert len(factors) == {4: 3 if shape[0] > 1 else 2, 2: 2, 1: 1}[len(shape)]
    np.testing.assert_array_equal(curved(gradient, list(factors.values())), gradient)


def test_identities_are_maml():
    loop = InnerLoop(steps=2, inner_lr={".*": 0.1, "head": 0.3}, adapt_batch_norm=True)
    batch = tiny_tasks.episodes()
    ours, theirs = (tiny_tasks.outcome(tiny_tasks.parameters(c(inner_loop=loop)), batch) for c in (MetaCurvature, MAML))
    mine = ours._replace(gradients=ours.gradients[: len(theirs.gradients)])
    tiny_tasks.assert_same_gradients(mine, theirs, 1e-12)


def factors_of(meta, name, ways=None):
    prefix = f"curvature/{name}"
    if prefix in meta.own:
        return {"vector": meta.own[prefix].numpy()[:ways]}
    found = {"positions": np.ones((1, 1))}
    found |= {n.rpartition("/")[2]: v.numpy() for n, v in meta.own.items() if n.startswith(prefix)}
    found["out"] = found["out"][:ways, :ways] if ways else found["out"]
    return found


@pytest.mark.parametrize("ways", [None, 2], ids=["all_ways", "fewer_ways"])
def test_a_step_subtracts_the_transformed_gradient(ways):
    loop = InnerLoop(steps=1, inner_lr={".*": 0.1, "head": 0.3}, adapt_batch_norm=True)
    learner = MetaCurvature(inner_loop=loop)
    params = tiny_tasks.parameters(learner)
    meta = tiny_tasks.perturbed(params, scale=0.3)
    one = tiny_tasks.task(tiny_tasks.episodes(n_way=ways or 3))
    told = tiny_tasks.context(params, training=False, n_way=ways)
    adapted = learner.adapt(told, meta, one.support_images, one.support_labels).params
    start = [*meta.network[:-2], meta.network[-2][:, :ways], meta.network[-1][:ways]]
    with tf.GradientTape() as tape:
        tape.watch(start)
        loss = oracles.loss(start, one.support_images, one.support_labels.numpy())
    gradients, names = tape.gradient(loss, start), params.model.names
    rates = learner.rates(params.model)
    for name, rate, v, g, found in zip(names, rates, start, gradients, adapted, strict=True):
        factors = factors_of(meta, name, ways if name.startswith("head/") else None)
        expected = v.numpy() - rate * oracle(g.numpy(), factors)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=name)


def test_plain_operations_and_recomputed_steps_give_the_same_gradients():
    settings = {"steps": 2, "inner_lr": 0.1}
    stored = MetaCurvature(inner_loop=InnerLoop(**settings))
    theirs = tiny_tasks.perturbed_outcome(stored)
    tiny_tasks.assert_same_gradients(tiny_tasks.perturbed_outcome(stored, fused=False), theirs)
    again = MetaCurvature(inner_loop=InnerLoop(**settings, memory="recompute"))
    tiny_tasks.assert_same_gradients(tiny_tasks.perturbed_outcome(again), theirs)


@pytest.mark.parametrize("harmonize", [False, True])
def test_matrices_are_named_after_their_variables_and_grouped_by_layer(harmonize):
    learner = MetaCurvature(inner_loop=InnerLoop(), harmonize_curvature=harmonize)
    params = tiny_tasks.parameters(learner)
    modes = ("positions", "in", "out")
    expected = []
    for layer in ("conv1", "conv2"):
        expected += [f"curvature/{layer}/kernel/{m}" for m in modes] + [f"curvature/{layer}/bias"]
    expected += [f"curvature/head/kernel/{m}" for m in modes[1:]] + ["curvature/head/bias"]
    assert list(params.own) == expected
    units = {u for u in params.units("layer") if u.startswith("curvature/")}
    layers = {"curvature/conv1", "curvature/conv2", "curvature/head"}
    assert units == (layers if harmonize else set())
    assert not MetaCurvature(head="zero").any_way
