"""Whether a host answers, found out within a bound."""

import threading
import urllib.error
import urllib.request


def reachable(url: str, timeout: float = 10.0) -> bool:
    """Whether the host of `url` answers at all, with whatever HTTP status, within `timeout` seconds."""
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
        except urllib.error.HTTPError:
            answered.set()
        except OSError:
            pass
        else:
            answered.set()

    # Looking up a name can hang for minutes, and no timeout of urllib's covers it.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return answered.is_set()
