# SPDX-License-Identifier: Apache-2.0
"""The only door to gin: registering, reading files and bindings, and writing snapshots."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import os
import pathlib
import re
import tokenize
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

import gin

from tf_lwdgh import annotations as kinds

external_configurable = gin.external_configurable
constant = gin.constant
REQUIRED = gin.REQUIRED
ConfigError = ValueError
_INCLUDE = re.compile(r"^include\s+['\"](.+?)['\"]", re.MULTILINE)
_NO_LITERAL = "malformed node or string"  # so Python begins, and goes on with an object's address
_NO_VALUE = re.compile(f"{_NO_LITERAL}|Expected newline")  # so does gin of values that it can't read
_UNQUOTED = "a value must be written as in Python, such as 0.5, 'text', True or (1, 2); texts need quotes."
_CONSTANTS = {"true": "True", "false": "False", "none": "None", "null": "None"}
_UNBROKEN = 10**5  # characters: no value is broken into lines

_EXTENSION = ".gin"
_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def _gin_folder() -> str:
    """The project's gin files: in the package where it is installed, beside it in a clone."""
    installed = os.path.join(_PACKAGE, "gin")
    return installed if os.path.isdir(installed) else os.path.join(os.path.dirname(_PACKAGE), "gin")


GIN_FOLDER = _gin_folder()

# Where a gin file is looked for, the user's own first; names may leave out `gin/` and `.gin`.
_PLACES = ("", "gin", os.path.dirname(GIN_FOLDER), GIN_FOLDER)


def configurable(made: Callable[..., Any]) -> Callable[..., Any]:
    """Registers a class or function with gin; what is bound or passed is held to its annotations."""
    return gin.configurable(kinds.checked(made))


def parse(gin_files: Sequence[str], gin_params: Sequence[str] = ()) -> None:
    """Reads gin files and then single bindings; later ones win.

    A file's `import my_module` imports a module of the user's own, and with it what it registers.
    Files and what they include are found as `find` says.

    Args:
      gin_files: paths of gin files, or names of the project's.
      gin_params: bindings such as 'EpisodeConfig.k_shot = 5'.

    Raises:
      FileNotFoundError: a gin file does not exist.
      ValueError: a binding names something that is not registered, or does not parse; or a module
        that a file imports is not there.
    """
    gin.clear_config()
    paths = [_require(name) for name in gin_files]
    for path in paths:
        _refuse_cycles(path)
    with _explained():
        gin.parse_config_files_and_bindings(paths, [], finalize_config=False)
    for binding in gin_params:
        with _explained(binding):
            gin.parse_config(binding)
    _check_macros(gin_params)


def clear() -> None:
    """Forgets every binding."""
    gin.clear_config()


def full_text() -> str:
    """Every binding made so far, as gin text that can be read back."""
    return gin.config_str()


def operative_text() -> str:
    """The values, defaults included, of everything that was called so far, as gin text."""
    return gin.operative_config_str()


def settings() -> dict[str, str]:
    """The values of `operative_text` by 'Name.argument', macros replaced by what they stand for."""
    values, macros = {}, {}
    for line in gin.operative_config_str(max_line_length=_UNBROKEN).splitlines():
        name, found, value = line.partition(" = ")
        if found and not name.startswith("#"):
            (values if "." in name else macros)[name] = value

    def resolve(value: str) -> str:
        return re.sub(r"%(\w+)", lambda m: resolve(macros.get(m[1], m[0])), value)

    return {name: resolve(value) for name, value in values.items()}


def without_effect(gin_params: Sequence[str]) -> list[str]:
    """Those bindings of `gin_params` that nothing has asked for so far, such as 'LWDGH.unit'."""
    used = set(settings())
    names = [_bound_name(p) for p in gin_params]
    return [n for n in names if "." in n and ".".join(n.split(".")[-2:]) not in used]


def find(name: str) -> str | None:
    """The file that a gin file's name stands for, as --gin_file and `include` take it.

    Args:
      name: a path, or the name of one of the project's: 'gin/learners/boil.gin', 'learners/boil.gin' or
        'learners/boil'. What lies in the working directory comes first.

    Returns:
      Its path; None where there is none.
    """
    for place in _PLACES if not os.path.isabs(name) else ("",):
        for path in (os.path.join(place, name), os.path.join(place, name) + _EXTENSION):
            if os.path.isfile(path):
                return path
    return None


def _read(name: str) -> TextIO:
    return open(find(name) or name, encoding="utf-8")


# In the place of gin's own, which log an error for each place where a file is not.
gin.config._FILE_READERS[:] = [(_read, lambda name: find(name) is not None)]


def available() -> list[str]:
    """The project's gin files as --gin_file takes them: 'glyphs', 'learners/boil' …"""
    found = pathlib.Path(GIN_FOLDER).rglob(f"*{_EXTENSION}")
    return sorted(p.relative_to(GIN_FOLDER).with_suffix("").as_posix() for p in found)


def _require(name: str) -> str:
    """The path of a gin file that must be there."""
    path = find(name)
    if path is None:
        raise FileNotFoundError(
            f"--gin_file: no such file. Received: {name!r} (working directory {os.getcwd()!r}). {_near_file(name)}"
        )
    return path


