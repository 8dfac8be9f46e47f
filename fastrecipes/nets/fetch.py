"""Pretrained weights in the libraries' caches, and their download, which waits for no absent network."""

from __future__ import annotations

import os
import queue
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import HTTPRedirectHandler, Request, build_opener

__all__ = ["PROBE_SECONDS", "HubFile", "HuggingFace", "Remote", "unreachable"]

# In seconds: for the first answer of a server, and for a download that stalls.
PROBE_SECONDS = 5.0
STALL_SECONDS = 30.0
_HASH = re.compile(r"-([a-f0-9]{8,})\.")


@dataclass(frozen=True)
class HubFile:
    """One file at a `url`, kept in torch.hub's folder under its own name."""

    what: str
    url: str

    @property
    def place(self) -> str:
        """What an error names: the address."""
        return self.url

    @property
    def cache(self) -> Path:
        """torch.hub's folder of checkpoints."""
        from torch import hub

        return Path(hub.get_dir()) / "checkpoints"

    @property
    def _path(self) -> Path:
        return self.cache / Path(urlparse(self.url).path).name

    def cached(self) -> Path | None:
        """The file, if an earlier run fetched it."""
        return self._path if self._path.is_file() else None

    def download(self) -> Path:
        """Fetch it, checked against the hash in its name; no partial file is left. Progress on stderr."""
        from torch import hub

        self.cache.mkdir(parents=True, exist_ok=True)
        digest = _HASH.search(self._path.name)
        sys.stderr.write(f"downloading {self.url} to {self.cache}\n")
        with _stalls_after(STALL_SECONDS):
            hub.download_url_to_file(self.url, str(self._path), digest and digest[1], progress=True)
        return self._path


@dataclass(frozen=True)
class HuggingFace:
    """Weights in the Hugging Face hub's repository `repo` ("timm/resnet18.a1_in1k" or "...@revision")."""

    what: str
    repo: str
    file: str | None = None

    @property
    def place(self) -> str:
        """What an error names: the repository."""
        return f"hf-hub:{self.repo}"

    @property
    def cache(self) -> Path:
        """The hub's folder."""
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE)

    @property
    def _files(self) -> tuple[str, ...]:
        return (self.file,) if self.file else ("model.safetensors", "pytorch_model.bin")

    @property
    def _at(self) -> tuple[str, str | None]:
        repo, _, revision = self.repo.partition("@")
        return repo, revision or None

    @property
    def url(self) -> str:
        """The address of the first of its usual files."""
        from huggingface_hub import hf_hub_url

        repo, revision = self._at
        return hf_hub_url(repo, self._files[0], revision=revision)

    def cached(self) -> Path | None:
        """The first of its usual files that an earlier run fetched; asks no network."""
        from huggingface_hub import try_to_load_from_cache

        repo, revision = self._at
        found = (try_to_load_from_cache(repo, file, revision=revision) for file in self._files)
        return next((Path(path) for path in found if isinstance(path, str)), None)

    def download(self) -> Path:
        """Fetch the first of its usual files that exists, into the hub's cache. Progress on stderr."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        repo, revision = self._at
        *others, last = self._files
        for file in others:
            try:
                return Path(hf_hub_download(repo, file, revision=revision))
            except EntryNotFoundError:
                continue
        return Path(hf_hub_download(repo, last, revision=revision))


Remote = HubFile | HuggingFace


def unreachable(remote: Remote) -> str:
    """Why `remote` cannot be downloaded now, or nothing; takes `PROBE_SECONDS` at most.

    Proxies in the environment are used. The answer is waited for in a thread: looking up a name can hang for
    longer than any timeout.
    """
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if offline and isinstance(remote, HuggingFace):
        return "HF_HUB_OFFLINE is set"
    answers: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda: answers.put(_probe(remote.url)), daemon=True).start()
    try:
        return answers.get(timeout=PROBE_SECONDS)
    except queue.Empty:
        return f"no answer in {PROBE_SECONDS:.0f} s"


class _FirstHop(HTTPRedirectHandler):
    """Follows no redirection: the servers that files lie on may answer nothing but a download."""

    def redirect_request(self, req: Request, fp: object, code: int, msg: str, headers: object, newurl: str) -> None:
        """Go nowhere."""


def _probe(url: str) -> str:
    try:
        build_opener(_FirstHop).open(Request(url, method="HEAD"), timeout=PROBE_SECONDS).close()
    except HTTPError as e:
        e.close()
        # A repository may keep its weights under another of the usual names.
        other_name = e.code == 404 and url.endswith("model.safetensors")
        return "" if e.code < 400 or other_name else f"HTTP {e.code}"
    except (OSError, ValueError) as e:
        return str(getattr(e, "reason", e))
    return ""


@contextmanager
def _stalls_after(seconds: float) -> Iterator[None]:
    # torch.hub sets no timeout of its own, and would wait for a silent server for ever.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
