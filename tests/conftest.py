"""Fixtures: a Postern for a test or for a module, and the stage for those that need root."""
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import harness  # noqa: E402

WITHOUT_ROOT = []


def pytest_configure(config):
    config.addinivalue_line("markers", "root: needs real accounts in a mount namespace of its own, and so root")
    config.addinivalue_line("markers", "confined: about the sandbox, and so not run where POSTERN_SANDBOX is off")
    config.addinivalue_line("markers", "unwrapped(reason): not run where something else runs the daemons (valgrind, POSTERN_WRAP)")
    config.addinivalue_line("markers", "native(reason): the same, and not under sanitizers")


def pytest_runtest_setup(item):
    if item.get_closest_marker("root") and not harness.IS_ROOT:
        WITHOUT_ROOT.append(item.nodeid)
        pytest.skip("NOT RUN: needs root (accounts, PAM and setuid are not tested)")
    if item.get_closest_marker("confined") and harness.SANDBOX == "off":
        pytest.skip("about the sandbox, which is off (POSTERN_SANDBOX)")
    for marker, applies in (("unwrapped", harness.WRAP), ("native", harness.WRAP or harness.SANITIZED)):
        for m in item.iter_markers(marker):
            if applies:
                pytest.skip(m.args[0])


def pytest_terminal_summary(terminalreporter):
    if "POSTERN_FAILED" in os.environ:
        failed = [r.nodeid for r in terminalreporter.getreports("failed") + terminalreporter.getreports("error")]
        pathlib.Path(os.environ["POSTERN_FAILED"]).write_text("".join(x + "\n" for x in failed))
    if WITHOUT_ROOT:
        terminalreporter.section("NOT TESTED, for want of root", sep="!")
        terminalreporter.line("%d tests of root mode were skipped: real accounts, PAM passwords, setuid workers," % len(WITHOUT_ROOT))
        terminalreporter.line("one user's worker against another's mail. Run the check as root to have them.")


@pytest.fixture
def make_postern():
    """Makes any number of Posterns; all are stopped at the end, and every one must have ended well."""
    made = []

    def make(*args, **keys):
        p = harness.Postern(*args, **keys)
        made.append(p)
        return p

    yield make
    trouble = []
    for p in made:
        try:
            p.close()
        except harness.Failed as e:
            trouble.append(str(e))
    assert not trouble, "\n".join(trouble)


@pytest.fixture
def postern(make_postern):
    return make_postern()


@pytest.fixture(scope="session")
def stage():
    s = harness.Stage()
    yield s
    s.close()


@pytest.fixture(params=["mbox", "maildir"])
def store(request):
    return request.param


@pytest.fixture(autouse=True)
def nothing_left():
    """No descriptor of a test stays open in this process."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    left = len(os.listdir("/proc/self/fd")) - before
    assert left <= 4, "%d descriptors more than before" % left
