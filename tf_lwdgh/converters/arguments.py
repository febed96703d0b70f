# SPDX-License-Identifier: Apache-2.0
"""What the converters' entry points share: flags, output folder, errors as one clean message."""

from __future__ import annotations

import argparse
import importlib
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from tf_lwdgh import command_line

if TYPE_CHECKING:  # at run time TensorFlow is loaded only after the flags are read
    from tf_lwdgh.converters.problems import Problems
    from tf_lwdgh.data.store import DatasetSpec


SOURCE = "The folder or archive to read; never written to."


def parser(description: str, example: str, *, name: str | None, source: str | None = SOURCE) -> argparse.ArgumentParser:
    """A parser with the flags of every converter.

    Args:
      description: of the converter.
      example: commands.
      name: the data set's default name; None: it must be said.
      source: the help of --source; None: there is no such flag.
    """
    out = argparse.ArgumentParser(
        description=description,
        epilog=f"Example:\n\n{example}\n\nWhere the package is installed and there is no clone:\n\n"
        "  python -m tf_lwdgh.converters --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if source is not None:
        out.add_argument("--source", required=True, help=source)
    out.add_argument(
        "--data_dir",
        default="data",
        help="The records go to <data_dir>/<name>, where training looks for them (default: data).",
    )
    known = f"default: {name}" if name else "required"
    out.add_argument(
        "--name",
        default=name,
        required=name is None,
        help=f"What gin's DatasetConfig.name says ({known}).",
    )
    out.add_argument("--overwrite", action="store_true", help="Replace what <data_dir>/<name> holds.")
    out.add_argument(
        "--skip_bad",
        action="store_true",
        help="Leave out corrupt images, short classes and missing files and count them; "
        "without this flag the first one stops the conversion.",
    )
    out.add_argument(
        "--max_pixels",
        type=int,
        default=command_line.MOST_PIXELS,
        help=f"{command_line.MAX_PIXELS[:-1]} (default: %(default)s).",
    )
    out.add_argument(
        "--max_unpacked",
        type=float,
        metavar="GB",
        help="The most that an archive may unpack to (default: 100 times its size, at least 1.07).",
    )
    return out


def convert_a_form(argv: Sequence[str] | None, description: str, example: str, *, name: str, image_size: int) -> None:
    """The whole entry point of a converter whose settings are a form and a size.

    Args:
      argv: the flags; None: the process's.
      description: of the converter.
      example: commands.
      name: the data set's default name, and the module of tf_lwdgh.converters that has its `convert`.
      image_size: the default height and width.
    """
    flags = parser(description, example, name=name)
    flags.add_argument("--form", help="One of the above, where --source holds several.")
    flags.add_argument(
        "--image_size", type=int, default=image_size,
        help=f"Height and width (default: {image_size}).",
    )  # fmt: skip
    args = flags.parse_args(argv)

    def convert():
        folder = output_folder(args.data_dir, args.name, overwrite=args.overwrite)
        module = importlib.import_module(f"tf_lwdgh.converters.{name}")  # loads TensorFlow
        return module.convert(
            args.source, folder, form=args.form, image_size=args.image_size, name=args.name,
            overwrite=args.overwrite, skip_bad=args.skip_bad,
        )  # fmt: skip

    run(convert, args)


def numbers(text: str) -> tuple[float, ...]:
    """'0.64,0.16,0.2' as numbers."""
    return tuple(float(part) for part in text.split(","))


def output_folder(data_dir: str, name: str, *, overwrite: bool) -> pathlib.Path:
    """<data_dir>/<name>, checked before any long work.

    Raises:
      ValueError: the name is not that of a folder.
      FileExistsError: it holds something, and `overwrite` is False.
    """
    if not name or name in (".", "..") or pathlib.PurePath(name).name != name:
        raise ValueError(f"--name must be the name of a folder. Received: {name!r}.")
    folder = pathlib.Path(data_dir, name)
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(f"{folder} exists and is not empty. Say --overwrite, or choose another --name.")
    return folder


def load_tensorflow() -> None:
    """Imports TensorFlow, where that has not been done, without its start-up chatter."""
    if "tensorflow" not in sys.modules:
        command_line.start_tensorflow()


def run(
    convert: Callable[[], tuple[DatasetSpec, Problems]],
    args: argparse.Namespace,
    *,
    then: Callable[[DatasetSpec], Iterable[str]] = lambda spec: (),
) -> None:
    """Converts under the limits of the flags, and says what was made.

    What the user can mend is a message and an exit code, as `command_line.clean_errors` has it.

    Args:
      convert: does it.
      args: the flags of `parser`.
      then: what else to say of what was made, a line each.
    """
    with command_line.clean_errors(f"{os.path.basename(sys.argv[0])}: error"):
        load_tensorflow()
        from tf_lwdgh.converters import limits

        start = time.monotonic()
        unpacked = None if args.max_unpacked is None else round(args.max_unpacked * 10**9)
        with limits.use(limits.Limits(args.max_pixels, unpacked)):
            spec, problems = convert()
        counts = (
            f"{split} {len(ids)} classes / {sum(spec.images_per_class[i] for i in ids):,} images"
            for split in ("train", "val", "test")
            for ids in [spec.classes(split)]
        )
        folder = f"{args.data_dir}/{args.name}".encode("utf-8", "backslashreplace").decode()
        seconds = time.monotonic() - start
        print(f"{folder}: {', '.join(counts)} in {seconds:.0f} s; {problems.summary()}")
        for line in then(spec):
            print(line)
