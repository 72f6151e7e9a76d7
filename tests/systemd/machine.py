"""A Debian of its own: made by debootstrap from the sources that apt has on this host, and booted with systemd-nspawn, without a network."""
import contextlib
import ctypes
import os
import pathlib
import poplib
import shutil
import signal
import ssl
import subprocess
import sys
import time

REPO = pathlib.Path(__file__).resolve().parents[2]
SUITE = "bookworm"
# systemd itself and what an administrator would type; curl and the like are clients of this host, in the container's network.
INCLUDE = "systemd,systemd-sysv,dbus,ca-certificates,libpam-runtime,passwd,procps"
LANDLOCK = "landlock_create_ruleset landlock_add_rule landlock_restrict_self"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CLONE_NEWNET = 0x40000000
WAIT = 120


class Failed(Exception):
    pass


def run(*argv, check=True, **how):
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **how)
    if check and done.returncode != 0:
        raise Failed("%s: %d\n%s" % (" ".join(map(str, argv)), done.returncode, done.stdout))
    return done.stdout


def await_true(what, condition, seconds=WAIT):
    """The one place where time is waited for: nothing outside a container can be told of what happens in it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise Failed("in %d s not: %s" % (seconds, what))


def needed():
    missing = [p for p, c in {"debootstrap": "debootstrap", "systemd-container": "systemd-nspawn", "debhelper": "dh", "lintian": "lintian"}.items()
               if shutil.which(c, path=PATH) is None]
    if os.geteuid() != 0:
        raise SystemExit("check-systemd makes containers, and so wants root")
    if missing:
        raise SystemExit("check-systemd needs these packages: %s" % " ".join(missing))


def mirror():
    """Where this host has Debian from."""
    rows = run("apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    for row in rows.splitlines():
        codename, component, uri = row.split(" ", 2)
        if codename == SUITE and component == "main":
            return uri
    raise SystemExit("apt on this host knows no source of Debian %s" % SUITE)


def chroot(root, *argv):
    """Runs something in a tree that is not booted, with this host's network."""
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    out = run("systemd-nspawn", "-q", "-D", root, "--register=no", "--keep-unit", "--console=pipe", "--resolv-conf=off",
              "--system-call-filter=" + LANDLOCK, "--setenv=DEBIAN_FRONTEND=noninteractive", "--setenv=PATH=" + PATH, *argv, stdin=subprocess.DEVNULL)
    return "".join(row for row in out.splitlines(True) if not row.startswith("Attempted to remove disk file system"))    # systemd-nspawn's own


def base(folder):
    """The plain Debian that all others are copied from; made once."""
    at, half = folder / "base", folder / "base.new"
    if not at.exists():
        print("# making a Debian in %s" % at, flush=True)
        shutil.rmtree(half, ignore_errors=True)
        run("debootstrap", "--variant=minbase", "--include=" + INCLUDE, SUITE, half, mirror())
        shutil.rmtree(half / "etc/apt")
        shutil.copytree("/etc/apt", half / "etc/apt", symlinks=True)
        chroot(half, "apt-get", "-q", "update")
        half.rename(at)
    return at


def copy(folder, name, *, packages=(), satisfy=None):
    """A fresh copy of the base, with these packages, and what would satisfy these dependencies, installed."""
    at = folder / name
    shutil.rmtree(at, ignore_errors=True)
    run("cp", "-a", "--reflink=auto", base(folder), at)
    if satisfy:
        chroot(at, "apt-get", "-q", "-y", "--no-install-recommends", "satisfy", satisfy)
    if packages:
        chroot(at, "apt-get", "-q", "-y", "--no-install-recommends", "install", *packages)
    return at


def certificate(root):
    """A certificate for 127.0.0.1 that signs itself, where an administrator would put it. Returns a client's context that trusts it alone."""
    key, chain = root / "etc/ssl/private/mail.key", root / "etc/ssl/certs/mail.pem"
    key.parent.mkdir(parents=True, exist_ok=True)
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "90", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", chain)
    key.chmod(0o600)
    return ssl.create_default_context(cafile=str(chain))


