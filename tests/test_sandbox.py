"""Every process in its cell: a test build (tests/sandbox/probe.h) does, inside each, what it must not be able to do."""
import contextlib
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import time

import pytest

import harness
from harness import IS_ROOT, REPO, TIMEOUT

pytestmark = pytest.mark.confined
PROBE_BUILD = harness.BUILD / "probe"
MESSAGE = b"Subject: hello\n\nhello\n"

# What no cell may do, whatever else it may: tried in each.
NEVER = ["ptrace", "affinity", "execve", "mmap", "mprotect", "mount", "unshare", "prctl", "call bpf", "call keyctl", "call io_uring_setup",
         "call process_vm_readv", "call perf_event_open", "call userfaultfd", "call init_module", "call open_by_handle_at",
         "call personality", "call setns", "call mknodat", "call pivot_root", "call umount2", "call execveat", "call fanotify_init"]
# What only some may: tried in all, and SIGSYS where the row of the cell says nothing else.
SOME = ["read /etc/passwd", "read /etc/shadow", "create /tmp/postern-probe", "write {conf}", "remove {conf}", "connect {run}/spoold.sock",
        "connect {run}/spoold.ctl", "inet", "setuid", "fork", "kill", "chroot", "read {other}", "remove {other}",
        "keyed"]         # a socket, as the listener makes one
EVERY = NEVER + SOME

# Of a cell: what happens instead of SIGSYS. "done": it may, and that is meant.
ROOT = {
    # it opens, connects and forks with a key in its hand, which its children do not have; without it as little as they
    "listener": {"keyed": "done"},
    "pop3d": {},
    "session": {},
    # root, which reads its keys wherever they are, and writes nowhere but in its own two directories
    "authd": {"read /etc/passwd": "done", "read /etc/shadow": "done", "create /tmp/postern-probe": "EACCES", "write {conf}": "EACCES",
              "remove {conf}": "EACCES", "connect {run}/spoold.sock": "done", "connect {run}/spoold.ctl": "done", "setuid": "done", "fork": "done",
              "kill": "done", "chroot": "done", "read {other}": "done", "remove {other}": "EACCES", "keyed": "done"},
    "verifier": {"read /etc/passwd": "EACCES", "read /etc/shadow": "EACCES", "create /tmp/postern-probe": "EACCES", "write {conf}": "EACCES",
                 "remove {conf}": "EACCES", "connect {run}/spoold.sock": "done", "connect {run}/spoold.ctl": "EACCES",
                 "read {other}": "EACCES", "remove {other}": "EACCES", "keyed": "done"},
    "hasher": {},
    "keeper": {},
    # root, which must be able to become anybody: what its columns in sandbox.c still keep it from
    "spoold": {"read /etc/passwd": "done", "read /etc/shadow": "done", "create /tmp/postern-probe": "done", "write {conf}": "done",
               "remove {conf}": None, "connect {run}/spoold.sock": "done", "connect {run}/spoold.ctl": "done", "inet": "ECONNREFUSED",
               "setuid": "done", "fork": "done", "kill": "done", "read {other}": "done", "remove {other}": None, "keyed": "done"},
    "worker": {"read /etc/passwd": "EACCES", "read /etc/shadow": "EACCES", "create /tmp/postern-probe": "EACCES", "write {conf}": "EACCES",
               "remove {conf}": "EACCES", "read {other}": "EACCES", "remove {other}": "EACCES"},
    "locker": {"read /etc/passwd": "EACCES", "read /etc/shadow": "EACCES", "create /tmp/postern-probe": "EACCES", "write {conf}": "EACCES",
               "read {other}": "EACCES"},
}


