"""authctl at its edges: what it prints that cannot be printed, odd passwords and names, somebody else's store, signals."""
import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import termios

import pytest

import harness
from harness import CHEAP, PASSWORD
from test_login import Scram, sasl

MESSAGES = [b"Subject: one\n\n1\n"]
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")


@pytest.fixture
def p(make_postern):
    """A Postern with the user u, nothing of it started."""
    p = make_postern({"authd": {"mechanisms": "SCRAM-SHA-256 PLAIN LOGIN USER"}})
    p.user("u", "maildir", MESSAGES)
    return p


def shell(p, redirections, program, *args):
    """A tool under a shell that opens and closes its descriptors."""
    argv = [str(x) for x in p.argv(program, *args)]
    return subprocess.run(["/bin/sh", "-c", 'exec "$@" ' + redirections, "sh", *argv], capture_output=True, timeout=harness.TIMEOUT,
                          **p.popen_as())


def files(p):
    """What there is of the store."""
    return {f.name: f.read_bytes() for f in p.dir.glob("*.db*")}


# standard descriptors

def test_no_file_takes_the_place_of_a_closed_descriptor(p):
    """An error text would be written into the store, which is the first file that is opened."""
    p.authctl("secret", "u")    # the key is there
    before = files(p)
    done = shell(p, ">&- 2>&- <&-", "authctl", "app", "add", "u", "phone")
    assert done.returncode == 1 and files(p) == before
    assert shell(p, ">&- 2>&- <&-", "authctl", "app", "del", "u", "none").returncode == 1 and files(p) == before
    assert shell(p, ">&- 2>&- <&-", "authctl", "lock", "u").returncode == 0
    assert json.loads(p.authctl("list", "--json").stdout)[0]["locked"]
    done = shell(p, ">&-", "authctl", "list")
    assert done.returncode == 1 and b"cannot write" in done.stderr


@pytest.mark.root
def test_the_store_is_no_standard_error(make_postern, stage):
    """Without an account for authd authctl has something to say while the store is open."""
    p = make_postern({"authd": {"user": "no-such-account"}}, stage=stage)
    p.add("x")
    argv = [str(x) for x in p.argv("authctl", "app", "add", "x", "phone")]
    done = subprocess.run(stage.argv(["/bin/sh", "-c", '"$@" >&- 2>&-', "sh", *argv]), timeout=harness.TIMEOUT)
    assert b"account" not in (p.dir / "users.db").read_bytes() and done.returncode == 1
    assert json.loads(p.authctl("list", "--json").stdout)[0]["apps"] == 0


@FULL
@pytest.mark.parametrize("argv", [("list",), ("list", "--json"), ("app", "list", "u"), ("cert", "list", "u"), ("client-config", "u"), ("-V",), ("-h",),
                                  ("-t",)], ids=" ".join)
def test_what_cannot_be_written_is_no_success(p, argv):
    p.authctl("app", "add", "u", "phone")
    p.authctl("cert", "add", "u", "ab" * 32)
    done = shell(p, ">/dev/full", "authctl", *argv)
    assert done.returncode == 1 and done.stderr.count(b"cannot write") == 1 and b"No space left" in done.stderr


@FULL
def test_spoolctl_that_cannot_write_says_so(p):
    p.start("spoold", "authd")
    for argv in (("who", "--json"), ("show", "u", "--json"), ("metrics",), ("doctor",), ("recover",)):
        done = shell(p, ">/dev/full", "spoolctl", *argv)
        assert done.returncode == 1 and done.stderr.count(b"cannot write") == 1, argv
    assert shell(p, ">&- 2>&-", "spoolctl", "recover").returncode == 1


@FULL
def test_a_password_that_nobody_saw_is_not_in_force(p):
    """And takes no older one's place."""
    old = p.authctl("secret", "u").stdout
    before = files(p)
    for argv in (("secret", "u"), ("app", "add", "u", "phone")):
        done = shell(p, ">/dev/full", "authctl", *argv)
        assert done.returncode == 1 and b"nothing was changed" in done.stderr, argv
        assert files(p) == before
    assert p.authctl("secret", "u").stdout != old and files(p) != before
    assert len(p.authctl("app", "add", "u", "phone").stdout) == 35


# passwords

