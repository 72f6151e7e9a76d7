"""Starts the three daemons for a test, talks to them octet by octet, and sees that nothing is left.

Two ways. Postern() runs all of them as one ordinary user: the caller, or nobody if that is root. Postern(stage=Stage()) runs
them as in production, from root, in a mount namespace with accounts, PAM files, /var/mail and /home of its own.

What is waited for is an event: a readiness message, a line of a log, the end of a process. Nothing sleeps.
"""
import ctypes
import contextlib
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings

REPO = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("POSTERN_BUILD", REPO / "build")).resolve()
PROGRAMS = ["pop3d", "authd", "spoold", "authctl", "spoolctl"]
PASSWORD = "correct-horse-7"
NOBODY = 65534
CHEAP = ["--opslimit", "1", "--memlimit", "64", "--iterations", "4096"]     # a hash that costs next to nothing
IS_ROOT = os.geteuid() == 0
HAS_TERMINALS = os.path.exists("/dev/pts/ptmx")         # a chroot may have none to give
WRAP = os.environ.get("POSTERN_WRAP", "").split()       # what runs the daemons: valgrind and its options
SANITIZED = "ASAN_OPTIONS" in os.environ
SANDBOX = os.environ.get("POSTERN_SANDBOX", "required")
TIMEOUT = 150 if WRAP else 30       # for anything that takes milliseconds
LOG_LINE = re.compile(rb'postern-[a-z0-9]+\[\d+\]:( [a-z0-9_-]+=("[ -~]*?"|[^ "]+))+$')


class Failed(AssertionError):
    """A daemon did not do what the test needs before it can begin."""


# The wire form, written anew and slowly: what a client must receive for what is on disk.

def wire(disk):
    """CRLF line ends; a bare CR stays; a last line without an end gets one; nothing else changes."""
    out = re.sub(rb"(?<!\r)\n", b"\r\n", disk)
    return out + b"\r\n" if out and not out.endswith(b"\n") else out


def stuffed(message):
    """A message in its wire form, as it is sent."""
    return b"\n".join(b"." + row if row.startswith(b".") else row for row in message.split(b"\n"))


def top(disk, lines):
    """The wire form of the header, the blank line and so many lines of the body."""
    kept, body, at, whole = [], None, 0, wire(disk)
    while at < len(whole):
        end = whole.find(b"\n", at)
        end = len(whole) if end == -1 else end + 1
        row = whole[at:end]
        if body is not None:
            if body == 0:
                break
            body -= 1
        elif row == b"\r\n":
            body = lines
        kept.append(row)
        at = end
    return b"".join(kept)


def mbox(messages, sender=b"sender@example.org"):
    """An mbox file of messages as they are: a From_ line before, a blank line after each."""
    out = []
    for m in messages:
        out.append(b"From " + sender + b" Sat Jan  3 01:05:34 1998\n" + m + (b"" if not m or m.endswith(b"\n") else b"\n") + b"\n")
    return b"".join(out)


# Processes

def on_disk(store, path):
    """Every message that is there, in order, and nothing else that looks like one; an mbox as it is."""
    if store == "mbox":
        return path.read_bytes()
    found = [(n, (path / sub / n).read_bytes()) for sub in ("new", "cur") for n in os.listdir(path / sub)]
    return [m for _, m in sorted(found)]


def as_disk(store, messages):
    """What on_disk says of these messages."""
    return mbox(messages) if store == "mbox" else list(messages)


