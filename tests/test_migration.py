"""From another server to this one: a client that keeps its mail on the server downloads nothing twice.

Each of the others is the real one, of Debian's package, with a throw-away configuration on the stage. fetchmail and mpop fetch from it with keep; then it
is stopped, and Postern serves the same maildrop with the right uidl-format. docs/MIGRATION.md says the same to administrators. Those whose package is not
installed are left out; `make check-migration` wants all of them.
"""
import contextlib
import imaplib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import threading

import pytest

import harness

pytestmark = pytest.mark.root
WANT_ALL = os.environ.get("MIGRATION_ALL") == "1"
ROOT = os.environ.get("MIGRATION_ROOT", "")     # packages that are unpacked, and not installed
LIBRARIES = ":".join(ROOT + d for d in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu/mailutils"))
MESSAGES = [b"Return-Path: <a@example.org>\nReceived: from a by b id %d; Sat, 3 Jan 1998 01:05:34 +0000\nFrom: a@example.org\nTo: alice@example.org\n"
            b"Subject: %d\nDate: Sat, 3 Jan 1998 01:05:34 +0000\nMessage-ID: <%d@example.org>\n\ntext %d\n" % (i, i, i, i) for i in range(1, 8)]


def program(*names):
    for name in names:
        found = shutil.which(name, path=":".join(top + d for top in ("", ROOT) for d in ("/usr/sbin", "/usr/lib/courier/courier", "/usr/lib/cyrus/bin")))
        if found:
            return found
    if WANT_ALL:
        pytest.fail("%s is not installed" % names[0])
    pytest.skip("%s is not installed" % names[0])


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Inetd:
    """What starts a server for each connection."""

    def __init__(self, argv):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port, self.argv, self.children = self.socket.getsockname()[1], argv, []
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                c, _ = self.socket.accept()
                with c:
                    env = {**os.environ, "LD_LIBRARY_PATH": LIBRARIES}
                    self.children.append(subprocess.Popen([str(a) for a in self.argv], stdin=c, stdout=c, stderr=subprocess.DEVNULL,
                                                          env=env if ROOT else None))

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(harness.TIMEOUT)
        for child in self.children:
            child.wait(harness.TIMEOUT)


class Move:
    """alice, who has mail, and clients that keep it on the server."""

    def __init__(self, stage, make_postern, kind):
        self.stage, self.kind = stage, kind
        self.uid, self.password = stage.USERS["alice"], stage.passwords["alice"]
        self.home = stage.path("/home/alice")
        self.mbox = stage.path("/var/mail/alice")
        self.maildir = self.home / "Maildir"
        self.client = pathlib.Path(harness.tempfile.mkdtemp(prefix="postern-move-"))
        self.make_postern, self.after = make_postern, None
        self.stop = lambda: None
        self.deliver(MESSAGES)

    def deliver(self, messages):
        if self.kind == "mbox":
            before = self.mbox.read_bytes() if self.mbox.exists() else b""
            self.mbox.write_bytes(before + harness.mbox(messages))
            os.chown(self.mbox, self.uid, 8)
            self.mbox.chmod(0o660)
            return
        for sub in ("tmp", "new", "cur"):
            (self.maildir / sub).mkdir(parents=True, exist_ok=True)
        there = sum(len(os.listdir(self.maildir / sub)) for sub in ("new", "cur"))
        for i, m in enumerate(messages, there + 1):
            f = self.maildir / "new" / ("17%08d.M%dP%d.host,S=%d" % (i, i, i, len(m)))
            f.write_bytes(m)
        for directory, names, files in os.walk(self.maildir):
            for name in [directory] + [os.path.join(directory, n) for n in names + files]:
                os.chown(name, self.uid, self.uid)

    def run(self, *argv):
        env = {"PATH": os.environ["PATH"], "HOME": str(self.client), "LC_ALL": "C", "USER": "root"}
        done = subprocess.run([str(a) for a in argv], env=env, capture_output=True, timeout=60, cwd=self.client, stdin=subprocess.DEVNULL)
        assert done.returncode in (0, 1), (argv, done.returncode, done.stdout[-2000:], done.stderr[-2000:])     # fetchmail: 1 is no new mail

    def fetchmail(self, port):
        """How many messages it fetches."""
        mda = self.client / "mda"
        mda.write_text("#!/bin/sh\nexec cat >'%s'/got.$$\n" % self.client)
        mda.chmod(0o700)
        rc = self.client / "rc"
        rc.write_text("set invisible\npoll 127.0.0.1 service %d protocol pop3 uidl\n username \"alice\" password \"%s\" is root here keep no rewrite "
                      "mda \"%s\" sslproto ''\n" % (port, self.password, mda))
        rc.chmod(0o600)
        before = len(list(self.client.glob("got.*")))
        self.run("fetchmail", "-f", rc, "--nosyslog", "--nodetach", "--pidfile", self.client / "pid", "--idfile", self.client / "ids")
        return len(list(self.client.glob("got.*"))) - before

    def mpop(self, port):
        target = self.client / "box"
        for sub in ("tmp", "new", "cur"):
            (target / sub).mkdir(parents=True, exist_ok=True)
        rc = self.client / "mpoprc"
        rc.touch(mode=0o600)
        before = len(os.listdir(target / "new"))
        self.run("mpop", "--host=127.0.0.1", "--port=%d" % port, "--user=alice", "--passwordeval=echo " + self.password, "--auth=user", "--tls=off",
                 "--received-header=off", "--delivery=maildir,%s" % target, "--uidls-file=%s" % (self.client / "uidls"), "--keep=on", "--file=%s" % rc)
        return len(os.listdir(target / "new")) - before

    def clients(self):
        return [f for f, name in ((self.fetchmail, "fetchmail"), (self.mpop, "mpop")) if shutil.which(name)]

    def ids(self, port):
        with harness.Client("127.0.0.1", port) as c:
            assert c.reply().startswith(b"+OK")
            c.login("alice", self.password)
            found = c.uidl()
            c.ok(b"QUIT")
        return list(found.values())

    def move(self, port, uidl_format):
        assert self.clients(), "no client that keeps mail on the server"
        old = self.ids(port)
        assert len(old) == len(MESSAGES)
        for fetch in self.clients():
            assert fetch(port) == len(MESSAGES)
            assert fetch(port) == 0
        assert self.ids(port) == old, "the old server does not keep its ids"
        self.stop()
        self.settle(uidl_format, old)

    def settle(self, uidl_format, old):
        """Postern in its place: by the tool, by the wire, and by the clients; and what comes then is new."""
        p = self.after = self.make_postern({"spoold": {"uidl-format": uidl_format, "store": self.kind}}, stage=self.stage)
        p.start()
        saved = p.dir / "alice.ids"
        saved.write_bytes(b"".join(b"%d %s\n" % row for row in enumerate(old, 1)))
        done = subprocess.run(self.stage.argv(p.argv("spoolctl", "uidl-diff", "alice", saved)), capture_output=True, text=True, timeout=harness.TIMEOUT)
        assert done.returncode == 0 and "%d of %d stay" % (len(old), len(old)) in done.stdout, done.stdout + done.stderr
        assert self.ids(p.port) == old
        for fetch in self.clients():
            assert fetch(p.port) == 0, "%s has downloaded mail again" % fetch.__name__
        self.deliver([MESSAGES[0].replace(b"id 1", b"id 99").replace(b"<1@", b"<99@")])
        for fetch in self.clients():
            assert fetch(p.port) == 1
        assert self.ids(p.port)[:len(old)] == old

    def close(self):
        self.stop()
        if self.after is not None:
            self.after.stop()
        self.mbox.unlink(missing_ok=True)
        for entry in self.home.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        shutil.rmtree(self.client)


@pytest.fixture
def moving(stage, make_postern):
    made = []

    def make(kind):
        made.append(Move(stage, make_postern, kind))
        return made[-1]
    yield make
    for m in made:
        m.close()


DOVECOT = """protocols = pop3
listen = 127.0.0.1
base_dir = %(dir)s/run
state_dir = %(dir)s/state
log_path = %(dir)s/log
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
mail_privileged_group = mail
first_valid_uid = 1000
service pop3-login {
  inet_listener pop3 {
    port = %(port)d
  }
  inet_listener pop3s {
    port = 0
  }
}
passdb {
  driver = passwd-file
  args = %(dir)s/users
}
userdb {
  driver = passwd-file
  args = %(dir)s/users
}
mail_location = %(mail)s
"""


def test_from_dovecot(moving, store, stage):
    dovecot = program("dovecot")
    if not os.path.exists("/usr/lib/dovecot/pop3-login"):
        program("dovecot-pop3d")
    m = moving(store)
    d = m.client / "dovecot"
    for sub in ("run", "state"):
        (d / sub).mkdir(parents=True)
    m.client.chmod(0o755)
    port = free_port()
    mail = "mbox:/home/alice/mail:INBOX=/var/mail/alice" if store == "mbox" else "maildir:/home/alice/Maildir"
    (d / "conf").write_text(DOVECOT % {"dir": d, "port": port, "mail": mail})
    (d / "users").write_text("alice:{PLAIN}%s:%d:%d::/home/alice::\n" % (m.password, m.uid, m.uid))
    master = harness.Watched("dovecot", stage.argv([dovecot, "-F", "-c", d / "conf"]))

    def stop():
        if master.process.poll() is None:
            master.process.terminate()
        master.process.wait(harness.TIMEOUT)
        master.close()
        m.stop = lambda: None
    m.stop = stop
    wait_for(port, master)
    m.move(port, "dovecot")


def wait_for(port, process):
    """Until somebody listens there; each refusal is looked at, and the process must live."""
    until = harness.time.monotonic() + harness.TIMEOUT
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), harness.TIMEOUT).close()
            return
        assert process.process.poll() is None and harness.time.monotonic() < until, process.log()
        threading.Event().wait(0.05)


