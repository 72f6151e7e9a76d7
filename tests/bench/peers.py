"""Courier, Cyrus and GNU Mailutils, as their Debian packages have them, but for what a bench needs: other ports and folders, and no small limits on
the number of sessions from one address."""
import os
import pathlib
import shutil
import socket
import subprocess
import time

import mailbox_make as make
import servers as sv


class Courier(sv.Server):
    """couriertcpd starts courierpop3login, that asks authdaemond (through PAM, as Debian builds it) and becomes courierpop3d."""

    name, port = "courier", 11150
    kinds = ("maildir",)
    packages, folders = ("courier-pop", "courier-authdaemon"), ("courier/authdaemon",)

    def maildrop(self, kind, number):
        return sv.SRV / "home" / sv.user(kind, number) / "Maildir"

    def launch(self):
        auth = pathlib.Path("/run/courier/authdaemon")
        auth.chmod(0o755)
        self.run(["/bin/sh", "-c", "set -a; . /etc/courier/authdaemonrc; exec /usr/lib/courier/courier-authlib/authdaemond"])
        self.until(auth / "socket")
        self.run(["/usr/bin/env", "-i", "PATH=/usr/bin:/bin", "MAILDIRPATH=Maildir", "POP3_PROXY=0", "/usr/sbin/couriertcpd",
            "-address=127.0.0.1", "-maxprocs=6000", "-maxperip=6000", "-maxperc=6000", "-nodnslookup", "-noidentlookup", str(self.port),
            "/usr/lib/courier/courier/courierpop3login", "/usr/lib/courier/courier/courierpop3d", "Maildir"])

    def until(self, path):
        until = time.monotonic() + sv.WAIT
        while not path.exists():
            if time.monotonic() > until:
                raise SystemExit("bench: %s does not start; its log:\n%s" % (self.name, (self.dir / "log").read_text(errors="replace")[-3000:]))
            time.sleep(0.02)

    def forget(self, kind, number):
        (self.maildrop(kind, number) / "courierpop3dsizelist").unlink(missing_ok=True)

    def version(self):
        return "1.0.16"


class Mailutils(sv.Server):
    """A daemon that forks a process a session; logins through PAM, as Debian builds it."""

    name, port = "mailutils", 11160
    kinds = ("mbox",)
    packages, folders = ("mailutils-pop3d",), ()
    conf = """mode daemon;
max-children 6000;
foreground yes;
transcript no;
server 127.0.0.1:11160 {
  backlog 1024;
};
mailbox {
  mail-spool /srv/mailutils/mbox;
};
logging {
  syslog no;
};
"""

    def launch(self):
        (self.dir / "conf").write_text(self.conf)
        self.run(["/usr/sbin/pop3d", "--no-config", "--config-file=%s" % (self.dir / "conf")])

    def version(self):
        return "3.15"