def sources(to):
    """A copy of this tree as it stands, without what was built."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    try:
        files = run("git", "-C", REPO, "ls-files", "-co", "--exclude-standard").splitlines()
    except (Failed, FileNotFoundError):
        files = [str(f.relative_to(REPO)) for f in REPO.rglob("*") if f.is_file() and f.parts[len(REPO.parts)] not in ("build", ".git")]
    for name in files:
        if (REPO / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, to / name)
    return to


def package(folder):
    """The Debian package of this tree as it stands, built in a copy of it. Returns its path."""
    for old in folder.glob("postern*_*"):
        old.unlink()
    source = sources(folder / "source")
    run("make", "-s", "deb", cwd=source)
    return next(folder.glob("postern_*.deb"))


class Machine:
    """A booted container."""

    def __init__(self, root):
        self.root = root
        self.console = open(root.parent / (root.name + ".console"), "wb")
        self.nspawn = self.leader = None
        self.boot()

    def boot(self):
        self.nspawn = subprocess.Popen(["systemd-nspawn", "-q", "-D", str(self.root), "-b", "--register=no", "--keep-unit", "--console=pipe",
                                        "--private-network", "--machine=postern-%d" % os.getpid(), "--system-call-filter=" + LANDLOCK],
                                       stdin=subprocess.DEVNULL, stdout=self.console, stderr=self.console, start_new_session=True)
        self.leader = await_true("the container has booted", self.find_leader)
        await_true("systemd says that it has booted", lambda: self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded"))

    def find_leader(self):
        with contextlib.suppress(FileNotFoundError, IndexError):
            children = pathlib.Path("/proc/%d/task/%d/children" % (self.nspawn.pid, self.nspawn.pid)).read_text().split()
            for pid in children:
                if pathlib.Path("/proc", pid, "comm").read_text().strip() == "systemd":
                    return int(pid)
        if self.nspawn.poll() is not None:
            raise Failed("the container has ended: see %s" % self.console.name)
        return None

    def argv(self, *argv):
        return ["nsenter", "-t", self.leader, "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--", "env", "-i", "PATH=" + PATH, "LANG=C.UTF-8",
                "DEBIAN_FRONTEND=noninteractive", *argv]

    def run(self, *argv, check=True, **how):
        how.setdefault("stdin", subprocess.DEVNULL if "input" not in how else None)
        if how["stdin"] is None:
            del how["stdin"]
        return run(*self.argv(*argv), check=check, **how)

    def sh(self, line, check=True):
        return self.run("sh", "-c", line, check=check)

    def reboot(self):
        """systemd-nspawn ends with this status when a restart is wanted, and leaves it to whoever started it."""
        self.run("systemctl", "reboot", check=False)
        if self.nspawn.wait(WAIT) != 133:
            raise Failed("the container did not reboot: see %s" % self.console.name)
        self.boot()

    def show(self, unit, what):
        return self.run("systemctl", "show", "-P", what, unit).strip()

    def journal(self, *units):
        return self.run("journalctl", "-b", "--no-pager", "-o", "cat", *[x for u in units for x in ("-u", u)], check=False)

    @contextlib.contextmanager
    def network(self):
        """Sockets that this thread makes meanwhile are in the container's network."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/self/ns/net") as ours, open("/proc/%d/ns/net" % self.leader) as theirs:
            if libc.setns(theirs.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            try:
                yield
            finally:
                if libc.setns(ours.fileno(), CLONE_NEWNET) != 0:
                    os.abort()

    def pop3(self, port=110, context=None, stls=None):
        with self.network():
            c = poplib.POP3("127.0.0.1", port, timeout=60) if context is None else poplib.POP3_SSL("127.0.0.1", port, context=context, timeout=60)
        if stls is not None:
            c.stls(stls)
        return c

    def login(self, user, password, **how):
        c = self.pop3(**how)
        c.user(user)
        c.pass_(password)
        return c

    def listening(self):
        """The TCP ports that something listens on."""
        rows = self.run("cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()
        return sorted({int(r.split()[1].rsplit(":", 1)[1], 16) for r in rows if ":" in r.split()[0] and r.split()[3] == "0A"})

    def processes(self):
        """The suite's processes, by pid."""
        found = {}
        for row in self.run("ps", "-eo", "pid,comm,args").splitlines()[1:]:
            pid, comm, args = row.split(None, 2)
            if "libexec/postern/" in args or comm.startswith("pop3d"):
                found[int(pid)] = comm
        return found

    def close(self):
        for sig, seconds in ((signal.SIGTERM, 30), (signal.SIGKILL, 30)):
            if self.nspawn.poll() is None:
                self.nspawn.send_signal(sig)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.nspawn.wait(seconds)
        self.console.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Steps:
    """Says what was shown, and how long it took."""

    def __init__(self):
        self.number, self.at = 0, time.monotonic()

    def ok(self, text):
        self.number += 1
        now = time.monotonic()
        print("ok %d - %s (%.1f s)" % (self.number, text, now - self.at), flush=True)
        self.at = now


def main(check):
    needed()
    folder = pathlib.Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        check(folder, Steps())
    except (Failed, AssertionError, OSError, poplib.error_proto) as e:
        import traceback
        traceback.print_exc()
        print("not ok: %s" % (e,), flush=True)
        return 1
    print("all well")
    return 0