class Watched:
    """A process whose standard error is collected line by line and can be waited on. What it has written when it is asked for is there."""

    def __init__(self, name, argv, **how):
        self.name, self.ended, self.notify = name, False, None
        self.collected, self.rest = [], b""
        self.changed = threading.Condition()
        how.setdefault("stdin", subprocess.DEVNULL)
        how.setdefault("stdout", subprocess.DEVNULL)
        self.process = subprocess.Popen([str(x) for x in argv], stderr=subprocess.PIPE, start_new_session=True, **how)
        self.pid = self.process.pid
        threading.Thread(target=self._collect, daemon=True).start()

    def _readable(self, timeout):
        ready = select.poll()
        ready.register(self.process.stderr, select.POLLIN)
        return bool(ready.poll(timeout))

    def _take(self):
        """All that is in the pipe; the lock is held."""
        while not self.ended and self._readable(0):
            data = os.read(self.process.stderr.fileno(), 65536)
            *whole, self.rest = (self.rest + data).split(b"\n")
            if not data and self.rest:
                whole.append(self.rest)
            self.collected += whole
            self.ended = not data
            self.changed.notify_all()

    def _collect(self):
        with contextlib.suppress(ValueError):       # it was closed meanwhile
            while not self.ended:
                self._readable(None)
                with self.changed:
                    self._take()

    @property
    def lines(self):
        with self.changed:
            self._take()
            return self.collected

    def log(self):
        return b"\n".join(self.lines).decode("ascii", "backslashreplace")

    def last_words(self):
        """The log of one that has ended; its children may still be ending."""
        with self.changed:
            self.changed.wait_for(lambda: self.ended, 5)
        return self.log()

    def wait_line(self, *patterns, start=0, timeout=TIMEOUT):
        """The first line from `start` on in which every pattern (a regular expression) is found."""
        compiled = [re.compile(p.encode()) for p in patterns]
        until = time.monotonic() + timeout
        with self.changed:
            at = start
            while True:
                for at in range(at, len(self.lines)):
                    if all(p.search(self.collected[at]) for p in compiled):
                        return self.collected[at].decode("ascii", "backslashreplace")
                at = len(self.collected)
                left = until - time.monotonic()
                if self.ended or left <= 0:
                    raise Failed("%s %s: no line with %s in its log:\n%s" % (self.name, "ended" if self.ended else "runs on",
                        patterns, self.log()))
                self.changed.wait(left)

    def close(self):
        with self.changed:
            self.ended = True
        self.process.stderr.close()
        if self.notify is not None:
            self.notify.close()

    def mark(self):
        return len(self.lines)

    def session(self):
        """Every process of its session that still runs, as {pid: state}."""
        found = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    fields = pathlib.Path("/proc", entry, "stat").read_text().rsplit(")", 1)[1].split()
                    if int(fields[3]) == self.pid and fields[0] != "Z":
                        found[int(entry)] = fields[0]
        return found

    def stop(self, sig=signal.SIGTERM, timeout=TIMEOUT):
        """Ends it and returns its exit status. All its children must end too."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed("%s did not stop within %d s of signal %d:\n%s" % (self.name, timeout, sig, self.log()))
        left = self.wait_gone(10)
        if left:
            names = {p: process_name(p) for p in left}
            self.kill()
            raise Failed("%s left processes behind: %s\n%s" % (self.name, names, self.log()))
        return status

    def wait_gone(self, timeout):
        until = time.monotonic() + timeout
        while True:
            left = self.session()
            if not left or time.monotonic() > until:
                return left
            for pid in left:
                wait_pid(pid, max(0, until - time.monotonic()))

    def kill(self):
        """All of them, and nothing of theirs is open any more when it returns."""
        until = time.monotonic() + TIMEOUT
        while (left := self.session()) and time.monotonic() < until:    # again: one may have begun another meanwhile
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self.wait_gone(5)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)


def process_name(pid):
    with contextlib.suppress(OSError):
        name = pathlib.Path("/proc/%d/comm" % pid).read_text().strip()
        if WRAP and name.startswith("memcheck"):    # it has not named itself
            name = os.path.basename(pathlib.Path("/proc/%d/cmdline" % pid).read_text().split("\0")[len(WRAP)])
        return name
    return "?"


def wait_pid(pid, timeout=TIMEOUT):
    """True once a process that need not be a child has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], timeout)[0])
    finally:
        os.close(fd)


