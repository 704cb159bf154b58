#!/usr/bin/env python3
"""Prints every input and fault of the list with its verdict and the tests that prove it, as Markdown.

python tools/fault_table.py [--tests]
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections import Counter
from pathlib import Path

CASES_FILE = Path(__file__).resolve().parents[1] / "tests" / "faults" / "cases.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tests", action="store_true", help="name the tests of each case")
    options = parser.parse_args()
    spec = importlib.util.spec_from_file_location("cases", CASES_FILE)
    assert spec is not None and spec.loader is not None
    cases = importlib.util.module_from_spec(spec)
    sys.modules["cases"] = cases
    spec.loader.exec_module(cases)
    titles = ["case", "what", "verdict", "how", "exit"] + ["tests"] * options.tests
    print("| " + " | ".join(titles) + " |")
    print("|" + " --- |" * len(titles))
    for case in cases.CASES:
        exits = ", ".join(map(str, case.exits))
        cells = [str(case.number), case.what, case.verdict, case.how, exits]
        if options.tests:
            cells.append("<br>".join(f"`{proof}`" for proof in case.proofs))
        print("| " + " | ".join(cells) + " |")
    counts = Counter(case.verdict for case in cases.CASES)
    print(f"\n{len(cases.CASES)} cases: " + ", ".join(f"{n} {name}" for name, n in counts.items()))


if __name__ == "__main__":
    main()
