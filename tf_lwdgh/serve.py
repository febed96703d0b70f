# SPDX-License-Identifier: Apache-2.0
"""Serves an exported model over HTTP: TensorFlow Serving's REST contract, kept classifiers, and a page.

Examples:

  An export; its page is at http://127.0.0.1:8501/, what it answers at /docs:
    python -m tf_lwdgh.serve --model=exported/demo

  A folder of numbered versions, by another name and on every address of the machine:
    python -m tf_lwdgh.serve --model=models/glyphs --name=characters --host=0.0.0.0 --port=8080

  Learn from two classes of pictures, and ask for the class of another:
    curl -X PUT -F cat=@cat1.jpg -F cat=@cat2.jpg -F dog=@dog1.jpg \\
        http://127.0.0.1:8501/v1/classifiers/pets
    curl --data-binary @who.jpg http://127.0.0.1:8501/v1/classifiers/pets:predict

There is no authentication and no encryption: on an address that others reach, put a proxy before it
that has both. SIGTERM or Ctrl-C lets running requests finish; the exit code is 0 then.

It needs what `pip install '.[serve]'` adds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from tf_lwdgh import command_line

PROGRAM = "tf_lwdgh.serve"
_EXAMPLE = "python -m tf_lwdgh.serve --model=exported/demo"


def define_flags() -> None:
    """The flags of this program."""
    from tf_lwdgh.server.limits import Limits

    flags.DEFINE_string("model", None, "A folder that tf_lwdgh.export wrote, or one of its versions.")
    flags.DEFINE_string("name", None, "The model's name in addresses; by default its folder's.")
    flags.DEFINE_string("host", "127.0.0.1", "The address to listen at; 0.0.0.0 is every one.")
    flags.DEFINE_integer("port", 8501, "The port to listen at; 0 chooses a free one.")
    for field in dataclasses.fields(Limits):
        default: Any = field.default
        define = flags.DEFINE_float if isinstance(default, float) else flags.DEFINE_integer
        define(field.name, default, field.metadata["help"])


def serve(model: str | None, name: str | None, host: str, port: int, limits: dict[str, Any]) -> None:
    """Serves as the flags say, until a signal ends it.

    Raises:
      ValueError: a flag is wrong, or a package is missing.
      FileNotFoundError: there is no such export.
      OSError: the address is not free.
    """
    command_line.require_flag("model", model, _EXAMPLE)
    from tf_lwdgh.server.limits import Limits

    allowed = Limits(**limits)
    command_line.start_tensorflow()
    try:
        from tf_lwdgh.server import process
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is missing: pip install '.[serve]' adds it.") from error
    from tf_lwdgh.server.models import Models
    from tf_lwdgh.server.service import Service

    service = Service(Models(model, name), allowed)
    listening = process.listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    print(f"{service.models.name}: http://{shown}:{listening.getsockname()[1]}/", flush=True)
    process.run(service, listening)


def main(argv: Sequence[str]) -> None:
    """The command line."""
    args = flags.FLAGS
    with command_line.clean_errors(PROGRAM):
        if len(argv) > 1:
            raise ValueError(f"no such argument: {' '.join(argv[1:])}. Example: {_EXAMPLE}")
        from tf_lwdgh.server.limits import Limits

        limits = {field.name: getattr(args, field.name) for field in dataclasses.fields(Limits)}
        serve(args.model, args.name, args.host, args.port, limits)


if __name__ == "__main__":
    define_flags()
    app.run(main)
