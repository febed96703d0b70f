# SPDX-License-Identifier: Apache-2.0
"""HTML pages that need nothing but themselves."""

from __future__ import annotations

import html

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem;
  color: #1b1b1b; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .9rem; display: block; overflow-x: auto; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #ddd; vertical-align: top; }
td { white-space: nowrap; }
th { border-bottom: 2px solid #777; font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
td.words { text-align: left; white-space: normal; min-width: 12rem; } tr.baseline td { background: #f3f3f3; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; } figcaption { color: #444; max-width: 60rem; }
pre { background: #f5f5f5; padding: .7rem; overflow-x: auto; font-size: .8rem; }
progress { width: 100%; } p { max-width: 60rem; }
"""


def document(title: str, body: str, *, refresh: int | None = None, style: str = "") -> str:
    """A whole page.

    Args:
      title: plain text.
      body: HTML.
      refresh: seconds after which a browser loads it anew.
      style: rules of CSS beyond those of every page.
    """
    again = f"<meta http-equiv='refresh' content='{refresh}'>" if refresh else ""
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"{again}<title>{html.escape(title)}</title><style>{_STYLE}{style}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )
