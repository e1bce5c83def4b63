"""Runs commands of one checkout of the project without importing TensorFlow for each: `python tools/case_server.py SOCKET CHECKOUT`.

A client (`python -S tools/case_server.py SOCKET -- ARGUMENTS`) sends its arguments, directory, environment and standard streams. The
server forks, and the child runs the command as `python -m tl_keras ARGUMENTS` would. A tenth of the time of a new process is left.
"""

import json
import os
import socket
import sys
from typing import Any

MAX_MESSAGE = 2**20
STREAMS = 3


def serve(address: str, checkout: str) -> None:
    """Import what commands import, then answer clients until the process ends."""
    sys.path.insert(0, checkout)
    for name in ("tensorflow", "keras", "h5py", "matplotlib.pyplot", "tl_keras.cli", "tl_keras.data"):
        __import__(name)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen(16)
        while True:
            connection, _ = server.accept()
            with connection:
                if not os.fork():
                    server.close()
                    os._exit(_answer(connection))


def _answer(connection: socket.socket) -> int:
    """Run the command of a client in a child of this process, and send its exit code, as shells show it."""
    message, streams, _, _ = socket.recv_fds(connection, MAX_MESSAGE, STREAMS)
    if child := os.fork():
        status = os.waitpid(child, 0)[1]
        code = os.waitstatus_to_exitcode(status)
        connection.sendall(str(code if code >= 0 else 128 - code).encode())
        return 0
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdout, sys.stderr = (open(number, "w", errors=errors) for number, errors in ((1, "strict"), (2, "backslashreplace")))
    return _run(json.loads(message))


def _run(request: dict[str, Any]) -> int:
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    from tl_keras.cli import main

    try:
        code = main(request["arguments"])
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def call(address: str, arguments: list[str]) -> int:
    """Have the server at `address` run a command, and return its exit code."""
    request = {"arguments": arguments, "directory": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [json.dumps(request).encode()], range(STREAMS))
        return int(connection.recv(16))


def main(arguments: list[str]) -> int:
    address, first, *rest = arguments
    if first != "--":
        serve(address, first)
    return call(address, rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