def by_inetd(m, argv):
    server = Inetd(m.stage.argv(argv))

    def stop():
        server.close()
        m.stop = lambda: None
    m.stop = stop
    return server.port


def account(stage, name, uid):
    for file, row in (("passwd", "%s:x:%d:%d::/nonexistent:/bin/false\n" % (name, uid, uid)), ("group", "%s:x:%d:\n" % (name, uid))):
        text = (stage.etc / file).read_text()
        if not re.search("(?m)^%s:" % name, text):
            (stage.etc / file).write_text(text + row)


def pam_of(stage, name):
    path = stage.etc / "pam.d" / name
    path.write_text("auth required pam_unix.so\naccount required pam_unix.so\nsession required pam_permit.so\n")


def test_from_popa3d(moving, stage):
    popa3d = program("popa3d")
    account(stage, "popa3d", 60995)
    pam_of(stage, "popa3d")
    m = moving("mbox")
    # its chroot is a folder of its package
    into = "mount -t tmpfs tmpfs /var/lib && mkdir -m 755 /var/lib/popa3d && exec %s" % popa3d
    m.move(by_inetd(m, ["unshare", "-m", "sh", "-c", into]), "popa3d")


def test_from_mailutils(moving, stage):
    """It writes X-UIDL into the mailbox, and these are its ids."""
    pop3d = program("pop3d")
    pam_of(stage, "pop3d")
    pam_of(stage, "mailutils-pop3d")
    m = moving("mbox")
    conf = m.client / "mailutils.conf"
    conf.write_text("mode inetd;\nmailbox {\n  mail-spool /var/mail;\n};\nlogging {\n  syslog no;\n};\n")
    m.client.chmod(0o755)
    m.move(by_inetd(m, [pop3d, "--no-config", "--config-file=%s" % conf]), "mailutils")


