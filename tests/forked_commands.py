# SPDX-License-Identifier: Apache-2.0
"""Runs commands in turn, each in a fork of one process that has imported TensorFlow and not started it.

Reads [[module, [argument, ...]], ...] as JSON, and prints [[exit code, standard error], ...].
"""

import json
import os
import resource
import runpy
import sys
import tempfile


def run(module: str, arguments: list[str], largest_file: int | None = None) -> tuple[int, str]:
    """The module as a program: its exit code and what it wrote on standard error.

    Args:
      module: the module.
      arguments: the program's.
      largest_file: bytes from which on writing to a file fails; None: no such limit.
    """
    with tempfile.TemporaryFile("w+") as file:
        pid = os.fork()
        if not pid:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            sys.argv = [module, *arguments]
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
            code = 1
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
                code = 0
            except SystemExit as left:
                code = left.code if isinstance(left.code, int) else int(left.code is not None)
            finally:
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        file.seek(0)
        return code, file.read()


if __name__ == "__main__":
    import tf_lwdgh.runs.judge
    import tf_lwdgh.runs.trainer  # noqa: F401

    json.dump([run(f"tf_lwdgh.{module}", line) for module, line in json.load(sys.stdin)], sys.stdout)
