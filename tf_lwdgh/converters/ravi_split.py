# SPDX-License-Identifier: Apache-2.0
"""Ravi and Larochelle's split of mini-ImageNet: which ImageNet synset is in which split."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# The synsets' numbers, without the n.
_NUMBERS = {
    "train": """
        01532829 01558993 01704323 01749939 01770081 01843383 01910747 02074367 02089867
        02091831 02101006 02105505 02108089 02108551 02108915 02111277 02113712 02120079
        02165456 02457408 02606052 02687172 02747177 02795169 02823428 02966193 03017168
        03047690 03062245 03207743 03220513 03337140 03347037 03400231 03476684 03527444
        03676483 03838899 03854065 03888605 03908618 03924679 03998194 04067472 04243546
        04251144 04258138 04275548 04296562 04389033 04435653 04443257 04509417 04515003
        04596742 04604644 04612504 06794110 07584110 07697537 07747607 09246464 13054560
        13133613
    """,
    "val": """
        01855672 02091244 02114548 02138441 02174001 02950826 02971356 02981792 03075370
        03417042 03535780 03584254 03770439 03773504 03980874 09256479
    """,
    "test": """
        01930112 01981276 02099601 02110063 02110341 02116738 02129165 02219486 02443484
        02871525 03127925 03146219 03272010 03544143 03775546 04146614 04149813 04418357
        04522168 07613480
    """,
}  # fmt: skip
SPLIT_OF = {f"n{number}": split for split in _NUMBERS for number in _NUMBERS[split].split()}


def check_classes(classes: Mapping[str, Iterable[str]]) -> None:
    """Compares the synsets of each split with the published ones; other names tell nothing.

    Other splits of mini-ImageNet of the same sizes are about, and their results do not compare.

    Raises:
      ValueError: a synset is in another split, or in none.
    """
    for split, names in classes.items():
        for name in names:
            if re.fullmatch(r"n\d{8}", name) and SPLIT_OF.get(name) != split:
                home = f"in {SPLIT_OF[name]}" if name in SPLIT_OF else "not among its classes"
                raise ValueError(
                    f"{split} class {name!r}: in Ravi and Larochelle's split of mini-ImageNet it "
                    f"is {home}. Say --subset where another split is on purpose."
                )