def test_from_courier(moving, stage):
    """courierpop3d is what gives the ids; who logs in, courierpop3login's part, is played here."""
    courier = program("courierpop3d")
    m = moving("maildir")
    # it starts when the password has been taken: so that of the client is taken by a few lines of shell
    front = m.client / "front"
    front.write_text("#!/bin/sh\nprintf '+OK\\r\\n'\nwhile read -r command rest; do\n\tcase $command in\n\tCAPA*) printf -- '-ERR\\r\\n' ;;\n"
                     "\tUSER) printf '+OK\\r\\n' ;;\n\tPASS) break ;;\n\t*) printf -- '-ERR\\r\\n' ;;\n\tesac\ndone\ncd /home/alice\n"
                     "AUTHENTICATED=alice MAILDIR=Maildir AUTHADDR=alice exec setpriv --reuid=%d --regid=%d --clear-groups %s Maildir\n" % (m.uid, m.uid, courier))
    front.chmod(0o755)
    m.client.chmod(0o755)
    m.move(by_inetd(m, [front]), "courier")


def test_from_a_folder_of_cyrus(moving):
    """What etc/migration/cyrus-to-maildir makes of Cyrus' files has the ids UIDVALIDITY.UID, with a folder made by hand; test_from_cyrus runs Cyrus."""
    m = moving("maildir")
    shutil.rmtree(m.maildir)
    folder = m.client / "user"
    folder.mkdir()
    uids = [1, 2, 5, 9, 10, 11, 100]
    for uid, text in zip(uids, MESSAGES):
        (folder / ("%d." % uid)).write_bytes(harness.wire(text))
        os.utime(folder / ("%d." % uid), (1600000000 + uid, 1600000000 + uid))
    for name in ("cyrus.index", "cyrus.header"):
        (folder / name).write_bytes(b"\0")
    script = harness.REPO / "etc" / "migration" / "cyrus-to-maildir"
    subprocess.run([script, folder, "1289344021", m.maildir], check=True)
    assert subprocess.run([script, folder, "1289344021", m.maildir], stderr=subprocess.DEVNULL).returncode == 1     # never over another
    m.deliver([])
    m.clients = lambda: []      # nobody has fetched from Cyrus
    old = [b"1289344021.%d" % uid for uid in uids]
    m.settle("cyrus", old)
    with m.after.connect("alice", m.password) as c:
        assert [c.retr(n) for n in range(1, 8)] == [harness.wire(t) for t in MESSAGES]
        c.quit()


