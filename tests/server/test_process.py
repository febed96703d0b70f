# SPDX-License-Identifier: Apache-2.0
"""The command: it listens before the model is there, answers, and ends in order."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.server import served

ENV = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
COMMAND = [sys.executable, "-m", "tf_lwdgh.serve"]
PATIENCE = 240.0


def get(port: int, path: str) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def until_ready(port: int) -> None:
    end = time.monotonic() + PATIENCE
    while get(port, "/healthz/ready")[0] != 200:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_it_starts_answers_and_lets_what_runs_finish_on_sigterm(exported):
    line = [*COMMAND, f"--model={exported.path}", "--name=demo", "--port=0", "--drain_timeout=60"]
    process = subprocess.Popen(line, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        told = process.stdout.readline()
        port = int(re.fullmatch(r"demo: http://127\.0\.0\.1:(\d+)/\n", told)[1])
        assert get(port, "/healthz/live")[0] == 200
        assert get(port, "/healthz/ready") == (503, {"status": "loading"})
        assert get(port, "/v1/models/demo")[1]["model_version_status"][0]["state"] == "LOADING"
        until_ready(port)
        body = json.dumps({"signature_name": "metadata"}).encode()
        head = served.head(port, "POST", "/v1/models/demo:predict", Content_Length=len(body))
        with socket.create_connection(("127.0.0.1", port), timeout=60) as running:
            running.sendall(head + body[:5])
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            end = time.monotonic() + 30
            while get(port, "/healthz/ready") != (503, {"status": "draining"}):
                assert time.monotonic() < end
            assert get(port, "/v1/models/demo") == (503, {"error": "the server is about to end."})
            running.sendall(body[5:])
            answer = running.recv(1 << 20)
        assert answer.startswith(b"HTTP/1.1 200")
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0, log
        assert re.search(r"POST /v1/models/demo:predict 200 [\d.]+ ms \(queue [\d.]+, model [\d.]+\)", log)
        assert "Traceback" not in log
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--model=nowhere"], "--model must be a folder that tf_lwdgh.export wrote"),
        ([], "--model is missing"),
        (["--model=nowhere", "--max_pixels=0"], "--max_pixels must be above 0"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(flags, told):
    done = subprocess.run([*COMMAND, *flags], env=ENV, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert told in done.stderr and "Traceback" not in done.stderr
