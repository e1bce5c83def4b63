"""The check that a host answers: any status counts, silence does not, and the result is cached."""

import http.server
import socket
import threading

import pytest

from tl_keras.utils import connectivity


@pytest.fixture
def host():
    """Yield the URL of a server without files, and the paths that were requested."""
    requested = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            requested.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requested
        server.shutdown()


def test_any_status_counts_and_the_host_is_asked_once(host):
    url, requested = host
    assert connectivity.is_reachable(f"{url}/one.pth") and connectivity.is_reachable(f"{url}/two.pth")
    assert requested == ["/"]


def test_a_closed_port_and_a_url_without_host_do_not_answer():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert not connectivity.is_reachable(f"http://127.0.0.1:{closed.getsockname()[1]}/x")
    assert not connectivity.is_reachable("")
