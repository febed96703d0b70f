# SPDX-License-Identifier: Apache-2.0
"""What a study is: methods × settings × seeds, as a gin file says it."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lwdgh import config
from tf_lwdgh.studies.figures.base import FigureMaker
from tf_lwdgh.studies.space import Search

Strings = tuple[str, ...]


@config.configurable
@dataclasses.dataclass(frozen=True)
class Method:
    """One row of a study's tables.

    Attributes:
      name: as the tables show it.
      gin_files: on top of the experiment's and the setting's.
      gin_params: bindings on top of those.
      gin_params_in: bindings on top of those in some settings, by the setting's name, such as
        {'5-shot': ['TrainingTasks.n_way = 20']}.
      start: the name of a method above it, from whose run of the same setting and seed this one starts
        (Experiment.start), such as a pretraining; '': from random values.
      published: the accuracy that somebody published, such as '48.17 ± 1.75' (per cent), by the
        setting's name; a single setting needs no name: '48.17 ± 1.75' alone.
      source: where it was published.
      absent: why this method can't be trained here; '' where it can. Its published figure is shown.
    """

    name: str = config.REQUIRED
    gin_files: Strings = ()
    gin_params: Strings = ()
    gin_params_in: Mapping[str, Strings] = dataclasses.field(default_factory=dict)
    start: str = ""
    published: Mapping[str, str] | str = dataclasses.field(default_factory=dict)
    source: str = ""
    absent: str = ""

    def __post_init__(self) -> None:
        _check_name("Method.name", self.name)
        _freeze(self, "gin_files", "gin_params")
        for texts in self.gin_params_in.values():
            if not isinstance(texts, (list, tuple)) or not all(isinstance(t, str) for t in texts):
                raise ValueError(
                    "Method.gin_params_in must hold a list of texts for each setting. "
                    f"Received: Method.gin_params_in = {self.gin_params_in!r}."
                )

    def published_in(self, setting: str) -> str:
        """The published accuracy in a setting, or ''."""
        if isinstance(self.published, str):
            return self.published
        return self.published.get(setting, "")


@config.configurable
@dataclasses.dataclass(frozen=True)
class Setting:
    """One table of a study: what all its methods share, such as '5-way 1-shot'.

    Attributes:
      name: as the report shows it; may be '' where there is one setting alone.
      gin_files: on top of the experiment's.
      gin_params: bindings on top of those.
    """

    name: str = ""
    gin_files: Strings = ()
    gin_params: Strings = ()

    def __post_init__(self) -> None:
        _freeze(self, "gin_files", "gin_params")


@config.configurable
@dataclasses.dataclass(frozen=True)
class Study:
    """Methods × settings × seeds: what is trained, how it is judged and what is drawn.

    gin files and bindings of a cell go on top of each other in this order: the experiment's, the
    setting's, the method's, the last.

    Attributes:
      title: of the report.
      variant: what differs from the title where files on top make it small; '' if nothing does.
      experiment: gin files that all cells begin with.
      gin_params: bindings that all cells begin with.
      methods: the rows, [@a/Method(), …].
      settings: the tables, [@a/Setting(), …].
      last_gin_files: on top of every cell; what turns a study into a small one.
      last_gin_params: likewise.
      baseline: name of the method from which differences are taken.
      seeds: of initial weights, training tasks and all random draws; one run each.
      evaluation: bindings for judging, such as 'Evaluation.n_tasks = 1000'.
      checkpoint: 'last' or 'best' (by validation accuracy), of all runs.
      figures: [@LossCurves(), …].
      note: what the report says first, such as what was expected before it ran.
      search: what --search tunes before the study runs: @Search(), or a list with other methods in each.
    """

    title: str = config.REQUIRED
    variant: str = ""
    experiment: Strings = ()
    gin_params: Strings = ()
    methods: Sequence[Method] = ()
    settings: Sequence[Setting] = dataclasses.field(default_factory=lambda: (Setting(),))
    last_gin_files: Strings = ()
    last_gin_params: Strings = ()
    baseline: str = config.REQUIRED
    seeds: tuple[int, ...] = (0,)
    evaluation: Strings = ()
    checkpoint: str = "last"
    figures: Sequence[FigureMaker] = ()
    note: str = ""
    search: Search | Sequence[Search] | None = None

    def __post_init__(self) -> None:
        _check_name("Study.title", self.title)
        _freeze(self, "experiment", "gin_params", "last_gin_files", "last_gin_params", "evaluation")
        _freeze(self, "seeds")
        self._check_parts()
        self._check_seeds()
        self._check_search()
        known = [m.name for m in self.methods]
        if self.baseline not in known:
            raise ValueError(
                f"Study.baseline must be the name of one of the methods: {', '.join(known)}. "
                f"Received: Study.baseline = {self.baseline!r}."
            )
        if self.checkpoint not in ("last", "best"):
            raise ValueError(
                f"Study.checkpoint must be 'last' or 'best'. Received: Study.checkpoint = {self.checkpoint!r}."
            )

    def _check_parts(self) -> None:
        kinds = (("methods", Method), ("settings", Setting), ("figures", FigureMaker))
        for field, kind in kinds:
            parts = getattr(self, field)
            if not isinstance(parts, (list, tuple)) or (not parts and field != "figures"):
                raise ValueError(f"Study.{field} must be a list. Received: {parts!r}.")
            for part in parts:
                if not isinstance(part, kind):
                    raise ValueError(
                        f"Study.{field} must hold ready objects, with brackets, such as "
                        f"@name/{kind.__name__}(). Received: {part!r}."
                    )
            names = [slug(getattr(part, "name", "")) for part in parts]
            double = sorted({n for n in names if names.count(n) > 1})
            if double and field != "figures":
                raise ValueError(
                    f"Study.{field} must have different names, in folders too. Received twice: "
                    f"{', '.join(double) or 'the empty name'}."
                )
        object.__setattr__(self, "methods", tuple(self.methods))
        settings = [s.name for s in self.settings]
        for method in self.methods:
            if unknown := sorted(set(method.gin_params_in) - set(settings)):
                raise ValueError(
                    f"Method.gin_params_in must name settings of the study: {', '.join(settings)}. "
                    f"Received, of {method.name!r}: {', '.join(unknown)}."
                )
        self._check_starts()

    def _check_starts(self) -> None:
        above: list[str] = []
        for method in self.methods:
            if method.start and method.start not in above:
                raise ValueError(
                    f"Method.start must name a method that is trained here and stands above {method.name!r} in "
                    f"Study.methods: {', '.join(above) or 'there is none'}. Received: Method.start = {method.start!r}."
                )
            if not method.absent:
                above.append(method.name)

    def _check_seeds(self) -> None:
        whole = all(isinstance(s, int) and not isinstance(s, bool) for s in self.seeds)
        if not self.seeds or not whole or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                "Study.seeds (--seeds) must be different integers, at least one. "
                f"Received: Study.seeds = {self.seeds!r}."
            )

    def _check_search(self) -> None:
        searches = self.search if isinstance(self.search, (list, tuple)) else (self.search,)
        searches = tuple(s for s in searches if s is not None)
        if not all(isinstance(s, Search) for s in searches):
            raise ValueError(
                "Study.search must be a ready object, with brackets, @Search(), or a list of such. "
                f"Received: Study.search = {self.search!r}."
            )
        tuned = [name for s in searches for name in s.method]
        known = [m.name for m in self.methods if not m.absent and not m.start]
        wrong = [n for n in tuned if n not in known or tuned.count(n) > 1]
        if wrong:
            raise ValueError(
                "Search.method must name methods of the study that are trained here, from random values, each once: "
                f"{', '.join(known)}. Received: {', '.join(dict.fromkeys(wrong))}."
            )
        object.__setattr__(self, "search", searches)

    @property
    def heading(self) -> str:
        """Title and variant."""
        return f"{self.title} ({self.variant})" if self.variant else self.title

    def chosen(self, only: str) -> list[Method]:
        """The methods that can be trained here and whose name fits a pattern, such as 'LWDGH*'.

        Raises:
          ValueError: none does.
        """
        fitting = [m for m in self.methods if fnmatch.fnmatch(m.name.lower(), only.lower())]
        if not fitting:
            raise ValueError(
                f"--only must fit a method: {', '.join(m.name for m in self.methods)}. Received: --only={only!r}."
            )
        return [m for m in fitting if not m.absent]


def slug(name: str) -> str:
    """A name as a file name: small letters, digits and single underscores."""
    kept = "".join(c if c.isalnum() else "_" for c in name.lower().replace("+", " plus "))
    return "_".join(part for part in kept.split("_") if part)


def _check_name(what: str, value: Any) -> None:
    if not isinstance(value, str) or not slug(value):
        received = "nothing" if value is config.REQUIRED else repr(value)
        raise ValueError(f"{what} must be a text with letters or digits. Received: {received}.")


def _freeze(owner: Any, *fields: str) -> None:
    """Makes tuples of lists; what is no list, config.configurable refuses."""
    for field in fields:
        object.__setattr__(owner, field, tuple(getattr(owner, field)))
