# SPDX-License-Identifier: Apache-2.0
"""What a server refuses before the model sees it: sizes, numbers of images and pixels, queue and time."""

from __future__ import annotations

import base64
import concurrent.futures
import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.server import served
from tf_lwdgh.server import pictures
from tf_lwdgh.server.limits import Limits
from tf_lwdgh.server.refusals import Refused

ASK = "/v1/models/toy:predict"
X = {"inputs": {"x": [1, 2]}}
PATIENCE = 60.0


def bomb(width: int, height: int) -> bytes:
    """A PNG file of one colour, a few KB that say they are many pixels, and are, up to 200 million."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    row = b"\0" * (width // 8 + 2)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(row) for _ in range(min(height, 10_000))) + packer.flush()
    size = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def encoded(form: str, **options) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(file, form, **options)
    return file.getvalue()


def refusal(images, **limits) -> Refused:
    with pytest.raises(Refused) as caught:
        pictures.check([(f"image {i}", x) for i, x in enumerate(images)], Limits(**limits))
    return caught.value


@pytest.mark.parametrize("form", pictures.FORMATS)
def test_pictures_of_the_formats_that_the_model_decodes_pass(form):
    pictures.check([("a", encoded(form))], Limits(max_pixels=200))
    assert refusal([encoded(form)], max_pixels=199).status == 413


@pytest.mark.parametrize("content", [encoded("WEBP"), encoded("TIFF"), b"", b"GIF89a", b"BM"])
def test_other_formats_and_broken_headers_are_refused(content):
    assert refusal([content]).status == 400


def test_a_decompression_bomb_is_refused_by_its_header():
    small = bomb(15_000, 10_000)
    assert len(small) < 100_000
    assert "image 0 must have at most 25,000,000 pixels. Received: 150,000,000" in refusal([small]).message
    assert "at most 25,000,000 pixels" in refusal([bomb(60_000, 60_000)]).message  # Pillow's own words follow


def test_the_frames_of_a_gif_count_together_and_by_their_own_sizes():
    frames = [Image.new("RGB", (20, 10), (50 * i, 0, 0)) for i in range(5)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    gif = file.getvalue()
    assert "Received: 1,000" in refusal([gif], max_pixels=999).message
    pictures.check([("a", gif)], Limits(max_pixels=1000))
    at = encoded("GIF").index(b"\x2c\0\0\0\0\x14\0\x0a\0")
    wide = bytearray(encoded("GIF"))
    wide[at + 5 : at + 9] = struct.pack("<HH", 60_000, 60_000)  # larger than the picture says it is
    assert refusal([bytes(wide)]).status == 413


def test_images_and_pixels_of_a_request_count_together():
    images = [encoded("PNG")] * 3
    pictures.check([("a", x) for x in images], Limits(max_images=3, max_request_pixels=600))
    assert "at most 2 images" in refusal(images, max_images=2).message
    assert refusal(images, max_request_pixels=599).status == 413


def test_the_real_model_refuses_bombs_and_too_many_images(models):
    (small,) = served.noise(1)
    with served.client(models, max_pixels=10_000, max_images=3) as client:
        answer = client.put("/v1/classifiers/a", files=served.form({"x": [bomb(200, 200)], "y": [small]}))
        assert (answer.status_code, answer.json()["error"][:4]) == (413, "x: 0")
        answer = client.put("/v1/classifiers/a", files=served.form({"x": [small] * 3, "y": [small]}))
        assert answer.status_code == 413
        for images, told in (([bomb(200, 200)], "at most 10,000 pixels"), ([small] * 4, "at most 3 images")):
            inputs = {
                "support_images_bytes": [{"b64": base64.b64encode(x).decode()} for x in images],
                "support_labels": list(range(len(images))),
            }
            body = {"signature_name": "adapt_bytes", "inputs": inputs}
            answer = client.post("/v1/models/demo:predict", json=body)
            assert answer.status_code == 413 and told in answer.json()["error"]
        pixels = np.zeros((4, 16, 16, 3), int).tolist()
        body = {"signature_name": "adapt", "inputs": {"support_images": pixels, "support_labels": [0] * 4}}
        answer = client.post("/v1/models/demo:predict", json=body)
        assert answer.status_code == 413 and "Received: 4" in answer.json()["error"]


def test_a_body_is_refused_by_what_it_says_and_by_what_comes():
    toy = served.Toy()
    toy.go_on.set()
    with served.client(toy, max_body_bytes=100) as client:
        assert client.post(ASK, json=X).json() == {"outputs": {"y": [2.0, 4.0], "n": 1}}
        said = client.post(ASK, content=b"1" * 101)
        came = client.post(ASK, content=(b"1" * 40 for _ in range(3)))  # in chunks, of no stated length
        for answer in (said, came):
            assert answer.status_code == 413
            assert "at most 100 bytes" in answer.json()["error"]
        assert client.service.bodies.held == 0
    with served.client(toy, max_held_bytes=10) as client:
        answer = client.post(ASK, json=X)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert client.service.bodies.held == 0
    assert toy.calls == 1


def test_a_full_queue_is_refused_and_health_answers_meanwhile():
    toy = served.Toy()
    with served.client(toy, model_threads=1, max_queue=1) as client, futures(2) as pool:
        running = pool.submit(client.post, ASK, json=X)
        assert toy.begun.acquire(timeout=PATIENCE)
        queued = pool.submit(client.post, ASK, json=X)
        until(lambda: client.service.work.waiting == 1)
        refused = client.post(ASK, json=X)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert client.get("/healthz/live").status_code == client.get("/healthz/ready").status_code == 200
        text = client.get("/metrics").text
        assert "tf_lwdgh_queue_depth 1.0" in text and "tf_lwdgh_model_calls_running 1.0" in text
        toy.go_on.set()
        assert running.result(PATIENCE).status_code == queued.result(PATIENCE).status_code == 200
        assert (toy.calls, client.service.work.held) == (2, 0)


def test_what_takes_too_long_is_given_up_and_what_waits_with_it_never_runs():
    toy = served.Toy()
    with served.client(toy, model_threads=1, request_timeout=0.2) as client, futures(1) as pool:
        running = pool.submit(client.post, ASK, json=X)
        assert toy.begun.acquire(timeout=PATIENCE)
        queued = client.post(ASK, json=X)
        assert (queued.status_code, queued.json()["error"]) == (504, "no answer within 0.2 s.")
        assert running.result(PATIENCE).status_code == 504
        assert client.service.work.held == 1  # its thread is still at it
        toy.go_on.set()
        until(lambda: client.service.work.held == 0)
        assert client.post(ASK, json=X).status_code == 200
        assert toy.calls == 2


def test_a_failure_of_the_server_is_no_traceback_for_the_caller():
    with served.client(served.Toy()) as client:
        answer = client.post(ASK, json={"signature_name": "broken", **X})
        assert (answer.status_code, answer.json()) == (500, {"error": "the server failed; its log says how."})
        assert client.service.running == 0


def test_a_server_that_is_about_to_end_takes_nothing_new():
    with served.client(served.Toy()) as client:
        client.service.draining = True
        ready = client.get("/healthz/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
        assert client.get("/healthz/live").status_code == 200
        refused = client.post(ASK, json=X)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.headers["connection"] == "close"


def test_metrics_count_routes_not_addresses():
    toy = served.Toy()
    toy.go_on.set()
    with served.client(toy) as client:
        client.post(ASK, json=X)
        for i in range(3):
            client.get(f"/nowhere/{i}")
            client.get(f"/v1/classifiers/{i}")
        text = client.get("/metrics").text
    route = "/v1/models/{model}:predict"
    assert f'tf_lwdgh_requests_total{{method="POST",route="{route}",status="200"}} 1.0' in text
    assert f'tf_lwdgh_model_seconds_count{{route="{route}"}} 1.0' in text
    assert 'tf_lwdgh_requests_total{method="GET",route="none",status="404"} 3.0' in text
    assert 'route="/v1/classifiers/{name}",status="404"} 3.0' in text


def test_a_request_has_a_line_in_the_log_that_it_cannot_forge(caplog):
    with caplog.at_level("INFO", "tf_lwdgh.server"), served.client(served.Toy()) as client:
        client.get("/v1/classifiers/a%0Afaked")
    (line,) = [r.getMessage() for r in caplog.records if "classifiers" in r.getMessage()]
    assert "GET /v1/classifiers/a%0Afaked 404 " in line and "\n" not in line


def futures(threads: int) -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(threads)


def until(holds) -> None:
    """Waits until something holds, which it does at once but for other threads."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)