@pytest.fixture(scope="session")
def probe_build():
    made = subprocess.run(["make", "-s", "-C", REPO, "B=%s" % PROBE_BUILD, "CFLAGS=-DSANDBOX_PROBE -w", *[str(PROBE_BUILD / n) for n in ("pop3d", "authd", "spoold")]],
                          capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return PROBE_BUILD


def use_build(p, build):
    for name in ("pop3d", "authd", "spoold"):
        shutil.copy(build / name, p.bin / name)


class Prober:
    """A Postern of the test build, and what to do to make a process of each cell begin."""

    def __init__(self, p, trap):
        self.p, self.trap = p, trap
        self.file = pathlib.Path(str(p.file) + ".probe")
        self.env = {"POSTERN_PROBE_TRAP": "1"} if trap else {}
        self.other = None

    def say(self, cell, probes):
        names = {"conf": self.p.file, "run": self.p.conf["postern"]["run-dir"], "other": self.other}
        self.file.write_text("".join("%s %s\n" % (cell, x.format(**names)) for x in probes))
        self.file.chmod(0o644)

    def clear(self):
        with contextlib.suppress(FileNotFoundError):
            self.file.unlink()

    def start(self, name, await_ready=True):
        env = dict(os.environ, **self.env)
        env.pop("JOURNAL_STREAM", None)
        os.environ.update(self.env)
        try:
            if name == "pop3d" and await_ready:
                self.p.start("pop3d")
                return self.p.daemon("pop3d")
            args = ["-l", "127.0.0.1:0"] if name == "pop3d" else []
            return self.p.start_daemon(name, *args, await_ready=await_ready)
        finally:
            for key in self.env:
                del os.environ[key]

    def begin(self, cell, login):
        """Makes a process of this cell begin. Returns the daemon whose log tells of it."""
        if cell in ("spoold", "listener", "authd", "verifier", "hasher", "keeper"):
            return self.start({"listener": "pop3d", "spoold": "spoold"}.get(cell, "authd"), await_ready=False)
        with contextlib.suppress(AssertionError, ConnectionError), self.p.connect() as c:
            if cell != "pop3d":
                login(c)
        return self.p.daemon("spoold" if cell in ("worker", "locker") else "pop3d")


def certificate(p):
    crt, key = p.dir / "crt.pem", p.dir / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", crt,
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True, timeout=TIMEOUT)
    for path in (crt, key):
        path.chmod(0o600)
        p.own(path)
    return {"certificate": crt, "key": key}


class Scene:
    """Two users with mail each; one of them logs in, and the other's maildrop is what must stay out of reach."""

    def __init__(self, make, stage, build, store="mbox", trap=True, at_home=False):
        self.p = p = make(stage=stage, conf={"authd": {"stores": "db"}, "pop3d": {"prefork": 0}})
        p.write_conf(tls=certificate(p))
        use_build(p, build)
        uids = {"mine": stage.USERS["alice"], "other": stage.USERS["bob"]} if stage else {"mine": None, "other": None}
        self.prober = Prober(p, trap)
        for user, uid in uids.items():
            path = getattr(p, store)(user, [MESSAGE], uid=uid)
            if store == "maildir":
                path.chmod(0o700)
            p.add(user, "%s:%s" % (store, path), uid=uid)
            self.prober.other = path
        if stage:
            os.chown(p.mail, uids["mine"] if at_home else 0, 0)    # in a directory of root's there is no locker

    @staticmethod
    def login(c):
        c.login("mine")
        assert c.stat()[0] == 1

    def ready(self, cell):
        """Starts what a process of this cell needs before it can begin."""
        for name in {"listener": ["spoold"], "authd": ["spoold"], "verifier": ["spoold"], "hasher": ["spoold"], "keeper": [], "spoold": []}.get(
                cell, ["spoold", "authd", "pop3d"]):
            self.prober.start(name)


def results(daemon, cell, probes, start=0):
    """{probe: result} of the cell's first process, once it has done the last of them."""
    last = probes[-1].split()[0]
    daemon.wait_line("event=probe ", "cell=%s " % cell, "action=%s " % last, start=start)
    found = {}
    with daemon.changed:
        lines = [x.decode() for x in daemon.lines[start:]]
    for line in lines:
        m = re.search(r'event=probe cell=(\S+) action=(\S+) argument=(?:"(.*?)"|(\S+)) result=(\S+)', line)
        if m and m[1] == cell:
            found.setdefault((m[2], m[3] if m[3] is not None else m[4]), m[5])
    return found


