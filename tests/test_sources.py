"""What may be named as a source."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vidswap.errors import InputError, UsageError
from vidswap.sources import SourceSpec, parse_source, parse_sources


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a photo.jpg"
    path.write_bytes(b"x")
    return path


def test_photo_and_face_index(photo):
    assert parse_source(photo) == SourceSpec("photo", path=photo)
    assert parse_source(f"{photo}#1") == SourceSpec("photo", path=photo, face_index=1)
    assert str(parse_source(f"{photo}#1")) == f"{photo}#1"


def test_a_file_whose_name_ends_like_an_index_is_that_file(tmp_path):
    path = tmp_path / "take#2"
    path.write_bytes(b"x")
    assert parse_source(path) == SourceSpec("photo", path=path)
    assert parse_source(f"{path}#0") == SourceSpec("photo", path=path, face_index=0)


def test_synthetic():
    assert parse_source("synthetic:7") == SourceSpec("synthetic", seed=7)
    assert str(parse_source("synthetic:4294967295")) == "synthetic:4294967295"


@pytest.mark.parametrize("seed", ["", "-1", "x", "1.5", "4294967296", "٣", " 7"])
def test_wrong_seeds(seed):
    with pytest.raises(UsageError, match="the seed must be a whole number from 0 to 4294967295"):
        parse_source(f"synthetic:{seed}")


def test_missing_folder_and_odd_names(tmp_path, photo):
    with pytest.raises(InputError, match="no such source: .*none.jpg: name a photo"):
        parse_source(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="no such source"):
        parse_source(tmp_path / "none.jpg#3")
    with pytest.raises(InputError, match="no such source"):
        parse_source(photo / "below")
    with pytest.raises(InputError, match="is not a file"):
        parse_source(tmp_path)
    with pytest.raises(InputError, match="cannot read the source"):
        parse_source("x" * 5000)
    with pytest.raises(UsageError, match="empty"):
        parse_source("")
    with pytest.raises(UsageError, match="zero byte"):
        parse_source("a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_before_it_can_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is not a file"):
        parse_source(tmp_path / "pipe")


def test_several(photo):
    assert len(parse_sources([str(photo), f"{photo}#0"])) == 2
    assert parse_sources("synthetic:1") == (SourceSpec("synthetic", seed=1),)
    assert parse_sources(photo) == (SourceSpec("photo", path=photo),)
    with pytest.raises(UsageError, match="no source given"):
        parse_sources([])
    with pytest.raises(UsageError, match="photos of one person"):
        parse_sources([str(photo), "synthetic:1"])


def test_people_are_mixed_by_their_shares(photo):
    mixed = parse_sources([f"{photo}#1@0.7", "synthetic:1@.3", str(photo)])
    assert [source.share for source in mixed] == [0.7, 0.3, None]
    assert mixed[0] == SourceSpec("photo", path=photo, face_index=1, share=0.7)
    assert [str(source) for source in mixed] == [f"{photo}#1@0.7", "synthetic:1@0.3", str(photo)]
    assert [source.stem for source in mixed] == [photo.stem, "synthetic-1", photo.stem]
    for text in (f"{photo}@0", f"{photo}@5000", "synthetic:1@0.0"):
        with pytest.raises(UsageError, match="share above 0"):
            parse_source(text)
    for text in (f"{photo}@0.5", "synthetic:1@2"):
        with pytest.raises(UsageError, match="--strength"):
            parse_sources(text)


def test_a_file_may_end_like_a_share(photo):
    named = photo.with_name("me@2")
    named.write_bytes(photo.read_bytes())
    assert parse_source(named) == SourceSpec("photo", path=named)
    assert parse_source(f"{named}@0.5") == SourceSpec("photo", path=named, share=0.5)
    with pytest.raises(InputError, match="no such source"):
        parse_source(photo.with_name("nobody@home.jpg"))


def test_specs_are_whole():
    with pytest.raises(ValueError, match="a photo has a path"):
        SourceSpec("photo")
    with pytest.raises(ValueError, match="has a seed"):
        SourceSpec("synthetic", path=Path("x"), seed=1)
