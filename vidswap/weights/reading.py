"""Reading weight files of unknown origin without running anything in them.

``.safetensors`` holds only data. A torch ``.pt`` is read with ``weights_only=True``, never
again without it. NVIDIA's StyleGAN ``.pkl`` carries source code by design; see
:mod:`vidswap.weights.stylegan_pickle`. ONNX files may name further files; see
:mod:`vidswap.weights.onnx_paths`. Whatever is wrong ends in a :class:`WeightsError` (exit 5).
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from vidswap.errors import WeightsError
from vidswap.weights.files import sha256_of
from vidswap.weights.flatten import flatten
from vidswap.weights.stylegan_pickle import read_stylegan_pickle

MAX_BYTES = 8 << 30
"""Default bound on the tensors of one file, 8 GiB: larger than any network used here."""

# torch stores its archives uncompressed, so members add up to the size of the file.
_ARCHIVE_SLACK_BYTES = 1 << 20


def load_tensors(
    path: Path,
    *,
    expected: Mapping[str, tuple[int | None, ...]] | None = None,
    sha256: str | None = None,
    max_bytes: int = MAX_BYTES,
    allow_nan: bool = False,
) -> dict[str, torch.Tensor]:
    """Reads the tensors of a ``.safetensors``, ``.pt``, ``.pth``, ``.ckpt`` or ``.pkl`` file.

    Nested dictionaries become dotted names (``G_ema.synthesis.b4.const``); everything that is
    no tensor is left out.

    Args:
        expected: names that must be there, with their shapes; ``None`` in a shape matches any
            size. Further tensors are allowed.
        sha256: when given, the file is hashed first and nothing is parsed if it differs.
        max_bytes: refuse files whose tensors need more memory than this.
        allow_nan: accept NaN and infinity.

    Returns:
        Name to CPU tensor, in the file's own dtype.

    Raises:
        WeightsError: unreadable, truncated, altered, too large, of an unknown kind, carrying
            code, or without the expected tensors.
    """
    path = Path(path)
    check_file(path, sha256=sha256)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        tensors = _read_safetensors(path, max_bytes)
    elif suffix in (".pt", ".pth", ".ckpt", ".bin"):
        tensors = _read_torch(path, max_bytes)
    elif suffix == ".pkl":
        tensors = read_stylegan_pickle(path, max_bytes=max_bytes)
    else:
        raise WeightsError(
            f"{path}: weights end in .safetensors, .pt, .pth, .ckpt or .pkl, not {suffix!r}"
        )
    if not tensors:
        raise WeightsError(f"{path} holds no tensors: give a file of weights")
    check_tensors(path, tensors, expected=expected, max_bytes=max_bytes, allow_nan=allow_nan)
    return tensors


def check_file(path: Path, *, sha256: str | None = None) -> None:
    """The file is there, is not empty and has this hash.

    Raises:
        WeightsError: it is not so.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file of weights; check the path")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path} is empty: fetch or copy it again")
    if sha256 is not None:
        found = sha256_of(path)
        if found != sha256.lower():
            raise WeightsError(
                f"{path} has SHA-256 {found[:16]}..., expected {sha256[:16].lower()}...: "
                "it is truncated or altered; fetch or copy it again"
            )


def check_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    *,
    expected: Mapping[str, tuple[int | None, ...]] | None,
    max_bytes: int = MAX_BYTES,
    allow_nan: bool = False,
) -> None:
    """Shapes are as expected, values are finite, and nothing is larger than it looks.

    Raises:
        WeightsError: it is not so.
    """
    total = 0
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise WeightsError(f"{path}: tensor {name!r} is sparse, quantised or without data")
        # A view with stride 0 claims any size from a few bytes; count what it would unfold to.
        total += tensor.numel() * tensor.element_size()
        if total > max_bytes:
            raise WeightsError(
                f"{path}: its tensors need more than {max_bytes / 2**30:.3g} GiB; "
                "this is no file of weights for this tool"
            )
    for name, shape in (expected or {}).items():
        if name not in tensors:
            raise WeightsError(f"{path}: tensor {name!r} is missing; it is another network's file")
        found = tuple(tensors[name].shape)
        fits = len(found) == len(shape) and all(
            want is None or want == got for want, got in zip(shape, found, strict=True)
        )
        if not fits:
            wanted = tuple("any" if want is None else want for want in shape)
            raise WeightsError(
                f"{path}: tensor {name!r} has shape {found}, expected {wanted}; "
                "it is another network's file"
            )
    if not allow_nan:
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise WeightsError(f"{path}: tensor {name!r} holds NaN or infinity; get it again")


def _read_safetensors(path: Path, max_bytes: int) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.stat().st_size > max_bytes:
        raise WeightsError(f"{path} is larger than {max_bytes / 2**30:.3g} GiB")
    try:
        return dict(load_file(str(path)))
    except (SafetensorError, ValueError, KeyError, RuntimeError, OSError) as error:
        raise WeightsError(
            f"{path} is truncated or no safetensors file ({_first_line(error)}): get it again"
        ) from error


def _read_torch(path: Path, max_bytes: int) -> dict[str, torch.Tensor]:
    check_archive(path, max_bytes=max_bytes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        return flatten(loaded)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors (code or objects) or is damaged; nothing was run: "
            "save its state_dict as .safetensors where you trust it"
        ) from error
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise WeightsError(f"{path} is no readable torch file ({_first_line(error)})") from error
    except (OSError, EOFError, MemoryError, OverflowError, RecursionError) as error:
        raise WeightsError(f"{path} is truncated or damaged ({_first_line(error)})") from error


def check_archive(path: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Refuses a zip archive that unpacks to more than torch would ever have packed.

    The sizes in the directory are what a reader allocates. torch stores without compression;
    members that add up to more than the file are compressed or overlap, and both are bombs.
    A file that is no zip archive passes: old torch files are none.

    Raises:
        WeightsError: a bomb, or a damaged archive.
    """
    with open(path, "rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            return
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise WeightsError(f"{path} is truncated or damaged ({_first_line(error)})") from error
    unpacked = sum(member.file_size for member in members)
    if unpacked > min(max_bytes, size + _ARCHIVE_SLACK_BYTES):
        raise WeightsError(
            f"{path} has {size} bytes and would unpack to {unpacked}: no torch file does that, "
            "it was not opened"
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
