"""Downloads from a local server that cuts connections, is slow, announces wrong sizes or serves other content."""

import hashlib
import http.server
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tl_keras.errors import ConfigError, DamagedError, MissingError
from tl_keras.weights import http_transfer
from tl_keras.weights.download import fetch
from tl_keras.weights.http_transfer import RetryPolicy
from tl_keras.weights.weights_file import WeightsFile

ROOT = Path(__file__).parents[1]
BYTES = bytes(range(256)) * 1000
OTHER = BYTES[::-1]
ETAG = '"first"'
QUICK = RetryPolicy(timeout=2.0, attempts=3, backoff=0.0)
IMPATIENT = RetryPolicy(timeout=0.1, attempts=2, backoff=0.0)


class Server(http.server.ThreadingHTTPServer):
    """Answers each request with the next function of `script`, repeating the last one. Records the headers of the requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.requests, self.released = [whole], [], threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/weights.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802 (the name that http.server calls)
        self.server.requests.append(dict(self.headers))
        script = self.server.script
        (script.pop(0) if len(script) > 1 else script[0])(self)

    def log_message(self, *arguments):
        pass

    def reply(self, status, body, headers=(), length=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body) if length is None else length), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def whole(handler, content=BYTES, etag=ETAG, sent=None):
    """Serve `content` correctly, but close the connection after `sent` bytes."""
    found = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    start = int(found[1]) if found and handler.headers.get("If-Range", etag) == etag else 0
    if start >= len(content):
        return handler.reply(416, b"")
    headers = {"ETag": etag} | ({"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {})
    handler.reply(206 if start else 200, content[start:][:sent], headers, length=len(content) - start)


def cut(after):
    return lambda handler: whole(handler, sent=after)


def page(handler):
    handler.reply(200, b"<!DOCTYPE html><p>Log in", {"Content-Type": "text/html; charset=utf-8"})


def nameless_page(handler):
    handler.reply(200, b"<!DOCTYPE html><p>Log in")


def without_length(handler, content=BYTES):
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(content)


def ignoring_range(handler):
    handler.reply(200, BYTES)


def status(code):
    return lambda handler: handler.reply(code, b"no")


def redirect(url):
    return lambda handler: handler.reply(302, b"", {"Location": url})


def silent(handler):
    handler.server.released.wait(10)


def trickle(handler):
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.released.wait(0.01):
        try:
            handler.wfile.write(b"x")
        except OSError:
            return


def garbage(handler):
    handler.wfile.write(b"\0" * 100)


def wrong_range(handler):
    handler.reply(206, BYTES[5:], {"Content-Range": f"bytes 5-{len(BYTES) - 1}/{len(BYTES)}"})


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


@pytest.fixture
def entry(server):
    return WeightsFile("imagenet", "weights.pth", server.url, hashlib.sha256(BYTES).hexdigest(), len(BYTES), source="torchvision")


def files(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_file_is_fetched_and_announced_in_one_line(server, entry, tmp_path, capfd):
    path = fetch(entry, tmp_path / "new", QUICK)
    assert path.read_bytes() == BYTES and files(path.parent) == ["weights.pth"]
    assert capfd.readouterr().err == f"fetching weights.pth from {server.url}\n"
    assert len(server.requests) == 1 and "Range" not in server.requests[0]


def test_a_terminal_shows_a_bar(server, entry, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for name in ("DELAY", "INTERVAL"):
        monkeypatch.setattr(f"tl_keras.utils.progress.{name}", 0)
    fetch(entry, tmp_path, QUICK)
    shown = capfd.readouterr().err
    assert "weights.pth: 100%" in shown and "250k/250k [" in shown and "fetching" not in shown


def test_a_file_instead_of_the_directory_is_a_config_error(entry, tmp_path):
    (tmp_path / "mine").touch()
    for directory in (tmp_path / "mine", tmp_path / "mine" / "below"):
        with pytest.raises(ConfigError, match="weights_dir"):
            fetch(entry, directory, QUICK)


@pytest.mark.parametrize("known", ["hash and size", "hash", "prefix", "nothing"])
def test_cut_connections_are_resumed(known, server, entry, tmp_path):
    unknown = {"hash": {"size": 0}, "prefix": {"size": 0, "hash": entry.hash[:8]}, "nothing": {"size": 0, "hash": ""}}.get(known, {})
    server.script = [cut(1000), cut(70_000), whole]
    assert fetch(replace(entry, **unknown), tmp_path, QUICK).read_bytes() == BYTES
    assert [request.get("Range") for request in server.requests] == [None, "bytes=1000-", "bytes=71000-"]
    assert [request.get("If-Range") for request in server.requests] == [None, ETAG, ETAG]


def test_a_partial_file_is_kept_and_resumed_by_the_next_call(server, entry, tmp_path):
    server.script = [cut(1000)]
    with pytest.raises(MissingError) as error:
        fetch(entry, tmp_path, QUICK)
    expected = ("3,000 bytes are kept", entry.url, entry.hash, entry.name, str(tmp_path), "weights_dir")
    assert all(words in str(error.value) for words in expected) and files(tmp_path) == ["weights.pth.part"]
    server.script, server.requests = [whole], []
    assert fetch(entry, tmp_path, QUICK).read_bytes() == BYTES and files(tmp_path) == ["weights.pth"]
    assert server.requests[0]["Range"] == "bytes=3000-"


def test_without_a_hash_nothing_is_kept_or_resumed(server, entry, tmp_path):
    entry = replace(entry, hash="", size=0)
    server.script = [cut(1000)]
    with pytest.raises(MissingError, match="no hash is published"):
        fetch(entry, tmp_path, QUICK)
    assert files(tmp_path) == []
    (tmp_path / "weights.pth.part").write_bytes(OTHER[:5000])
    server.script, server.requests = [whole], []
    assert fetch(entry, tmp_path, QUICK).read_bytes() == BYTES and "Range" not in server.requests[0]


def test_a_file_that_changed_on_the_server_is_restarted(server, entry, tmp_path):
    server.script = [lambda handler: whole(handler, OTHER, '"old"', sent=1000), whole]
    assert fetch(entry, tmp_path, QUICK).read_bytes() == BYTES
    assert server.requests[1]["If-Range"] == '"old"'


@pytest.mark.parametrize("second", [ignoring_range, without_length])
def test_a_download_restarts_if_the_server_ignores_ranges(second, server, entry, tmp_path):
    server.script = [cut(1000), second]
    assert fetch(entry, tmp_path, QUICK).read_bytes() == BYTES
    assert server.requests[1]["Range"] == "bytes=1000-"


def test_a_complete_partial_file_needs_no_request(server, entry, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(BYTES)
    assert fetch(entry, tmp_path, QUICK).read_bytes() == BYTES and not server.requests


def test_a_partial_file_that_is_too_long_is_restarted(server, entry, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(BYTES + b"more")
    assert fetch(entry, tmp_path, QUICK).read_bytes() == BYTES


@pytest.mark.parametrize("reply", [status(500), status(503), status(429), garbage, lambda handler: None])
def test_temporary_failures_are_retried(reply, server, entry, tmp_path):
    server.script = [reply, reply, whole]
    assert fetch(entry, tmp_path, QUICK).read_bytes() == BYTES


@pytest.mark.parametrize("code", [404, 403, 410])
def test_permanent_failures_are_not_retried(code, server, entry, tmp_path):
    server.script = [status(code)]
    with pytest.raises(MissingError, match=str(code)):
        fetch(entry, tmp_path, QUICK)
    assert len(server.requests) == 1 and files(tmp_path) == []


@pytest.mark.parametrize(
    ("reply", "known", "reason"),
    [
        (page, "size", "web page"),
        (nameless_page, "nothing", "web page"),
        (lambda handler: whole(handler, OTHER), "size", hashlib.sha256(OTHER).hexdigest()),
        (lambda handler: whole(handler, OTHER), "prefix", "beginning with"),
        (lambda handler: whole(handler, BYTES[:-1]), "size", "offers 255,999 bytes"),
        (lambda handler: whole(handler, BYTES[:-1]), "hash", hashlib.sha256(BYTES[:-1]).hexdigest()),
        (lambda handler: without_length(handler, BYTES + b"more"), "size", "more than the 256,000 bytes"),
        (lambda handler: without_length(handler, BYTES[:-1]), "size", "255,999 bytes, expected 256,000"),
        (lambda handler: handler.reply(200, BYTES, length=10), "hash", "it has 10 bytes|received"),
        (lambda handler: handler.reply(200, b"", length=100 * 2**30), "hash", "offers 107,374,182,400 bytes"),
        (lambda handler: handler.reply(200, b"", length=0), "nothing", "0 bytes"),
    ],
)
def test_wrong_content_is_reported_and_deleted(reply, known, reason, server, entry, tmp_path):
    unknown = {"hash": {"size": 0}, "prefix": {"size": 0, "hash": entry.hash[:8]}, "nothing": {"size": 0, "hash": ""}}.get(known, {})
    server.script = [reply]
    with pytest.raises(DamagedError, match=reason):
        fetch(replace(entry, **unknown), tmp_path, QUICK)
    assert files(tmp_path) == [] and len(server.requests) == 1


def test_a_wrong_partial_file_is_detected_and_deleted(server, entry, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(OTHER[:5000])
    with pytest.raises(DamagedError, match="Run again"):
        fetch(entry, tmp_path, QUICK)
    assert files(tmp_path) == []
    assert fetch(entry, tmp_path, QUICK).read_bytes() == BYTES


def test_a_wrong_range_is_refused(server, entry, tmp_path):
    server.script = [cut(1000), wrong_range]
    with pytest.raises(DamagedError, match="from 1,000 on"):
        fetch(entry, tmp_path, QUICK)
    assert files(tmp_path) == []


@pytest.mark.parametrize("reply", [silent, trickle])
def test_a_slow_server_times_out(reply, server, entry, tmp_path):
    server.script = [reply]
    with pytest.raises(MissingError, match=r"timed out|in 0\.1 seconds"):
        fetch(entry, tmp_path, IMPATIENT)
    assert len(server.requests) == IMPATIENT.attempts


def test_an_endless_file_of_unknown_size_is_bounded(server, entry, tmp_path, monkeypatch):
    monkeypatch.setattr(http_transfer, "MAX_BYTES", 100_000)
    server.script = [without_length]
    with pytest.raises(DamagedError, match="more than the 100,000 bytes"):
        fetch(replace(entry, size=0), tmp_path, QUICK)
    assert files(tmp_path) == []


def test_redirects_to_the_local_host_are_followed(server, entry, tmp_path):
    server.script = [redirect(server.url), whole]
    assert fetch(entry, tmp_path, QUICK).read_bytes() == BYTES


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://192.0.2.1/weights.pth", "https only"),
        ("ftp://192.0.2.1/weights.pth", "https only"),
        ("file:///etc/hostname", "not allowed"),
    ],
)
def test_redirects_to_anything_but_https_are_refused(url, reason, server, entry, tmp_path):
    server.script = [redirect(url)]
    with pytest.raises((DamagedError, MissingError), match=reason):
        fetch(entry, tmp_path, QUICK)
    assert files(tmp_path) == []


@pytest.mark.parametrize("url", ["http://192.0.2.1/weights.pth", "file:///etc/hostname", "http://localhost.example/weights.pth"])
def test_only_https_is_fetched(url, entry, tmp_path):
    with pytest.raises(DamagedError, match="https only"):
        fetch(replace(entry, url=url), tmp_path, QUICK)


def test_a_file_that_another_process_fetched_is_used(server, entry, tmp_path):
    (tmp_path / "weights.pth").write_bytes(BYTES)
    assert fetch(entry, tmp_path, QUICK) == tmp_path / "weights.pth"
    assert not server.requests and files(tmp_path) == ["weights.pth"]


def test_a_full_disk_is_not_a_connection_error(server, entry, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(entry, tmp_path, QUICK)


PROCESS = """
import sys
from pathlib import Path
from tl_keras.weights.download import fetch
from tl_keras.weights.weights_file import WeightsFile
url, hash, directory = sys.argv[1:]
print(fetch(WeightsFile("imagenet", "weights.pth", url, hash), Path(directory)))
"""


def test_two_processes_fetch_once(server, entry, tmp_path):
    def delayed(handler):
        server.released.wait(60)
        whole(handler)

    server.script = [delayed]
    command = [sys.executable, "-c", PROCESS, entry.url, entry.hash, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    lines = {process.stderr.readline().split()[0] for process in processes}
    server.released.set()
    outputs = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert lines == {"fetching", "waiting"} and outputs == [str(tmp_path / "weights.pth")] * 2
    assert len(server.requests) == 1 and files(tmp_path) == ["weights.pth"] and (tmp_path / "weights.pth").read_bytes() == BYTES
