# SPDX-License-Identifier: Apache-2.0
"""What every learner of the registry promises, on a case a learner; a new one needs a case here.

Most runs eagerly, since tracing takes more time than such small tasks do.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.learners import numpy_lstm, tiny_tasks
from tf_lwdgh import aggregators, config, learners
from tf_lwdgh.learners.base import BATCH_NORM
from tf_lwdgh.learners.inner_loop import InnerLoop
from tf_lwdgh.outer.task_execution import TaskExecution
from tf_lwdgh.runs import checkpoints
from tf_lwdgh.types import Meta, Published

FRAGMENTS = pathlib.Path(__file__).parents[2] / "gin" / "learners"
BATCH = tiny_tasks.episodes()


def check_slope(params, meta) -> None:
    """The outer gradient is that of the objective, with what couples the tasks and all draws held fast."""
    coupled = couplings(params, meta)
    objective = functools.partial(coupled_objectives, params, coupled)
    tasks = [
        params.learner.outer_gradient(tiny_tasks.context(params, coupling=c), meta, tiny_tasks.task(BATCH, k))[0]
        for k, c in enumerate(coupled)
    ]
    gradients = [np.stack(g) for g in zip(*map(params.flatten, tasks))]
    tiny_tasks.assert_gradient_is_the_slope(params, BATCH, meta, objective=objective, gradients=gradients, directions=1)


def check_slope_with_constants_held(params, meta) -> None:
    """`check_slope`, of an objective in which all that the learner stops a gradient at is what it was at first."""
    held, stop = [], tf.stop_gradient

    def by_learner(then: Callable) -> Callable:
        """The kernels stop gradients too, whose derivatives are written out."""

        def stopped(value: tf.Tensor) -> tf.Tensor:
            mine = sys._getframe(1).f_globals["__name__"].startswith("tf_lwdgh.learners.")
            return then(value) if mine else stop(value)

        return stopped

    def record(value: tf.Tensor) -> tf.Tensor:
        held.append(stop(value))
        return held[-1]

    told = [tiny_tasks.context(params)] * tiny_tasks.N_TASKS
    tasks = [tiny_tasks.task(BATCH, k) for k in range(tiny_tasks.N_TASKS)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf, "stop_gradient", by_learner(record))
        gradients = [params.flatten(params.learner.outer_gradient(c, meta, one)[0]) for c, one in zip(told, tasks)]
        assert held

        def objective(at: Meta) -> np.ndarray:
            rest = iter(held)
            patch.setattr(tf, "stop_gradient", by_learner(lambda value: next(rest)))
            return coupled_objectives(params, [None] * len(tasks), at)

        tiny_tasks.assert_gradient_is_the_slope(
            params, BATCH, meta, objective=objective, directions=1,
            gradients=[np.stack(g) for g in zip(*gradients)],
        )  # fmt: skip


def check_slope_with_steps_held(params, meta) -> None:
    """That of L_Q(θ + δ), where δ, the way that the inner loop goes, is held fast."""
    path = functools.partial(paths, params)
    held = [[b - a for a, b in zip(p[0], p[-1])] for p in path(meta)]

    def objective(at: Meta) -> np.ndarray:
        ends = [[a + d for a, d in zip(p[0], way)] for p, way in zip(path(at), held)]
        return np.array([query_loss(params, at, end, k) for k, end in enumerate(ends)])

    tiny_tasks.assert_gradient_is_the_slope(params, BATCH, meta, objective=objective, directions=1)


def check_way_walked(params, meta) -> None:
    """(θ − φ)/(αS) of S steps on all images of a task."""
    loop, model = params.learner.inner_loop, params.model
    found = tiny_tasks.outcome(params, BATCH, meta).gradients
    for k in range(tiny_tasks.N_TASKS):
        one, at = tiny_tasks.task(BATCH, k), list(meta.network)
        images = tf.concat([one.support_images, one.query_images], 0)
        labels = tf.concat([one.support_labels, one.query_labels], 0)
        for _ in range(loop.steps):
            with tf.GradientTape() as tape:
                tape.watch(at)
                logits, _ = model.apply(at, meta.state, images, training=True)
                loss = crossentropy(logits, labels)
            at = [p - loop.inner_lr * g for p, g in zip(at, tape.gradient(loss, at))]
        trained = [i for i, yes in enumerate(params.learner.trained(model)) if yes]
        for g, i in zip(found, trained, strict=True):
            expected = (meta.network[i] - at[i]) / (loop.inner_lr * loop.steps)
            np.testing.assert_allclose(g[k], expected, rtol=1e-8, atol=1e-10)


def check_implicit(params, meta) -> None:
    """(I + H/λ) g = ∇L_Q(φ) in what moves, with H g by differences of ∇L_S."""
    model, rates = params.model, params.learner.rates(params.model)
    moving = [i for i, rate in enumerate(rates) if rate]
    found, h = tiny_tasks.outcome(params, BATCH, meta).gradients, 1e-6

    def slopes(at, images, labels) -> np.ndarray:
        with tf.GradientTape() as tape:
            tape.watch(at)
            loss = crossentropy(model.apply(at, meta.state, images, training=True)[0], labels)
        gradients = tape.gradient(loss, at)
        return np.concatenate([gradients[i].numpy().ravel() for i in moving])

    for k, path in enumerate(paths(params, meta)):
        one, solved = tiny_tasks.task(BATCH, k), {i: found[i][k] for i in moving}
        up, down = (slopes([v + s * solved.get(i, 0) for i, v in enumerate(path[-1])], *one[:2]) for s in (h, -h))
        curved = (up - down) / (2 * h) / params.learner.proximity
        right = slopes(list(path[-1]), *one[2:4])
        left = curved + np.concatenate([x.ravel() for x in solved.values()])
        norm = np.linalg.norm(right)
        assert np.linalg.norm(curved) > 0.1 * norm and np.linalg.norm(left - right) < 1e-4 * norm


def check_slope_with_gradients_held(params, meta) -> None:
    """That of L_Q at where the LSTM, written out again, walks by gradients and losses held fast."""
    told, count = tiny_tasks.context(params), len(BATCH.support_labels[0])
    held = []
    for k, path in enumerate(paths(params, meta)):
        one, gradients, losses = tiny_tasks.task(BATCH, k), [], []
        for at in path[:-1]:
            with tf.GradientTape() as tape:
                tape.watch(at)
                logits, _ = params.model.apply(at, meta.state, one.support_images, training=True)
                loss = crossentropy(logits, one.support_labels)
            gradients.append([g.numpy() / count for g in tape.gradient(loss, at)])
            losses.append(float(loss))
        held.append((gradients, losses))

    def objective(at: Meta) -> np.ndarray:
        own = {name: value.numpy() for name, value in at.own.items()}
        starts = params.learner.start(told, at, None, None)
        ends = [numpy_lstm.walk([v.numpy() for v in starts], *h, own)[-1] for h in held]
        return np.array([query_loss(params, at, end, k) for k, end in enumerate(ends)])

    for k, path in enumerate(paths(params, meta)):
        np.testing.assert_allclose(objective(meta)[k], query_loss(params, meta, path[-1], k))
    tiny_tasks.assert_gradient_is_the_slope(params, BATCH, meta, objective=objective, directions=1)


def check_slope_with_shares_held(params, meta) -> None:
    """That of Σ γ_l L_Q(φ^l), φ^l as MAML learns it from each start, with γ held fast."""
    maml = learners.ALL["MAML"](inner_loop=params.learner.inner_loop)
    told, tasks = tiny_tasks.context(params), range(tiny_tasks.N_TASKS)

    def ends(at: Meta, k: int) -> list:
        one = tiny_tasks.task(BATCH, k)
        starts = [list(at.network) for _ in range(params.learner.initialisations)]
        for slot, start in enumerate(starts[1:], 2):
            start[:] = [at.own[f"init{slot}/{name}"] for name in params.model.names]
        support = params.model.prepare(one.support_images)
        moved = (at._replace(network=start) for start in starts)
        return [maml.trajectory(told, m, support, one.support_labels)[-1] for m in moved]

    def shares(k: int) -> np.ndarray:
        one, fits = tiny_tasks.task(BATCH, k), []
        for end in ends(meta, k):
            logits, _ = params.model.apply(end, meta.state, one.support_images, training=True)
            fits.append(-len(logits) * float(crossentropy(logits, one.support_labels)))
        weights = np.exp(np.array(fits) / params.learner.temperature)
        return weights / weights.sum()

    held = [shares(k) for k in tasks]
    assert all(0.01 < s.min() < 0.99 for s in held)

    def objective(at: Meta) -> np.ndarray:
        losses = [[query_loss(params, at, end, k) for end in ends(at, k)] for k in tasks]
        return np.array([s @ np.array(one) for s, one in zip(held, losses)])

    tiny_tasks.assert_gradient_is_the_slope(params, BATCH, meta, objective=objective, directions=1)


@dataclasses.dataclass(frozen=True)
class Case:
    """How a learner is tried.

    Attributes:
      learner: its name.
      settings: beside the inner loop's.
      loop: the inner loop's; None: it has none.
      check: compares its outer gradients with something independent.
      blocks: of the network, where one is not enough.
      hooked: whether the network's activations can be hooked.
      idle: own parameters that so small a task gives no gradient.
      frozen: whether the network stays as it is, its averages too.
      vectorized: whether it is tried with all tasks as one batch; not where it has no operation
        that another has not.
    """

    learner: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    loop: Mapping[str, Any] | None = dataclasses.field(default_factory=dict)
    check: Callable = check_slope
    blocks: int = 1
    hooked: bool = False
    idle: tuple[str, ...] = ()
    frozen: bool = False
    vectorized: bool = True

    @property
    def network(self) -> dict[str, Any]:
        """Settings of `tiny_tasks.convnet`: the least to trace."""
        return {"fused": False, "blocks": self.blocks, "hooked": self.hooked}

    def make(self, steps: int = 2, **settings) -> learners.Learner:
        settings = {**self.settings, **settings}
        if self.loop is not None:
            settings["inner_loop"] = InnerLoop(**{"steps": steps, "inner_lr": 0.1, **self.loop})
        return learners.ALL[self.learner](**settings)


SMALL_HSML = {"width": 6, "embedding": (2, 5, 4)}
CASES = {  # of several cases of a learner, the first is the one for what takes longer
    "MAML": Case("MAML"),
    "MAML_zero_head": Case("MAML", {"head": "zero"}),
    "FOMAML": Case("FOMAML", check=check_slope_with_steps_held, vectorized=False),
    "ANIL": Case("ANIL"),
    "BOIL": Case("BOIL", loop={"inner_lr": 0.3, "adapt_batch_norm": True}, vectorized=False),
    "MetaSGD": Case("MetaSGD", vectorized=False),
    "MetaCurvature": Case("MetaCurvature"),
    "ProtoMAML": Case("ProtoMAML", loop={"inner_lr": 0.02}, blocks=2),  # else its first loss is 0
    "PrototypicalNetwork": Case("PrototypicalNetwork", loop=None),
    "CSN": Case(
        "CSN",
        {"hidden": 3, "key_filters": 2},
        None,
        check_slope_with_constants_held,
        blocks=2,
        hooked=True,
    ),
    "CSN_gradient": Case(
        "CSN",
        {"hidden": 3, "key_filters": 2, "information": "gradient"},
        None,
        check_slope_with_constants_held,
        blocks=2,
        hooked=True,
    ),
    "MetaNet": Case(
        "MetaNet",
        {"filters": 8, "hidden": 12},
        None,
        check_slope_with_constants_held,
        # One image makes the keys' fast weights.
        idle=(
            "fast_keys_conv/lstm/recurrent_kernel",
            "fast_keys_dense/lstm/recurrent_kernel",
        ),
        vectorized=False,
    ),
    "GNN": Case("GNN", {"hidden": (4, 3), "growth": 2}, None, vectorized=False),
    "SNAIL": Case("SNAIL", {"most_items": 7, "filters": 2, "attention": ((2, 3), (3, 2))}, None, vectorized=False),
    "DynamicNet": Case(
        "DynamicNet",
        {"n_classes": tiny_tasks.N_CLASSES, "novel_ways": 2, "base_ways": 1},
        None,
        frozen=True,
    ),
    "MatchingNetwork": Case("MatchingNetwork", loop=None),
    "MatchingNetwork_full_context": Case(
        "MatchingNetwork", {"full_context": True, "reading_steps": 2}, None, vectorized=False
    ),
    "RelationNetwork": Case("RelationNetwork", {"filters": 2, "hidden": 3}, None),
    "UnicornMAML": Case("UnicornMAML", {"query_temperature": 0.5}, vectorized=False),
    "Reptile": Case(
        "Reptile",
        {"optimizer": "sgd", "batch_size": None, "test_batch_size": None},
        {"adapt_batch_norm": True},
        check_way_walked,
    ),
    "TAML": Case("TAML", {"variant": "inequality", "weight": 0.2}),
    "TAML_entropy": Case("TAML", {"variant": "entropy", "weight": 0.2}),
    "MAMLPlusPlus": Case("MAMLPlusPlus"),
    "IMAML": Case("IMAML", {"proximity": 100.0, "cg_steps": 4}, {"inner_lr": 0.01}, check_implicit),
    "MetaBaseline": Case("MetaBaseline", loop=None),
    "Classifier": Case("Classifier", {"n_classes": tiny_tasks.N_CLASSES}, None),
    "Classifier_cosine": Case(
        "Classifier",
        {"n_classes": tiny_tasks.N_CLASSES, "head": "cosine", "label_smoothing": 0.1},
        None,
    ),
    "SimpleShot": Case("SimpleShot", {"n_classes": tiny_tasks.N_CLASSES}, None, vectorized=False),
    "Baseline": Case("Baseline", {"n_classes": tiny_tasks.N_CLASSES, "epochs": 3}, None, vectorized=False),
    "BaselinePP": Case("BaselinePP", {"n_classes": tiny_tasks.N_CLASSES, "epochs": 3}, None, vectorized=False),
    "LogisticRegression": Case("LogisticRegression", {"n_classes": tiny_tasks.N_CLASSES}, None, vectorized=False),
    "Recon": Case("Recon", {"layers": ("conv1",)}, vectorized=False),
    "MetaLearnerLSTM": Case(
        "MetaLearnerLSTM",
        {"units": 4},
        {"adapt_batch_norm": True},
        check_slope_with_gradients_held,
    ),
    "HSML": Case(  # the head's bias starts at 0, and its gate has no effect
        "HSML",
        SMALL_HSML,
        idle=("gates/head_bias/kernel", "gates/head_bias/bias"),
    ),
    "HSML_mean": Case(
        "HSML",
        {**SMALL_HSML, "aggregation": "mean", "clusters": (3,), "embedded": 4},
    ),
    "Reconciling": Case("Reconciling", {"initialisations": 2, "temperature": 5.0}, check=check_slope_with_shares_held),
}
FIRST = {name: case for name, case in CASES.items() if name == case.learner}

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
# What depends on settings in no other way than it does on the learner: further cases are for the long run.
first_cases = pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=n, marks=[pytest.mark.slow] * (n not in FIRST)) for n, c in CASES.items()],
)
every_learner = pytest.mark.parametrize("case", FIRST.values(), ids=FIRST)
LARGE = ("CSN", "GNN", "HSML", "MetaNet", "Reconciling", "SNAIL")  # to trace their graphs takes long


def _slow_if_large(case: Case, *more: str):
    marks = [pytest.mark.slow] * (case.learner in LARGE)
    return pytest.param(case, *more, id="-".join((case.learner, *more)), marks=marks)


@pytest.fixture
def eagerly():
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def crossentropy(logits, labels) -> tf.Tensor:
    """Mean cross-entropy from its definition."""
    rows = tf.range(tf.shape(labels)[0])
    chosen = tf.gather_nd(logits, tf.stack([rows, labels], 1))
    return tf.reduce_mean(tf.reduce_logsumexp(logits, 1) - chosen)


def couplings(params, meta) -> list[tf.Tensor | None]:
    """What each task is told of all."""
    learner, told = params.learner, tiny_tasks.context(params)
    if not learner.couples:
        return [None] * tiny_tasks.N_TASKS
    tasks = [tiny_tasks.task(BATCH, k) for k in range(tiny_tasks.N_TASKS)]
    scalars = tf.stack([learner.scalar(told, meta, one) for one in tasks])
    return list(learner.couple(scalars, told))


def coupled_objectives(params, coupled, meta) -> np.ndarray:
    """Each task's objective."""
    return np.array(
        [
            params.learner.objective(tiny_tasks.context(params, coupling=c), meta, tiny_tasks.task(BATCH, k)).objective
            for k, c in enumerate(coupled)
        ]
    )


