from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from vidswap.cache import ContentCache, content_key, write_atomically
from vidswap.errors import InputError

KEY = {"input": "12-ab", "settings": {"steps": 3, "rate": 0.05}, "version": "1"}


def _arrays(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "latent": random.standard_normal((3, 23, 512)).astype(np.float32),
        "half": random.standard_normal((2, 4)).astype(np.float16),
        "pts": np.arange(5, dtype=np.int64) * 1001,
        "seen": np.array([True, False]),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3), np.float32),
    }


def _same(left: dict[str, np.ndarray] | None, right: dict[str, np.ndarray]) -> bool:
    return left is not None and left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and np.array_equal(left[name], right[name])
        and left[name].shape == right[name].shape
        for name in right
    )


def _entries(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_what_is_put_is_found_by_an_equal_key_only(tmp_path):
    cache = ContentCache(tmp_path)
    assert cache.get("pivots", KEY) is None
    assert cache.put("pivots", KEY, _arrays())
    reordered = {"version": "1", "settings": {"rate": 0.05, "steps": 3}, "input": "12-ab"}
    found = ContentCache(tmp_path).get("pivots", reordered)
    assert _same(found, _arrays())
    found["latent"] += 1  # callers own what they get
    assert _same(cache.get("pivots", KEY), _arrays())
    assert cache.get("sources", KEY) is None
    assert cache.get("pivots", {**KEY, "version": "2"}) is None


def test_strided_and_big_endian_arrays_keep_their_values(tmp_path):
    cache = ContentCache(tmp_path)
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    put = {"turned": base.T[::2], "big": base.astype(">f4")}
    cache.put("a", KEY, put)
    found = cache.get("a", KEY)
    assert np.array_equal(found["turned"], base.T[::2])
    assert np.array_equal(found["big"], base)


def test_every_flipped_bit_is_found_or_harmless_and_the_entry_made_again(tmp_path):
    cache = ContentCache(tmp_path)
    arrays = {"a": np.arange(6, dtype=np.float32), "b": np.arange(4, dtype=np.int16)}
    cache.put("k", KEY, arrays)
    path = cache.path_of("k", KEY)
    whole = path.read_bytes()
    missed = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        found = cache.get("k", KEY)
        assert found is None or _same(found, arrays), f"byte {position} went unseen"
        missed += found is None
        assert path.exists() == (found is not None)
    assert missed > len(whole) * 0.9
    assert cache.put("k", KEY, arrays)
    assert _same(cache.get("k", KEY), arrays)


@pytest.mark.parametrize("size", [0, 7, 8, 100, -1])
def test_a_cut_entry_counts_as_absent(tmp_path, size):
    cache = ContentCache(tmp_path)
    cache.put("k", KEY, _arrays())
    path = cache.path_of("k", KEY)
    path.write_bytes(path.read_bytes()[:size])
    assert cache.get("k", KEY) is None


def test_an_entry_moved_to_another_address_is_refused(tmp_path):
    cache = ContentCache(tmp_path)
    cache.put("k", KEY, _arrays())
    other = cache.path_of("k", {"other": 1})
    other.parent.mkdir(parents=True, exist_ok=True)
    os.replace(cache.path_of("k", KEY), other)
    assert cache.get("k", {"other": 1}) is None


def test_prune_removes_what_was_used_longest_ago(tmp_path):
    cache = ContentCache(tmp_path)
    keys = [{"n": number} for number in range(4)]
    for age, key in enumerate(keys):
        cache.put("k", key, {"a": np.zeros(1000, np.float32)})
        os.utime(cache.path_of("k", key), (1e9 + age, 1e9 + age))
    one = cache.path_of("k", keys[0]).stat().st_size
    cache.get("k", keys[0])  # now the one used last
    report = cache.prune(2 * one)
    assert (report.removed, report.removed_bytes, report.kept_bytes) == (2, 2 * one, 2 * one)
    assert [cache.path_of("k", key).exists() for key in keys] == [True, False, False, True]


def test_a_time_in_the_future_keeps_no_entry_for_ever(tmp_path):
    cache = ContentCache(tmp_path)
    for number in range(2):
        cache.put("k", {"n": number}, {"a": np.zeros(9)})
    future = cache.path_of("k", {"n": 0})
    os.utime(future, (4e9, 4e9))
    cache.prune(cache.path_of("k", {"n": 1}).stat().st_size)
    assert not future.exists() and cache.get("k", {"n": 1}) is not None


def test_max_bytes_bounds_the_folder_while_it_is_filled(tmp_path):
    cache = ContentCache(tmp_path, max_bytes=50_000)
    for number in range(40):
        cache.put("k", {"n": number}, {"a": np.zeros(1000, np.float32)})
        assert sum(path.stat().st_size for path in _entries(tmp_path)) < 60_000
    assert cache.get("k", {"n": 39}) is not None


def test_prune_clears_old_temporaries_and_leaves_strangers(tmp_path):
    cache = ContentCache(tmp_path)
    cache.put("k", KEY, _arrays())
    folder = cache.path_of("k", KEY).parent
    old, fresh, stranger = folder / ".x.1-a.tmp", folder / ".x.2-b.tmp", folder / "note.txt"
    for path in (old, fresh, stranger):
        path.write_bytes(b"x")
    os.utime(old, (1e9, 1e9))
    cache.prune(0)
    assert not old.exists() and fresh.exists() and stranger.exists()
    assert cache.get("k", KEY) is None


def test_keys_that_are_not_json_and_odd_kinds_are_refused(tmp_path):
    cache = ContentCache(tmp_path)
    with pytest.raises(TypeError):
        cache.put("k", {"n": np.float32(1)}, {})
    with pytest.raises(ValueError):
        cache.put("k", {"n": float("nan")}, {})
    with pytest.raises(ValueError, match="kind"):
        cache.get("../k", KEY)
    with pytest.raises(TypeError, match="words"):
        cache.put("k", KEY, {"words": np.array(["a"])})
    assert _entries(tmp_path) == []


def test_a_full_disk_keeps_nothing_and_is_no_error(tmp_path, caplog):
    cache = ContentCache(tmp_path)
    cache.put("k", KEY, {"a": np.zeros(4)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # Python ignores SIGXFSZ: EFBIG
    try:
        kept = cache.put("k", KEY, {"a": np.ones(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not kept and "not kept" in caplog.text
    assert np.array_equal(cache.get("k", KEY)["a"], np.zeros(4))
    assert len(_entries(tmp_path)) == 1


_HAMMER = """
import sys, numpy as np
from pathlib import Path
from vidswap.cache import ContentCache
cache, start = ContentCache(Path(sys.argv[1]), max_bytes=200_000), int(sys.argv[2])
sys.stdout.write("r"); sys.stdout.flush(); sys.stdin.read(1)
for turn in range(30):
    number = (turn * 7 + start) % 12
    want = np.full(2000, number, np.float32)
    got = cache.get("k", {"n": number})
    if got is not None and not np.array_equal(got["a"], want):
        sys.exit("wrong arrays")
    if not cache.put("k", {"n": number}, {"a": want}):
        sys.exit("not kept")
"""


def test_several_runs_share_one_cache(tmp_path):
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_HAMMER), str(tmp_path), str(start)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for start in range(3)
    ]
    for run in runs:
        assert run.stdout.read(1) == b"r", run.stderr.read().decode()
    for run in runs:
        run.stdin.write(b"g")
        run.stdin.flush()
    for run in runs:
        _, error = run.communicate(timeout=30)
        assert run.returncode == 0 and error == b"", error.decode()
    assert not [path for path in _entries(tmp_path) if path.suffix == ".tmp"]


def test_content_key_tells_content_not_name(tmp_path):
    first, second = tmp_path / "a.bin", tmp_path / "b \n%03d.bin"
    first.write_bytes(b"x" * 3_000_000)
    second.write_bytes(b"x" * 3_000_000)
    assert content_key(first) == content_key(second)
    assert content_key(first).startswith("3000000-")
    stat = first.stat()
    with open(first, "r+b") as stream:
        stream.seek(1_500_000)
        stream.write(b"y")
    os.utime(first, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a sly edit: same size, same time
    assert content_key(first) != content_key(second)
    with pytest.raises(InputError, match="missing"):
        content_key(tmp_path / "missing")


def test_content_key_reads_an_unchanged_file_once(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"x" * 100)
    os.utime(path, (1e9, 1e9))
    first = content_key(path)
    import vidswap.cache as module

    def refuse(*_):
        raise AssertionError("hashed again")

    monkeypatch.setattr(module.hashlib, "sha256", refuse)
    assert content_key(path) == first


def test_write_atomically_leaves_the_old_content_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and _entries(tmp_path) == [path]
