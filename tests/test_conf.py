"""postern.conf: what -t warns of, and what a reload takes over."""
import os
import pwd
import re
import signal
import subprocess
import time

import pytest

import harness
from harness import REPO

MAIL = [b"Subject: one\n\nfirst\n", b"Subject: two\n\nsecond\n"]


def check(path, program="spoolctl"):
    return subprocess.run([harness.BUILD / program, "-t", "-c", path], capture_output=True, text=True)


def keys():
    """{(section, key): programs that must be restarted}"""
    out = subprocess.run([harness.BUILD / "unit" / "conf", "keys"], capture_output=True, check=True, text=True).stdout
    return {(r.split("\t")[0], r.split("\t")[1]): r.split("\t")[4].split() for r in out.splitlines()}


# What is unwise: the text of the file, then section and key that the warning names, and a word of why.

UNWISE = {
    "sandbox-off": ("[postern]\nsandbox = off\n", "postern", "sandbox", "no process is confined"),
    "sandbox-best-effort": ("[postern]\nsandbox = best-effort\n", "postern", "sandbox", "noticed only in the log"),
    "log-level": ("[postern]\nlog-level = warning\n", "postern", "log-level", "fail2ban"),
    "run-dir": ("[postern]\nrun-dir = /tmp/postern\n", "postern", "run-dir", "any user may make files"),
    "state-dir": ("[postern]\nstate-dir = /tmp\n", "postern", "state-dir", "any user may make files"),
    "cleartext-always": ("[pop3d]\ncleartext-login = always\n", "pop3d", "cleartext-login", "passwords go over the network"),
    "cleartext-never": ("[pop3d]\ncleartext-login = never\n", "pop3d", "cleartext-login", "nobody can log in"),
    "login-timeout": ("[pop3d]\nlogin-timeout = 3600\n", "pop3d", "login-timeout", "keep a connection from others"),
    "idle-timeout": ("[pop3d]\nidle-timeout = 60\n", "pop3d", "idle-timeout", "RFC 1939"),
    "prefork": ("[pop3d]\nmax-connections = 60\nprefork = 100\n", "pop3d", "prefork", "more than max-connections"),
    "max-per-address": ("[pop3d]\nmax-per-address = 1000\n", "pop3d", "max-per-address", "one address can take all"),
    "proxy": ("[pop3d]\nproxy-protocol-from = 0.0.0.0/0\n", "pop3d", "proxy-protocol-from", "can claim to be any other"),
    "same-user": ("[pop3d]\nuser = _postern-auth\n", "pop3d", "user", "the same account"),
    "client-ca": ("[tls]\nclient-ca = /etc/ca\n[authd]\nmechanisms = PLAIN\n", "tls", "client-ca", "EXTERNAL"),
    "throttle": ("[authd]\nthrottle = off\n", "authd", "throttle", "not slowed down"),
    "throttle-exempt": ("[authd]\nthrottle-exempt = ::/0\n", "authd", "throttle-exempt", "not slowed down"),
    "cache-ttl": ("[authd]\ncache-ttl = 86400\n", "authd", "cache-ttl", "after it was changed"),
    "md5": ("[authd]\nmechanisms = PLAIN APOP\n", "authd", "mechanisms", "MD5"),
    "pam-service": ("[authd]\npam-service = no-such-service\n", "authd", "pam-service", "PAM goes by"),
    "virtual-root": ("[spoold]\nvirtual-user = root\n", "spoold", "virtual-user", "is root"),
    "virtual-system": ("[spoold]\nvirtual-user = daemon\n", "spoold", "virtual-user", "below min-uid"),
    "virtual-nobody": ("[spoold]\nvirtual-user = no-such-account\n", "spoold", "virtual-user", "there is no account"),
    "one-lock": ("[spoold]\nmbox-locks = dotlock\n", "spoold", "mbox-locks", "one lock alone"),
    "min-uid": ("[spoold]\nmin-uid = 1\n", "spoold", "min-uid", "system accounts"),
    "mbox": ("[spoold]\nmbox = /var/mail/all\n", "spoold", "mbox", "the same mbox"),
    "mbox-percent": ("[spoold]\nmbox = /var/mail/%%u\n", "spoold", "mbox", "the same mbox"),
    "maildir": ("[spoold]\nmaildir = /srv/all\n", "spoold", "maildir", "the same Maildir"),
}