def paths(params, meta) -> list:
    """The parameters before and after each inner step of each task."""
    told = tiny_tasks.context(params)
    tasks = [tiny_tasks.task(BATCH, k) for k in range(tiny_tasks.N_TASKS)]
    prepare = params.model.prepare
    return [params.learner.trajectory(told, meta, prepare(t.support_images), t.support_labels) for t in tasks]


def query_loss(params, meta, at, k) -> float:
    """Of given parameters, with the queries' own statistics."""
    one = tiny_tasks.task(BATCH, k)
    logits, _ = params.model.apply(at, meta.state, one.query_images, training=True)
    return float(crossentropy(logits, one.query_labels))


@functools.cache
def _parameters(name: str, batch_norm: str):
    return tiny_tasks.parameters(CASES[name].make(batch_norm=batch_norm), **CASES[name].network)


def parameters(case: Case, batch_norm: str = "transductive"):
    """The case's learner on a network of its own, which no test may change."""
    name = next(n for n, c in CASES.items() if c is case)
    return _parameters(name, batch_norm)


# What a learner says of itself.


def test_every_learner_has_a_case():
    assert {case.learner for case in CASES.values()} == set(FIRST) == set(learners.ALL)


@pytest.mark.parametrize("name", learners.ALL)
def test_it_tells_where_it_comes_from(name):
    learner = learners.ALL[name]
    for fact in (learner.reference, learner.equation, learner.traps, learner.__doc__):
        assert isinstance(fact, str) and fact.strip()
    assert all(isinstance(p, Published) and all(p) for p in learner.published)
    fragments = [f.read_text(encoding="utf-8") for f in FRAGMENTS.glob("*.gin")]
    assert any(f"Experiment.learner = @{name}()" in text for text in fragments)


