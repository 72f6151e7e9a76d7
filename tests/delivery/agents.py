"""The delivery agents of Debian's packages, each with its own locking, and how each is told to deliver where.

An agent is a class: `name`, `needs()` (why it cannot run here, or None), start()/stop() for those that are daemons, and plan(): what
deliver.py is told. Postfix and Exim may not be installed together, and need not be at all: their packages, and those of GNU mailutils, are
unpacked into build/agents and laid over /usr on the stage.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading

import harness

HERE = pathlib.Path(__file__).resolve().parent
UNPACKED = harness.BUILD / "agents"
MTAS = {"postfix": ["postfix"], "exim": ["exim4-daemon-light", "exim4-base"]}
MAILUTILS = {"mailutils": ["mailutils", "mailutils-common", "libmailutils9", "guile-3.0-libs", "libgc1", "libltdl7", "libmariadb3", "libpq5",
    "libpython3.11", "libfribidi0", "libldap-2.5-0", "libncurses6", "libreadline8"]}
MAIL = 8        # the group


class AgentStage(harness.Stage):
    """A stage with the accounts of the mail servers, and their programs."""

    USERS = {**harness.Stage.USERS, "postfix": 60980, "postdrop": 60981, "Debian-exim": 60982}
    RACERS = {"racer%d" % i: 61100 + i for i in range(40)}      # of store db, with a uid of the system's

    def __init__(self, mailutils=False):
        self.USERS = {**self.USERS, **self.RACERS}
        super().__init__()
        self.over = {**MTAS, **(MAILUTILS if mailutils else {})}
        for name, uid in self.RACERS.items():
            home = self.path("/home/" + name)
            home.mkdir(mode=0o700)
            os.chown(home, uid, uid)
        self.missing = unpack(self.over)
        if self.missing is None:
            self.lay_over()

    def lay_over(self):
        done = subprocess.run(self.argv(["mount", "-t", "overlay", "postern-agents", "-o",
            "lowerdir=%s:/usr" % ":".join("%s/%s/usr" % (UNPACKED, name) for name in self.over), "/usr"]), capture_output=True)
        if done.returncode != 0:
            self.missing = "their programs cannot be laid over /usr: " + done.stderr.decode(errors="replace").strip()

    def has(self, program):
        return self.path(program).exists()


def unpack(wanted):
    """The programs of Debian's packages, a folder for each name. None, or why they are not there."""
    wanted = {name: packages for name, packages in wanted.items() if not (UNPACKED / name).exists()}
    if not wanted:
        return None
    UNPACKED.mkdir(exist_ok=True)
    into = pathlib.Path(tempfile.mkdtemp(prefix="agents-", dir=harness.BUILD))
    try:
        for name, packages in wanted.items():
            (into / "deb" / name).mkdir(parents=True)
            (into / name).mkdir()
            subprocess.run(["apt-get", "-q", "download", *packages], cwd=into / "deb" / name, check=True, capture_output=True, timeout=120)
            for package in (into / "deb" / name).iterdir():
                subprocess.run(["dpkg", "-x", package, into / name], check=True, capture_output=True)
            (into / name).rename(UNPACKED / name)
    except (OSError, subprocess.SubprocessError) as e:
        return "its package cannot be unpacked: %s" % e
    finally:
        shutil.rmtree(into)
    return None


class Place:
    """Where an agent delivers: a user, a store, the path as processes there know it, and who that user is."""

    def __init__(self, user, store, path, home, uid, stage=None):
        self.user, self.store, self.path, self.home, self.uid, self.stage = user, store, path, home, uid, stage

    def write(self, name, text, mode=0o600):
        """A file of the user's in the home directory, by that name there."""
        path = self.stage.path(self.home) / name if self.stage else pathlib.Path(self.home, name)
        path.write_text(text)
        path.chmod(mode)
        if harness.IS_ROOT:
            os.chown(path, self.uid, self.uid)
        return "%s/%s" % (self.home, name)


class Agent:
    program = None
    unprivileged = False
    rewrites = False        # changes messages that are there already
    tells = False           # it calls on_one() itself when it has delivered one; of others, their process has ended then
    on_one = staticmethod(lambda: None)
    crowd, pace = 48, 0.05     # in a long race so many are at work, since those that find the mailbox locked sleep for seconds

    def __init__(self, place, scratch):
        self.place, self.scratch = place, scratch

    def needs(self):
        there = self.place.stage.has(self.program) if self.place.stage else os.path.exists(self.program)
        if there:
            return None
        return "%s is not installed%s" % (self.program, "; " + self.place.stage.missing if self.place.stage and self.place.stage.missing else "")

    def start(self):
        pass

    def stop(self):
        pass

    def plan(self):
        raise NotImplementedError

    def wait(self, count):
        """Until all that it took over is delivered: most deliver before they end."""


class Procmail(Agent):
    name, program, unprivileged = "procmail", "/usr/bin/procmail", True

    def plan(self):
        p = self.place
        if p.stage is None:
            return {"argv": [self.program, "-f", "sender@example.org", "DEFAULT=%s%s" % (p.path, "/" if p.store == "maildir" else ""), "/dev/null"]}
        if p.store == "maildir":
            p.write(".procmailrc", "DEFAULT=$HOME/Maildir/\n")
        return {"argv": [self.program, "-d", p.user]}