def _near_file(name: str) -> str:
    """Which of the project's files was probably meant."""
    known = available()
    stem = os.path.basename(name).removesuffix(_EXTENSION)
    same = [n for n in known if n.split("/")[-1] == stem]
    asked = name.removeprefix("gin/").removesuffix(_EXTENSION)
    near = same or difflib.get_close_matches(asked, known, n=3, cutoff=0.6)
    ask = "`tf-lwdgh list` shows those that there are."
    return f"Did you mean {' or '.join(near)}? {ask}" if near else ask


def _refuse_cycles(path: str, trail: tuple[str, ...] = ()) -> None:
    """Refuses gin files that include themselves, and those that are no text."""
    found = find(path)
    if found is None:
        return  # said elsewhere
    real = os.path.realpath(found)
    if real in trail:
        files = " includes ".join(os.path.basename(f) for f in (*trail[trail.index(real) :], real))
        raise ValueError(f"--gin_file: a file must not include itself. Received: {files}.")
    try:
        with open(found, encoding="utf-8") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"--gin_file must be a text file in UTF-8. Received: {path!r} ({error}).") from error
    for inner in _INCLUDE.findall(text):
        _refuse_cycles(inner, (*trail, real))


def _bound_name(binding: str) -> str:
    return binding.partition("=")[0].strip()


def _names() -> list[str]:
    selectors = [s for s, _ in gin.config._REGISTRY.items() if not s.startswith("gin.")]
    return sorted({s.split(".")[-1] for s in selectors})


@contextlib.contextmanager
def _explained(binding: str | None = None) -> Iterator[None]:
    """Adds to gin's complaints where they come from, a single binding or a file, and what was probably meant."""
    prefix = "" if binding is None else f"--gin_param={binding!r}: "
    try:
        yield
    except tokenize.TokenError as error:  # a quote or bracket that is not closed
        raise ValueError(f"{prefix}{error.args[0]}; is a quote or bracket not closed?") from error
    except (ValueError, SyntaxError) as error:
        message, _, place = str(error).partition("\n")
        if prefix:
            message = re.sub(r" \((<string>, )?line 1\)$", "", message)
            place = ""
        if binding and _NO_VALUE.match(message):
            message = _unquoted(binding)
        elif message.startswith(_NO_LITERAL):
            message = _UNQUOTED
        text = f"{prefix}{message} {_hint(message)}".strip()
        raise ValueError(f"{text}\n{place}".strip()) from error
    except ModuleNotFoundError as error:
        message, _, place = str(error).partition("\n")
        text = (
            f"import: {message}. A module of your own is looked for in the working directory, "
            f"{os.getcwd()!r}, and on PYTHONPATH."
        )
        raise ValueError(f"{text}\n{place}".strip()) from error


def _unquoted(binding: str) -> str:
    """What is wrong with a binding whose value gin cannot read."""
    name, _, value = (part.strip() for part in binding.partition("="))
    if value.lower() in _CONSTANTS:
        return f"it must begin with a capital: {name} = {_CONSTANTS[value.lower()]}."
    if re.fullmatch(r"[\w./:~ -]+", value):
        return f"a text needs quotes; quote it: {name} = {value!r}."
    return _UNQUOTED


def _hint(message: str) -> str:
    """What was probably meant, from gin's words about an unknown or refused name."""
    unknown = re.search(r"No configurable matching (?:reference )?'@?([\w.]+)", message)
    if unknown:
        return _near(unknown[1].split(".")[-1], _names())
    argument = re.search(r"Configurable '([\w.]+)' doesn't have a parameter named '(\w+)'", message)
    if argument:
        wrapped = gin.config._REGISTRY.get_match(argument[1]).wrapped
        return _near(argument[2], sorted(inspect.signature(wrapped).parameters))
    refused = re.search(r"has denylisted kwarg '(\w+)'", message)
    if refused:
        rate = refused[1] == "learning_rate"
        instead = "LearningRate.rate" if rate else "OuterLoop.clip_value or .clip_norm"
        return f"Bind {instead} instead."
    return ""


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Known names: {', '.join(known)}."


def _check_macros(gin_params: Sequence[str]) -> None:
    """Refuses references to macros that are not set, and single bindings of macros not in use."""
    lines = gin.config_str(max_line_length=_UNBROKEN).splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))  # rules of that length
    referred = set(re.findall(r"%([A-Za-z_]\w*)", text))
    defined = set(re.findall(r"^(\w+) = ", text, re.MULTILINE))
    for name in sorted(referred - defined - {"gin"}):
        raise ValueError(f"No value for the macro %{name}. {_near(name, sorted(defined))}")
    _refuse_macros_of_themselves(lines)
    for name in map(_bound_name, gin_params):
        if name in defined - referred:
            raise ValueError(f"No setting takes its value from the macro {name}. {_near(name, sorted(referred))}")


def _refuse_macros_of_themselves(lines: Sequence[str]) -> None:
    """Refuses macros whose value leads back to them."""
    macros = dict(re.findall(r"^(\w+) = (.*)$", "\n".join(lines), re.MULTILINE))

    def follow(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            chain = " = ".join(f"%{n}" for n in (*trail[trail.index(name) :], name))
            raise ValueError(f"a macro must not refer to itself. Received: {chain[1:]}.")
        for other in re.findall(r"%(\w+)", macros.get(name, "")):
            follow(other, (*trail, name))

    for macro in macros:
        follow(macro, ())
