"""A pop3d that was taken over speaks to the others (tests/hostile): none of them dies, leaks a descriptor or grows.

POSTERN_HOSTILE is how many packets each attack sends: 3,000 unless it is set; 100,000 for the long version.
"""
import json
import os
import pathlib
import re
import subprocess
import time

import pytest

import harness
from harness import NOBODY, REPO, TIMEOUT, mbox
from test_sandbox import certificate

COUNT = int(os.environ.get("POSTERN_HOSTILE", "3000"))
MESSAGES = [b"Subject: %d\n\nbody\n" % i for i in range(5)]
GROWTH = 4 << 20       # octets: less than a thousandth of it a packet would show in the long version


@pytest.fixture(scope="session")
def roster(tmp_path_factory):
    d = tmp_path_factory.mktemp("roster")
    program = d / "roster"
    subprocess.run(["cc", "-std=gnu17", "-D_GNU_SOURCE", "-Ilib", "-o", program, "tests/hostile/roster.c", "lib/messages.c", "-lsodium"],
                   cwd=REPO, check=True, timeout=60)
    return subprocess.run([program], check=True, capture_output=True).stdout


class Target:
    """A Postern under attack, and what is measured of its lasting processes."""

    def __init__(self, p, stage, roster, homes=False):
        """homes: the mailboxes are in directories of their users', where a worker has a locker."""
        self.p, self.stage = p, stage
        p.write_conf(tls=certificate(p))
        (p.dir / "roster").write_bytes(roster)
        self.script = p.dir / "hostile.py"
        self.script.write_text((REPO / "tests/hostile/hostile.py").read_text())
        uid = {"a": stage.USERS["alice"], "b": stage.USERS["bob"]} if stage else {"a": None, "b": None}
        if homes:
            for user in uid:
                (p.mail / ("home-" + user)).mkdir(mode=0o700)
                p.own(p.mail / ("home-" + user), uid[user])
        self.boxes = {u: p.mbox("home-%s/mbox" % u if homes else u, MESSAGES, uid=uid[u]) for u in uid}
        for user, path in self.boxes.items():
            p.add(user, "mbox:%s" % path, uid=uid[user], password="pw-%s-hostile" % user)
        p.start()

    def attack(self, what, *more, count=COUNT, seed=1):
        argv = ["/usr/bin/python3", self.script, what, self.p.conf["postern"]["run-dir"], self.p.dir / "roster", count, seed, *more]
        argv = self.stage.argv(argv, "_postern") if self.stage else [str(a) for a in argv]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60 + COUNT / 20, **self.p.popen_as())
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def lasting(self):
        """{name: (pid, descriptors, octets of memory)} of those that must outlive it; no figures where only root may look."""
        found = {}
        for name in ("authd", "spoold"):
            for pid, state in self.p.daemon(name).session().items():
                kind = harness.process_name(pid)
                if kind in ("worker", "locker", "authd: pam try"):
                    continue
                try:
                    memory = re.search(r"^Rss:\s+(\d+) kB", pathlib.Path("/proc/%d/smaps_rollup" % pid).read_text(), re.M)
                    found[kind] = (pid, len(os.listdir("/proc/%d/fd" % pid)), int(memory[1]) * 1024)
                except PermissionError:
                    found[kind] = (pid, 0, 0)
                except (FileNotFoundError, ProcessLookupError):
                    pass    # it was about to become a worker, and has ended
        return found

    def kinds(self):
        """What spoold's processes are."""
        return [harness.process_name(pid) for pid in self.p.daemon("spoold").session()]

    def settle(self, before):
        """Waits until what was begun is over: as many descriptors as before."""
        until = time.monotonic() + TIMEOUT
        while True:
            now = self.lasting()
            if all(now.get(k, (0, 0))[1] <= before[k][1] for k in before) or time.monotonic() > until:
                return now
            harness.wait_pid(self.p.daemon("authd").pid, 0.05)

    def survives(self, *attacks):
        for what, *more in attacks:     # once, so that what is allocated once is there
            self.attack(what, *more, count=max(200, COUNT // 20), seed=99)
        before = self.settle(self.lasting())
        done = [self.attack(what, *more) for what, *more in attacks]
        after = self.settle(before)
        assert {k: v[0] for k, v in after.items()} == {k: v[0] for k, v in before.items()}, "a process has ended"
        for kind, (pid, fds, memory) in after.items():
            print("%s: %d descriptors before, %d after; %d KiB, %d KiB" % (kind, before[kind][1], fds, before[kind][2] >> 10, memory >> 10))
            assert fds <= before[kind][1], "%s has %d descriptors, had %d" % (kind, fds, before[kind][1])
            assert memory <= before[kind][2] + GROWTH, "%s has %d octets, had %d" % (kind, memory, before[kind][2])
        assert not re.search(r"event=(child|worker)-died", self.p.log())
        for user, path in self.boxes.items():
            assert path.read_bytes() == mbox(MESSAGES), "the mail of %s has changed" % user
            with self.p.connect(user, "pw-%s-hostile" % user) as c:
                assert c.stat()[0] == len(MESSAGES)
                assert c.quit().startswith(b"+OK")
        return done


def make_target(request, make_postern, roster, homes=False):
    stage = request.getfixturevalue("stage") if request.param == "from-root" else None
    conf = {"authd": {"stores": "db"}, "pop3d": {"max-connections": 300}}
    return Target(make_postern(stage=stage, conf=conf), stage, roster, homes)


@pytest.fixture(params=["one-user", pytest.param("from-root", marks=pytest.mark.root)])
def target(request, make_postern, roster):
    return make_target(request, make_postern, roster)


@pytest.fixture(params=[pytest.param("from-root", marks=pytest.mark.root)])
def target_at_home(request, make_postern, roster):
    return make_target(request, make_postern, roster, homes=True)


def test_before_login(target):
    done = target.survives(["verifier"], ["too_often"], ["crowd"])
    assert done[0]["packets"] >= COUNT and done[0]["connections"] > COUNT / 20
    assert "GRANTED" not in done[0]["answers"]


def test_keeper(target):
    done = target.survives(["keeper"])
    assert "SIGNATURE" not in done[0]["answers"], "it signed what has no key here"


def test_after_login(target):
    """The worker may go, and take its session with it; spoold's parent and the mailbox stay."""
    done = target.survives(["worker", "a", "pw-a-hostile"])
    assert done[0]["answers"].get("READY", 0) > 5


@pytest.mark.confined       # without it there is no locker
def test_after_login_with_a_locker(target_at_home):
    """As before, and the process that knows the mailbox's directory goes with its worker: there are no more in the end than one a user."""
    t = target_at_home
    with t.p.connect("a", "pw-a-hostile"):
        assert "locker" in t.kinds()
    done = t.survives(["worker", "a", "pw-a-hostile"])
    assert done[0]["answers"].get("READY", 0) > 5
    kinds = t.kinds()
    assert kinds.count("locker") <= len(t.boxes) and kinds.count("worker") <= len(t.boxes), kinds


def test_another_user(target):
    outcome = target.attack("others", "a", "pw-a-hostile", "b")["outcome"]
    assert all(v in ("DENIED", "end") for k, v in outcome.items() if k.startswith("auth as")), outcome
    assert outcome["a session id that is in use"] == "end"
    if target.stage:    # to one and the same user spoold must answer: the log says so at start
        assert outcome["spoold.sock"] == "end"
        assert outcome["spoold.ctl"] in ("end", "Permission denied")
        target.p.daemon("spoold").wait_line("event=peer-refused", "spoold.sock")
