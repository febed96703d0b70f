"""The only door to gin: registering, reading files and bindings, and writing snapshots."""

from __future__ import annotations

import os
from collections.abc import Sequence

import gin

configurable = gin.configurable
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
    gin.parse_config_files_and_bindings(list(gin_files), list(gin_params), skip_unknown=False)


def clear() -> None:
    """Forgets every binding."""
    gin.clear_config()


def full_text() -> str:
    """Every binding made so far, as gin text that can be read back."""
    return gin.config_str()


def operative_text() -> str:
    """The values, defaults included, of everything that was called so far, as gin text."""
    return gin.operative_config_str()
