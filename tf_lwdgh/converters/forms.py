# SPDX-License-Identifier: Apache-2.0
"""Which form of a data set lies in a folder, there or in the one folder that archives hold."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence

from tf_lwdgh.converters import folders


def locate(
    root: pathlib.Path,
    forms: Mapping[str, str],
    found_at: Callable[[pathlib.Path], Sequence[str]],
    *,
    form: str | None,
    title: str,
) -> tuple[pathlib.Path, str]:
    """The folder that holds the data, at the source or further inside, and its form.

    Args:
      root: where to begin.
      forms: what each form is, for the messages.
      found_at: the forms that a folder holds.
      form: the one that is wanted; None where there is only one.
      title: of the data set.

    Raises:
      ValueError: no form is there, or several and none is wanted.
    """
    if form is not None and form not in forms:
        raise ValueError(f"--form must be one of {', '.join(forms)}. Received: {form!r}.")
    start = root
    while True:
        found = found_at(root)
        if form in found:
            return root, form
        if len(found) == 1 and form is None:
            return root, found[0]
        if len(found) > 1 and form is None:
            raise ValueError(f"{root} holds {title} in several forms: say --form={' or '.join(found)}.")
        inside = list(folders.subfolders(root).values())
        if len(inside) != 1:
            known = "; ".join(f"{f}: {forms[f]}" for f in ([form] if form else forms))
            raise ValueError(f"{start} holds no {title} in a known form ({known}).")
        root = inside[0]