@pytest.mark.parametrize("name", UNWISE)
def test_unwise_settings_are_warned_of_and_accepted(name, tmp_path):
    text, section, key, why = UNWISE[name]
    path = tmp_path / "postern.conf"
    path.write_text("# a comment\n" + text)
    done = check(path)
    line = 2 + [i for i, row in enumerate(text.splitlines()) if row.startswith(key + " =")][0]
    assert done.returncode == 0 and done.stdout == "%s: ok\n" % path
    rows = done.stderr.splitlines()
    assert len(rows) == 1, rows
    assert rows[0].startswith("%s:%d: [%s] %s: warning: " % (path, line, section, key)) and why in rows[0]


def test_files_that_everybody_can_read_are_warned_of(tmp_path):
    path, secret = tmp_path / "postern.conf", tmp_path / "secret"
    secret.write_text("x")
    for text, key in (("[tls]\ncertificate = /x\nkey = %s\n" % secret, "[tls] key"), ("[authd]\ndb = %s\n" % secret, "[authd] db")):
        path.write_text(text)
        secret.chmod(0o644)
        assert key + ": warning: " in check(path).stderr
        secret.chmod(0o600)
        assert check(path).stderr == ""


def test_what_is_safe_is_not_warned_of():
    done = check(REPO / "etc/postern.conf")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("program", ["pop3d", "authd", "spoold", "authctl", "spoolctl"])
def test_every_program_warns(program, tmp_path):
    path = tmp_path / "postern.conf"
    path.write_text("[authd]\nthrottle = off\n")
    done = check(path, program)
    assert done.returncode == 0 and ":2: [authd] throttle: warning: " in done.stderr


# What cannot be: an error of -t with file, line and key.

def test_a_uidl_format_that_cannot_be_names_its_line(tmp_path):
    path = tmp_path / "postern.conf"
    path.write_text("[spoold]\n\nuidl-format = %z\n")
    done = check(path, "spoold")
    assert done.returncode == 1 and done.stderr.startswith('%s:3: [spoold] uidl-format: "%%z": ' % path) and "accepted: postern" in done.stderr


@pytest.mark.parametrize("program", ["pop3d", "authd", "spoold", "authctl", "spoolctl"])
def test_a_store_that_is_a_directory_is_a_mistake(program, tmp_path):
    path = tmp_path / "postern.conf"
    path.write_text("[authd]\ndb = %s\n" % tmp_path)
    tmp_path.chmod(0o755)
    done = check(path, program)
    assert (done.returncode, done.stdout) == (1, "")
    assert '%s:2: [authd] db: "%s": is a directory' % (path, tmp_path) in done.stderr and "chmod" not in done.stderr
    path.write_text("[authd]\nstores = pam\ndb = %s\n" % tmp_path)       # then only maildrops.db beside it is looked for
    assert check(path, program).returncode == 0


@pytest.mark.parametrize("section", ["pop3d", "authd"])
@pytest.mark.parametrize("program", ["authd", "spoold", "authctl", "spoolctl"])
def test_an_account_that_is_missing_is_a_mistake_for_root_alone(program, section, tmp_path):
    path = tmp_path / "postern.conf"
    path.write_text("[%s]\nuser = no-such-account\n" % section)
    done = check(path, program)
    assert ("%s:2: [%s] user: there is no account no-such-account; accepted: " % (path, section) in done.stderr) == harness.IS_ROOT
    assert done.returncode == (1 if harness.IS_ROOT else 0)