CYRUS = """configdirectory: %(dir)s/conf
defaultpartition: default
partition-default: %(dir)s/spool
proc_path: %(dir)s/proc
mboxname_lockpath: %(dir)s/lock
idlesocket: %(dir)s/idle
notifysocket: %(dir)s/notify
cyrus_user: system
cyrus_group: system
admins: system
autocreate_users: anyone
autocreate_quota: 0
unixhierarchysep: no
popminpoll: 0
allowplaintext: yes
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: %(dir)s/sasldb2
sasl_mech_list: PLAIN
"""
CYRUS_SERVICES = """START {
  recover cmd="%(bin)s/ctl_cyrusdb -C %(dir)s/imapd.conf -r"
}
SERVICES {
  imap cmd="%(bin)s/imapd -C %(dir)s/imapd.conf" listen="127.0.0.1:%(imap)d" prefork=0
  pop3 cmd="%(bin)s/pop3d -C %(dir)s/imapd.conf" listen="127.0.0.1:%(pop3)d" prefork=0
}
EVENTS {
}
"""


class Cyrus:
    """Cyrus on the stage, with mail of its own; one of the stage's accounts plays the user cyrus."""

    def __init__(self, m):
        self.m = m
        saslpasswd2, self.bin = program("saslpasswd2"), pathlib.Path(program("ctl_cyrusdb")).parent
        self.dir = m.stage.dir / "cyrus"
        for name in ("conf/db", "conf/log", "conf/msg", "conf/proc", "conf/socket", "conf/user", "conf/quota", "conf/lock", "spool", "proc", "lock"):
            (self.dir / name).mkdir(parents=True)
        self.imap, self.pop3 = free_port(), free_port()
        names = {"dir": self.dir, "bin": self.bin, "imap": self.imap, "pop3": self.pop3}
        (self.dir / "imapd.conf").write_text(CYRUS % names)
        (self.dir / "cyrus.conf").write_text(CYRUS_SERVICES % names)
        self.env = {**os.environ, "LD_LIBRARY_PATH": LIBRARIES if ROOT else "", "SASL_PATH": str(self.bin.parent.parent / "x86_64-linux-gnu/sasl2")}
        self.run(saslpasswd2, "-p", "-c", "-f", self.dir / "sasldb2", "alice", input=m.password.encode())
        subprocess.run(["chown", "-R", "%d:%d" % ((m.stage.USERS["system"],) * 2), self.dir], check=True)
        self.process = harness.Watched("cyrus", m.stage.argv([self.bin / "master", "-C", self.dir / "imapd.conf", "-M", self.dir / "cyrus.conf", "-D",
            "-p", self.dir / "pid"]), env=self.env)
        m.stop = self.stop
        for port in (self.imap, self.pop3):
            wait_for(port, self.process)

    def run(self, *argv, user=None, **how):
        done = subprocess.run(self.m.stage.argv(argv, user), env=self.env, capture_output=True, timeout=harness.TIMEOUT, **how)
        assert done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout

    def stop(self):
        self.m.stop = lambda: None
        self.process.process.terminate()
        self.process.process.wait(harness.TIMEOUT)
        self.process.kill()     # what serves a connection may outlive the master
        self.process.close()