class Maildrop(Agent):
    name, program, unprivileged = "maildrop", "/usr/bin/maildrop", True

    def plan(self):
        p = self.place
        if p.stage is None:
            return {"argv": [self.program, p.write("filter-%s" % p.user, 'to "%s"\n' % p.path)]}
        if p.store == "maildir":
            p.write(".mailfilter", 'to "%s"\n' % p.path)
        return {"argv": [self.program, "-d", p.user]}


class Dovecot(Agent):
    name, program, unprivileged = "dovecot-lda", "/usr/lib/dovecot/dovecot-lda", True
    rewrites = True         # counts in an X-IMAPbase of the first message
    crowd = 4

    def plan(self):
        p = self.place
        where = "mbox:%s/dovecot-%s:INBOX=%s" % (p.home, p.user, p.path) if p.store == "mbox" else "maildir:%s" % p.path
        conf = p.write("dovecot-%s.conf" % p.user, "protocols =\nssl = no\nlog_path = /dev/stderr\nmail_location = %s\nmail_home = %s\n"
            "postmaster_address = postmaster@localhost\nhostname = localhost\nstats_writer_socket_path =\n" % (where, p.home))
        plan = {"argv": [self.program, "-c", conf, "-f", "sender@example.org"], "env": {"HOME": p.home, "USER": p.user}}
        if p.stage is not None:
            plan["identity"] = [p.uid, p.uid, [MAIL]]
        return plan


