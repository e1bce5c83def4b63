"""Whether a host answers: any status will do, silence will not, and it is asked once."""

import http.server
import socket
import threading

import pytest

from tl_keras.utils import connectivity


@pytest.fixture
def host():
    """A server that has nothing, and the number of questions it was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_any_status_is_an_answer_and_it_is_asked_for_once(host):
    url, asked = host
    assert connectivity.is_reachable(f"{url}/one.pth") and connectivity.is_reachable(f"{url}/two.pth")
    assert asked == ["/"]


def test_a_closed_port_and_a_url_without_host_are_no_answers():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert not connectivity.is_reachable(f"http://127.0.0.1:{closed.getsockname()[1]}/x")
    assert not connectivity.is_reachable("")
