# SPDX-License-Identifier: Apache-2.0
"""A request that is not answered as it was asked: a status of HTTP, and why in one line."""

from __future__ import annotations

RETRY = 1  # seconds after which a caller may try again


class Refused(Exception):
    """What becomes {"error": message} with a status.

    Attributes:
      status: of HTTP, from 400.
      message: what is wrong, in one line.
      close: whether the connection is closed after the answer.

    Args:
      status: of HTTP.
      message: what is wrong.
      close: close the connection.
    """

    def __init__(self, status: int, message: str, *, close: bool = False) -> None:
        super().__init__(message)
        self.status, self.message, self.close = status, message, close

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer: whether to try again, and on which connection."""
        again = {"Retry-After": str(RETRY)} if self.status in (429, 503) else {}
        return again | ({"Connection": "close"} if self.close else {})
