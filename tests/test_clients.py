"""Real clients fetch, leave and delete real mail; what they receive is what is on disk."""
import os
import pathlib
import poplib
import shutil
import subprocess

import pytest

import harness
from harness import PASSWORD, mbox, wire

MESSAGES = [
    b"From: a@example.org\nTo: u@example.org\nSubject: plain\nMessage-ID: <1@x>\nDate: Sat, 03 Jan 1998 01:05:34 +0000\n\nHello.\n",
    b"From: b@example.org\nTo: u@example.org\nSubject: dots\nMessage-ID: <2@x>\n\n.\n..\n.a dot\n\n.\nend\n",
    b"From: c@example.org\nTo: u@example.org\nSubject: 8 bit\nMessage-ID: <3@x>\nContent-Type: text/plain; charset=iso-8859-1\n\n"
    + b"\xe4\xf6\xfc\xdf " * 20 + b"\n",
    b"From: d@example.org\nTo: u@example.org\nSubject: long\nMessage-ID: <4@x>\n\n" + b"".join(b"%d %s\n" % (i, b"x" * (i % 77)) for i in range(5000)),
    b"From: e@example.org\nTo: u@example.org\nSubject: from\nMessage-ID: <5@x>\n\ntext\n>From the start\nFrom here on\n",
    b"From: f@example.org\nTo: u@example.org\nSubject: only a header\nMessage-ID: <6@x>\n\n",
]
needs = lambda program: pytest.mark.skipif(shutil.which(program) is None, reason="%s is not installed" % program)  # noqa: E731


