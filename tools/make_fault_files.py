"""Makes the inputs that the tool must survive: ``python tools/make_fault_files.py FOLDER``.

Every file is made on the spot and is the same at every call with the same libraries; none is
kept in the repository. ``manifest.json`` in the folder lists each: its number, what it is, what
must happen, and the exit codes that are right. Cases that are no files (a full disk, a kill, two
runs at once) are tests of their own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import fault_files.clips
import fault_files.damaged
import fault_files.evil_weights
import fault_files.stills  # noqa: F401  the modules enter their cases
import numpy as np
from fault_files import CASES, moving_pattern
from PIL import Image


def make_fault_files(
    folder: Path, *, face: Path | None = None, only: set[int] | None = None
) -> list[dict[str, object]]:
    """Makes the files in a folder and returns (and writes) the manifest.

    Args:
        folder: made when absent.
        face: a picture of a face, pasted into every frame, for cases in which one is wanted.
        only: numbers of the cases to make; None: all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pixels = None if face is None else np.asarray(Image.open(face).convert("RGB"))
    pictures = moving_pattern(pixels)
    manifest: list[dict[str, object]] = []
    for case in sorted(CASES, key=lambda item: (item.number, item.file)):
        if only is not None and case.number not in only:
            continue
        path = folder / case.file
        path.parent.mkdir(parents=True, exist_ok=True)
        entry: dict[str, object] = {
            "number": case.number,
            "file": case.file,
            "what": case.what,
            "must": case.must,
            "exits": list(case.exits),
        }
        try:
            case.make(path, pictures)
        except Exception as error:  # an encoder that this build lacks, or a name it forbids
            entry["not_made"] = " ".join(f"{type(error).__name__}: {error}".split())
        else:
            if path.is_file():
                data = path.read_bytes()
                entry["bytes"] = len(data)
                entry["sha256"] = hashlib.sha256(data).hexdigest()
        manifest.append(entry)
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")
    return manifest


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the inputs that the tool must survive.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--face", type=Path, help="picture of a face to put into the frames")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the cases to make")
    options = parser.parse_args()
    manifest = make_fault_files(
        options.folder, face=options.face, only=set(options.only) if options.only else None
    )
    missed = [entry for entry in manifest if "not_made" in entry]
    for entry in missed:
        print(f"not made: {entry['number']} {entry['file']!r}: {entry['not_made']}")
    print(f"{len(manifest) - len(missed)} of {len(manifest)} made in {options.folder}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