def matrix(scene, cell, expected, skip=()):
    p, prober = scene.p, scene.prober
    names = {"conf": p.file, "run": p.conf["postern"]["run-dir"], "other": prober.other}
    probes = [x for x in EVERY if expected.get(x, "SIGSYS") is not None and x not in skip] + ["dumpable"]
    scene.ready(cell)
    prober.say(cell, probes)
    if cell == "spoold":    # it may be asked to connect to itself
        probes = [x for x in probes if not x.startswith("connect")] + []
        prober.say(cell, probes)
    daemon = prober.begin(cell, scene.login)
    found = results(daemon, cell, probes)
    prober.clear()
    wrong = {}
    for probe in probes[:-1]:
        action, _, argument = probe.format(**names).partition(" ")
        got, want = found.get((action, argument)), expected.get(probe, "SIGSYS")
        if got != want:
            wrong[probe] = (got, want)
    assert not wrong, "%s: {what: (is, should be)}: %s" % (cell, wrong)
    # nobody of the same user can look into it either
    assert found["dumpable", ""] in ("EPERM", "SIGSYS"), found["dumpable", ""]


@pytest.mark.root
@pytest.mark.parametrize("cell", ROOT)
def test_matrix_from_root(make_postern, stage, probe_build, cell):
    try:
        matrix(Scene(make_postern, stage, probe_build, at_home=cell == "locker"), cell, ROOT[cell])
    finally:
        stage.path("/tmp/postern-probe").unlink(missing_ok=True)


@pytest.mark.root
def test_matrix_of_a_maildir_worker(make_postern, stage, probe_build):
    matrix(Scene(make_postern, stage, probe_build, store="maildir"), "worker", {**ROOT["worker"], "read {other}": "EACCES"})


# "kill" tries who has started it: the tests, which are the same user unless they are root.
KILL = "EPERM" if os.geteuid() == 0 else "done"
# All processes are one user's: what that user may do is kept from them by the cell alone. The mail lies beneath the folder of the
# configuration and of users.db here, which the verifier may read.
ORDINARY = {
    **ROOT,
    "authd": {**ROOT["authd"], "read /etc/shadow": "EACCES", "setuid": "EPERM", "chroot": "EPERM", "kill": KILL},
    "verifier": {**ROOT["verifier"], "connect {run}/spoold.ctl": "done", "read {other}": "done"},
    "spoold": {**ROOT["spoold"], "read /etc/shadow": "EACCES", "setuid": "EPERM", "kill": KILL},
    # of several mailboxes in one directory, all of one user, the worker has its own; what makes the dotlock there has the directory, and reads no mail
    "locker": {**ROOT["locker"], "read {other}": "done"},
}


@pytest.mark.parametrize("cell", ROOT)
def test_matrix_as_one_user(make_postern, probe_build, cell):
    try:
        matrix(Scene(make_postern, None, probe_build), cell, ORDINARY[cell])
    finally:
        pathlib.Path("/tmp/postern-probe").unlink(missing_ok=True)


def killed(scene, cell, daemon):
    """The process that broke out of its cell is dead, and what that means to the others."""
    p = scene.p
    if cell in ("spoold", "listener", "authd"):
        assert daemon.process.wait(TIMEOUT) == -signal.SIGSYS
        daemon.wait_gone(10)
    elif cell == "keeper":      # authd does not start without it
        assert daemon.process.wait(TIMEOUT) == 1
    elif cell in ("verifier", "hasher"):
        daemon.wait_line("event=child-died", "process=%s" % cell, "signal=%d" % signal.SIGSYS)
    elif cell == "worker":
        daemon.wait_line("event=worker-died", "signal=%d" % signal.SIGSYS)
    elif cell == "locker":      # the worker cannot lock without it
        daemon.wait_line("the locker has gone")
    else:
        daemon.wait_line("killed by signal %d" % signal.SIGSYS)
    assert "event=probe " not in p.log(), "it went on"