def logins(p, user, password):
    """By which ways this password opens the user's maildrop."""
    user, password = os.fsencode(user), os.fsencode(password)
    good = set()
    with p.connect() as c:
        c.ok(b"USER " + user)
        if c.cmd(b"PASS " + password).startswith(b"+OK"):
            good.add("PASS")
    answers = [user, password]
    with p.connect() as c:
        if sasl(c, b"LOGIN", lambda _: answers.pop(0)).startswith(b"+OK"):
            good.add("LOGIN")
    with p.connect() as c:
        if sasl(c, b"PLAIN", lambda _: b"\0%s\0%s" % (user, password)).startswith(b"+OK"):
            good.add("PLAIN")
    with contextlib.suppress(UnicodeError), p.connect() as c:      # its clients speak UTF-8
        client = Scram(user.decode(), password.decode())
        if sasl(c, b"SCRAM-SHA-256", client.answer, client.first).startswith(b"+OK"):
            good.add("SCRAM")
    return good


ALL = {"PASS", "LOGIN", "PLAIN", "SCRAM"}


@pytest.mark.parametrize("password", ["pass\U0001f600word", "\u0560abc", "Latin-1: \udce9\udce8"], ids=["emoji", "unassigned", "latin-1"])
def test_a_password_that_saslprep_refuses_is_one(p, password):
    p.start()
    done = p.authctl("passwd", "u", *CHEAP, password=password)
    assert b"note: u: SASLprep" in done.stderr
    assert logins(p, "u", password) == (ALL if password[0] != "L" else ALL - {"SCRAM"})
    assert p.authctl("test", "u", password=password).stdout.endswith(b"u: ok\n")


def test_an_unassigned_character_beside_another_form(p):
    """What SASLprep would make of the rest is made of it by every way to log in."""
    p.start()
    p.authctl("passwd", "u", *CHEAP, password="\u0560e\u0301")
    for password in ("\u0560e\u0301", "\u0560\u00e9"):
        assert logins(p, "u", password) >= {"PASS", "LOGIN", "PLAIN"}, password
        assert ("SCRAM" in logins(p, "u", password)) == (password == "\u0560\u00e9")     # the test's client prepares nothing


def test_a_password_out_of_a_file_of_another_system(p):
    p.start()
    assert p.authctl("passwd", "u", *CHEAP, password="secret-8\r").stderr == b""
    assert logins(p, "u", "secret-8") == ALL


def test_control_characters_are_named(p):
    before = files(p)
    for password, name in (("a\tb", b"a TAB (octet 0x09)"), ("a\rb", b"a CR (octet 0x0d)"), ("a\x1bb", b"(octet 0x1b)"), ("\x7f", b"0x7f")):
        done = p.authctl("passwd", "u", *CHEAP, password=password, check=False)
        assert done.returncode == 1 and name in done.stderr and b"nothing was changed" in done.stderr
    assert {k: v for k, v in files(p).items() if k in before} == before


def test_a_password_too_long_for_pass_is_said_to_be(p):
    p.start()
    assert p.authctl("passwd", "u", *CHEAP, password="x" * 248).stderr == b""
    assert logins(p, "u", "x" * 248) == ALL
    assert b"note: u: the command PASS" in p.authctl("passwd", "u", *CHEAP, password="x" * 249).stderr
    assert logins(p, "u", "x" * 249) == ALL - {"PASS"}


def test_an_import_leaves_out_one_with_an_odd_password(p):
    path = p.dir / "passwd"
    path.write_bytes(b"a:{PLAIN}pass-a::::::\ntab:{PLAIN}x\ty::::::\nlatin:{PLAIN}caf\xe9-caf\xe9::::::\nz:{PLAIN}pass-z::::::\n")
    p.own(path)
    done = p.authctl("import", "dovecot", path, *CHEAP, check=False)
    assert done.returncode == 1 and done.stdout.startswith(b"added 3,") and b"refused 1" in done.stdout
    assert b"passwd:2: tab: the password has a control character in it, a TAB" in done.stderr and b"note: latin:" in done.stderr
    p.start()
    for user, password in (("a", "pass-a"), ("z", "pass-z"), ("latin", "caf\udce9-caf\udce9")):
        p.authctl("test", user, password=password)


# names

def listed(p):
    return {u["user"] for u in json.loads(p.authctl("list", "--json").stdout)}


def test_names_are_kept_as_logins_have_them(p):
    """Whatever form was typed, whoever has that name logs in with any form of it."""
    box = p.maildir("box", MESSAGES)
    done = p.authctl("add", "jose\u0301", "--maildrop", "maildir:%s" % box, *CHEAP, password=PASSWORD)
    assert "note: the name is kept as" in done.stderr.decode() and "jos\u00e9" in done.stderr.decode()
    p.authctl("add", "full\uff21", "--maildrop", "maildir:%s" % box, *CHEAP, password=PASSWORD)
    assert listed(p) == {"u", "jos\u00e9", "fullA"}
    assert b"is there already" in p.authctl("add", "jos\u00e9", *CHEAP, password=PASSWORD, check=False).stderr
    p.start()
    for name in ("jose\u0301", "jos\u00e9", "full\uff21", "fullA"):
        assert logins(p, name, PASSWORD) >= {"PASS", "LOGIN", "PLAIN"}, name
        p.authctl("test", name, password=PASSWORD)
    for command in (("lock", ), ("unlock",), ("app", "list"), ("secret",), ("client-config",), ("passwd", *CHEAP), ("set", "--uid", "4711"), ("del",)):
        p.authctl(*command, "jose\u0301", password=PASSWORD)
    assert listed(p) == {"u", "fullA"}
    refused = p.authctl("add", "a\uff0fb", *CHEAP, password=PASSWORD, check=False)
    assert refused.returncode == 1 and b"a/b: not a user name" in refused.stderr


