"""HTTP download into an open file, with retries that resume after the last byte received.

The server is not trusted: only https is accepted, at most the announced number of bytes is read, and nothing is read if the
headers announce another file.
"""

import http.client
import ipaddress
import os
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from tl_keras.errors import DamagedError
from tl_keras.utils.progress import Update
from tl_keras.weights.weights_file import WeightsFile

MIN_BYTES_PER_SECOND = 1024
MAX_BYTES = 4 * 2**30
CHUNK_BYTES = 2**20
RETRY_STATUSES = (408, 429, 500, 502, 503, 504)
# Errors of the connection. Any other OSError is local, such as a full disk.
CONNECTION_ERRORS = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException)


@dataclass(frozen=True)
class RetryPolicy:
    """Limits on waiting for a server.

    Attributes:
        timeout: seconds without an answer, or below MIN_BYTES_PER_SECOND, after which an attempt fails.
        attempts: number of attempts in total.
        backoff: seconds before the second attempt, doubled for each further one.
    """

    timeout: float = 10.0
    attempts: int = 5
    backoff: float = 1.0


def transfer(entry: WeightsFile, file: BinaryIO, policy: RetryPolicy, progress: Update) -> None:
    """Append to `file` until it is complete.

    Args:
        file: open in mode "ab". Its content is taken as the beginning of the download if the hash of `entry` is published.
        progress: called with the number of bytes received so far and the total (0 if unknown).

    Raises:
        DamagedError: The server offers another file.
        URLError, ConnectionError, TimeoutError, HTTPException: `CONNECTION_ERRORS` of the last attempt.
    """
    validator = ""
    for attempt in range(policy.attempts):
        if attempt:
            time.sleep(policy.backoff * 2 ** (attempt - 1))
        if not (entry.hash or validator):
            file.truncate(0)
        start = file.seek(0, os.SEEK_END)
        if entry.size and start == entry.size:
            return
        try:
            with _open_url(entry.url, start, validator, policy.timeout) as response:
                validator = _validator(response)
                return _append(response, file, entry, policy.timeout, progress)
        except CONNECTION_ERRORS as error:
            _prepare_retry(error, file)
            if attempt + 1 == policy.attempts:
                raise
        finally:
            file.flush()


def _prepare_retry(error: Exception, file: BinaryIO) -> None:
    """Prepare another attempt after `error`. Raise it if another attempt would end alike."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # the content of `file` is no beginning of the download
            file.truncate(0)
        elif error.code not in RETRY_STATUSES:
            raise error


def _open_url(url: str, start: int, validator: str, timeout: float) -> http.client.HTTPResponse:
    """Request the bytes from `start` on, or all of them if the file no longer matches `validator`."""
    _require_https(url)
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "tl_keras"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        if validator:
            request.add_header("If-Range", validator)
    return urllib.request.build_opener(_SafeRedirects).open(request, timeout=timeout)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request: Any, response: Any, code: int, message: str, headers: Any, url: str) -> Any:
        _require_https(url)
        return super().redirect_request(request, response, code, message, headers, url)


def _require_https(url: str) -> None:
    """Raise DamagedError unless `url` is https, or http of the local host."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        raise DamagedError(f"{url} is not fetched: weights are accepted by https only.")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _validator(response: http.client.HTTPResponse) -> str:
    """Return the strong ETag for If-Range, or "" if there is none."""
    tag = response.headers.get("ETag", "")
    return "" if tag.startswith("W/") else tag


def _append(response: http.client.HTTPResponse, file: BinaryIO, entry: WeightsFile, timeout: float, progress: Update) -> None:
    start, total = _range(response, file.tell())
    _require_expected(response, entry, total)
    file.truncate(start)
    done, limit = file.seek(start), total or entry.size or MAX_BYTES
    window_start, window_done = time.monotonic(), done
    while chunk := _read(response):
        done += file.write(chunk)
        if done > limit:
            raise DamagedError(f"{entry.url} sent more than the {limit:,} bytes that were expected. Nothing of it is kept.")
        progress(done, total or entry.size)
        if time.monotonic() - window_start > timeout:
            if done - window_done < timeout * MIN_BYTES_PER_SECOND:
                raise TimeoutError(f"only {done - window_done:,} bytes were received in {timeout:g} seconds")
            window_start, window_done = time.monotonic(), done
    if done < total:
        raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")


def _range(response: http.client.HTTPResponse, requested: int) -> tuple[int, int]:
    """Return the position of the first byte of the response, and the size of the whole file (0 if unknown).

    A server that does not support ranges, or whose file has changed, answers 200 with the whole file.
    """
    if response.status != HTTPStatus.PARTIAL_CONTENT:
        return 0, response.length or 0
    content_range = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", content_range)
    if not found or int(found[1]) != requested:
        raise DamagedError(f"{response.url} answered a request for the bytes from {requested:,} on with {content_range!r}.")
    return requested, int(found[3])


def _require_expected(response: http.client.HTTPResponse, entry: WeightsFile, total: int) -> None:
    """Raise DamagedError, before the body is read, if the headers announce another file."""
    if response.headers.get_content_type() == "text/html":
        raise DamagedError(
            f"{response.url} answered with a web page instead of {entry.name}. Does the network ask for a log-in? Nothing is kept."
        )
    if total > MAX_BYTES or (entry.size and total and total != entry.size):
        expected = f"{entry.size:,}" if entry.size else f"at most {MAX_BYTES:,}"
        raise DamagedError(f"{response.url} offers {total:,} bytes for {entry.name}, expected {expected}. Nothing is kept.")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK_BYTES)
    except OSError as error:
        raise ConnectionError(f"the connection broke: {error}") from error
