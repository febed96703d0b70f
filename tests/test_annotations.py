# SPDX-License-Identifier: Apache-2.0
"""Values against annotations: what fits, in which words it is refused, and every setting there is."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pytest

import tf_lwdgh.runs.trainer
import tf_lwdgh.studies.conduct  # noqa: F401
from tf_lwdgh import annotations, config
from tf_lwdgh.annotations import describe, fits
from tf_lwdgh.outer.meta_step import OuterLoop
from tf_lwdgh.studies.definition import Method

FITTING = [
    (3, int), (np.int64(3), int), (3, float), (0.5, float), (np.float32(0.5), float), (True, bool),
    (np.bool_(True), bool), ("x", str), (None, int | None), (3, int | None), ([1, 2.5], tuple[float, ...]),
    ((), tuple[int, ...]), ({"a": 1}, Mapping[str, float]), ({}, dict[str, int]), (len, Callable[..., Any]),
    ("a", Literal["a", "b"]), ([1, "x"], tuple[int, str]), (dataclasses.Field, type), (object(), Any),
    (["a"], Sequence[str]), (("a",), str | tuple[str, ...]),
]  # fmt: skip
UNFIT = [
    (True, int), (True, float), (1, bool), ("yes", bool), (1.5, int), (1.0, int), ("1", int), (None, int),
    ("0.1", float), ({}, float), (1, str), (b"x", str), (None, str), ("ab", tuple[str, ...]), ([1, "x"], list[int]),
    ([True], tuple[int, ...]), ([1], tuple[int, int]), ({"a": "b"}, Mapping[str, float]),
    ({1: 1.0}, Mapping[str, float]),
    ([1], Mapping[str, int]), ("c", Literal["a", "b"]), (3, Callable[..., Any]), (3, dataclasses.Field),
    ([], int | None),
]  # fmt: skip


@pytest.mark.parametrize(("value", "hint"), FITTING)
def test_what_fits(value, hint):
    assert fits(value, hint)


@pytest.mark.parametrize(("value", "hint"), UNFIT)
def test_what_does_not(value, hint):
    assert not fits(value, hint)


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int | None, "an integer or None"),
        (bool, "True or False"),
        (tuple[float, ...] | None, "a list of numbers or None"),
        (Mapping[str, float], "a mapping to numbers"),
        (Callable[..., int], "a maker, such as @name (without brackets)"),
        (dataclasses.Field, "a ready object, such as @Field() (with brackets)"),
        (Literal["a", "b"], "one of 'a', 'b'"),
        (tuple[int, str], "a list of an integer and a text"),
    ],
)
def test_annotations_in_words(hint, words):
    assert describe(hint) == words


@annotations.checked
@dataclasses.dataclass(frozen=True)
class Settings:
    rate: float = 1.0
    steps: int = 1

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError("own words")
        if self.steps == "many":
            raise ValueError("own words on steps")


def test_a_class_of_its_own_words_says_them_first():
    with pytest.raises(ValueError, match="own words"):
        Settings(rate=-1)
    with pytest.raises(ValueError, match="own words on steps"):
        Settings(steps="many")
    with pytest.raises(ValueError, match="Settings.steps must be an integer"):
        Settings(rate=-1, steps="x")  # of which they say nothing
    with pytest.raises(ValueError, match=r"Settings.rate must be a number. Received: .* = 'x'\."):
        Settings(rate="x")  # whose comparison raised a TypeError
    with pytest.raises(ValueError, match="Settings.steps must be an integer"):
        Settings(1.0, 2.5)
    with pytest.raises(TypeError, match="unexpected keyword"):
        Settings(step=1)
    assert Settings(rate=2).rate == 2


def test_what_fits_and_fails_otherwise_is_not_hidden():
    @annotations.checked
    def divide(a: int, b: int = 0) -> float:
        return a / b

    with pytest.raises(ZeroDivisionError):
        divide(1)
    with pytest.raises(ValueError, match="divide.b must be an integer. Received: divide.b = '2'"):
        divide(1, "2")

    @annotations.checked
    def layer(units: int = 1, rate: float = 0.5) -> None:
        raise ValueError("a library's words, on a setting: of rate at most")

    with pytest.raises(ValueError, match="layer.units must be an integer. Received: layer.units = 1.5"):
        layer(1.5)
    with pytest.raises(ValueError, match="a library's words"):
        layer(rate="x")  # which they name

    @annotations.checked
    def shapes(n: int = 1) -> None:
        raise ValueError("an n in other words is not named")

    @annotations.checked
    def other(a: int = 1) -> None:
        raise ValueError("an n in other words is not named")

    with pytest.raises(ValueError, match="an n in other words"):
        shapes("x")
    with pytest.raises(ValueError, match="other.a must be an integer"):
        other("x")
    with pytest.raises(ValueError, match="a library's words"):
        layer()
    assert divide(4, 2) == 2 and divide.__name__ == "divide"


def configurables() -> list[tuple[str, Any]]:
    """Every class of this package that gin can bind."""
    found = {
        v.wrapped.__name__: v.wrapped
        for _, v in config.gin.config._REGISTRY.items()
        if v.wrapped.__module__.startswith("tf_lwdgh.") and inspect.isclass(v.wrapped)
    }
    return sorted(found.items())


# What a class can't be made without.
NEEDED = {
    "Method": lambda: {"name": "m"},
    "DatasetConfig": lambda: {"name": "d"},
    "Recon": lambda: {"layers": ("conv1",)},
    "Search": lambda: {"method": "m", "space": {"OUTER_LR": ("log", 1e-4, 1e-2)}},
    "Study": lambda: {"title": "T", "baseline": "m", "methods": [Method(name="m")]},
}
WRONG = ("x", None, [1], 1.5, {}, True, 7, object())


@pytest.mark.parametrize(("name", "made"), configurables(), ids=lambda v: v if isinstance(v, str) else "")
def test_every_setting_refuses_other_kinds_by_its_name(name, made):
    hints = typing.get_type_hints(made)
    fields = [f for f in dataclasses.fields(made) if f.init]
    needed = NEEDED.get(name, dict)()
    tried = 0
    for field in fields:
        for value in WRONG:
            if fits(value, hints[field.name]):
                continue
            with pytest.raises(ValueError, match=rf"\b{field.name}\b"):
                made(**{**needed, field.name: value})
            tried += 1
    assert tried or not fields


def test_all_settings_are_annotated():
    names = [name for name, _ in configurables()]
    assert len(names) > 50 and {"InnerLoop", "Experiment", "LWDGH", "Evaluation"} <= set(names)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**70])
def test_an_integer_that_no_tensor_can_hold_is_refused_by_name(value):
    config.parse([], [f"OuterLoop.epochs = {value}"])
    with pytest.raises(ValueError, match=r"OuterLoop.epochs must be of at most 64 bits. Received: Out"):
        OuterLoop()