@pytest.mark.parametrize("section", ["pop3d", "authd"])
@pytest.mark.skipif(not harness.IS_ROOT, reason="authd wants the accounts as root alone")
def test_authd_says_which_line_keeps_it_from_starting(section, tmp_path):
    path, others = tmp_path / "postern.conf", {"pop3d": "nobody", "authd": "nobody", section: "no-such-account"}
    path.write_text("[postern]\nlog = stderr\nsandbox = off\n[pop3d]\nuser = %(pop3d)s\n[authd]\nuser = %(authd)s\n" % others)
    done = subprocess.run([harness.BUILD / "authd", "-c", path], capture_output=True, text=True, timeout=harness.TIMEOUT)
    line = 5 if section == "pop3d" else 7
    assert done.returncode == 1 and "%s:%d: [%s] user: there is no account no-such-account" % (path, line, section) in done.stderr


def test_accounts_that_the_installation_makes_are_only_missed(tmp_path):
    path = tmp_path / "postern.conf"
    path.write_text("")
    done = check(path, "authd")
    made = {u.pw_name for u in pwd.getpwall()}
    missed = [(s, u) for s, u in (("pop3d", "_postern"), ("authd", "_postern-auth")) if harness.IS_ROOT and u not in made]
    assert done.returncode == 0
    assert re.findall(r": \[(\w+)\] user: warning: there is no account ([a-z_-]+),", done.stderr) == missed


# Reload

def reload(daemon):
    start = daemon.mark()
    os.kill(daemon.pid, signal.SIGHUP)
    return daemon.wait_line("event=reload", start=start)


def other(section, key, was):
    """A value of this key that is sound and not the one that it has."""
    values = {"run-dir": "/tmp/elsewhere-run", "state-dir": "/tmp/elsewhere-state", "log": "syslog", "sandbox": "best-effort",
              "user": "nobody", "max-connections": "77", "prefork": "3"}
    return values[key] if values[key] != str(was) else {"sandbox": "required", "log": "stderr"}[key]


def test_keys_that_need_a_restart_are_named_at_reload(make_postern):
    p = make_postern({"postern": {"sandbox": harness.os.environ.get("POSTERN_SANDBOX", "required")}})
    p.user("box", "mbox", MAIL)
    p.start()
    for name in ("pop3d", "authd", "spoold"):
        assert "restart=" not in reload(p.daemon(name))
    changed = {}
    for (section, key), programs in keys().items():
        if programs:
            changed.setdefault(section, {})[key] = other(section, key, p.conf.get(section, {}).get(key))
    before = p.file.read_text()
    p.write_conf(**changed)
    for name in ("pop3d", "authd", "spoold"):
        line = reload(p.daemon(name))
        named = set(re.findall(r"\[(\w+)\] ([a-z-]+)", re.search(r'restart="([^"]*)"', line)[1]))
        assert named == {k for k, programs in keys().items() if name in programs}
    with p.connect("box") as c:         # and all go on with what they had
        assert c.stat()[0] == 2
        c.quit()
    p.file.write_text(before)


def test_pam_that_is_added_needs_a_restart(make_postern):
    p = make_postern()
    p.start("authd")
    p.write_conf(authd={"stores": "db pam"})
    assert "[authd] stores" in reload(p.daemon("authd"))


def connect_when_buried(p):
    """With max-per-address = 1: once the listener has seen the end of the process that had the connection before."""
    until = time.monotonic() + harness.TIMEOUT
    while True:
        c = p.connect()
        if c.banner.startswith(b"+OK") or time.monotonic() > until:
            return c
        c.close()


def delayed(p, user):
    with p.connect() as c:
        c.ok(b"USER " + user.encode())
        return b"[LOGIN-DELAY]" in c.cmd(b"PASS " + harness.PASSWORD.encode())