@every_learner
def test_gin_sets_it_and_a_wrong_setting_names_its_binding(case):
    name = case.learner
    config.parse([], [f"{name}.batch_norm = 'inductive'"])
    assert case.make().batch_norm == "inductive"
    with pytest.raises(ValueError, match=f"{name}.batch_norm must be one of .*'moving'"):
        case.make(batch_norm="moving")


# What it does with a task.


@first_cases
def test_predictions_depend_on_other_queries_exactly_where_it_says_so(case, eagerly):
    for batch_norm in BATCH_NORM:
        params = parameters(case, batch_norm)
        meta, one = tiny_tasks.perturbed(params), tiny_tasks.task(BATCH)
        others = tf.concat([one.query_images[:1], 3 * one.query_images[1:] + 1], 0)
        before = tiny_tasks.answers(params, meta, one)
        after = tiny_tasks.answers(params, meta, one, queries=others)
        assert not np.allclose(before[1:], after[1:])
        moved = not np.allclose(before[0], after[0], rtol=1e-9, atol=1e-12)
        assert moved == params.learner.depends_on_queries, batch_norm


@every_learner
def test_inner_steps_are_those_it_makes(case, eagerly):
    params = parameters(case)
    learner, meta, one = params.learner, tiny_tasks.perturbed(params), tiny_tasks.task(BATCH)
    trained, one_step, two_steps = (tiny_tasks.answers(params, meta, one, steps=s) for s in (None, 1, 2))
    if learner.inner_steps() is None:
        assert learner.inner_steps(1) is None
        np.testing.assert_array_equal(one_step, two_steps)
    else:
        assert (learner.inner_steps(), learner.inner_steps(1)) == (2, 1)
        np.testing.assert_array_equal(trained, two_steps)
        assert np.abs(one_step - two_steps).max() > 1e-7


