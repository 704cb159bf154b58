"""The visible label and own certificates, from the command line to what `vidswap verify` shows."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import av
import numpy as np
import pytest

from vidswap.cli.app import run as vidswap
from vidswap.config import MarkConfig
from vidswap.errors import UsageError
from vidswap.marks import check_mark, label_of, labelled, signer_of
from vidswap.provenance import signing
from vidswap.video import open_frames

GREY = (120, 120, 120)


def write_wall(path: Path, size_wh: tuple[int, int] = (320, 240), frames: int = 3) -> Path:
    """A clip without a face: one grey all over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height = size_wh
        stream.pix_fmt = "yuv420p"
        for _ in range(frames):
            picture = np.full((size_wh[1], size_wh[0], 3), GREY, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


def pictures_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]


@pytest.fixture
def own_pair(tmp_path: Path) -> tuple[Path, Path]:
    """An authority and a leaf of the user's own: certificates and key."""
    now = datetime.datetime.now(datetime.timezone.utc)
    authority = signing._make(None, now, 1000)
    leaf = signing._make(authority, now, 90)
    chain, key = tmp_path / "own.crt", tmp_path / "own.key"
    chain.write_bytes(signing._pem(leaf.certificate) + signing._pem(authority.certificate))
    key.write_bytes(signing._key_pem(leaf.key))
    return chain, key


def test_the_label_changes_its_box_and_nothing_else(tmp_path: Path) -> None:
    mark = MarkConfig(visible_label="made by a machine", label_corner="top-left")
    with open_frames(write_wall(tmp_path / "a.mp4")) as frames:
        frame = next(iter(frames))
        done = labelled(frame, mark)
        assert labelled(frame, MarkConfig()) is frame
    label = label_of(mark, frame.upright_size_wh)
    left, top, right, bottom = label.box_xyxy
    for plane, old, step in zip(done.planes, frame.planes, (1, 2, 2), strict=True):
        differs = np.argwhere(plane != old) * step
        if len(differs):
            assert differs.min(0)[0] >= top and differs.max(0)[0] < bottom
            assert differs.min(0)[1] >= left and differs.max(0)[1] < right
    changed = (done.planes[0] != frame.planes[0])[top:bottom, left:right]
    assert changed.mean() > 0.8
    luma = done.planes[0][top:bottom, left:right]
    assert luma.max() > 200 and luma.min() < 80  # light ink on a dark field


@pytest.mark.parametrize(
    ("mark", "size_wh", "reason"),
    [
        (MarkConfig(visible_label="   "), None, "expected 1 to 80 characters"),
        (MarkConfig(visible_label="x" * 81), None, "expected 1 to 80 characters"),
        (MarkConfig(visible_label="two\nlines"), None, "has no glyph"),
        (MarkConfig(visible_label="made by \U0001f916"), None, "has no glyph"),
        (MarkConfig(visible_label="AI", label_font="none.ttf"), None, "label_font: cannot read 'none.ttf'"),
        (MarkConfig(visible_label="a long text " * 6), (200, 240), "does not fit into frames of 200x240"),
        (MarkConfig(sign_cert="a.crt"), None, "--sign-key"),
        (MarkConfig(sign_key="a.key"), None, "--sign-cert"),
        (MarkConfig(sign_cert="none.crt", sign_key="none.key"), None, "cannot read the certificate none.crt"),
    ],
)
def test_what_cannot_be_marked_is_refused_first_in_one_line(mark, size_wh, reason, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDSWAP_HOME", str(tmp_path / "home"))
    with pytest.raises(UsageError, match=reason) as caught:
        check_mark(mark, size_wh)
    assert "\n" not in str(caught.value)


def test_without_certificates_the_local_one_signs(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VIDSWAP_HOME", str(tmp_path / "home"))
    assert signer_of(MarkConfig()) is None
    check_mark(MarkConfig(visible_label="AI-generated · made by a machine"), (640, 360))


def test_label_and_own_signer_arrive_and_verify_shows_them(
    weights_home: Path, tmp_path: Path, own_pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_wall(tmp_path / "in" / "wall.mp4")
    chain, key = (str(path) for path in own_pair)
    words = ["--set", "threads=1", "--sign-cert", chain, "--sign-key", key, "--visible-label", "AI-made"]
    out = tmp_path / "out" / "wall.mp4"
    command = ["batch", str(tmp_path / "in"), "-s", "synthetic:3", "-o", str(out.parent), *words]
    assert vidswap(command) == 0, capsys.readouterr().err
    box = label_of(MarkConfig(visible_label="AI-made"), (320, 240)).box_xyxy
    for picture in pictures_of(out):
        inside = picture[box[1] : box[3], box[0] : box[2]]
        assert inside.max() > 200 and inside.min() < 80
        picture[box[1] - 8 : box[3] + 8, box[0] - 8 : box[2] + 8] = 120  # the encoder rings a little
        assert abs(picture - 120).max() <= 3
    capsys.readouterr()
    assert vidswap(["verify", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["valid_mark"] and shown["c2pa"]["generation"]["visible_label"] is True
    signer = signing.credentials_from(signer_of(MarkConfig(sign_cert=chain, sign_key=key)))
    assert signer.chain_pem == own_pair[0].read_bytes()


def test_wrong_certificates_stop_a_batch_before_its_first_clip(
    tmp_path: Path, own_pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_wall(tmp_path / "in" / "wall.mp4")
    chain, key = (str(path) for path in own_pair)
    base = ["batch", str(tmp_path / "in"), "-s", "synthetic:3", "-o", str(tmp_path / "out")]
    for words, reason in (
        (["--sign-cert", chain], "--sign-key"),
        (["--sign-cert", key, "--sign-key", key], "holds no PEM certificates"),
        (["--sign-cert", chain, "--sign-key", chain], "holds no PEM private key"),
    ):
        assert vidswap([*base, *words]) == 2
        shown = capsys.readouterr()
        assert shown.err.count("\n") == 1 and reason in shown.err and shown.out == ""
    assert not (tmp_path / "out").exists()
