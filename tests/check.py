"""Runs the units and then the tests, and ends with one line: how many passed and failed, over both.

usage: check.py BUILD [pytest's arguments]
"""
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

CORES = len(os.sched_getaffinity(0))
FEW = 3


def unit(program):
    env = dict(os.environ)
    if "ASAN_OPTIONS" in env:
        env["ASAN_OPTIONS"] += ":detect_leaks=1"    # what the daemons leak valgrind sees: this cannot where there is more than one user
    done = subprocess.run([program], capture_output=True, text=True, errors="replace", timeout=600, env=env)
    return program, done.returncode, done.stdout + done.stderr


def units(build):
    """(passed, failed) of every cmocka program. One that dies counts as a failure."""
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(CORES) as pool:
        results = list(pool.map(unit, sorted((build / "unit").iterdir())))
    for program, status, output in results:
        good = len(re.findall(r"^\[ +OK \]", output, re.M))
        bad = len(set(re.findall(r"^\[  (?:FAILED|ERROR)  \] (?!\d+ test)(\w+)", output, re.M)))
        if bad == 0 and (status != 0 or good == 0):
            bad = 1
        print("unit %s: %d passed, %d failed" % (program.name, good, bad), flush=True)
        if bad:
            print(output)
        passed, failed = passed + good, failed + bad
    return passed, failed


def alone(failed, env):
    """
    How many of a few that failed fail again, each by itself: on a machine too busy for three at a time a daemon may not answer within the
    test's patience. What passes then is named, and worth a look all the same.
    """
    again = 0
    for test in failed:
        status = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE", test], env=env).returncode
        print("%s: failed among others, and %s alone" % (test, "passed" if status == 0 else "failed"), flush=True)
        again += status != 0
    return again


def tests(build, arguments):
    """(passed, failed, skipped) of pytest. Most tests wait more than they compute: one more runs at a time than there are cores, a file in one piece."""
    with tempfile.TemporaryDirectory() as d:
        report, names = pathlib.Path(d, "report.xml"), pathlib.Path(d, "failed")
        env = {**os.environ, "POSTERN_BUILD": str(build), "PYTHONDONTWRITEBYTECODE": "1", "POSTERN_FAILED": str(names)}
        status = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n%d" % (CORES + 1), "--dist=loadfile",
                                 "--durations=10", "-rfEs", "--junitxml=%s" % report, *arguments], env=env).returncode
        if not report.exists():
            return 0, 1, 0
        suites = xml.etree.ElementTree.parse(report).getroot().iter("testsuite")
        total = {key: 0 for key in ("tests", "failures", "errors", "skipped")}
        for suite in suites:
            for key in total:
                total[key] += int(suite.get(key))
        failed = total["failures"] + total["errors"]
        listed = names.read_text().split("\n")[:-1] if names.exists() else []
        if 0 < failed == len(listed) <= FEW:
            env.pop("POSTERN_FAILED")
            failed = alone(listed, env)
    if status not in (0, 1) and failed == 0:
        failed = 1
    return total["tests"] - failed - total["skipped"], failed, total["skipped"]


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    arguments = sys.argv[2:] or [str(pathlib.Path(__file__).parent)]
    unit_passed, unit_failed = units(build)
    passed, failed, skipped = tests(build, arguments)
    passed, failed = passed + unit_passed, failed + unit_failed
    print("%d passed, %d failed%s" % (passed, failed, ", %d skipped" % skipped if skipped else ""), flush=True)
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