def test_imported_names_are_kept_as_logins_have_them(p):
    path = p.dir / "passwd"
    path.write_text("jose\u0301:{PLAIN}%s::::::\n" % PASSWORD)
    p.own(path)
    p.authctl("import", "dovecot", path, *CHEAP)
    assert listed(p) == {"u", "jos\u00e9"}


# authctl test: what authd would say

def tried(p, user, password):
    """(what authctl test says, whether authd lets him in)"""
    done = p.authctl("test", user, password=password, check=False)
    with p.connect() as c:
        c.ok(b"USER " + os.fsencode(user))
        row = c.cmd(b"PASS " + os.fsencode(password))
    assert done.stdout.endswith(b": ok\n" if done.returncode == 0 else b": refused\n")
    return done.stdout.decode(), done.returncode == 0, b"[AUTH]" not in row


def test_of_app_passwords(p):
    """The typed forms, an expired one, a locked user, and none of another's."""
    p.add("v")
    text = p.authctl("app", "add", "u", "phone").stdout.decode().strip()
    narrow = p.authctl("app", "add", "u", "narrow", "--from", "192.0.2.0/24").stdout.decode().strip()
    p.start()
    for typed in (text, text.upper().replace("-", " ")):
        said, good, lets = tried(p, "u", typed)
        assert good and lets and "the app password phone is right\n" in said
    said, good, lets = tried(p, "u", narrow)
    assert good and not lets and "nowhere but 192.0.2.0/24" in said     # this test is elsewhere
    assert [x[1:] for x in (tried(p, "v", text), tried(p, "u", text[:-1] + ("a" if text[-1] != "a" else "b")))] == [(False, False)] * 2
    p.authctl("lock", "u")
    said, good, lets = tried(p, "u", text)
    assert not good and not lets and "locked" in said


@pytest.mark.root
def test_of_a_user_who_is_locked_in_db_and_open_in_pam(make_postern, stage):
    p = make_postern(stage=stage)
    p.add("bob", password="another-8")
    p.start()
    assert tried(p, "bob", stage.passwords["bob"])[1:] == (True, True)
    p.authctl("lock", "bob")
    said, good, lets = tried(p, "bob", stage.passwords["bob"])
    assert not good and not lets and "pam: the password is right, but bob is locked in db" in said


# whose store it is

def owners(p):
    return {f.name: (f.stat().st_uid, f.stat().st_gid, f.stat().st_mode & 0o777) for f in p.dir.glob("*.db*")}


@pytest.mark.skipif(not harness.IS_ROOT, reason="NOT RUN: needs root, who changes another's store")
def test_root_leaves_a_store_its_owner(p):
    """Everything runs as an ordinary user; root changes something, and that user goes on."""
    def as_root(*argv):
        return subprocess.run([str(x) for x in p.argv("authctl", *argv)], input=PASSWORD.encode() + b"\n", capture_output=True, check=True,
                              timeout=harness.TIMEOUT)

    (p.dir / "users.db").chmod(0o640)
    (p.dir / "users.db.lock").unlink()
    assert as_root("app", "add", "u", "phone").stderr == b""
    as_root("lock", "u")
    as_root("unlock", "u")
    mine = p.uid, p.uid
    assert owners(p) == {"users.db": (*mine, 0o640), "users.db.key": (*mine, 0o640), "maildrops.db": (*mine, 0o600), "users.db.lock": (*mine, 0o600)}
    p.start()
    with p.connect("u") as c:
        c.quit()
    p.authctl("secret", "u")


@pytest.mark.skipif(not harness.IS_ROOT, reason="NOT RUN: needs root, who changes another's store")
def test_root_begins_a_store_of_another(make_postern):
    p = make_postern()
    box = p.maildir("box", MESSAGES)
    subprocess.run([str(x) for x in p.argv("authctl", "add", "v", "--maildrop", "maildir:%s" % box, *CHEAP)], input=PASSWORD.encode() + b"\n",
                   check=True, timeout=harness.TIMEOUT)
    assert set(owners(p).values()) == {(p.uid, p.uid, 0o600)}
    p.start()
    with p.connect("v") as c:
        c.quit()