@every_learner
@pytest.mark.parametrize("shots", [1, 4])
def test_it_takes_any_shots(case, shots, eagerly):
    params = parameters(case, "inductive")
    one = tiny_tasks.task(tiny_tasks.episodes(k_shot=shots))
    logits = tiny_tasks.answers(params, params.values(), one, queries=one.query_images[:1])
    assert logits.shape == (1, tiny_tasks.N_WAY) and np.isfinite(logits).all()


@first_cases
def test_it_takes_the_ways_it_says(case, eagerly):
    params = parameters(case)
    for ways in (2, 5) if params.learner.any_way else (2,):
        one = tiny_tasks.task(tiny_tasks.episodes(n_way=ways))
        for told in (ways, tf.constant(ways)):
            logits = tiny_tasks.answers(params, params.values(), one, n_way=told)
            assert logits.shape == (2 * ways, ways) and np.isfinite(logits).all()


@every_learner
def test_what_it_has_adapted_can_be_kept(case, eagerly):
    for batch_norm in BATCH_NORM:
        params = parameters(case, batch_norm)
        meta, one = tiny_tasks.perturbed(params), tiny_tasks.task(BATCH)
        told = tiny_tasks.context(params, training=False)
        adapted = params.learner.adapt(told, meta, one.support_images, one.support_labels)
        kept = [np.array(x) for x in tf.nest.flatten(adapted)]
        again = tf.nest.pack_sequence_as(adapted, [tf.constant(x) for x in kept])
        found = tiny_tasks.answers(params, meta, one, adapted=again)
        np.testing.assert_array_equal(found, tiny_tasks.answers(params, meta, one))


