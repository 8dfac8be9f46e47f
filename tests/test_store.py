"""Arrays in the user's cache: whole or not there, shared by processes, within their limit."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrecipes import RecipeError
from fastrecipes.record.limit import cache_limit
from fastrecipes.record.store import Store, TooLargeError, array_key

KEY = array_key("images", 224, ("a", None))
PAGE = 4096


def put(store: Store, key: str, value: Any, **options: Any) -> None:
    """Write an array."""
    with store.writing(key, np.shape(value), np.asarray(value).dtype, **options) as array:
        array[...] = value


@pytest.mark.parametrize(
    "value", [np.arange(12, dtype=np.uint8).reshape(3, 4), np.float32(2.5), np.zeros((0, 3), "i8")]
)
def test_an_array_comes_back(tmp_path: Path, value: Any) -> None:
    """With its shape and type, and nobody can change it."""
    store = Store(tmp_path / "new" / "place", 10**6)
    assert store.read(KEY) is None
    put(store, KEY, value)
    back = store.read(KEY)
    assert back is not None
    assert back.dtype == np.asarray(value).dtype
    np.testing.assert_array_equal(back, value)
    if back.size:
        with pytest.raises(ValueError, match="read-only"):
            back[...] = 1


def test_what_is_not_finished_is_not_there(tmp_path: Path) -> None:
    """An error inside leaves no array and no part; while it is written nobody sees it."""
    store = Store(tmp_path, 10**6)

    def broken() -> None:
        with store.writing(KEY, (4,), "u1") as array:
            array[:] = 1
            assert store.read(KEY) is None
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert store.read(KEY) is None
    assert store.used() == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"",
        lambda data: b"{" + data,
        lambda data: data.replace(b"[4, 6]", b"[6, 4]"),
        lambda data: data.replace(b"|u1", b"|i1"),
    ],
)
def test_a_damaged_array_is_removed_and_told(tmp_path: Path, spoil: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Once; then it is as if it had never been."""
    store = Store(tmp_path, 10**6)
    put(store, KEY, np.arange(24, dtype=np.uint8).reshape(4, 6))
    (path,) = tmp_path.glob("*.array")
    path.write_bytes(spoil(path.read_bytes()))
    assert store.read(KEY) is None
    assert store.read(KEY) is None
    assert [record.message.split(" is damaged")[0] for record in caplog.records] == [str(path)]
    assert not path.exists()


def test_an_array_that_is_deleted_stays_readable(tmp_path: Path) -> None:
    """For whoever has it open."""
    store = Store(tmp_path, 10**6)
    put(store, KEY, np.arange(9))
    back = store.read(KEY)
    assert back is not None
    assert store.clear() > 9
    np.testing.assert_array_equal(back, np.arange(9))
    assert store.read(KEY) is None


def test_the_least_recently_used_is_evicted(tmp_path: Path) -> None:
    """Reading counts as use, and what a writer keeps is never taken."""
    store = Store(tmp_path, 3 * (PAGE + 100))
    keys = [array_key(i) for i in range(5)]
    for i, key in enumerate(keys[:3]):
        put(store, key, np.zeros(100, np.uint8))
        os.utime(tmp_path / f"{key}.array", (i, i))
    assert store.read(keys[0]) is not None
    put(store, keys[3], np.zeros(100, np.uint8))
    assert [store.read(key) is not None for key in keys] == [True, False, True, True, False]
    with pytest.raises(TooLargeError, match="4 kB do not fit into the cache of 13 kB, 13 kB of it in use"):
        put(store, keys[4], np.zeros(100, np.uint8), keep={keys[0], keys[2], keys[3]})
    assert [entry.key for entry in store.entries()] == [keys[3], keys[2], keys[0]]


def test_an_array_over_the_limit_is_refused(tmp_path: Path) -> None:
    """And costs the others nothing."""
    store = Store(tmp_path, PAGE + 100)
    put(store, KEY, np.zeros(100, np.uint8))
    with pytest.raises(TooLargeError, match=re.escape("4 kB do not fit into the cache of 4 kB")):
        put(store, array_key(2), np.zeros(101, np.uint8))
    assert store.read(KEY) is not None


