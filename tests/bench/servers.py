"""The servers that are compared: how each is set up, started, and stopped.

All of them run as root with real accounts, as in production, inside a mount and a network namespace of their own: /etc/passwd
and the like are copies, the peers' packages lie over /usr without being installed, and the network is a loopback interface that nobody
else sees. WORK is bound to /srv there.

Passwords are made cheap for all alike: what is compared is the server, not the hash. Dovecot's passwd-file and the /etc/shadow that
popa3d asks (through PAM, as Debian builds it) have traditional DES crypt. Postern stores nothing but Argon2id: all its users are imported with one
ready-made hash of the least cost (which takes no time, where a password would be hashed for each), and as it ships, a verified password is remembered
for cache-ttl, so that every login but a user's first compares a keyed hash. Its throttle is off, because every session here comes from one address (Dovecot's counts failures only, popa3d has none).
"""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import mailbox_make as make

SRV = pathlib.Path("/srv")
PASSWORD = "benchpw1"
DES = "beHqo1J4jujKI"           # crypt("benchpw1", "be")
ARGON2ID = "$argon2id$v=19$m=64,t=1,p=1$scj8I+0PAPGgbATAyeD6Gg$k0K5rwd7vNIPZSA/XuElQDZKxdwOeQygXY8WbWPTc9M"    # the same, at the least cost
USERS = 33                      # 0..31 poll, 32 has the big mailbox
BIG = 32
UID = 20000
SYSTEM_USERS = {"_postern": 60990, "_postern-auth": 60991, "dovecot": 60992, "dovenull": 60993, "popa3d": 60994, "courier": 60995,
                "cyrus": 60996}
KINDS = {"mbox": "m", "maildir": "d"}
WAIT = 30


def user(kind, number):
    return KINDS[kind] + str(number)


def uid(kind, number):
    return UID + number + (0 if kind != "maildir" else 100 if number < USERS else 10000)


def accounts():
    """(name, uid, password field) of every account that the servers need."""
    for name, number in SYSTEM_USERS.items():
        yield name, number, "!"
    for kind in KINDS:
        for n in range(USERS):
            yield user(kind, n), uid(kind, n), DES


def etc_write(to):
    """Copies of what names accounts, with ours added; and a PAM service for popa3d."""
    passwd = group = shadow = ""
    ours = {name for name, _, _ in accounts()}
    for name in ("passwd", "group", "shadow"):
        rows = pathlib.Path("/etc", name).read_text().splitlines() if os.path.exists("/etc/" + name) else []
        kept = "".join(r + "\n" for r in rows if r.split(":")[0] not in ours)
        passwd, group, shadow = (kept, group, shadow) if name == "passwd" else (passwd, kept, shadow) if name == "group" else (passwd, group, kept)
    for name, number, hashed in accounts():
        passwd += "%s:x:%d:%d::/srv/home/%s:/bin/sh\n" % (name, number, number, name)
        group += "%s:x:%d:\n" % (name, number)
        shadow += "%s:%s:20000:0:99999:7:::\n" % (name, hashed)
    for name, text in (("passwd", passwd), ("group", group), ("shadow", shadow),
                       ("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\n")):
        (to / name).write_text(text)
    (to / "pam.d").mkdir(exist_ok=True)
    for name in ("popa3d", "pop3", "mu-pop3d", "other"):
        (to / "pam.d" / name).write_text("auth required pam_unix.so\naccount required pam_unix.so\n")


def accounts_add(numbers):
    """More of them, for those servers that know none but these; and their homes."""
    new = [(user(kind, n), uid(kind, n)) for kind in KINDS for n in numbers]
    for name, row in (("passwd", "%s:x:%d:%d::/srv/home/%s:/bin/sh\n"), ("shadow", "%s:%s:20000:0:99999:7:::\n")):
        with open("/etc/" + name, "a") as f:
            f.writelines(row % ((u, i, i, u) if name == "passwd" else (u, DES)) for u, i in new)
    for name, owner in new:
        home = SRV / "home" / name
        home.mkdir(parents=True, exist_ok=True)
        os.chown(home, owner, owner)


