"""The committed corpora through every fuzzer's function, with AddressSanitizer and UndefinedBehaviorSanitizer."""
import os
import pathlib
import subprocess

import pytest

REPO = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("POSTERN_BUILD", REPO / "build"))
RECEIPTS = sorted(p.name for p in (REPO / "tests/fuzz/corpus").glob("receipt-*"))
FUZZERS = sorted(p.stem for p in (REPO / "tests/fuzz").glob("*.c") if p.stem not in ("replay", "receipt")) + RECEIPTS


@pytest.mark.native("it builds with sanitizers by itself")
@pytest.mark.parametrize("name", FUZZERS)
def test_corpus(name):
    program = BUILD / "replay" / name
    made = subprocess.run(["make", "-s", "-C", REPO, f"B={BUILD}", str(program)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    inputs = sorted(str(p) for p in (REPO / "tests/fuzz/corpus" / name).iterdir())
    assert inputs, "no corpus"
    ran = subprocess.run([program, *inputs], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0 and ran.stdout == f"{len(inputs)} inputs\n", ran.stderr[-3000:]