def test_the_parts_of_the_dead_are_swept(tmp_path: Path) -> None:
    """But not those of the living."""
    store = Store(tmp_path, 10**6)
    code = f"""
import os, signal
from pathlib import Path
from fastrecipes.record.store import Store
with Store(Path({str(tmp_path)!r}), 10**6).writing({KEY!r}, (1000,), "u1"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert store.used() == PAGE + 1000
    with store.writing(array_key(1), (10,), "u1"):
        put(store, array_key(2), np.zeros(1, np.uint8))
        assert store.used() == 2 * PAGE + 11
    assert {entry.bytes for entry in store.entries()} == {PAGE + 10, PAGE + 1}


def test_two_processes_write_the_same_array(tmp_path: Path) -> None:
    """At the same time: both succeed, and what is there is whole."""
    code = f"""
import sys
from pathlib import Path
from fastrecipes.record.store import Store
store = Store(Path({str(tmp_path)!r}), 10**8)
for _ in range(20):
    with store.writing({KEY!r}, (50_000,), "u1") as array:
        array[:] = 7
    assert (store.read({KEY!r}) == 7).all()
"""
    both = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate()[1] for process in both] == [b"", b""]
    assert Store(tmp_path, 0).used() == PAGE + 50_000


def test_a_full_disk_is_an_error_not_a_crash(tmp_path: Path) -> None:
    """The space is taken before the array is mapped: writing to a mapping that has none would kill the process."""
    store = Store(tmp_path, 10**8)
    put(store, array_key(1), np.zeros(10, np.uint8))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, before[1]))
    try:
        with pytest.raises(OSError) as told, store.writing(KEY, (10**6,), "u1"):
            pytest.fail("there was no space")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert told.value.errno == errno.EFBIG
    assert store.used() == PAGE + 10


def test_keys_are_digests(tmp_path: Path) -> None:
    """No key leads out of the folder."""
    with pytest.raises(ValueError, match="hexadecimal digits"):
        Store(tmp_path, 10**6).read("../../secret")
    assert array_key("a", 1) != array_key("a", "1")


def test_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the variable, or 10 GB, and at most half of what the disk has left; a wrong one is told."""
    stat = os.statvfs(tmp_path)
    free = stat.f_bavail * stat.f_frsize
    monkeypatch.delenv("FASTRECIPES_CACHE_LIMIT", raising=False)
    assert cache_limit(tmp_path / "none") <= min(10**10, free)
    for text, expected in (("5MB", 5 * 10**6), ("0", 0), ("1.5 kb", 1500)):
        monkeypatch.setenv("FASTRECIPES_CACHE_LIMIT", text)
        assert cache_limit(tmp_path / "none" / "yet") == expected
    monkeypatch.setenv("FASTRECIPES_CACHE_LIMIT", "900TB")
    assert cache_limit(tmp_path) < free
    monkeypatch.setenv("FASTRECIPES_CACHE_LIMIT", "lots")
    with pytest.raises(RecipeError, match="expected a size such as 20GB or 500MB"):
        cache_limit(tmp_path)


def test_the_command_shows_and_clears(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kind, size, age, limit and place; a wrong limit is one clear line."""
    monkeypatch.setenv("FASTRECIPES_CACHE", str(tmp_path))
    monkeypatch.setenv("FASTRECIPES_CACHE_LIMIT", "5MB")
    assert cli("cache").out == f"0 kB of 5 MB (FASTRECIPES_CACHE_LIMIT) in {tmp_path}/arrays\n"
    put(Store(tmp_path / "arrays", 10**7), KEY, np.zeros(2_000_000, np.uint8), kind="images")
    lines = cli("cache").out.splitlines()
    assert lines[0].split() == ["array", "kind", "size", "last", "used"]
    assert lines[1].split() == [KEY[:12], "images", "2", "MB", "0", "min", "ago"]
    assert lines[2] == f"2 MB of 5 MB (FASTRECIPES_CACHE_LIMIT) in {tmp_path}/arrays"
    assert cli("cache", "--clear").out == f"2 MB freed in {tmp_path}/arrays\n"
    assert len(cli("cache").out.splitlines()) == 1
    monkeypatch.setenv("FASTRECIPES_CACHE_LIMIT", "lots")
    told = cli("cache")
    assert (told.code, told.err) == (
        2,
        "error: FASTRECIPES_CACHE_LIMIT='lots': expected a size such as 20GB or 500MB\n",
    )