@every_learner
def test_loaded_from_a_checkpoint_without_the_training_data_it_answers_as_before(case, tmp_path, eagerly):
    params, one = tiny_tasks.parameters(case.make(), **case.network), tiny_tasks.task(BATCH)
    learned = tiny_tasks.perturbed(params)
    for name, value in learned.own.items():
        params.own[name].assign(value)
    folder = checkpoints.CheckpointFolder(tmp_path)
    folder.save(1, checkpoints.meta_variables(params), {})
    settings = {name: value for name, value in case.settings.items() if name != "n_classes"}
    later = tiny_tasks.parameters(dataclasses.replace(case, settings=settings).make(), **case.network)
    folder.load_learned(folder.newest(), later)
    after = tiny_tasks.answers(later, later.values(), one)
    np.testing.assert_array_equal(after, tiny_tasks.answers(params, params.values(), one))


# Its outer gradient.


@every_case
def test_outer_gradients_are_what_they_should_be(case, eagerly):
    params = parameters(case)
    case.check(params, tiny_tasks.perturbed(params))


@every_learner
def test_what_it_trains_and_nothing_else_has_a_gradient(case, eagerly):
    params = parameters(case)
    meta, one = tiny_tasks.perturbed(params), tiny_tasks.task(BATCH)
    told = tiny_tasks.context(params, coupling=couplings(params, meta)[0])
    gradient, result = params.learner.outer_gradient(told, meta, one)
    wanted = params.learner.trained(params.model)
    assert [g is not None for g in gradient.network] == wanted and gradient.state == []
    own = [p.name for p in params.learner.own(params.model)]
    own += [name for part in params.model.parts.values() for name in part.names]
    assert sorted(gradient.own) == sorted(params.own) and list(params.own) == own
    flat = params.flatten(gradient)
    assert [g.shape for g in flat] == [v.shape for v in params.variables_trained]
    assert all(np.isfinite(g).all() for g in flat) and any(np.abs(g).max() > 1e-3 for g in flat)
    expected = crossentropy(result.logits, one.query_labels)
    np.testing.assert_allclose(result.loss, expected, rtol=1e-12)


