"""Checks within bounded time that a host answers."""

import http.client
import threading
import urllib.error
import urllib.parse
import urllib.request
from functools import cache


def is_reachable(url: str, timeout: float = 10.0) -> bool:
    """Return True if the host of `url` answers with any HTTP status within `timeout` seconds. The result is cached per host.

    Call as `connectivity.is_reachable`, so that tests replace it in one module.
    """
    parts = urllib.parse.urlsplit(url)
    return _host_answers(f"{parts.scheme}://{parts.netloc}/", timeout)


@cache  # all runs of an experiment must get the same answer
def _host_answers(url: str, timeout: float) -> bool:
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
        except urllib.error.HTTPError:
            answered.set()
        except (OSError, ValueError, http.client.HTTPException):  # no answer, no URL, or no HTTP
            pass
        else:
            answered.set()

    # A name lookup can hang for minutes and is not covered by the timeout of urllib.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return answered.is_set()