class Cyrus(sv.Server):
    """
    The mail lies in a store of its own, a file a message beside an index; `reconstruct` makes the index of what is put there. So there is no first
    open to measure: what it costs is paid at delivery. Logins by SASL's own file of passwords, which are kept in the clear.
    """

    name, port = "cyrus", 11170
    kinds = ("maildir",)
    packages, folders = ("cyrus-pop3d", "libsasl2-modules", "libsasl2-modules-db", "sasl2-bin"), ("cyrus",)
    most, most_sessions = 100000, 1000
    imapd = """configdirectory: /srv/cyrus/conf
defaultpartition: default
partition-default: /srv/cyrus/spool
proc_path: /run/cyrus/proc
mboxname_lockpath: /run/cyrus/lock
cyrus_user: cyrus
mailbox_legacy_dirs: 1
autocreate_quota: 0
autocreate_users: anyone
admins: cyrus
hashimapspool: 0
unixhierarchysep: 0
popminpoll: 0
umask: 077
allowplaintext: yes
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: /srv/cyrus/sasldb2
sasl_mech_list: PLAIN
idlesocket: /run/cyrus/idle
notifysocket: /run/cyrus/notify
"""
    master = """START {
  recover cmd="/usr/lib/cyrus/bin/ctl_cyrusdb -C /srv/cyrus/imapd.conf -r"
}
SERVICES {
  pop3 cmd="/usr/lib/cyrus/bin/pop3d -C /srv/cyrus/imapd.conf -U 30" listen="127.0.0.1:11170" prefork=0 maxchild=6000
}
EVENTS {
}
"""

    def prepare(self):
        self.dir.mkdir(exist_ok=True)
        self.log = open(self.dir / "log", "ab")
        (self.dir / "imapd.conf").write_text(self.imapd)
        (self.dir / "cyrus.conf").write_text(self.master)
        for name in ("conf", "spool"):
            shutil.rmtree(self.dir / name, ignore_errors=True)
            (self.dir / name).mkdir()
        for name in ("db", "log", "msg", "proc", "socket", "user", "quota", "lock"):
            (self.dir / "conf" / name).mkdir()
        for name in ("proc", "lock"):
            os.makedirs("/run/cyrus/" + name, exist_ok=True)
        self.users_add(range(sv.USERS))
        for top in ("/srv/cyrus", "/run/cyrus"):
            subprocess.run(["chown", "-R", "cyrus:mail", top], check=True)

    def users_add(self, numbers):
        for n in numbers[:self.most_sessions]:
            subprocess.run(["saslpasswd2", "-p", "-c", "-f", "/srv/cyrus/sasldb2", sv.user("maildir", n)], input=sv.PASSWORD, text=True, check=True)

    def launch(self):
        self.run(["/usr/lib/cyrus/bin/master", "-C", self.dir / "imapd.conf", "-M", self.dir / "cyrus.conf", "-D", "-l", "5000",
            "-p", "/run/cyrus/master.pid"])

    def version(self):
        return "3.6.1"

    def maildrop(self, kind, number):
        return self.dir / "spool/user" / sv.user(kind, number)

    def fill(self, kind, number, count, octets, cur=True, sizes=True):
        self.remove(kind, number)
        self.add(kind, number, 1, count, octets)

    def deliver(self, kind, number, count, octets, generation, sizes=True):
        self.add(kind, number, 1 + max((int(p.name[:-1]) for p in self.maildrop(kind, number).glob("*.") if p.name[:-1].isdigit()), default=0),
            count, octets)

    def remove(self, kind, number):
        path = self.maildrop(kind, number)
        if path.is_dir():
            for entry in os.scandir(path):
                if entry.name.endswith(".") or entry.name in ("cyrus.index", "cyrus.cache"):
                    os.unlink(entry.path)
            self.reconstruct(kind, number)

    def remove_many(self, kind, number):
        pass        # its whole store goes at the end; an index for each would take a minute

    def add(self, kind, number, first, count, octets):
        """Files where Cyrus would have put them, then its index of them. It stores CRLF line ends."""
        path = self.maildrop(kind, number)
        if not path.is_dir():
            self.session(sv.user(kind, number))     # a first login makes the mailbox
        tail, owner = make.body(octets), sv.SYSTEM_USERS["cyrus"]
        for n in range(first, first + count):
            with open(path / ("%d." % n), "wb") as f:
                f.write(make.message(n, octets, tail).replace(b"\n", b"\r\n"))
                os.fchown(f.fileno(), owner, 8)
        self.reconstruct(kind, number)

    def reconstruct(self, kind, number):
        done = subprocess.run(["setpriv", "--reuid=cyrus", "--regid=mail", "--clear-groups", "--", "/usr/lib/cyrus/bin/reconstruct",
            "-C", "/srv/cyrus/imapd.conf", "user." + sv.user(kind, number)], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit("bench: cyrus: reconstruct: %s" % done.stderr)

    def session(self, user):
        with socket.create_connection(("127.0.0.1", self.port), sv.WAIT) as s, s.makefile("rwb") as f:
            for command in (None, "USER " + user, "PASS " + sv.PASSWORD, "QUIT"):
                if command is not None:
                    f.write(command.encode() + b"\r\n")
                    f.flush()
                answer = f.readline()
                if not answer.startswith(b"+OK"):
                    raise SystemExit("bench: cyrus: %s" % answer.decode(errors="replace"))