class Exim(Agent):
    name, program = "exim", "/usr/sbin/exim4"
    crowd, tells = 8, True
    log = None

    def start(self):
        """What it delivers is told by its log: one that found the mailbox locked is in the queue, and others for that user with it."""
        (self.scratch / "exim").mkdir()
        path = self.scratch / "exim/log-main"
        path.touch()
        for each in (path, path.parent):
            os.chown(each, self.place.stage.USERS["Debian-exim"], self.place.stage.USERS["Debian-exim"])
        self.log = subprocess.Popen(["tail", "-n", "+1", "-F", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        threading.Thread(target=self._follow, args=(self.log.stdout,), daemon=True).start()

    def _follow(self, rows):
        for row in rows:
            if b" => " in row:
                self.on_one()

    def stop(self):
        if self.log is not None:
            self.log.terminate()
            self.log.wait()
            self.log = None

    def plan(self):
        p = self.place
        spool = self.scratch / "exim"
        self.scratch.chmod(0o755)
        how = ("  file = /var/mail/$local_part_data\n  group = mail\n  mode = 0660\n  mode_fail_narrower = false\n" if p.store == "mbox" else
               "  directory = /home/$local_part_data/Maildir\n  maildir_format\n")
        conf = self.scratch / "exim.conf"
        conf.write_text("primary_hostname = localhost\nspool_directory = %s\nlog_file_path = %s/log-%%s\nlog_timezone = false\n"
            "never_users =\nbegin routers\nhere:\n  driver = accept\n  check_local_user\n  transport = local_delivery\n"
            "begin transports\nlocal_delivery:\n  driver = appendfile\n%s  delivery_date_add\n  envelope_to_add\n  return_path_add\n"
            "begin retry\n* * F,1h,1s\n" % (spool, spool, how))
        return {"argv": [self.program, "-C", str(conf), "-oi", "-odf", "-f", "sender@example.org", p.user + "@localhost"],
                "env": {"LC_ALL": "C"}, "at_once": 4}

    def wait(self, count):
        """A message that found the mailbox locked is in the queue."""
        p = self.place
        for _ in range(100):
            run = [self.program, "-C", str(self.scratch / "exim.conf")]
            left = subprocess.run(p.stage.argv([*run, "-bpc"]), capture_output=True, text=True, timeout=60).stdout.strip()
            if left == "0":
                return
            runners = [subprocess.Popen(p.stage.argv([*run, "-qff"]), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL) for _ in range(min(self.crowd, 1 + int(left) // 20))]
            for r in runners:
                r.wait(3600)
        log = (self.scratch / "exim/log-main").read_text()
        raise harness.Failed("exim: %s messages remain in its queue\n%s" % (left, log[-2000:]))


class Postfix(Agent):
    name, program = "postfix", "/usr/lib/postfix/sbin/local"
    crowd, tells = 4, True      # this many hand it in; it delivers two at a time
    QUEUES = ("active bounce corrupt defer deferred flush hold incoming saved trace private pid public maildrop").split()

    def start(self):
        stage, d = self.place.stage, self.scratch / "postfix"
        d.mkdir()
        self.scratch.chmod(0o755)
        owner, group = stage.USERS["postfix"], stage.USERS["postdrop"]
        for name in ("conf", "data", "queue", *("queue/" + q for q in self.QUEUES)):
            (d / name).mkdir()
            (d / name).chmod(0o755 if name in ("conf", "queue", "queue/pid") else 0o700)
            if name not in ("conf", "queue", "queue/pid"):
                os.chown(d / name, owner, 0)
        for name, mode in (("maildrop", 0o1730), ("public", 0o2710)):
            os.chown(d / "queue" / name, owner, group)
            (d / "queue" / name).chmod(mode)
        keys = {"compatibility_level": "3.6", "queue_directory": d / "queue", "data_directory": d / "data", "mail_owner": "postfix",
                "setgid_group": "postdrop", "daemon_directory": "/usr/lib/postfix/sbin", "command_directory": "/usr/sbin",
                "shlib_directory": "/usr/lib/postfix", "meta_directory": d / "conf", "maillog_file": "/dev/stdout",
                "myhostname": "localhost", "mydestination": "localhost", "mynetworks": "127.0.0.0/8", "inet_interfaces": "loopback-only",
                "inet_protocols": "ipv4", "alias_maps": "", "alias_database": "", "local_recipient_maps": "", "mailbox_size_limit": "0",
                "minimal_backoff_time": "1s", "queue_run_delay": "1s", "maximal_backoff_time": "2s", "biff": "no"}
        if self.place.store == "maildir":
            keys["home_mailbox"] = "Maildir/"
        (d / "conf/main.cf").write_text("".join("%s = %s\n" % kv for kv in keys.items()))
        rows = ["%s unix %s %s n - 0 %s" % r for r in (
            ("cleanup", "n", "-", "cleanup"), ("rewrite", "-", "-", "trivial-rewrite"), ("bounce", "-", "-", "bounce"),
            ("defer", "-", "-", "bounce"), ("trace", "-", "-", "bounce"), ("error", "-", "-", "error"), ("retry", "-", "-", "error"),
            ("local", "-", "n", "local"))]
        rows += ["pickup    unix n - n 1 1 pickup", "qmgr      unix n - n 5 1 qmgr", "postlog   unix-dgram n - n - 1 postlogd"]
        (d / "conf/master.cf").write_text("\n".join(rows) + "\n")
        self.lines, self.changed, self.ended = [], threading.Condition(), False
        self.master = subprocess.Popen(stage.argv(["/usr/lib/postfix/sbin/master", "-c", d / "conf", "-s"]), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        threading.Thread(target=self._collect, daemon=True).start()
        self._await(lambda: any("daemon started" in x for x in self.lines), "it did not start")

    def _collect(self):
        for line in self.master.stdout:
            with self.changed:
                self.lines.append(line.decode(errors="replace").rstrip())
                self.changed.notify_all()
            if b"status=sent (delivered to" in line:
                self.on_one()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def _await(self, what, why, timeout=900):
        with self.changed:
            if not self.changed.wait_for(lambda: what() or self.ended, timeout) or self.ended:
                raise harness.Failed("postfix: %s\n%s" % (why, "\n".join(self.lines[-40:])))

    def plan(self):
        return {"argv": ["/usr/sbin/sendmail", "-C", str(self.scratch / "postfix/conf"), "-oi", "-f", "sender@example.org", self.place.user + "@localhost"]}

    def wait(self, count):
        self._await(lambda: sum("status=sent (delivered to" in x for x in self.lines) >= count, "not all of it was delivered")
        bad = [x for x in self.lines if "status=bounced" in x]
        if bad:
            raise harness.Failed("postfix: %s" % bad)

    def stop(self):
        self.master.terminate()
        self.master.wait(harness.TIMEOUT)
        self.master.stdout.close()


ALL = {a.name: a for a in (Procmail, Maildrop, Dovecot, Postfix, Exim)}


def script(folder, name="deliver.py"):
    """A script and what it imports, where any user may read it: the tree itself may lie in somebody's private home."""
    for each in (name, "numbered.py"):
        shutil.copyfile(HERE / each, os.path.join(folder, each))
        os.chmod(os.path.join(folder, each), 0o644)
    os.chmod(folder, 0o755)
    return os.path.join(folder, name)


def deliver(agent, first, last, on_one, many=False):
    """Delivers these numbers through this agent, calls on_one() for each that it has taken, and returns once all are delivered."""
    plan = {**agent.plan(), "first": first, "last": last}
    if many:
        plan.update(at_once=agent.crowd, pace=agent.pace, seconds=float(os.environ.get("RACES_SECONDS", "1e9")))
    agent.on_one = on_one
    with tempfile.TemporaryDirectory(prefix="postern-deliver-") as folder:
        _deliver(agent, [sys.executable, script(folder), json.dumps(plan)], on_one)


def _deliver(agent, argv, on_one):
    how = {"cwd": "/"}
    if agent.place.stage is not None:
        argv = agent.place.stage.argv(argv)
    elif harness.IS_ROOT:
        how.update(user=agent.place.uid, group=agent.place.uid, extra_groups=[])
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **how)
    agent.taken, said = [], []
    for line in process.stdout:
        if line.strip().isdigit():
            agent.taken.append(int(line))
            if not agent.tells:
                on_one()
        else:
            said.append(line)
    process.stdout.close()
    if process.wait() != 0:
        raise harness.Failed("%s: %s" % (agent.name, "".join(said)[-2000:]))
    agent.wait(len(agent.taken))
