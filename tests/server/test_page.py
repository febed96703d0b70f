# SPDX-License-Identifier: Apache-2.0
"""The page in a browser: pictures into classes, queries, answers; by the mouse, the keyboard and a dialog."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest

from tests.server import chromium, served
from tf_lwdgh.serving.loaded import load

pytestmark = pytest.mark.skipif(chromium.FOUND is None, reason="no Chromium is installed")
COLOURS = {"red <i>": (220, 40, 30), "blue": (30, 60, 220)}


def pictures(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Three noisy pictures of each colour."""
    random, found = np.random.default_rng(0), {}
    for number, (name, colour) in enumerate(COLOURS.items()):
        found[name] = []
        for i in range(3):
            noisy = random.normal(colour, 30, (48, 64, 3)).clip(0, 255).astype(np.uint8)
            path = folder / f"{number}-{i}.png"
            path.write_bytes(served.png(noisy))
            found[name].append(path)
    return found


@pytest.fixture(scope="module")
def port(models):
    with served.listening(models, max_pixels=10_000) as (port, _):
        yield port


@pytest.fixture
def page(port, tmp_path):
    with chromium.Page(tmp_path / "profile") as found:
        found.open(f"http://127.0.0.1:{port}/")
        found.until("document.getElementById('about').textContent.includes('demo')")
        yield found
        own = (f"http://127.0.0.1:{port}/", "blob:")
        assert found.asked and all(address.startswith(own) for address in found.asked)


def test_pictures_are_learned_and_told_apart(page, exported, tmp_path):
    found = pictures(tmp_path)
    for number, (name, files) in enumerate(found.items(), 1):
        card = f".card:nth-child({number})"
        page.value(f"document.querySelector('{card} input[type=text]').select()")
        page.write(name)
        page.drop(card, files[:1])
        page.choose(f"{card} input[type=file]", files[1:2])
        page.until(f"document.querySelectorAll('{card} .thumbs img').length === 2")
    page.drop("#queries", [files[2] for files in found.values()])
    page.until("document.querySelectorAll('.query').length === 2")
    page.value("document.getElementById('clear').focus()")
    page.value("document.getElementById('ask').focus()")
    page.press("Enter", "\r")
    page.until("document.querySelectorAll('.bars li').length === 4")
    shown = page.value(
        "[...document.querySelectorAll('.query')].map(q => [...q.querySelectorAll('.bars li')]"
        ".map(r => [r.firstChild.textContent, r.querySelector('meter').value]))"
    )
    images = [x.read_bytes() for files in found.values() for x in files[:2]]
    queries = [files[2].read_bytes() for files in found.values()]
    right = load(exported.path).adapt_and_predict(images, [0, 0, 1, 1], queries)["probabilities"]
    for bars, shares in zip(shown, right, strict=True):
        assert dict(bars) == pytest.approx(dict(zip(found, shares.tolist(), strict=True)), abs=1e-5)
    best = page.value("[...document.querySelectorAll('.best')].map(b => b.textContent)")
    assert best == [list(found)[i] for i in right.argmax(1)]
    assert page.value("document.getElementById('error').hidden")
    assert not page.log
    page.picture(pathlib.Path(os.environ.get("PAGE_PICTURE", tmp_path / "page.png")))


def test_errors_are_shown_and_the_page_goes_on(page, tmp_path):
    def error_after_asking() -> str:
        page.value("document.getElementById('ask').click()")
        page.until("!document.getElementById('ask').disabled")
        return page.value("document.getElementById('error').textContent")

    assert error_after_asking() == "A picture is missing for: class A, class B."
    files = [x for one in pictures(tmp_path).values() for x in one]
    for number in (1, 2):
        page.choose(f".card:nth-child({number}) input[type=file]", files[number : number + 1])
    assert error_after_asking() == "There is no picture to tell apart yet."
    large = tmp_path / "large.png"
    large.write_bytes(served.png(np.zeros((200, 200, 3), np.uint8)))
    page.choose("#queries input[type=file]", [large])
    page.until("document.querySelectorAll('.query').length === 1")
    assert "large.png must have at most 10,000 pixels. Received: 40,000." == error_after_asking()
    page.value("document.querySelector('.query button').click()")
    page.choose("#queries input[type=file]", files[:1])
    page.until("document.querySelectorAll('.query').length === 1")
    assert error_after_asking() == ""
    page.until("document.querySelectorAll('.bars li').length === 2")
    page.value("document.querySelector('.card .remove-class').click()")
    assert page.value("document.querySelectorAll('.bars li').length") == 0  # of other classes
    page.value("document.getElementById('clear').click()")
    assert page.value("document.querySelectorAll('.card').length") == 2


def test_every_control_is_reached_by_the_tab_key(page):
    seen = []
    page.value("document.body.focus()")
    for _ in range(14):
        page.press("Tab")
        seen.append(page.value("document.activeElement.id || document.activeElement.type || ''"))
    assert {"text", "file", "add-class", "ask", "clear"} <= set(seen)


def test_the_policy_keeps_other_addresses_out(page):
    """A script of a name's text, an image from elsewhere: the browser refuses both."""
    image = "<img src=x onerror=window.hit=1>"
    page.value(f"document.querySelector('.card').insertAdjacentHTML('beforeend', '{image}')")
    elsewhere = "fetch('http://127.0.0.1:9/').then(() => 'answered', () => 'refused')"
    assert page.value(elsewhere) == "refused"
    assert page.value("window.hit === undefined")
    assert any("Content Security Policy" in line for line in page.log)


def test_the_list_of_the_api_is_shown(page, port):
    page.open(f"http://127.0.0.1:{port}/docs")
    page.until("document.querySelectorAll('#operations section').length > 10")
    text = page.value("document.body.textContent")
    assert "/v1/models/{model}:predict" in text and "/v1/classifiers/{name}" in text
