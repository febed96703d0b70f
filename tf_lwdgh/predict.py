# SPDX-License-Identifier: Apache-2.0
"""From folders of photos to answers: an exported model learns new classes and names what other photos show.

Examples:

  A folder of photos for each new class in support/, and photos to name in unknown/; a table on the terminal:
    python -m tf_lwdgh.predict --model=exported/demo --support=support --query=unknown

  The table as a file, and a page with every photo and its answer:
    python -m tf_lwdgh.predict --model=exported/demo --support=support --query='photos/**/*.jpg' \\
        --csv=answers.csv --html=answers.html

  Learned once, asked on another day:
    python -m tf_lwdgh.predict --model=exported/demo --support=support --save=classifier.npz
    python -m tf_lwdgh.predict --model=exported/demo --load=classifier.npz --query=photo.jpg --query=more

--model is what tf_lwdgh.export wrote; nothing of the training is needed. A class has the name of its folder
in --support. Read are PNG, JPEG, WebP, TIFF, BMP, AVIF, GIF, and HEIC where the package pillow-heif is
installed; photos of any size, turned as their camera says. What cannot be read is named, left out and counted.

Exit codes: 0 done, also where some photos were left out; 2 something to mend in the flags, or no photo could
be read, or none of a class; 4 the disk is full or cannot be written; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from absl import app, flags

from tf_lwdgh import command_line, files

if TYPE_CHECKING:  # at run time TensorFlow is loaded only after the flags are read
    from tf_lwdgh.converters.problems import Problems
    from tf_lwdgh.serving.answer_page import Picture
    from tf_lwdgh.serving.answers import Answer
    from tf_lwdgh.serving.kept_classifier import KeptClassifier
    from tf_lwdgh.serving.loaded import Loaded

PROGRAM = "tf_lwdgh.predict"
_EXAMPLE = "python -m tf_lwdgh.predict --model=exported/demo --support=support --query=unknown"
_Shown = dict[str, list["Picture"]]  # the photos of each class of the support set, made small


def define_flags() -> None:
    """The flags of this program."""
    flags.DEFINE_string("model", None, "The exported model: a folder that tf_lwdgh.export wrote.")
    flags.DEFINE_string("support", None, "What to learn: a folder that holds a folder of photos for each class.")
    flags.DEFINE_multi_string(
        "query", [], "Photos to name: a file, a folder or, in quotes, a pattern such as 'photos/**/*.jpg'. "
        "Repeatable.",
    )  # fmt: skip
    flags.DEFINE_string("csv", None, "Where to write the table of answers; by default it is printed.")
    flags.DEFINE_string("html", None, "Where to write a page with the photos and their answers.")
    flags.DEFINE_string("save", None, "Where to keep what was learned: a file such as classifier.npz.")
    flags.DEFINE_string("load", None, "What --save wrote, in place of --support; for the same model.")
    flags.DEFINE_enum(
        "resize", None, ["stretch", "crop"], "What a photo that is no square becomes: 'stretch' keeps all of it, "
        "'crop' the largest square in its middle. As the training's photos were converted; by default 'stretch', or "
        "as the classifier of --load.",
    )  # fmt: skip
    command_line.define_max_pixels()
    flags.adopt_module_key_flags(command_line)  # --help shows those too


def predict(args: flags.FlagValues) -> None:
    """Learns and answers as the flags say, and prints or writes the answers.

    Raises:
      ValueError: a flag, the support set or the classifier is wrong, or no photo could be read.
      FileNotFoundError: a file or folder is not there.
    """
    _check(args)
    command_line.start_tensorflow()
    from tf_lwdgh.converters import limits, photos
    from tf_lwdgh.converters.problems import Problems
    from tf_lwdgh.serving.loaded import load

    problems = Problems(skip_bad=True)
    with limits.use(limits.Limits(args.max_pixels)):
        paths = photos.find(args.query, problems, flag="--query")
        model, shown = load(args.model), {}
        if args.load:
            kept = _loaded(args, model)
        else:
            kept, shown = _learned(args, model, problems)
        found, pictures = _answered(args, model, kept, paths, problems)
    if args.html and paths:
        files.write(args.html, _page(args, model, kept, shown, pictures, found, problems))
    _tell(args, model, problems, found, kept.class_names)


def _check(args: flags.FlagValues) -> None:
    """All that can be known of the flags before TensorFlow is loaded."""
    command_line.require_flag("model", args.model, _EXAMPLE)
    if bool(args.support) == bool(args.load):
        raise ValueError(
            "one of --support (photos to learn) and --load (what was learned before) must be given. "
            f"Received: {'both' if args.load else 'neither'}. Example: {_EXAMPLE}"
        )
    if not args.query and not args.save:
        raise ValueError(f"--query is missing: the photos to name. Example: {_EXAMPLE}")
    if args.load and args.save:
        raise ValueError("--save belongs to --support: what --load gives is kept already.")
    if not os.path.exists(os.path.join(args.model, "assets", "metadata.json")):
        raise FileNotFoundError(
            "--model must be a folder that tf_lwdgh.export wrote, of several versions one, such as "
            f"exported/demo/1. Received: {args.model!r}."
        )
    for path in filter(None, (args.csv, args.html, args.save)):
        files.check_writable(path)


def _loaded(args: flags.FlagValues, model: Loaded) -> KeptClassifier:
    from tf_lwdgh.serving import kept_classifier

    kept = kept_classifier.read(args.load, args.model, model.metadata, flag="--load")
    learned = "crop" if kept.crop else "stretch"
    if args.resize not in (None, learned):
        raise ValueError(f"--resize must be {learned!r}, as {args.load} was learned. Received: {args.resize!r}.")
    return kept


def _learned(args: flags.FlagValues, model: Loaded, problems: Problems) -> tuple[KeptClassifier, _Shown]:
    from tf_lwdgh.converters import photos
    from tf_lwdgh.serving import answer_page, answers, kept_classifier

    classes = photos.find_classes(pathlib.Path(args.support), problems, flag="--support")
    most, crop = model.metadata["largest_n_way"], args.resize == "crop"
    if most is not None and len(classes) > most:
        raise ValueError(
            f"--support must hold at most {most} classes: the model's head has {most} ways. "
            f"Received: {len(classes)}, {', '.join(map(repr, classes))}."
        )
    images, shown = {}, {}
    for name, paths in classes.items():
        images[name] = list(photos.read(paths, problems, crop=crop))
        if args.html:
            shown[name] = [answer_page.picture(_name(p.path), p.encoded) for p in images[name]]
    try:
        photos.refuse_empty(images, flag="--support")
    except ValueError as error:
        raise ValueError(f"{error}\n{problems.summary()}") from error
    with _of("--support"):
        tensors = answers.learn(model, [[p.encoded for p in of_class] for of_class in images.values()])
    kept = kept_classifier.KeptClassifier(tuple(classes), tensors, crop=crop)
    if args.save:
        kept_classifier.write(args.save, kept, args.model, model.metadata)
    return kept, shown


def _answered(
    args: flags.FlagValues,
    model: Loaded,
    kept: KeptClassifier,
    paths: Sequence[pathlib.Path],
    problems: Problems,
) -> tuple[list[Answer], list[Picture]]:
    """The answers, and where a page is wanted the queries made small."""
    from tf_lwdgh.converters import photos
    from tf_lwdgh.serving import answer_page, answers

    pictures: list[Picture] = []

    def queries() -> Iterator[tuple[str, bytes]]:
        for path, encoded in photos.read(paths, problems, crop=kept.crop):
            if args.html:
                pictures.append(answer_page.picture(_name(path), encoded))
            yield _name(path), encoded

    with _of("--query"):
        found = list(answers.ask(model, kept.tensors, queries()))
    if paths and not found:
        raise ValueError(f"--query: no photo could be read, of {len(paths)}.\n{problems.summary()}")
    return found, pictures


def _page(
    args: flags.FlagValues,
    model: Loaded,
    kept: KeptClassifier,
    shown: _Shown,
    pictures: Sequence[Picture],
    found: Sequence[Answer],
    problems: Problems,
) -> str:
    from tf_lwdgh.serving import answer_page
    from tf_lwdgh.studies import pages

    told = model.metadata
    learned = f"learned before, in {args.load}" if args.load else f"learned from {args.support}"
    about = [
        f"{args.model}: {told['learner']} on {told['backbone']}. {len(kept.class_names)} classes, {learned}.",
        "A percentage is the probability that the model gives a class. They add up to 100 % over these classes, "
        "whatever a photo shows: of something else there is an answer too.",
    ]
    asked = list(zip(pictures, found, strict=True))
    body = answer_page.body(about, shown, asked, kept.class_names, problems.lines())
    return pages.document(f"{len(found)} photos, {len(kept.class_names)} classes", body, style=answer_page.STYLE)


def _tell(
    args: flags.FlagValues,
    model: Loaded,
    problems: Problems,
    found: Sequence[Answer],
    class_names: Sequence[str],
) -> None:
    """The table, and what was written; the latter on standard error where the table is on standard output."""
    from tf_lwdgh.serving import answers

    notices = sys.stdout
    if args.csv and found:
        files.write(args.csv, answers.as_csv(found, class_names))
    elif found:
        print(answers.as_csv(found, class_names), end="", flush=True)
        notices = sys.stderr
    count = f"{len(found)} answers, {len(class_names)} classes"
    if args.save:
        print(f"{args.save}: a classifier of {len(class_names)} classes", file=notices)
    for path in filter(None, (args.csv, args.html) if found else ()):
        print(f"{path}: {count}", file=notices)
    if problems.lines():
        print(problems.summary(), file=sys.stderr)
    if found and model.metadata["predictions_depend_on_the_other_queries"]:
        print("note: with this model an answer depends on the other photos of --query", file=sys.stderr)


@contextlib.contextmanager
def _of(flag: str) -> Iterator[None]:
    """Says by which flag came what the model refuses."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from error


def _name(path: pathlib.Path) -> str:
    """A path as text, whatever its bytes are."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def main(argv: Sequence[str]) -> None:
    """The command line."""
    with command_line.clean_errors(PROGRAM):
        if len(argv) > 1:
            raise ValueError(
                f"no such argument: {' '.join(argv[1:])}. A pattern such as --query='photos/*' needs quotes. "
                f"Example: {_EXAMPLE}"
            )
        predict(flags.FLAGS)


if __name__ == "__main__":
    define_flags()
    app.run(main)