@pytest.mark.parametrize("cell", ROOT)
@pytest.mark.parametrize("probe", ["execve", "mmap", "ptrace"])
def test_killed(make_postern, probe_build, cell, probe):
    """As in production: no signal to catch, the process is gone. The others serve on."""
    scene = Scene(make_postern, None, probe_build, trap=False)
    scene.ready(cell)
    scene.prober.say(cell, [probe])
    daemon = scene.prober.begin(cell, scene.login)
    killed(scene, cell, daemon)
    scene.prober.clear()
    if cell in ("pop3d", "session", "worker", "locker"):
        with scene.p.connect() as c:
            scene.login(c)
            assert c.retr(1) == harness.wire(MESSAGE)
            assert c.quit().startswith(b"+OK")
    if cell in ("verifier", "hasher"):
        scene.prober.start("pop3d")
        daemon.wait_line("event=note", "ready")
        for _ in range(50):     # another takes its place within a second or so
            with scene.p.connect() as c:
                c.ok(b"USER mine")
                if c.cmd(b"PASS " + harness.PASSWORD.encode()).startswith(b"+OK"):
                    break
            harness.wait_pid(daemon.pid, 0.1)
        else:
            pytest.fail("no login after the %s was killed" % cell)


@pytest.mark.root
def test_pam_is_kept_from_the_kernel(make_postern, stage, probe_build):
    """PAM's modules are not ours to list; what none of them needs they do not get. authd's parent, which forks them, is as they are."""
    scene = Scene(make_postern, stage, probe_build)
    scene.p.write_conf(authd={"stores": "db pam"})
    probes = ["ptrace", "call bpf", "call init_module", "call process_vm_readv", "call perf_event_open", "call reboot", "call io_uring_setup",
              "call open_by_handle_at", "fork", "inet"]
    scene.prober.say("pam", probes)
    daemon = scene.prober.start("authd")
    found = results(daemon, "pam", probes)
    assert {k: v for k, v in found.items() if v != "EPERM"} == {("fork", ""): "done", ("inet", ""): "ECONNREFUSED"}


@pytest.mark.root
def test_worker_that_was_taken_over(make_postern, stage, probe_build):
    """What it may ask of spoold's parent does for its own maildrop alone, however often and whatever else it asks."""
    scene = Scene(make_postern, stage, probe_build, trap=False)
    p = scene.p
    scene.ready("worker")
    passwd = stage.path("/etc/passwd").read_bytes()

    def facts():
        pid = p.daemon("spoold").pid
        return len(os.listdir("/proc/%d/fd" % pid)), int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path("/proc/%d/status" % pid).read_text())[1])

    def babble(count):
        scene.prober.say("worker", ["babble %d" % count])
        start = p.daemon("spoold").mark()
        scene.prober.begin("worker", scene.login)
        p.daemon("spoold").wait_line("event=probe ", "action=babble", start=start)
        workers = [pid for pid, name in harness.children(p.daemon("spoold").pid) if name == "worker"]
        for pid in workers:
            harness.wait_pid(pid)

    babble(200)
    before = facts()
    babble(5000)
    scene.prober.clear()
    until = time.monotonic() + harness.TIMEOUT
    while facts()[0] > before[0] and time.monotonic() < until:      # a recovery follows who was killed, and has a descriptor as long as it runs
        for pid, _ in harness.children(p.daemon("spoold").pid):
            harness.wait_pid(pid, 0.1)
    after = facts()
    assert after[0] <= before[0] and after[1] < before[1] + 2048, (before, after)
    assert stage.path("/etc/passwd").read_bytes() == passwd and not stage.path("/etc/passwd.lock").exists()
    mine = str(stage.USERS["alice"]) + "-"
    state = p.conf["postern"]["state-dir"]
    for folder in ("journal", "cache"):
        for name in os.listdir(state / folder):     # one by the inode says whose it is by where it leads
            assert (os.readlink(state / folder / name) if name.endswith(".inode") else name).startswith(mine), os.listdir(state / folder)
    assert len([name for name in os.listdir(state / "journal") if ".aside-" in name]) <= 4, "one from each worker, and from each recovery after it"
    assert sorted(x for x in os.listdir(p.mail) if not x.startswith((".mine", "mine"))) == ["other"]
    with p.connect() as c:
        c.login("other")
        assert c.retr(1) == harness.wire(MESSAGE)
        assert c.quit().startswith(b"+OK")


# What the kernel says of each process

KIND = {"pop3d": "listener", "pop3d-idle": "listener", "authd": "authd", "authd: verifier": "verifier", "authd: hasher": "hasher",
        "authd: keeper": "keeper", "authd: pam": "pam", "spoold": "spoold", "worker": "worker", "locker": "locker"}