# Within the meta-step.


@pytest.mark.parametrize("case", map(_slow_if_large, FIRST.values()))
def test_one_trace_learns_the_tasks_of_a_meta_batch_by_heart(case):
    made = aggregators.ALL["Mean"](unit="model")
    step = tiny_tasks.meta_step(case.make(1), aggregator=made, rate=0.03, **case.network)
    losses = tiny_tasks.losses_while_training(step, BATCH, 20)
    assert step.traces == 1
    assert losses[-1] < 0.5 * losses[0]
    assert all(np.isfinite(v.numpy()).all() for v in step.parameters.variables_trained)


@pytest.mark.parametrize(  # of either kind in turn: weights by norms, and by inner products
    ("case", "aggregator"),
    map(_slow_if_large, FIRST.values(), itertools.cycle(["LWDGH", "UPGrad"])),
)
def test_it_composes_with_aggregators(case, aggregator, eagerly):
    made = aggregators.ALL[aggregator]()
    step = tiny_tasks.meta_step(case.make(batch_norm="global"), aggregator=made, **case.network)
    before = [v.numpy() for v in step.parameters.variables_trained]
    metrics = step(BATCH, tf.constant(0, tf.int64))
    assert all(np.isfinite(value).all() for value in metrics.values())
    moved = [np.abs(v.numpy() - b).max() > 0 for v, b in zip(step.parameters.variables_trained, before)]
    wanted = step.parameters.units("variable").keys() - set(case.idle)
    assert all(m for m, name in zip(moved, step.parameters.names) if name in wanted)
    moved = np.abs(step.parameters.model.state()[0]).max() > 0  # the averages
    assert moved != case.frozen


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in FIRST.values() if c.vectorized])
def test_all_tasks_as_one_batch_give_the_same_gradients(case):
    params = tiny_tasks.parameters(case.make(1), **case.network)
    meta = tiny_tasks.perturbed(params)
    vectorized = TaskExecution(mode="vectorized")
    together = tiny_tasks.outcome(params, BATCH, meta, execution=vectorized)
    tf.config.run_functions_eagerly(True)
    try:
        apart = tiny_tasks.outcome(params, BATCH, meta)
    finally:
        tf.config.run_functions_eagerly(False)
    tiny_tasks.assert_same_gradients(together, apart)