def test_all_other_keys_take_effect_at_reload(make_postern):
    """Those that can be seen from outside are seen; no key that a manual page calls reloadable is left out of the table."""
    p = make_postern({"authd": {"cache-ttl": 0}})
    p.user("box", "mbox", MAIL)
    p.user("dir", "maildir", MAIL)
    p.mbox("moved", MAIL[:1])
    p.add("other", "mbox")
    p.start()
    with p.connect("box") as c:
        ids = c.uidl()
        c.quit()
    p.write_conf(
        postern={"log-level": "debug"},
        pop3d={"cleartext-login": "loopback", "max-per-address": 1, "login-timeout": 30, "idle-timeout": 700},
        authd={"mechanisms": "PLAIN USER"},
        spoold={"server-copy": "keep", "uidl-format": "popa3d", "mbox": "%s/moved" % p.mail, "store": "mbox"})
    for name in ("spoold", "authd", "pop3d"):
        assert "restart=" not in reload(p.daemon(name))
    with connect_when_buried(p) as c:
        assert b"SASL PLAIN" in c.multi(b"CAPA")                                # mechanisms
        c.login("box")
        assert not set(ids.values()) & set(c.uidl().values())                   # uidl-format
        with p.connect() as second:                                            # max-per-address
            assert second.banner.startswith(b"-ERR")
        c.ok(b"DELE 1")
        c.quit()
    assert p.daemon("pop3d").wait_line("event=command", "name=DELE")            # log-level
    p.write_conf(pop3d={"max-per-address": 50}, authd={"login-delay": 3600})
    for name in ("authd", "pop3d"):
        reload(p.daemon(name))
    with p.connect() as c:
        assert any(r.startswith(b"LOGIN-DELAY 3600") for r in c.multi(b"CAPA"))
    until = time.monotonic() + harness.TIMEOUT
    while not delayed(p, "dir"):        # login-delay: the new verifier opens its memory once the old one has closed it
        assert time.monotonic() < until
    with p.connect("other") as c:
        assert c.stat()[0] == 1                                                 # mbox
        c.quit()
    p.write_conf(authd={"login-delay": 0}, spoold={"server-copy": "as-client-says"})
    for name in ("spoold", "authd"):
        reload(p.daemon(name))
    until = time.monotonic() + harness.TIMEOUT
    while delayed(p, "dir"):
        assert time.monotonic() < until
    with p.connect("box") as c:
        assert c.stat()[0] == 2                                                 # server-copy = keep had kept it
        c.quit()


def test_a_mistake_at_reload_changes_nothing(make_postern):
    p = make_postern()
    p.user("box", "mbox", MAIL)
    p.start()
    good = p.file.read_text()
    for name, text in (("pop3d", "[pop3d]\nprefork = many\n"), ("authd", "[authd]\nhashers = many\n"), ("spoold", "[spoold]\nuidl-format = %z\n")):
        p.file.write_text(text)
        daemon = p.daemon(name)
        start = daemon.mark()
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.wait_line("accepted", start=start)
    p.file.write_text(good)
    with p.connect("box") as c:
        assert c.stat()[0] == 2
        c.quit()


def test_the_manual_says_of_every_key_whether_it_needs_a_restart():
    text = (REPO / "lib/postern.conf.5").read_text()
    section, found = None, {}
    for part in re.split(r"(?m)^(?=\.Ss |\.It Cm )", text):
        if m := re.match(r"\.Ss \[(\w+)\]", part):
            section = m[1]
        elif m := re.match(r"\.It Cm ([a-z0-9-]+) =", part):
            said = re.search(r"A change needs a restart of\n((?:\.Xr \w+ 8.*\n|and\n)+)", part)
            found[section, m[1]] = re.findall(r"\.Xr (\w+) 8", said[1]) if said else []
    assert found == keys()


def test_what_connects_after_the_reload_has_the_new_configuration(make_postern):
    """The old verifier listens on the same socket until its signal comes: a connection that comes with it is not its own any more."""
    p = make_postern()
    p.user("box", "mbox", MAIL)
    p.start()
    authd = p.daemon("authd")

    def verifier():
        start = authd.mark()
        with p.connect("box") as c:
            c.quit()
        return re.search(r"\[(\d+)\]", authd.wait_line("event=login", start=start))[1]

    before = {verifier()}
    for _ in range(8):
        reload(authd)
        now = verifier()
        assert now not in before
        before.add(now)