CAPS = {"setuid": 7, "setgid": 6, "kill": 5, "dac_read_search": 2, "sys_chroot": 18}
KEPT = {"spoold": ["setuid", "setgid", "kill", "dac_read_search"], "authd": ["setuid", "setgid", "kill", "dac_read_search", "sys_chroot"]}
LIMITS = {"hasher": (32, 1088 << 20), "keeper": (None, 256 << 20), "verifier": (None, 1024 << 20), "worker": (None, 6144 << 20), "locker": (32, 6144 << 20),
          "pop3d": (None, 256 << 20)}


def limits_of(pid):
    text = pathlib.Path("/proc/%d/limits" % pid).read_text()
    return {key: re.search(key + r"\s+(\S+)\s+(\S+)", text).groups() for key in
            ("Max open files", "Max data size", "Max processes", "Max core file size")}


@pytest.mark.root
def test_what_the_kernel_says(make_postern, stage):
    """Capabilities, filter, root directory and limits of every process, with a session open."""
    p = make_postern(stage=stage, conf={"authd": {"stores": "db"}})
    p.write_conf(tls=certificate(p))
    p.add("u", "mbox:%s" % p.mbox("u", [MESSAGE], uid=stage.USERS["alice"]), uid=stage.USERS["alice"])
    os.chown(p.mail, stage.USERS["alice"], 0)
    p.start()
    seen = set()
    with p.connect("u") as c:
        assert c.stat()[0] == 1
        # a child that was just forked has its parent's name for a moment
        while sum(name == "pop3d" for _, name in harness.children(p.daemon("pop3d").pid)) > 1:
            harness.wait_pid(p.daemon("pop3d").pid, 0.01)
        for name in ("pop3d", "authd", "spoold"):
            for pid in p.daemon(name).session():
                status, kind = harness.status_of(pid), KIND[harness.process_name(pid)]
                parent = pid == p.daemon(name).pid
                if kind == "listener" and not parent:
                    kind = "pop3d" if harness.process_name(pid) == "pop3d" else "idle"
                seen.add(kind)
                keep = sum(1 << CAPS[x] for x in KEPT.get(kind, []))
                assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == keep, (kind, status["CapEff"])
                assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0, kind
                assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", kind
                if name != "pop3d" and kind != "verifier":     # that one was forked first; it can run no program all the same
                    assert kind in ("hasher", "keeper") or int(status["CapBnd"], 16) == 0, (kind, status["CapBnd"])
                root = os.readlink("/proc/%d/root" % pid)
                assert root.endswith("/run/empty") == (kind in ("hasher", "keeper")), (kind, root)
                limits = limits_of(pid)
                assert limits["Max core file size"] == ("0", "0")
                files, data = LIMITS.get(kind, (None, None))
                assert files is None or limits["Max open files"] == (str(files),) * 2, kind
                assert data is None or limits["Max data size"] == (str(data),) * 2, kind
                if kind in LIMITS:
                    assert limits["Max processes"] == ("0", "0"), kind
        assert c.quit().startswith(b"+OK")
    assert {"listener", "idle", "pop3d", "authd", "verifier", "hasher", "keeper", "spoold", "worker", "locker"} == seen
    assert os.listdir(p.conf["postern"]["run-dir"] / "empty") == []


def test_parents_take_all_descriptors(make_postern):
    """A soft limit of 1,024, which systemd gives, is not what bounds connections."""
    p = make_postern()
    p.start()
    for name in ("pop3d", "authd", "spoold"):
        soft, hard = limits_of(p.daemon(name).pid)["Max open files"]
        assert soft == hard


# A kernel that cannot

@pytest.fixture(scope="session")
def without(tmp_path_factory):
    """A program that runs another where landlock(7), or seccomp(2), is not there."""
    program = tmp_path_factory.mktemp("without") / "without"
    subprocess.run(["cc", "-O1", "-o", program, REPO / "tests/sandbox/without.c", "-lseccomp"], check=True, timeout=TIMEOUT)
    return program


