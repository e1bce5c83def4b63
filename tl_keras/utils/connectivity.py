"""Whether a host answers, found out within a bound."""

import http.client
import threading
import urllib.error
import urllib.parse
import urllib.request
from functools import cache


def is_reachable(url: str, timeout: float = 10.0) -> bool:
    """Whether the host of `url` answers at all, with whatever HTTP status, within `timeout` seconds; asked once a process."""
    parts = urllib.parse.urlsplit(url)
    return _answers(f"{parts.scheme}://{parts.netloc}/", timeout)


@cache  # the rows of an experiment ask again and again, and must all go the same way
def _answers(url: str, timeout: float) -> bool:
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
        except urllib.error.HTTPError:
            answered.set()
        except (OSError, ValueError, http.client.HTTPException):  # silence, no URL, or no HTTP
            pass
        else:
            answered.set()

    # Looking up a name can hang for minutes, and no timeout of urllib's covers it.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return answered.is_set()