class Box:
    def __init__(self, postern, store):
        self.p, self.store = postern, store
        self.path = postern.user("u", store, MESSAGES)
        self.home = postern.dir / "home"
        self.home.mkdir(mode=0o700)
        postern.own(self.home)
        postern.start()
        self.port = postern.port

    def write(self, name, text):
        path = self.home / name
        path.write_text(text)
        path.chmod(0o600)
        return self.p.own(path)

    def run(self, *argv, check=True, **more):
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C", "USER": "nobody", "LOGNAME": "nobody",
               "RES_OPTIONS": "timeout:1 attempts:1"}      # mpop asks for this host's own name: without /etc/hosts, a DNS that may not answer
        done = subprocess.run([str(a) for a in argv], env=env, capture_output=True, timeout=60, cwd=self.home, stdin=subprocess.DEVNULL,
                              **self.p.popen_as(), **more)
        if check:
            assert done.returncode == 0, (argv, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
        return done

    def left(self):
        """The subjects of what is still in the maildrop."""
        if self.store == "mbox":
            content = self.path.read_bytes()
            left = [m for m in MESSAGES if m in content]
            assert content == mbox(left)
            return left
        found = sorted((n, (self.path / sub / n).read_bytes()) for sub in ("new", "cur") for n in os.listdir(self.path / sub))
        return [m for _, m in found]


@pytest.fixture
def box(postern, store):
    return Box(postern, store)


def delivered(maildir):
    """What is there, without the line that getmail puts on top."""
    return sorted((maildir / sub / n).read_bytes().removeprefix(b"Return-Path: <unknown>\n") for sub in ("new", "cur") for n in os.listdir(maildir / sub))


@needs("curl")
@pytest.mark.parametrize("options", [[], ["--login-options", "AUTH=PLAIN"], ["--login-options", "AUTH=LOGIN"],
                                     ["--login-options", "AUTH=PLAIN", "--sasl-ir"]])
def test_curl(box, options):
    base = "pop3://127.0.0.1:%d/" % box.port
    run = lambda *a: box.run("curl", "-sS", "--user", "u:" + PASSWORD, *options, *a).stdout  # noqa: E731
    listing = run(base)
    assert listing == b"".join(b"%d %d\r\n" % (n, len(wire(m))) for n, m in enumerate(MESSAGES, 1))
    for n, m in enumerate(MESSAGES, 1):
        assert run(base + str(n)) == wire(m)
    assert run("-X", "UIDL", base).count(b"\r\n") == len(MESSAGES)
    assert run("-X", "TOP 1 0", base).startswith(b"From: a@example.org\r\n")
    assert box.left() == MESSAGES
    box.run("curl", "-sS", "--user", "u:" + PASSWORD, "-X", "DELE", "--head", base + "2", check=False)
    assert box.left() == MESSAGES[:1] + MESSAGES[2:]
    wrong = box.run("curl", "-sS", "--user", "u:wrong", base, check=False)
    assert wrong.returncode == 67


@needs("fetchmail")
@pytest.mark.parametrize("keep", [True, False])
def test_fetchmail(box, keep):
    got = box.home / "got"
    mda = box.write("mda", "#!/bin/sh\nexec cat >'%s'/got.$$\n" % box.home)
    mda.chmod(0o700)
    rc = box.write("rc", """set invisible
poll 127.0.0.1 service %d protocol pop3 uidl
    username "u" password "%s" is nobody here %s no rewrite mda "%s" sslproto ''
""" % (box.port, PASSWORD, "keep" if keep else "nokeep", mda))
    box.run("fetchmail", "-f", rc, "--nosyslog", "--nodetach", "--pidfile", box.home / "pid", "--idfile", box.home / "ids", "--all")
    received = sorted(f.read_bytes() for f in box.home.glob("got.*"))
    assert received == sorted(MESSAGES) and not got.exists()
    assert box.left() == (MESSAGES if keep else [])


@needs("mpop")
@pytest.mark.parametrize("auth", ["user", "plain", "login"])
def test_mpop(box, auth):
    target = box.p.maildir("target")
    options = ["--host=127.0.0.1", "--port=%d" % box.port, "--user=u", "--passwordeval=echo " + PASSWORD, "--auth=" + auth, "--tls=off",
               "--received-header=off", "--delivery=maildir," + str(target), "--uidls-file=" + str(box.home / "uidls"), "--file="]
    box.run("mpop", *options[:-1], "--file=" + str(box.write("mpoprc", "")), "--keep=on")
    assert delivered(target) == sorted(MESSAGES)
    assert box.left() == MESSAGES
    box.run("mpop", *options[:-1], "--file=" + str(box.home / "mpoprc"), "--keep=on")
    assert len(delivered(target)) == len(MESSAGES), "the ids of a second session were not those of the first"
    box.run("mpop", *options[:-1], "--file=" + str(box.home / "mpoprc"), "--keep=off", "--only-new=off")
    assert box.left() == []


class LostChild(Exception):
    """getmail missed the end of the child that delivers, waits for it and gives up: it does, now and then, if that is quick."""


def getmail(box):
    target = box.p.maildir("target")
    text = """[retriever]
type = SimplePOP3Retriever
server = 127.0.0.1
port = %d
username = u
password = %s
timeout = 5
[destination]
type = Maildir
path = %s/
[options]
delivered_to = false
received = false
read_all = %s
delete = %s
message_log = %s/log
"""

    def run(read_all, delete):
        box.write("rc", text % (box.port, PASSWORD, target, read_all, delete, box.home))
        done = box.run("getmail", "--getmaildir", box.home, "--rcfile", "rc", check=False)
        if b"waiting child pid" in done.stdout + done.stderr:
            raise LostChild
        assert done.returncode == 0, (done.stdout, done.stderr)

    run("false", "false")
    assert delivered(target) == sorted(MESSAGES)
    run("false", "false")
    assert len(delivered(target)) == len(MESSAGES)
    assert box.left() == MESSAGES
    run("true", "true")
    assert box.left() == []


@needs("getmail")
def test_getmail(make_postern, store):
    for _ in range(5):
        try:
            return getmail(Box(make_postern(), store))
        except LostChild:
            continue
    pytest.fail("getmail lost its child five times")


def test_poplib(box):
    def open_box():
        c = poplib.POP3("127.0.0.1", box.port, timeout=30)
        c.user("u")
        c.pass_(PASSWORD)
        return c
    c = open_box()
    assert c.stat() == (len(MESSAGES), sum(len(wire(m)) for m in MESSAGES))
    assert [int(r.split()[1]) for r in c.list()[1]] == [len(wire(m)) for m in MESSAGES]
    for n, m in enumerate(MESSAGES, 1):
        _, lines, octets = c.retr(n)
        assert b"".join(row + b"\r\n" for row in lines) == wire(m)
        assert octets == len(wire(m))
    assert c.top(1, 0)[1][-1] == b""
    assert "TOP" in c.capa() and "UIDL" in c.capa()
    c.dele(1)
    c.rset()
    c.dele(3)
    c.noop()
    assert len(c.uidl()[1]) == len(MESSAGES) - 1
    c.quit()
    assert box.left() == MESSAGES[:2] + MESSAGES[3:]
    with pytest.raises(poplib.error_proto):
        c = poplib.POP3("127.0.0.1", box.port, timeout=30)
        c.user("u")
        try:
            c.pass_("wrong")
        finally:
            c.close()


PERL = r"""
use strict; use Net::POP3;
my ($port, $password, $out) = @ARGV;
my $pop = Net::POP3->new("127.0.0.1", Port => $port, Timeout => 30) or die "no connection";
my $count = $pop->login("u", $password) or die "no login";
my $list = $pop->list;
die "list" unless keys %$list == $count;
for my $n (sort { $a <=> $b } keys %$list) {
	open my $f, ">", "$out/$n" or die; binmode $f;
	$pop->get($n, $f) or die "get $n"; close $f or die;
}
die "top" unless @{$pop->top(1, 0)} > 2;
die "uidl" unless keys %{$pop->uidl} == $count;
$pop->delete(2) or die; $pop->reset; $pop->delete(4) or die;
$pop->quit or die "quit";
"""


def test_net_pop3(box):
    out = box.home / "out"
    out.mkdir()
    box.p.own(out)
    box.run("/usr/bin/perl", box.write("c.pl", PERL), box.port, PASSWORD, out)
    for n, m in enumerate(MESSAGES, 1):
        # Net::POP3 hands lines on with a local end
        assert (out / str(n)).read_bytes().replace(b"\r\n", b"\n") == m
    assert box.left() == MESSAGES[:3] + MESSAGES[4:]


def test_the_clients_are_there():
    """On a machine that `bootstrap check` prepared none of these is missing."""
    missing = [c for c in ("curl", "fetchmail", "mpop", "getmail", "perl") if shutil.which(c) is None]
    assert not missing, "not installed: %s" % missing
    assert pathlib.Path("/usr/bin/python3").exists() and harness.BUILD.exists()