def started_without(p, without, what, name):
    shutil.copy(without, p.bin / "without")     # where any user may run it
    argv = [p.bin / "without", what, *p.argv(name), *(["-l", "127.0.0.1:0"] if name == "pop3d" else [])]
    daemon = harness.Watched(name, argv, **p.popen_as())
    p.daemons.setdefault(name, []).append(daemon)
    return daemon


@pytest.mark.parametrize("name", ["pop3d", "authd", "spoold"])
@pytest.mark.parametrize("what", ["landlock", "seccomp"])
def test_required_refuses(make_postern, without, what, name):
    p = make_postern(sandbox="required")
    daemon = started_without(p, without, what, name)
    assert daemon.process.wait(TIMEOUT) == 1
    daemon.wait_line("sandbox = required", "Landlock" if what == "landlock" else "system call filter")
    assert daemon.wait_gone(10) == {}


@pytest.mark.parametrize("what", ["landlock", "seccomp"])
def test_best_effort_says_so(make_postern, without, what):
    """Once for each program, however many processes it has; and mail is served."""
    p = make_postern(sandbox="best-effort")
    p.user("u", "mbox", [MESSAGE])
    for name in ("spoold", "authd", "pop3d"):
        daemon = started_without(p, without, what, name)
        line = daemon.wait_line("event=listening" if name == "pop3d" else "text=ready")
        if name == "pop3d":
            p.port = int(re.search(r"port=(\d+)", line)[1])
    for _ in range(3):
        with p.connect("u") as c:
            assert c.retr(1) == harness.wire(MESSAGE)
            assert c.quit().startswith(b"+OK")
    for name in ("spoold", "authd", "pop3d"):
        said = [x for x in p.daemon(name).log().splitlines() if "best-effort" in x]
        assert len(said) == 1 and ("Landlock" if what == "landlock" else "system call filter") in said[0], said


def test_off_says_so(make_postern):
    p = make_postern(sandbox="off")
    p.user("u", "mbox", [MESSAGE])
    p.start()
    with p.connect("u") as c:
        assert c.retr(1) == harness.wire(MESSAGE)
        for name in ("spoold", "authd", "pop3d"):
            p.daemon(name).wait_line("sandbox = off")
            for pid in p.daemon(name).session():
                assert harness.status_of(pid)["Seccomp"] == "0"
                assert limits_of(pid)["Max core file size"][0] == "0"
        assert c.quit().startswith(b"+OK")


# The binaries

def readelf(*args):
    return subprocess.run(["readelf", "-W", *[str(a) for a in args]], capture_output=True, text=True, check=True, timeout=TIMEOUT).stdout


@pytest.mark.parametrize("name", harness.PROGRAMS)
def test_hardened_binary(name):
    program = harness.BUILD / name
    assert "DYN (Position-Independent Executable file)" in readelf("-h", program)
    segments = readelf("-l", program)
    assert "GNU_RELRO" in segments
    stack = re.search(r"GNU_STACK.* (R.?.?) ", segments)
    assert stack and "E" not in stack[1], "an executable stack"
    assert not re.search(r"LOAD .* RWE ", segments)
    dynamic = readelf("-d", program)
    assert "BIND_NOW" in dynamic and "PIE" in dynamic
    assert "RPATH" not in dynamic and "RUNPATH" not in dynamic
    static = "NEEDED" not in dynamic
    symbols = readelf("-s" if static else "--dyn-syms", program)
    assert "__stack_chk_fail" in symbols
    assert re.search(r" __(printf|snprintf|fprintf|vsnprintf|memcpy|read|recv|poll)_chk\b", symbols), "no FORTIFY"


def test_imports():
    made = subprocess.run(["make", "-s", "-C", REPO, "B=%s" % harness.BUILD, "imports"], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr


def test_limit_on_files_is_named(make_postern):
    """The library writes its filter to a file: where no file may be that long, what to raise is said."""
    p = make_postern(sandbox="required")
    short = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
    with pytest.raises(harness.Failed, match="files may have no more than 512 octets here.*LimitFSIZE"):
        p.start_daemon("spoold", preexec_fn=short)
    p.write_conf(postern={"sandbox": "off"})     # then there is no filter, and nothing to say of one
    spoold = p.start_daemon("spoold", preexec_fn=short)
    spoold.wait_line("text=ready")
    assert "filter" not in spoold.log()
