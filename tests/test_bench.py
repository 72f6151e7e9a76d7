"""The instrument (tests/bench): what it says before it measures anything. Its figures are no test's business."""
import subprocess
import sys

from harness import REPO


def test_an_unknown_scenario_is_refused_with_those_there_are():
    done = subprocess.run([sys.executable, REPO / "tests/bench/bench.py", "poll", "nonsense"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert "nonsense" in last and "poll, list, " in last and last.endswith("crowd") and "[]" not in last