# the prompt

class Prompt:
    """authctl passwd on a terminal of its own, which asks."""

    def __init__(self, p):
        self.argv = [str(x) for x in p.argv("authctl", "passwd", "u", *CHEAP)]
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            with contextlib.suppress(BaseException):
                for number in (signal.SIGINT, signal.SIGQUIT):      # a shell that runs this behind has them ignored
                    signal.signal(number, signal.SIG_DFL)
                for name, what in p.popen_as().items():
                    {"user": lambda _: None, "group": os.setgid, "extra_groups": os.setgroups}[name](what)
                if p.popen_as():
                    os.setuid(p.popen_as()["user"])
                os.execv(self.argv[0], self.argv)
            os._exit(127)
        self.shown = b""
        self.until(b": ")

    def until(self, text):
        """What is new up to that text."""
        at = len(self.shown)
        while text not in self.shown[at:]:
            self.shown += os.read(self.terminal, 4096)

    def echoes(self):
        return bool(termios.tcgetattr(self.terminal)[3] & termios.ECHO)

    def end(self):
        """How it ended, when it has; and what became of the echo."""
        pidfd = os.pidfd_open(self.pid)
        try:
            ended = bool(select.select([pidfd], [], [], harness.TIMEOUT)[0])
        finally:
            os.close(pidfd)
        if not ended:
            os.kill(self.pid, signal.SIGKILL)
        status, echo = os.waitpid(self.pid, 0)[1], self.echoes()
        os.close(self.terminal)
        assert ended, "it asks on"
        return os.waitstatus_to_exitcode(status), echo


TERMINAL = pytest.mark.skipif(not harness.HAS_TERMINALS, reason="there is no /dev/pts")


@TERMINAL
@pytest.mark.parametrize("how", [b"ab\x03", b"ab\x1c", signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=str)
def test_a_signal_ends_the_prompt_and_leaves_the_echo_on(p, how):
    before = files(p)
    prompt = Prompt(p)
    assert not prompt.echoes()
    if isinstance(how, bytes):
        os.write(prompt.terminal, how)
        how = {b"\x03": signal.SIGINT, b"\x1c": signal.SIGQUIT}[how[-1:]]
    else:
        os.kill(prompt.pid, how)
    assert prompt.end() == (-how, True)
    assert files(p) == before


@TERMINAL
def test_a_prompt_that_was_stopped_asks_again(p):
    prompt = Prompt(p)
    os.kill(prompt.pid, signal.SIGTSTP)
    # a session of its own has nobody to wake what the terminal stops: then the kernel lets it run on
    prompt.until(b": ")
    os.write(prompt.terminal, b"new-horse-9\n")
    prompt.until(b"again: ")
    assert not prompt.echoes()
    os.write(prompt.terminal, b"new-horse-9\n")
    assert prompt.end() == (0, True)
    assert p.authctl("test", "u", password="new-horse-9").returncode == 0
    assert b"horse" not in prompt.shown


# what it says of trouble

def test_a_day_that_there_is_not(p):
    for day in ("2027-02-31", "2099-11-31", "2027-02-29"):
        done = p.authctl("app", "add", "u", "phone", "--expires", day, check=False)
        assert done.returncode == 2 and b"there is no such day" in done.stderr, day
    p.authctl("app", "add", "u", "phone", "--expires", "2096-02-29")


@pytest.mark.parametrize("file", ["users.db", "maildrops.db"])
@pytest.mark.parametrize("content", [b"", b"not a store\n" * 1000], ids=["empty", "other"])
def test_a_damaged_store_is_named_with_a_remedy(p, file, content):
    (p.dir / file).write_bytes(content)
    done = p.authctl("test", "u", password=PASSWORD, check=False)
    assert done.returncode == 1
    assert b"/%s: is damaged" % file.encode() in done.stderr and b"put a copy" in done.stderr and b"nothing was changed" not in done.stderr
    if content:
        done = p.authctl("lock", "u", check=False)
        assert done.returncode == 1 and b"/%s: is damaged" % file.encode() in done.stderr and b"nothing was changed" in done.stderr


def test_a_list_of_nothing_says_why(make_postern):
    p = make_postern()
    done = p.authctl("list", "--json")
    assert json.loads(done.stdout) == [] and b"note: there is no" in done.stderr and b"users.db yet" in done.stderr
    p.write_conf(authd={"db": p.dir / "nowhere" / "users.db"})
    for argv in (("list",), ("add", "u", *CHEAP)):
        done = p.authctl(*argv, password=PASSWORD, check=False)
        assert done.returncode == 1 and done.stdout == b"" and b"its directory does not exist" in done.stderr, argv
