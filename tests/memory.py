# SPDX-License-Identifier: Apache-2.0
"""How much memory this process has."""

from __future__ import annotations

import os


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
