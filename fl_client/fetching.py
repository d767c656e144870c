"""The networked half of an update: python-tuf's client over HTTP or a local folder (TUF 1.0 §5, spec 8.5).

Imported by `Trusted.update` alone; scoring never loads it.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tuf.api import exceptions
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from model.errors import TrustError

SOCKET_SECONDS = 10.0
FILE_SECONDS = 60.0
_CHUNK = 1 << 16


class FolderFetcher(FetcherInterface):
    """Reads a repository that lies in a local folder; nothing outside it."""

    def __init__(self, folder: Path) -> None:
        self.base = folder.resolve().as_uri()
        self._folder = folder.resolve()

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            raise exceptions.DownloadHTTPError(f"{url} is not in the repository", 404)
        return iter([path.read_bytes()])


class HttpFetcher(FetcherInterface):
    """HTTP and HTTPS alone, with a timeout for each read and a deadline for each file, so a slow server ends."""

    def __init__(self, *, socket_seconds: float = SOCKET_SECONDS, file_seconds: float = FILE_SECONDS) -> None:
        self._socket_seconds, self._file_seconds = socket_seconds, file_seconds
        self._open = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler,
            urllib.request.HTTPHandler,
            urllib.request.HTTPSHandler,
            urllib.request.HTTPDefaultErrorHandler,
            urllib.request.HTTPErrorProcessor,
        ):
            self._open.add_handler(handler())

    def _fetch(self, url: str) -> Iterator[bytes]:
        deadline = time.monotonic() + self._file_seconds
        try:
            response = self._open.open(url, timeout=self._socket_seconds)
        except urllib.error.HTTPError as error:
            error.close()
            raise exceptions.DownloadHTTPError(f"{url} answered {error.code}", error.code) from error
        if response is None:
            raise exceptions.DownloadError(f"{url} is neither http nor https")
        return _chunks(response.read1, response.close, deadline)


def _chunks(read: Callable[[int], bytes], close: Callable[[], None], deadline: float) -> Iterator[bytes]:
    try:
        while chunk := read(_CHUNK):
            if time.monotonic() > deadline:
                raise exceptions.SlowRetrievalError("the server sends too slowly")
            yield chunk
    except OSError as error:
        raise exceptions.DownloadError(f"the connection broke ({error})") from error
    finally:
        close()


class Sync:
    """One run of the client workflow: metadata verified at `now` and kept in `state`, then target files.

    TrustError, with python-tuf's reason, when the repository cannot be reached or is refused; `state` only ever moves
    forward, so an older repository is refused from then on.
    """

    def __init__(self, repository: str, state: Path, bootstrap: bytes, now: int) -> None:
        base, fetcher = _source(repository)
        (state / "targets").mkdir(parents=True, exist_ok=True)
        self._repository, self._state = repository, state
        config = UpdaterConfig(max_delegations=0)
        with _explained(repository):
            self._updater = Updater(
                str(state), f"{base}/metadata/", None, f"{base}/targets/", fetcher, config, bootstrap=bootstrap
            )
            # python-tuf offers no other way to verify at a given time.
            self._updater._trusted_set.reference_time = datetime.fromtimestamp(now, UTC)
            self._updater.refresh()

    def metadata(self, role: str) -> bytes:
        """The verified metadata of `role`, as synced."""
        return (self._state / f"{role}.json").read_bytes()

    def target(self, path: str) -> bytes:
        """The verified target file `path`."""
        with _explained(self._repository):
            info = self._updater.get_targetinfo(path)
            if info is None:
                raise TrustError(f"the repository {self._repository} has no file {path!r}; check the release name")
            place = self._updater.download_target(info, str(self._state / "targets" / "download"))
            return Path(place).read_bytes()


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    try:
        yield
    except exceptions.DownloadError as error:
        why = f"the repository {repository} cannot be fetched ({error})"
        raise TrustError(f"{why}; check the address and the connection, then run update again") from error
    except exceptions.RepositoryError as error:
        why = f"the repository {repository} is refused ({error})"
        raise TrustError(f"{why}; the release in use stays, tell its publisher") from error


def _source(repository: str) -> tuple[str, FetcherInterface]:
    """(base URL, fetcher) of an http(s) URL or a local folder."""
    if repository.startswith(("http://", "https://")):
        return repository.rstrip("/"), HttpFetcher()
    folder = Path(urllib.parse.unquote(repository.removeprefix("file://")))
    if not folder.is_dir():
        raise TrustError(f"the repository {repository} is neither an http address nor a folder; correct it")
    fetcher = FolderFetcher(folder)
    return fetcher.base, fetcher