def test_from_cyrus(moving, stage):
    """Cyrus itself: mail comes by IMAP, some of it is expunged; what docs/MIGRATION.md says is done when it is stopped."""
    m = moving("maildir")
    shutil.rmtree(m.maildir)
    cyrus = Cyrus(m)
    with imaplib.IMAP4("127.0.0.1", cyrus.imap) as c:
        c.login("alice", m.password)
        gone = [b"Subject: gone %d\n\ntext\n" % n for n in range(3)]
        for i, text in enumerate(MESSAGES[:2] + gone[:2] + MESSAGES[2:] + gone[2:]):
            assert c.append("INBOX", None, imaplib.Time2Internaldate(1600000000 + i), harness.wire(text))[0] == "OK"
        c.select("INBOX")
        for n in (3, 4, 10):
            assert c.store(str(n), "+FLAGS", "\\Deleted")[0] == "OK"
        assert c.expunge()[0] == "OK"
        validity = re.search(rb"UIDVALIDITY (\d+)", c.status("INBOX", "(UIDVALIDITY)")[1][0])[1].decode()
    stop = m.stop

    def copy():
        stop()
        folder = pathlib.Path(cyrus.run(cyrus.bin / "mbpath", "-C", cyrus.dir / "imapd.conf", "user.alice").decode().strip())
        left = len(list(folder.glob("*.")))
        assert left == len(MESSAGES) + len(gone)        # Cyrus has only marked them
        cyrus.run(cyrus.bin / "cyr_expire", "-C", cyrus.dir / "imapd.conf", "-X", "0")
        subprocess.run([harness.REPO / "etc" / "migration" / "cyrus-to-maildir", folder, validity, m.maildir], check=True)
        m.deliver([])
    m.stop = copy
    m.move(cyrus.pop3, "cyrus")
    with m.after.connect("alice", m.password) as c:
        assert [c.retr(n) for n in range(1, 8)] == [harness.wire(t) for t in MESSAGES]
        c.quit()
