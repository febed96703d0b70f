"""The only door to gin: registering, reading files and bindings, and writing snapshots."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence

import gin

configurable = gin.configurable
external_configurable = gin.external_configurable
constant = gin.constant
REQUIRED = gin.REQUIRED
ConfigError = ValueError

_REPO_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def parse(gin_files: Sequence[str], gin_params: Sequence[str] = ()) -> None:
    """Reads gin files and then single bindings; later ones win.

    Includes resolve from the working directory and from the folder that holds `gin/`.

    Args:
      gin_files: paths of gin files.
      gin_params: bindings such as 'EpisodeConfig.k_shot = 5'.

    Raises:
      FileNotFoundError: a gin file does not exist.
      ValueError: a binding names something that is not registered, or does not parse.
    """
    gin.clear_config()
    gin.add_config_file_search_path(_REPO_ROOT)
    for path in gin_files:
        if not os.path.exists(path) and not os.path.exists(os.path.join(_REPO_ROOT, path)):
            raise FileNotFoundError(
                f"--gin_file: no such file. Received: {path!r} (working directory {os.getcwd()!r})."
            )
    try:
        gin.parse_config_files_and_bindings(list(gin_files), list(gin_params), skip_unknown=False)
    except (ValueError, SyntaxError) as error:
        raise ValueError(_explain(str(error))) from error
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
    for line in gin.operative_config_str(max_line_length=10**6).splitlines():
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


def _bound_name(binding: str) -> str:
    return binding.partition("=")[0].strip()


def _names() -> list[str]:
    selectors = gin.config._REGISTRY.matching_selectors("")  # gin has no public listing
    return sorted({s.split(".")[-1] for s in selectors} - {"macro", "singleton", "constant"})


def _explain(message: str) -> str:
    """Adds the near names to gin's complaint about an unknown one."""
    unknown = re.search(r"No configurable matching (?:reference )?'@?([\w.]+)", message)
    if unknown:
        return f"{message} {_near(unknown[1].split('.')[-1], _names())}"
    argument = re.search(r"Configurable '([\w.]+)' doesn't have a parameter named '(\w+)'", message)
    if argument:
        known = sorted(gin.config._get_all_positional_parameter_names(_wrapped(argument[1])))
        return f"{message} {_near(argument[2], known)}"
    return message


def _wrapped(selector: str):
    return gin.config._REGISTRY.get_match(selector).wrapper


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Known names: {', '.join(known)}."


def _check_macros(gin_params: Sequence[str]) -> None:
    """Refuses references to macros that are not set, and single bindings of macros not in use."""
    text = gin.config_str(max_line_length=10**6)
    referred = set(re.findall(r"%([A-Za-z_]\w*)", text))
    defined = set(re.findall(r"^(\w+) = ", text, re.MULTILINE))
    for name in sorted(referred - defined - {"gin"}):
        raise ValueError(f"No value for the macro %{name}. {_near(name, sorted(defined))}")
    for name in map(_bound_name, gin_params):
        if name in defined - referred:
            raise ValueError(
                f"No setting takes its value from the macro {name}. {_near(name, sorted(referred))}"
            )