class Meter:
    """The CPU time of a server, all its processes and those that have ended: its control group's."""

    ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpuacct")

    def __init__(self, name):
        for root in map(pathlib.Path, self.ROOTS):
            self.dir = root / ("postern-bench-%d-%s" % (os.getpid(), name))
            if not (root / "cgroup.procs").exists():
                continue
            try:
                self.dir.mkdir()
            except OSError:
                continue
            if (self.dir / "cpu.stat").exists() or (self.dir / "cpuacct.usage").exists():
                return
            self.dir.rmdir()
        raise SystemExit("bench: no control group can be made (version 2, or cpuacct of version 1), so CPU time cannot be counted")

    def enter(self):
        """In the child, before it becomes the server."""
        (self.dir / "cgroup.procs").write_text(str(os.getpid()))

    def pids(self):
        return [int(x) for x in (self.dir / "cgroup.procs").read_text().split()]

    def milliseconds(self):
        if (self.dir / "cpuacct.usage").exists():
            return int((self.dir / "cpuacct.usage").read_text()) / 1e6
        rows = dict(r.split() for r in (self.dir / "cpu.stat").read_text().splitlines())
        return int(rows["usage_usec"]) / 1e3

    def settle(self, before):
        """Until the sessions' processes are gone, and their time is counted. Servers that keep processes ahead may differ by a few."""
        until, last = time.monotonic() + 2, None
        while time.monotonic() < until:
            now = sorted(self.pids())
            if len(now) <= before or now == last and len(now) <= before + 4:
                return
            last = now
            time.sleep(0.02)

    def remove(self):
        """Ends all that is left in it."""
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            for pid in self.pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                self.dir.rmdir()
                return
            except OSError:
                time.sleep(0.02)


