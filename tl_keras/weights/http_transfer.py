"""A file of the registry from its server into an open file, in as many attempts as it takes, going on where the last broke off.

Nothing that a server says is trusted: bytes come by https only, no more of them than were announced, and none where the
announcement is of another file.
"""

import http.client
import ipaddress
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from tl_keras.errors import DamagedError
from tl_keras.weights.weights_file import WeightsFile

MIN_BYTES_A_SECOND = 1024
MAX_BYTES = 4 * 2**30
CHUNK = 2**20
PARTIAL_CONTENT = 206
RANGE_NOT_SATISFIABLE = 416
RETRIED_STATUS = (408, 429, 500, 502, 503, 504)
# What a connection comes to; any other OSError is this machine's, such as a full disk.
BROKEN = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException)

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        timeout: seconds without an answer, or with a mere trickle.
        attempts: how often it is asked in all.
        pause: seconds before the second attempt, and twice as long before each further one.
    """

    timeout: float = 10.0
    attempts: int = 5
    pause: float = 1.0


def transfer(row: WeightsFile, file: BinaryIO, patience: Patience, report: Report) -> None:
    """Append to `file` until it is whole.

    Args:
        file: open in mode "ab"; what it holds already is taken for the beginning, if a hash will tell whether it is.
        report: told of bytes done and bytes in all (0 if unknown).

    Raises:
        DamagedError: the server has another file.
        URLError, ConnectionError, TimeoutError, HTTPException: `BROKEN`, of the last attempt.
    """
    validator = ""
    for attempt in range(patience.attempts):
        if attempt:
            time.sleep(patience.pause * 2 ** (attempt - 1))
        if not (row.hash or validator):
            file.truncate(0)
        start = file.seek(0, os.SEEK_END)
        if row.size and start == row.size:
            return
        try:
            with _ask(row.url, start, validator, patience.timeout) as response:
                validator = _validator(response)
                return _append(response, file, row, patience.timeout, report)
        except BROKEN as error:
            last = error
            _settle(error, file)
        finally:
            file.flush()
    raise last


def _settle(error: Exception, file: BinaryIO) -> None:
    """Make ready for another attempt after `error`; raise it where another would end alike."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code == RANGE_NOT_SATISFIABLE:  # what is there is no beginning of this file
            file.truncate(0)
        elif error.code not in RETRIED_STATUS:
            raise error


def _ask(url: str, start: int, validator: str, timeout: float) -> Any:
    """The response to a request for the bytes from `start` on, if the file still is the one that `validator` names."""
    _require_safe(url)
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "tl_keras"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        if validator:
            request.add_header("If-Range", validator)
    return urllib.request.build_opener(_SafeRedirects).open(request, timeout=timeout)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request: Any, response: Any, code: int, message: str, headers: Any, url: str) -> Any:
        _require_safe(url)
        return super().redirect_request(request, response, code, message, headers, url)


def _require_safe(url: str) -> None:
    """DamagedError unless `url` is https, or http of this machine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        raise DamagedError(f"{url} is not fetched: weights come by https only.")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _validator(response: Any) -> str:
    """What If-Range takes: a strong ETag."""
    tag = response.headers.get("ETag", "")
    return "" if tag.startswith("W/") else tag


def _append(response: Any, file: BinaryIO, row: WeightsFile, timeout: float, report: Report) -> None:
    start, total = _extent(response, file.tell())
    _require_expected(response, row, total)
    file.truncate(start)
    done, limit = file.seek(start), total or row.size or MAX_BYTES
    began, window = time.monotonic(), done
    while chunk := _read(response):
        done += file.write(chunk)
        if done > limit:
            raise DamagedError(f"{row.url} gave more than the {limit:,} bytes that were expected. Nothing of it is kept.")
        report(done, total or row.size)
        if time.monotonic() - began > timeout:
            if done - window < timeout * MIN_BYTES_A_SECOND:
                raise TimeoutError(f"only {done - window:,} bytes came in {timeout:g} seconds")
            began, window = time.monotonic(), done
    if done < total:
        raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")


def _extent(response: Any, wanted: int) -> tuple[int, int]:
    """The first byte that the response holds, and the size of the whole file (0 if unsaid).

    A server that knows no ranges, or whose file has changed, answers 200 with all of it.
    """
    if response.status != PARTIAL_CONTENT:
        return 0, response.length or 0
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
    if not found or int(found[1]) != wanted:
        raise DamagedError(
            f"{response.url} answered a request for the bytes from {wanted:,} on with {response.headers.get('Content-Range', '')!r}."
        )
    return wanted, int(found[3])


def _require_expected(response: Any, row: WeightsFile, total: int) -> None:
    """DamagedError, before anything is read, where the headers tell that this is not the file."""
    if response.headers.get_content_type() == "text/html":
        raise DamagedError(
            f"{response.url} answered with a web page instead of {row.name}. Is there a log-in page between? Nothing is kept."
        )
    if total > MAX_BYTES or (row.size and total and total != row.size):
        expected = f"{row.size:,}" if row.size else f"at most {MAX_BYTES:,}"
        raise DamagedError(f"{response.url} offers {total:,} bytes for {row.name}, expected {expected}. Nothing is kept.")


def _read(response: Any) -> bytes:
    try:
        return response.read1(CHUNK)
    except OSError as error:
        raise ConnectionError(f"the connection broke: {error}") from error