def children(pid):
    """The processes whose parent is pid, by name: [(pid, name)]."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                text = pathlib.Path("/proc", entry, "stat").read_text()
                if int(text.rsplit(")", 1)[1].split()[1]) == pid:
                    found.append((int(entry), process_name(int(entry))))
    return found


def status_of(pid):
    """/proc/PID/status as a dictionary."""
    text = pathlib.Path("/proc/%d/status" % pid).read_text()
    return dict((k, v.strip()) for k, v in (row.split(":", 1) for row in text.splitlines() if ":" in row))


def identity(pid):
    """(uids, gids, groups) of a process: real, effective, saved and filesystem."""
    s = status_of(pid)
    return tuple([int(x) for x in s[key].split()] for key in ("Uid", "Gid", "Groups"))


# A stage: accounts of its own

def hold(directory):
    """Runs as a child: makes the namespace of a Stage and keeps it until standard input ends."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(function, *args):
        if function(*args) != 0:
            e = ctypes.get_errno()
            raise OSError(e, os.strerror(e), str(args))

    def bind(source, target):
        call(libc.mount, os.fsencode(source), os.fsencode(target), None, 0x1000, None)

    MS_REC, MS_PRIVATE, CLONE_NEWNS = 0x4000, 0x40000, 0x20000
    call(libc.unshare, CLONE_NEWNS)
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    # In a chroot "/" is no mount point and cannot be made private: from the namespace's own root it can.
    ns = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    call(libc.setns, ns, CLONE_NEWNS)
    call(libc.mount, b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    os.fchdir(root)
    os.chroot(".")
    d = pathlib.Path(directory)
    # All of /etc: files that are mounted over go when somebody outside, a package manager say, renames a new one over them.
    bind(d / "etc", "/etc")
    for path in ("/var/mail", "/home"):
        call(libc.mount, b"tmpfs", path.encode(), b"tmpfs", 0, b"mode=0755")
    os.chmod("/var/mail", 0o2775)
    os.chown("/var/mail", 0, 8)
    print("ready", flush=True)
    sys.stdin.read()


class Stage:
    """Accounts, PAM files, /var/mail and /home that only the processes started on it see. Root only."""

    USERS = {"_postern": 60990, "_postern-auth": 60991, "alice": 61001, "bob": 61002, "carol": 61003, "system": 350}

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="postern-stage-"))
        self.dir.chmod(0o755)
        self.passwords = {name: "pw-%s-8" % name for name in ("alice", "bob", "carol", "system")}
        self.etc = self.dir / "etc"
        subprocess.run(["cp", "-a", "/etc", self.etc], check=True)
        self._accounts()
        self.holder = subprocess.Popen([sys.executable, __file__, "hold", str(self.dir)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)
        if self.holder.stdout.readline() != b"ready\n":
            raise Failed("no private mount namespace could be made")
        for name in self.passwords:
            home = self.path("/home/" + name)
            home.mkdir(mode=0o700)
            os.chown(home, self.USERS[name], self.USERS[name])

    def _accounts(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import crypt
            hashed = {name: crypt.crypt(p, "$6$rounds=1000$" + name) for name, p in self.passwords.items()}
        files = {}
        for key in ("passwd", "group", "shadow", "gshadow"):
            path = pathlib.Path("/etc", key)
            rows = path.read_text().splitlines() if path.exists() else []
            files[key] = "".join(r + "\n" for r in rows if r.split(":")[0] not in self.USERS)
        for name, uid in self.USERS.items():
            files["passwd"] += "%s:x:%d:%d::/home/%s:/bin/sh\n" % (name, uid, uid, name)
            files["group"] += "%s:x:%d:\n" % (name, uid)
            files["shadow"] += "%s:%s:20000:0:99999:7:::\n" % (name, hashed.get(name, "!"))
            files["gshadow"] += "%s:!::\n" % name
        # alice is also in group mail: her worker must not be
        files["group"] = re.sub(r"(?m)^(mail:.*:)(.*)$", lambda m: m[1] + ",".join(filter(None, [m[2], "alice"])), files["group"])
        for name, text in files.items():
            (self.etc / name).write_text(text)
        (self.etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nshadow: files\nhosts: files\n")
        (self.etc / "pam.d").mkdir(exist_ok=True)
        shutil.copy(REPO / "etc/pam/postern", self.etc / "pam.d" / "postern")

    def path(self, path):
        """What processes on the stage know as `path`, for this process."""
        return pathlib.Path("/proc/%d/root" % self.holder.pid) / str(path).lstrip("/")

    def argv(self, argv, user=None):
        """The command that runs argv on the stage, as root or as one of its users."""
        enter = ["nsenter", "-t", str(self.holder.pid), "-m", "-r", "-w", "--"]
        if user is not None:
            uid = str(self.USERS[user])
            enter += ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--inh-caps=-all", "--"]
        return enter + [str(x) for x in argv]

    def close(self):
        self.holder.stdin.close()
        self.holder.wait(TIMEOUT)
        self.holder.stdout.close()
        shutil.rmtree(self.dir)


# The suite

def binaries(into):
    """Copies of the programs where any user may run them: the tree itself may lie in somebody's private home. Daemons as WRAP runs them."""
    into.mkdir(exist_ok=True)
    run = " ".join(WRAP).replace("%p", into.parent.name + ".%p")    # numbers of processes come round again
    for name in PROGRAMS:
        if (BUILD / name).exists():
            shutil.copy(BUILD / name, into / name)
            if WRAP and name.endswith("d"):
                (into / "wrapped").mkdir(exist_ok=True)
                (into / name).rename(into / "wrapped" / name)
                (into / name).write_text('#!/bin/sh\nexec %s %s "$@"\n' % (run, into / "wrapped" / name))
                (into / name).chmod(0o755)
    return into


class Postern:
    """One Postern: configuration, users, and the daemons while they run.

    conf is {section: {key: value}} and is laid over what every test wants. With a stage the daemons are root's.
    """

    def __init__(self, conf=None, stage=None, sandbox=SANDBOX):
        self.stage = stage
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="postern-"))
        self.uid = 0 if stage else NOBODY if IS_ROOT else os.getuid()
        self.bin = binaries(self.dir / "bin")
        self.mail = self.dir / "mail"
        self.mail.mkdir()
        self.daemons = {}
        self.port = None
        self.passwords = {PASSWORD} | (set(stage.passwords.values()) if stage else set())
        self.conf = {
            "postern": {"run-dir": self.dir / "run", "state-dir": self.dir / "state", "log": "stderr",
                        "sandbox": sandbox},
            "pop3d": {"prefork": 2, **({"login-timeout": 600} if WRAP else {})},
            "authd": {"db": self.dir / "users.db", "stores": "db pam" if stage else "db", "hashers": 1, "throttle": "off"},
            "spoold": {"min-uid": 1000 if stage else min(self.uid, 1000) or 1},
        }
        for section, keys in (conf or {}).items():
            self.conf.setdefault(section, {}).update(keys)
        self.file = self.dir / "postern.conf"
        self.write_conf()
        self.dir.chmod(0o755)
        self.own(self.dir)

    def write_conf(self, **sections):
        for section, keys in sections.items():
            self.conf.setdefault(section, {}).update(keys)
        self.file.write_text("".join("[%s]\n%s" % (s, "".join("%s = %s\n" % kv for kv in keys.items()))
                                     for s, keys in self.conf.items()))

    def own(self, path, uid=None):
        """Gives all beneath path to the user who runs the daemons (links themselves, not what they name)."""
        if not IS_ROOT:
            return path
        uid = self.uid if uid is None else uid
        for directory, names, files in os.walk(path):
            for name in names + files:
                os.lchown(os.path.join(directory, name), uid, uid)
        os.lchown(path, uid, uid)
        return path

    def argv(self, name, *args):
        return [self.bin / name, "-c", self.file, *args]

    def popen_as(self):
        """How subprocess runs something as the user of the daemons."""
        return {} if self.stage or not IS_ROOT else {"user": NOBODY, "group": NOBODY, "extra_groups": []}

    # users and mail

    def authctl(self, *args, password=None, check=True):
        argv = self.argv("authctl", *args)
        if self.stage:
            argv = self.stage.argv(argv)
        done = subprocess.run([str(x) for x in argv], input=(password + "\n").encode("utf-8", "surrogateescape") if password is not None else b"",
            capture_output=True, timeout=TIMEOUT, **self.popen_as())
        if check and done.returncode != 0:
            raise Failed("authctl %s: %d\n%s" % (args, done.returncode, (done.stdout + done.stderr).decode(errors="replace")))
        return done

    def add(self, user, maildrop=None, password=PASSWORD, uid=None):
        """Adds a user of store db."""
        args = ["add", user, *CHEAP]
        if maildrop is not None:
            args += ["--maildrop", maildrop]
        if uid is not None:
            args += ["--uid", str(uid)]
        self.authctl(*args, password=password)
        self.passwords.add(password)

    def mbox(self, name, content, uid=None):
        """A mailbox file, made of messages or given whole. Returns its path."""
        path = self.mail / name
        path.write_bytes(content if isinstance(content, bytes) else mbox(content))
        path.chmod(0o600)
        self.own(path, uid)
        return path

    def maildir(self, name, messages=(), new=0, uid=None):
        """A Maildir with the messages in that order, the last `new` of them in new/. Returns its path."""
        path = self.mail / name
        for sub in ("tmp", "new", "cur"):
            (path / sub).mkdir(parents=True)
        for i, m in enumerate(messages):
            where = "new" if i >= len(messages) - new else "cur"
            (path / where / ("%010d.M%06dP1.host%s" % (1000000000 + i, i, ":2,S" if where == "cur" else ""))).write_bytes(m)
        self.own(path, uid)
        return path

    def user(self, user, store, messages, **more):
        """A user with these messages in a maildrop of this store. Returns the path of the maildrop."""
        path = getattr(self, store)(user, messages, **more)
        self.add(user, "%s:%s" % (store, path))
        return path

    # daemons

    def start_daemon(self, name, *args, await_ready=True, env=None, **how):
        not_ours = ("JOURNAL_STREAM", "NOTIFY_SOCKET")     # of the service that the tests run in, if they do
        argv, env = self.argv(name, *args), {**{k: v for k, v in os.environ.items() if k not in not_ours}, **(env or {})}
        notify = None
        if name != "pop3d":
            notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            at = self.dir / ("notify-" + name)
            with contextlib.suppress(FileNotFoundError):
                at.unlink()
            notify.bind(str(at))
            at.chmod(0o777)
            env["NOTIFY_SOCKET"] = str(at)
        if self.stage:
            argv = self.stage.argv(argv, "_postern" if name == "pop3d" else None)
        daemon = Watched(name, argv, env=env, **{**self.popen_as(), **how})
        self.daemons.setdefault(name, []).append(daemon)
        if notify is not None:
            daemon.notify = notify      # open while it runs: it says so when it stops, too
            if await_ready:
                self._await_ready(daemon, notify)
        return daemon

    @staticmethod
    def _await_ready(daemon, notify):
        pid = os.pidfd_open(daemon.pid)
        until = time.monotonic() + TIMEOUT
        try:
            while True:
                ready = select.select([notify, pid], [], [], max(0, until - time.monotonic()))[0]
                if notify in ready:
                    if b"READY=1" in notify.recv(4096):
                        return
                else:
                    daemon.wait_gone(5)
                    raise Failed("%s did not become ready\n%s" % (daemon.name, daemon.last_words()))
        finally:
            os.close(pid)

    def start(self, *programs, listen=("127.0.0.1:0",)):
        for name in programs or ("spoold", "authd", "pop3d"):
            if name == "pop3d":
                daemon = self.start_daemon("pop3d", *[x for a in listen for x in ("-l", a)])
                line = daemon.wait_line("event=listening")
                self.port = int(re.search(r"port=(\d+)", line)[1])
            else:
                self.start_daemon(name)
        return self

    def daemon(self, name):
        return self.daemons[name][-1]

    def log(self):
        return "".join("--- %s\n%s\n" % (name, d.log()) for name, ds in self.daemons.items() for d in ds)

    def stop_daemon(self, name, sig=signal.SIGTERM):
        return self.daemon(name).stop(sig)

    def stop(self):
        """Stops all that runs; every one must end well, alone and with a log that is sound."""
        trouble = []
        for name in ("pop3d", "authd", "spoold"):
            for d in self.daemons.get(name, []):
                if d.process.poll() is None:
                    try:
                        status = d.stop()
                        if status != 0:
                            trouble.append("%s ended with %d" % (name, status))
                    except Failed as e:
                        trouble.append(str(e))
        trouble += self.check_log()
        return trouble

    def check_log(self):
        trouble = []
        for ds in self.daemons.values():
            for d in ds:
                for line in d.lines:
                    if not LOG_LINE.fullmatch(line) or len(line) > 1000:
                        trouble.append("%s: a line of its log is not key=value: %r" % (d.name, line))
                    if any(p.encode() in line for p in self.passwords):
                        trouble.append("%s: a password in its log: %r" % (d.name, line))
        return trouble

    def kill(self):
        """As a power cut ends them."""
        for ds in self.daemons.values():
            for d in ds:
                d.kill()

    def close(self):
        try:
            trouble = self.stop()
        finally:
            sys.stdout.write(self.log())
            self.kill()
            for ds in self.daemons.values():
                for d in ds:
                    d.close()
            shutil.rmtree(self.dir, ignore_errors=True)
        if trouble:
            raise Failed("\n".join(trouble))

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            self.close()
        except Failed:
            if kind is None:
                raise

    # clients

    def connect(self, user=None, password=PASSWORD):
        c = Client("127.0.0.1", self.port)
        c.banner = c.line()
        if user is not None:
            c.login(user, password)
        return c


class Client:
    """A POP3 client that hides nothing."""

    def __init__(self, host, port, timeout=TIMEOUT):
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.banner = None

    def send(self, data):
        self.socket.sendall(data)

    def fill(self):
        data = self.socket.recv(1 << 18)
        self.buffer += data
        return bool(data)

    def line(self):
        """One line with its CRLF; b"" at the end of the connection."""
        while b"\n" not in self.buffer:
            if not self.fill():
                rest, self.buffer = self.buffer, b""
                return rest
        row, self.buffer = self.buffer.split(b"\n", 1)
        return row + b"\n"

    def cmd(self, command):
        """Sends one command; the first line of the answer, without its CRLF, which must be there."""
        self.send(command + b"\r\n")
        return self.reply()

    def reply(self):
        row = self.line()
        assert row.endswith(b"\r\n"), "no whole line: %r" % row
        assert row.startswith((b"+OK", b"-ERR", b"+ ")), "not an answer: %r" % row
        return row[:-2]

    def ok(self, command):
        row = self.cmd(command)
        assert row.startswith(b"+OK"), "%r: %r" % (command[:80], row)
        return row

    def err(self, command):
        row = self.cmd(command)
        assert row.startswith(b"-ERR"), "%r: %r" % (command[:80], row)
        return row

    def body(self):
        """What follows +OK up to the lone dot, as sent (dot-stuffed), without the dot line."""
        parts = [self.buffer]
        tail = b"\r\n" + self.buffer
        self.buffer = b""
        while b"\r\n.\r\n" not in tail:
            data = self.socket.recv(1 << 18)
            assert data, "the connection ended in a multi-line answer"
            parts.append(data)
            tail = tail[-8:] + data
        whole = b"".join(parts)
        if whole.startswith(b".\r\n"):
            at = 0
        else:
            at = whole.index(b"\r\n.\r\n") + 2
        self.buffer = whole[at + 3:]
        return whole[:at]

    def multi(self, command):
        """The lines of a multi-line answer, unstuffed."""
        self.ok(command)
        return self.rows()

    def rows(self):
        body = self.body()
        return [r[1:] if r.startswith(b".") else r for r in body.split(b"\r\n")[:-1]] if body else []

    def retr(self, number):
        """The message as the client has it in the end: unstuffed."""
        self.ok(b"RETR %d" % number)
        return self.unstuffed()

    def top(self, number, lines):
        self.ok(b"TOP %d %d" % (number, lines))
        return self.unstuffed()

    def unstuffed(self):
        body = self.body()
        if body.startswith(b"."):
            body = body[1:]
        return body.replace(b"\n.", b"\n")

    def login(self, user, password=PASSWORD):
        self.ok(b"USER " + os.fsencode(user))
        self.ok(b"PASS " + os.fsencode(password))
        return self

    def stat(self):
        words = self.ok(b"STAT").split(b" ")
        return int(words[1]), int(words[2])

    def list(self):
        return dict((int(a), int(b)) for a, b in (r.split(b" ") for r in self.multi(b"LIST")))

    def uidl(self):
        return dict((int(a), b) for a, b in (r.split(b" ") for r in self.multi(b"UIDL")))

    def quit(self):
        row = self.cmd(b"QUIT")
        assert self.line() == b"", "the server said more after QUIT"
        self.close()
        return row

    def eof(self):
        """Nothing more comes: the connection is at its end."""
        try:
            return self.line() == b""
        except ConnectionResetError:
            return True

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


if __name__ == "__main__" and sys.argv[1:2] == ["hold"]:
    hold(sys.argv[2])
