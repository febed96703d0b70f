# SPDX-License-Identifier: Apache-2.0
"""The store of kept classifiers: how many, how large, how old."""

from __future__ import annotations

import numpy as np
import pytest

from tf_lwdgh.server.classifiers import Kept, Store
from tf_lwdgh.server.limits import Limits
from tf_lwdgh.server.refusals import Refused


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def kept(name: str, n_bytes: int = 8) -> Kept:
    return Kept(name, ("a", "b"), (1, 1), {"w": np.zeros(n_bytes, np.uint8)}, 1, 0.0)


def names(store: Store) -> list[str]:
    return [one.name for one in store.all()]


def test_of_too_many_that_which_was_used_longest_ago_goes():
    store = Store(Limits(max_classifiers=2))
    assert store.put(kept("one")) == store.put(kept("two")) == []
    store.get("one")
    assert store.put(kept("three")) == ["two"]
    assert names(store) == ["one", "three"]
    with pytest.raises(Refused, match="no classifier is kept by the name 'two'"):
        store.get("two")


def test_of_too_many_bytes_as_many_go_as_must():
    store = Store(Limits(max_classifier_bytes=30))
    for name in ("one", "two", "three"):
        store.put(kept(name, 10))
    assert store.put(kept("four", 20)) == ["one", "two"]
    assert store.n_bytes == 30
    with pytest.raises(Refused, match="may have 30 bytes. Received: 31") as caught:
        store.put(kept("five", 31))
    assert caught.value.status == 413
    assert names(store) == ["three", "four"]


def test_a_name_that_is_learned_again_takes_the_place_of_the_first():
    store = Store(Limits(max_classifiers=2, max_classifier_bytes=30))
    store.put(kept("one", 20))
    assert store.put(kept("one", 30)) == []
    assert (names(store), store.n_bytes) == (["one"], 30)


def test_what_is_too_old_goes_however_often_it_is_used():
    clock = Clock()
    store = Store(Limits(classifier_ttl=60), clock)
    store.put(kept("one"))
    clock.now += 59.9
    store.get("one")
    store.put(kept("two"))
    clock.now += 0.1
    assert names(store) == ["two"]
    with pytest.raises(Refused, match="'one'"):
        store.get("one")
    clock.now += 60
    store.expire()
    assert (names(store), store.n_bytes) == ([], 0)


def test_what_is_removed_is_gone():
    store = Store(Limits())
    store.put(kept("one"))
    store.remove("one")
    with pytest.raises(Refused) as caught:
        store.remove("one")
    assert caught.value.status == 404


@pytest.mark.parametrize("name", ["max_body_bytes", "max_queue", "read_timeout", "classifier_ttl"])
def test_a_limit_must_be_above_zero(name):
    with pytest.raises(ValueError, match=f"--{name} must be above 0. Received: 0."):
        Limits(**{name: 0})