class Server:
    """
    One that is measured. `kinds` are the mailboxes it can serve; `packages` are Debian's, without those whose names begin as `without` has it (what
    they need besides to be started by their own scripts); `folders` are what it wants under /run, /var/lib and /var/spool.
    """

    kinds = ("mbox", "maildir")
    packages, without, folders = (), ("exim4", "debconf", "mysql-common", "mariadb-common"), ()
    most, most_sessions = 1000000, 5000     # messages in one mailbox, and sessions, that it is measured with
    port = 0
    mail_mode, mail_gid = 0o2775, 8

    def __init__(self):
        self.dir = SRV / self.name
        self.meter = None
        self.log = None

    def maildrop(self, kind, number):
        return self.dir / kind / user(kind, number)

    def fill(self, kind, number, count, octets, cur=True, sizes=True):
        """A new maildrop in place of what is there."""
        make.maildrop(kind, self.maildrop(kind, number), count, octets, uid(kind, number), cur=cur, sizes=sizes)

    def deliver(self, kind, number, count, octets, generation, sizes=True):
        make.deliver(kind, self.maildrop(kind, number), count, octets, uid(kind, number), generation, sizes)

    def remove(self, kind, number):
        make.remove(self.maildrop(kind, number))

    def remove_many(self, kind, number):
        """One of many, of which nothing is measured any more."""
        self.remove(kind, number)

    def forget(self, kind, number):
        """Whatever it remembers of a maildrop goes: the next open is the first."""

    def prepare(self):
        self.dir.mkdir(exist_ok=True)
        for kind in KINDS:
            path = self.dir / kind
            path.mkdir(exist_ok=True)
            os.chown(path, 0, self.mail_gid)
            path.chmod(self.mail_mode)
        self.log = open(self.dir / "log", "ab")

    def run(self, argv, as_user=None):
        def become():
            self.meter.enter()
            if as_user is not None:
                os.setgroups([])
                os.setgid(SYSTEM_USERS[as_user])
                os.setuid(SYSTEM_USERS[as_user])

        return subprocess.Popen([str(x) for x in argv], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd="/",
            start_new_session=True, preexec_fn=become)

    def start(self):
        self.meter = Meter(self.name)
        self.launch()
        until = time.monotonic() + WAIT
        while True:
            if self.greeted():
                return
            if time.monotonic() > until:
                raise SystemExit("bench: %s does not serve; its log:\n%s" % (self.name, (self.dir / "log").read_text(errors="replace")[-3000:]))
            time.sleep(0.02)

    def greeted(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as s:
                return s.recv(100).startswith(b"+OK")
        except OSError:
            return False

    def launch(self):
        raise NotImplementedError

    def users_add(self, numbers):
        """Those that accounts_add has made may log in, if that is not enough."""

    def stop(self):
        if self.meter is not None:
            self.meter.remove()
            self.meter = None

    def version(self):
        return ""


class Postern(Server):
    name, port = "postern", 11110
    folders = ("postern",)
    conf = """[postern]
run-dir = /run/postern
state-dir = /srv/postern/state
log = stderr
[pop3d]
max-connections = 6000
max-per-address = 6000
[authd]
stores = db
db = /srv/postern/users.db
cache-ttl = 86400
throttle = off
[spoold]
mbox = /srv/postern/mbox/%u
min-uid = 1000
"""

    def __init__(self, build):
        super().__init__()
        self.build = pathlib.Path(build)

    def prepare(self):
        super().prepare()
        for d in ("bin", "state"):
            shutil.rmtree(self.dir / d, ignore_errors=True)
        (self.dir / "bin").mkdir()
        for name in ("pop3d", "authd", "spoold", "authctl", "spoolctl"):
            shutil.copy(self.build / name, self.dir / "bin")
        self.file = self.dir / "postern.conf"
        self.file.write_text(self.conf)
        for db in self.dir.glob("*.db"):
            db.unlink()
        self.users_add(range(USERS))

    def users_add(self, numbers):
        rows = self.dir / "more"
        rows.write_text("".join("%s:{ARGON2ID}%s:%d:::::userdb_mail=%s:%s\n" % (user(kind, n), ARGON2ID, uid(kind, n), kind, self.maildrop(kind, n))
            for kind in KINDS for n in numbers))
        self.tool("authctl", "import", "dovecot", rows, "--replace")

    def tool(self, name, *args):
        done = subprocess.run([self.dir / "bin" / name, "-c", self.file, *args], input=PASSWORD.encode() + b"\n",
            capture_output=True)
        if done.returncode != 0:
            raise SystemExit("bench: %s %s: %s" % (name, " ".join(map(str, args)), done.stderr.decode(errors="replace")))

    def launch(self):
        self.daemon("spoold", "run/postern/spoold.sock")
        self.daemon("authd", "run/postern/authd.sock")
        self.run([self.dir / "bin/pop3d", "-c", self.file, "-l", "127.0.0.1:%d" % self.port], as_user="_postern")

    def daemon(self, name, sock):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            at = "/run/notify-" + name
            pathlib.Path(at).unlink(missing_ok=True)
            notify.bind(at)
            os.environ["NOTIFY_SOCKET"] = at
            notify.settimeout(WAIT)
            self.run([self.dir / "bin" / name, "-c", self.file])
            del os.environ["NOTIFY_SOCKET"]
            try:
                notify.recv(100)
            except TimeoutError:
                raise SystemExit("bench: %s did not start:\n%s" % (name, (self.dir / "log").read_text(errors="replace")[-3000:]))

    def forget(self, kind, number):
        # one file a maildrop; which one is nobody's business but spoold's
        for path in (self.dir / "state").rglob("*"):
            if path.is_file() and "cache" in str(path.relative_to(self.dir)):
                path.unlink()


class Dovecot(Server):
    name, port = "dovecot", 11120
    packages, folders = ("dovecot-pop3d",), ("dovecot",)
    conf = """protocols = pop3
listen = 127.0.0.1
base_dir = /run/dovecot
state_dir = /srv/dovecot/state
log_path = /srv/dovecot/log
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
mail_privileged_group = mail
first_valid_uid = 1000
default_process_limit = 6000
default_client_limit = 20000
mail_max_userip_connections = 0
service pop3 {
  process_limit = 6000
}
service pop3-login {
  inet_listener pop3 {
    port = 11120
  }
  inet_listener pop3s {
    port = 0
  }
}
passdb {
  driver = passwd-file
  args = /srv/dovecot/users
}
userdb {
  driver = passwd-file
  args = /srv/dovecot/users
}
"""

    def prepare(self):
        super().prepare()
        (self.dir / "users").write_text("")
        self.users_add(range(USERS))
        (self.dir / "conf").write_text(self.conf)

    def users_add(self, numbers):
        rows = ""
        for kind in KINDS:
            for n in numbers:
                name = user(kind, n)
                mail = "mbox:/srv/home/%s/mail:INBOX=%s" % (name, self.maildrop(kind, n)) if kind == "mbox" else \
                    "maildir:%s" % self.maildrop(kind, n)
                rows += "%s:{CRYPT}%s:%d:%d::/srv/home/%s::userdb_mail=%s\n" % (name, DES, uid(kind, n), uid(kind, n), name, mail)
        with open(self.dir / "users", "a") as f:
            f.write(rows)

    def launch(self):
        self.run(["/usr/sbin/dovecot", "-F", "-c", self.dir / "conf"])

    def forget(self, kind, number):
        shutil.rmtree(SRV / "home" / user(kind, number) / "mail", ignore_errors=True)
        for path in self.maildrop(kind, number).glob("dovecot*"):
            path.unlink()

    def version(self):
        return subprocess.run(["/usr/sbin/dovecot", "--version"], capture_output=True, text=True).stdout.strip()


class Popa3d(Server):
    """Under tcpserver: its own -D takes no more than 50 sessions in ten seconds from one address, and 500 from all."""

    name, port = "popa3d", 11140
    kinds = ("mbox",)
    packages, folders = ("popa3d", "ucspi-tcp"), ("popa3d",)

    def launch(self):
        self.run(["/usr/bin/tcpserver", "-HRDl0", "-c", "5000", "-b", "4096", "127.0.0.1", self.port, "/usr/sbin/popa3d"])

    def maildrop(self, kind, number):
        return pathlib.Path("/var/mail") / user(kind, number)

    def version(self):
        return "1.0.3"


class Floor(Server):
    """A bare server that sends the same number of bytes from memory; started anew for a number and a size of messages."""

    name, port = "floor", 11130

    def __init__(self, build):
        super().__init__()
        self.build = pathlib.Path(build)
        self.messages, self.octets = 20, 2200

    def prepare(self):
        super().prepare()
        shutil.copy(self.build / "bench/floor", self.dir)

    def launch(self):
        self.run([self.dir / "floor", self.port, self.messages, self.octets])
