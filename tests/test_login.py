"""Who may log in: mechanisms, the store, app passwords, imports, the throttle and what is remembered."""
import base64
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

import harness
from harness import CHEAP, PASSWORD

MECHANISMS = "SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN USER"
MESSAGES = [b"Subject: one\n\n1\n", b"Subject: two\n\n2\n"]
OTHER = "another-horse-8"


@pytest.fixture
def login(make_postern):
    """A Postern with every mechanism that needs no TLS, and the user u; started."""
    p = make_postern({"authd": {"mechanisms": MECHANISMS, "cache-ttl": 0}})
    p.user("u", "maildir", MESSAGES)
    return p.start()


def attempts(p):
    """The lines of every authd there was about logins, as dicts; once no more of them arrive."""
    with p.daemon("authd").changed:
        while p.daemon("authd").changed.wait(0.1):
            continue
    lines = [x.decode() for d in p.daemons["authd"] for x in d.lines if b" event=login " in x]
    return [dict(re.findall(r'([a-z]+)=("[^"]*"|\S+)', x)) for x in lines]


def b64(data):
    return base64.b64encode(data)


def sasl(c, mechanism, answer, initial=None):
    """Runs an exchange: `answer` makes the next response of a challenge. The last line."""
    row = c.cmd(b"AUTH " + mechanism + (b" " + b64(initial) if initial is not None else b""))
    while row.startswith(b"+ "):
        row = c.cmd(b64(answer(base64.b64decode(row[2:]))))
    return row


class Scram:
    """A client of SCRAM-SHA-256 (RFC 7677) that can be made to lie."""

    def __init__(self, user, password, gs2="n,,", tamper=False, nonce=None, binding=b""):
        self.password, self.gs2, self.tamper, self.nonce, self.binding = password, gs2, tamper, nonce, binding
        self.bare = "n=%s,r=%s" % (user, base64.b64encode(os.urandom(12)).decode())
        self.fields = self.signature = None
        self.verified = False

    @property
    def first(self):
        return (self.gs2 + self.bare).encode()

    def answer(self, challenge):
        if self.signature is not None:
            self.verified = challenge == b"v=" + b64(self.signature)
            return b""
        self.fields = dict(x.split("=", 1) for x in challenge.decode().split(","))
        salted = hashlib.pbkdf2_hmac("sha256", self.password.encode(), base64.b64decode(self.fields["s"]), int(self.fields["i"]))
        client = hmac.digest(salted, b"Client Key", "sha256")
        final = "c=%s,r=%s" % (b64(self.gs2.encode() + self.binding).decode(), self.nonce or self.fields["r"])
        message = ",".join((self.bare, challenge.decode(), final)).encode()
        proof = bytes(a ^ b for a, b in zip(client, hmac.digest(hashlib.sha256(client).digest(), message, "sha256")))
        if self.tamper:
            proof = bytes([proof[0] ^ 1]) + proof[1:]
        self.signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        return (final + ",p=" + b64(proof).decode()).encode()


def scram_on(c, *args, **keys):
    client = Scram(*args, **keys)
    return sasl(c, b"SCRAM-SHA-256", client.answer, client.first), client


def scram(p, *args, **keys):
    with p.connect() as c:
        return scram_on(c, *args, **keys)


def cram(p, user, secret):
    with p.connect() as c:
        return sasl(c, b"CRAM-MD5", lambda ch: user.encode() + b" " + hmac.new(secret.encode(), ch, "md5").hexdigest().encode())


def plain(p, user, password):
    user = user if isinstance(user, bytes) else user.encode()
    with p.connect() as c:
        return sasl(c, b"PLAIN", lambda _: b"", b"\0%s\0%s" % (user, password.encode()))


def test_scram(login):
    row, client = scram(login, "u", PASSWORD)
    assert row.startswith(b"+OK") and client.verified
    for more in ({"tamper": True}, {"nonce": "replayed-nonce"}):
        row, client = scram(login, "u", PASSWORD, **more)
        assert row.startswith(b"-ERR"), more
    wrong, _ = scram(login, "u", "wrong")
    unknown, first = scram(login, "nobody-here", PASSWORD)
    assert wrong == unknown and b"[AUTH]" in wrong
    _, again = scram(login, "nobody-here", PASSWORD)
    assert first.fields["s"] == again.fields["s"], "the salt of an unknown user changes"
    assert len(first.fields["s"]) == len(client.fields["s"]) and first.fields["i"] == client.fields["i"]


def test_scram_replayed(login):
    """What a client said in a login that was good says nothing in another one; nor does its proof under another nonce."""
    def replay(second):
        with login.connect() as c:
            row = c.cmd(b"AUTH SCRAM-SHA-256 " + b64(said[0]))
            return c.cmd(b64(second(base64.b64decode(row[2:]).split(b",")[0]))), row

    client = Scram("u", PASSWORD)
    said, answer = [client.first], client.answer
    with login.connect() as c:
        assert sasl(c, b"SCRAM-SHA-256", lambda ch: said.append(answer(ch)) or said[-1], client.first).startswith(b"+OK")
    row, first = replay(lambda _: said[1])
    assert b"[AUTH]" in row and first != b"+ " + b64(b"r=" + client.fields["r"].encode()), "the server's nonce is new"
    assert b"[AUTH]" in replay(lambda nonce: re.sub(rb"r=[^,]*", nonce, said[1]))[0]


def test_scram_in_another_name(login):
    row, _ = scram(login, "u", PASSWORD, gs2="n,a=root,")
    assert row.startswith(b"-ERR")


def test_scram_follows_passwd(login):
    login.authctl("passwd", "u", *CHEAP, password=OTHER)
    assert scram(login, "u", PASSWORD)[0].startswith(b"-ERR")
    assert scram(login, "u", OTHER)[0].startswith(b"+OK")


def test_cram_md5_needs_a_secret(login):
    assert cram(login, "u", PASSWORD).startswith(b"-ERR")
    secret = login.authctl("secret", "u").stdout.decode().strip()
    login.passwords.add(secret)
    assert re.fullmatch(r"([a-km-np-z2-9]{4}-){6}[a-km-np-z2-9]{4}", secret)
    assert cram(login, "u", secret).startswith(b"+OK")
    assert cram(login, "u", PASSWORD).startswith(b"-ERR"), "the login password is no secret of CRAM-MD5"
    assert cram(login, "nobody-here", secret).startswith(b"-ERR")
    assert plain(login, "u", secret).startswith(b"-ERR"), "the secret is no password"
    newer = login.authctl("secret", "u").stdout.decode().strip()
    assert newer != secret and cram(login, "u", secret).startswith(b"-ERR")


def test_authorization_identity(login):
    with login.connect() as c:
        assert sasl(c, b"PLAIN", None, b"root\0u\0" + PASSWORD.encode()).startswith(b"-ERR")
    with login.connect() as c:
        assert sasl(c, b"PLAIN", None, b"u\0u\0" + PASSWORD.encode()).startswith(b"+OK")


def test_login_with_and_without_initial_response(login):
    for initial in (None, b"u"):
        answers = [PASSWORD.encode()] if initial else [b"u", PASSWORD.encode()]
        with login.connect() as c:
            assert sasl(c, b"LOGIN", lambda _: answers.pop(0), initial).startswith(b"+OK")


def test_one_answer(login):
    """Unknown user, wrong password, locked account: the client cannot tell them apart; the log can."""
    login.user("locked", "maildir", MESSAGES)
    login.authctl("lock", "locked")
    rows = {plain(login, "u", "wrong"), plain(login, "nobody-here", PASSWORD), plain(login, "locked", PASSWORD),
            plain(login, "locked", "wrong"), plain(login, "no/name", PASSWORD)}
    assert len(rows) == 1 and b"[AUTH]" in rows.pop()
    assert [a["reason"] for a in attempts(login)] == ["wrong-password", "unknown-user", "locked", "locked", "malformed-user"]
    login.authctl("unlock", "locked")
    assert plain(login, "locked", PASSWORD).startswith(b"+OK")


@pytest.mark.parametrize("stores,mechanisms,offered", [
    ("pam", "SCRAM-SHA-256-PLUS SCRAM-SHA-256 EXTERNAL CRAM-MD5 PLAIN LOGIN USER", "PLAIN LOGIN"),
    ("db", "SCRAM-SHA-256-PLUS SCRAM-SHA-256 EXTERNAL CRAM-MD5 PLAIN LOGIN APOP", "SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN"),
    ("db pam", None, "SCRAM-SHA-256 PLAIN LOGIN"), ("db", "SCRAM-SHA-256", "SCRAM-SHA-256"), ("db", "USER", "")])
def test_offered_is_what_can_succeed(make_postern, stores, mechanisms, offered):
    """
    Without TLS neither -PLUS nor EXTERNAL, without the store no proofs, and what is not configured not at all; what is not offered is not
    done either.
    """
    p = make_postern({"authd": {"stores": stores, **({"mechanisms": mechanisms} if mechanisms else {})}})
    p.start()
    with p.connect() as c:
        rows = c.multi(b"CAPA")
        listed = [r.split()[1:] for r in rows if r.startswith(b"SASL")]
        assert (listed[0] if listed else []) == offered.encode().split() == c.multi(b"AUTH")
        assert (b"USER" in rows) == ("USER" in (mechanisms or "USER").split())
        assert (b"<" in c.banner) == ("APOP" in (mechanisms or "").split() and "db" in stores)
    for name in ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "EXTERNAL", "CRAM-MD5", "PLAIN", "LOGIN"):
        with p.connect() as c:
            assert c.cmd(b"AUTH " + name.encode()).startswith(b"+ " if name in offered.split() else b"-ERR"), name
    if b"<" not in c.banner:
        with p.connect() as c:
            assert b"[AUTH]" not in c.err(b"APOP u c4c9334bac560ecc979e58001b3e22fb")


def test_out_of_form(login):
    """What is no response of the mechanism is refused, and not asked for again (RFC 5034 section 4)."""
    for words in (b"PLAIN =", b"SCRAM-SHA-256 =", b"LOGIN =", b"CRAM-MD5 =", b"CRAM-MD5 " + b64(b"u x"), b"PLAIN " + b64(b"u"), b"PLAIN ===="):
        with login.connect() as c:
            row = c.cmd(b"AUTH " + words)
            assert row.startswith(b"-ERR") and b"[AUTH]" not in row, words
    for mechanism in (b"PLAIN", b"SCRAM-SHA-256", b"LOGIN", b"CRAM-MD5"):
        for response in (b"", b"=", b"*", b"!", b64(b"x" * 9000), b"A" * 13000):
            with login.connect() as c:
                assert c.cmd(b"AUTH " + mechanism).startswith(b"+ ")
                if mechanism == b"LOGIN" and response == b64(b"x" * 9000):
                    continue    # a name too long for anybody is one, to LOGIN
                row = c.cmd(response)
                assert row.startswith(b"-ERR"), (mechanism, response[:20])
                assert c.login("u").stat()[0] == 2, "the connection is still good for a login"


def test_no_password(login):
    """An empty one is nobody's, however it is given, and a name that needs SASLprep finds its user."""
    login.add("\u00e9ric")
    assert b"[AUTH]" in plain(login, "u", "")
    with login.connect() as c:
        c.ok(b"USER u")
        assert c.cmd(b"PASS ").startswith(b"-ERR")
        c.ok(b"USER e\xcc\x81ric")      # decomposed
        c.cmd(b"PASS " + PASSWORD.encode())
    assert attempts(login)[-1]["reason"] != "unknown-user" and attempts(login)[0]["reason"] == "no-password"


def test_malformed_names(metered):
    """A name that nobody can have is answered as an unknown one is, after the same work."""
    rows, spent = set(), []
    for name in (b"nobody-here", b"\xff", b"\xc3(", b"a\x80b", b"..", b"-x", b"a/b"):
        mark = metered.daemon("authd").mark()
        rows.add(plain(metered, name, "wrong"))
        spent.append(work(metered, mark))
        mark = metered.daemon("authd").mark()
        with metered.connect() as c:
            c.ok(b"USER " + name)
            rows.add(c.cmd(b"PASS wrong"))
        spent.append(work(metered, mark))
    assert len(rows) == 1 and b"[AUTH]" in rows.pop()
    assert all(s == spent[0] for s in spent) and len(spent[0]) == 1


@pytest.fixture
def metered(make_postern):
    """As login; the log says what each login costs."""
    p = make_postern({"postern": {"log-level": "debug"}, "authd": {"mechanisms": MECHANISMS, "cache-ttl": 0}})
    p.user("u", "maildir", MESSAGES)
    return p.start()


def work(p, mark):
    """What the login after `mark` cost: the hashes that were computed and the attempts that PAM made, in their order."""
    p.daemon("authd").wait_line("event=login ", start=mark)
    lines = [x.decode() for x in p.daemon("authd").lines[mark:]]
    return [re.search("of=.*", x)[0] for x in lines if "event=work" in x]


def costs_of(p, tries):
    """The work of each of the attempts, several times and mixed."""
    found = {}
    for _ in range(2):
        for name, attempt in tries.items():
            mark = p.daemon("authd").mark()
            assert b"[AUTH]" in attempt(), name
            found.setdefault(name, []).append(work(p, mark))
    return found


def all_alike(found):
    return len({str(w) for works in found.values() for w in works}) == 1


def test_one_duration(metered):
    """Unknown user, wrong password, locked account (with the right one, too) cost the same hashes, by every mechanism."""
    metered.add("shut")
    metered.authctl("lock", "shut")
    app = metered.authctl("app", "add", "shut", "x").stdout.decode().strip()
    users = (("unknown", "nobody-here", PASSWORD), ("wrong", "u", "wrong"), ("locked", "shut", "wrong"), ("locked, right", "shut", PASSWORD),
             ("locked, app", "shut", app))

    def by_login(user, password):
        answers = [user.encode(), password.encode()]
        with metered.connect() as c:
            return sasl(c, b"LOGIN", lambda _: answers.pop(0))

    def by_user(user, password):
        with metered.connect() as c:
            c.ok(b"USER " + user.encode())
            return c.cmd(b"PASS " + password.encode())

    for how in (lambda u, p: plain(metered, u, p), by_login, by_user):
        found = costs_of(metered, {name: (lambda u=u, w=w: how(u, w)) for name, u, w in users})
        assert all_alike(found) and len(found["unknown"][0]) == 1, found
    for how in (lambda u, p: scram(metered, u, p)[0], lambda u, p: cram(metered, u, p)):
        found = costs_of(metered, {name: (lambda u=u, w=w: how(u, w)) for name, u, w in users})
        assert all_alike(found) and found["unknown"][0] == [], found


def test_one_duration_of_imported_users(metered):
    """Until his first login an imported user costs his own hash and one of ours, right or wrong; from then on what all others do."""
    path = metered.dir / "shadow"
    path.write_text("old:%s:1::::::\n" % SHA512)
    metered.own(path)
    metered.authctl("import", "shadow", path, *CHEAP)
    unknown = costs_of(metered, {"unknown": lambda: plain(metered, "nobody-here", "x")})["unknown"][0]
    wrong = costs_of(metered, {"wrong": lambda: plain(metered, "old", "x")})["wrong"][0]
    assert len(wrong) == 2 and "$6" in wrong[0] and wrong[1:] == unknown
    mark = metered.daemon("authd").mark()
    plain(metered, "old", "password")
    assert work(metered, mark) == wrong, "the first right one"
    assert costs_of(metered, {"wrong": lambda: plain(metered, "old", "x")})["wrong"][0] == unknown


def test_attempts_are_limited(login):
    with login.connect() as c:
        for _ in range(10):
            assert b"[AUTH]" in sasl(c, b"PLAIN", None, b"\0u\0wrong")
        c.send(b"USER u\r\n")
        assert b"+OK" not in c.line()


def test_key_that_is_replaced(login):
    """Who removes the store's key ends all app passwords, at once; the next one makes a key, and works."""
    def make(name):
        text = login.authctl("app", "add", "u", name).stdout.decode().strip()
        login.passwords.add(text)
        return text
    old = make("old")
    assert plain(login, "u", old).startswith(b"+OK")
    next(login.dir.rglob("users.db.key")).unlink()
    assert b"[AUTH]" in plain(login, "u", old)
    assert plain(login, "u", make("new")).startswith(b"+OK")
    assert b"[AUTH]" in plain(login, "u", old)


def test_app_passwords(login):
    def make(name, *more):
        text = login.authctl("app", "add", "u", name, *more).stdout.decode().strip()
        login.passwords.add(text)
        return text
    all_, read, here, away = (make("all"), make("read", "--no-delete"), make("here", "--from", "127.0.0.0/8"),
                              make("away", "--from", "192.0.2.0/24", "--expires", "30d"))
    for typed in (all_, all_.upper(), all_.replace("-", ""), all_.replace("-", " ")):
        assert plain(login, "u", typed).startswith(b"+OK"), typed
    assert plain(login, "u", here).startswith(b"+OK")
    assert b"[AUTH]" in plain(login, "u", away)
    assert b"[AUTH]" in plain(login, "u", all_[:-1])
    assert plain(login, "u", PASSWORD).startswith(b"+OK"), "the password itself goes on working"
    with login.connect("u", read) as c:
        c.err(b"DELE 1")
        assert len(c.list()) == 2 and c.retr(1)
        assert c.quit().startswith(b"+OK")
    rows = [r.split("\t") for r in login.authctl("app", "list", "u").stdout.decode().splitlines()]
    assert [r[0] for r in rows] == ["all", "read", "here", "away"]
    assert rows[1][4] == "no-delete" and rows[3][3] == "192.0.2.0/24" and rows[3][2] != "never"
    login.authctl("app", "del", "u", "all")
    assert b"[AUTH]" in plain(login, "u", all_)
    assert plain(login, "u", read).startswith(b"+OK")
    for bad in (["read"], ["a b"], ["x", "--expires", "yesterday"], ["x", "--expires", "2001-01-01"], ["x", "--from", "home"]):
        done = login.authctl("app", "add", "u", *bad, check=False)
        assert done.returncode != 0 and done.stderr and not done.stdout, bad


@pytest.mark.confined
def test_no_hash_is_larger_than_the_hashers(login):
    """What hashers may have is bounded, and what would not fit is not taken into the store."""
    big = "$argon2id$v=19$m=%d,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$1tUT/QvkpE6kOHJhe0MZrdEFN0yzHN+K8bz5c8yoN0E"
    path = login.dir / "big"
    for kib, status in ((1 << 20, 0), ((1 << 20) + 1, 1)):
        path.write_text("big%d:%s:::\n" % (kib, big % kib))
        login.own(path)
        assert login.authctl("import", "shadow", path, *CHEAP, check=False).returncode == status, kib
    assert login.authctl("add", "x", "--memlimit", str((1 << 20) + 1), password=PASSWORD, check=False).returncode == 2
    for pid, name in harness.children(login.daemon("authd").pid):
        if name == "authd: hasher":
            limits = pathlib.Path("/proc/%d/limits" % pid).read_text()
            assert int(re.search(r"Max data size +(\d+)", limits)[1]) < 5 << 28


def test_last_use_of_an_app_password(login):
    text = login.authctl("app", "add", "u", "phone").stdout.decode().strip()
    assert plain(login, "u", text).startswith(b"+OK")
    login.stop_daemon("authd")      # what it remembers is on the disk by then
    assert login.authctl("app", "list", "u").stdout.decode().split("\t")[5].startswith("20")


@pytest.fixture
def perturbed(monkeypatch, request):
    """libc fills memory that it gives, and that it gets back."""
    monkeypatch.setenv("MALLOC_PERTURB_", str(0xa5))
    return request.getfixturevalue("login")


def test_many_are_remembered(perturbed):
    """
    More than fits the first pages of the files: writing it down needs nothing that the verifier may not do. Berkeley DB writes whole pages: where it
    puts nothing is zero, and not what the process had in its memory before.
    """
    login = perturbed
    path = login.dir / "many"
    path.write_text("".join("m%d:{PLAIN}password::::::\n" % i for i in range(80)))
    login.own(path)
    login.authctl("import", "dovecot", path, *CHEAP)
    for i in range(80):
        assert b"[AUTH]" not in plain(login, "m%d" % i, "password")
    assert login.stop_daemon("authd") == 0
    memory = login.dir / "state" / "authd" / "memory.db"
    assert memory.stat().st_size > 40000
    assert not any(b"child-died" in x for x in login.daemon("authd").lines)
    for data in (memory.read_bytes(), (login.dir / "users.db").read_bytes()):
        assert bytes(1000) in data
        assert b"\x5a" * 16 not in data and b"\xa5" * 16 not in data, "of the process's memory"


SHA512 = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/"     # "password"


def test_import(login):
    box = login.maildir("imported", MESSAGES)
    files = {
        "shadow": "old:%s:19000:0:99999:7:::\nsvc:*:1::::::\nshut:!%s:1::::::\n" % (SHA512, SHA512),
        "dovecot": "dove:{SHA512-CRYPT}%s:%d:%d::/home/x::userdb_mail=maildir:%s:INDEX=MEMORY\nclear:{PLAIN}password::::::\n"
            % (SHA512, login.uid, login.uid, box),
        "courier": "cour\tuid=%d|gid=1|home=/x|mail=%s|systempw=%s\n" % (login.uid, box, SHA512),
    }
    for form, text in files.items():
        path = login.dir / form
        path.write_text(text)
        login.own(path)
        assert b"added" in login.authctl("import", form, path, *CHEAP).stdout
    listing = {r.split("\t")[0]: r.split("\t")[1:] for r in login.authctl("list").stdout.decode().splitlines()}
    assert set(listing) == {"u", "old", "shut", "dove", "clear", "cour"}
    assert listing["dove"][1:3] == ["maildir:%s" % box, str(login.uid)] and listing["shut"][0] == "locked"
    for user in ("dove", "cour"):
        assert b"[AUTH]" in plain(login, user, "Password")
        for _ in range(2):      # by the imported hash, then by the one that took its place
            assert plain(login, user, "password").startswith(b"+OK"), user
    assert b"[AUTH]" in plain(login, "shut", "password")
    login.stop_daemon("authd")
    assert b"$argon2id$" in (login.dir / "state" / "authd" / "memory.db").read_bytes()


def test_lists_as_json(login):
    """The lists that people read, for scripts: the same facts."""
    def listed(*args):
        return json.loads(login.authctl(*args, "--json").stdout)

    fingerprint = "ab" * 32
    odd = 'maildir:/srv/a "b"\\\t\u00e9'
    login.add("e\u0301ric", odd, uid=4711)      # kept as SASLprep has it
    login.authctl("lock", "e\u0301ric")
    login.authctl("app", "add", "u", "phone", "--from", "192.0.2.0/24", "--expires", "2099-01-01", "--no-delete")
    text = login.authctl("app", "add", "u", "tablet").stdout.decode().strip()
    login.passwords.add(text)
    login.authctl("cert", "add", "u", fingerprint)
    secret_of = login.authctl("secret", "u").stdout.decode().strip()
    login.passwords.add(secret_of)
    users = {r["user"]: r for r in listed("list")}
    assert users == {
        "u": {"user": "u", "locked": False, "maildrop": "maildir:%s" % (login.mail / "u"), "uid": None, "password": "own", "scram": True,
              "secret": True, "apps": 2, "certificates": 1, "server-copy": None},
        "\u00e9ric": {"user": "\u00e9ric", "locked": True, "maildrop": odd, "uid": 4711, "password": "own", "scram": True, "secret": False,
                       "apps": 0, "certificates": 0, "server-copy": None}}
    assert plain(login, "u", text).startswith(b"+OK")
    login.stop_daemon("authd")
    phone, tablet = listed("app", "list", "u")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\dZ", phone.pop("created"))
    assert phone == {"name": "phone", "expires": "2099-01-01T23:59Z", "from": "192.0.2.0/24", "no_delete": True, "used": None}
    assert tablet["expires"] is tablet["from"] is None and not tablet["no_delete"] and tablet["used"] >= tablet["created"]
    assert listed("cert", "list", "u") == [fingerprint]
    assert listed("app", "list", "e\u0301ric") == listed("cert", "list", "e\u0301ric") == []
    assert login.authctl("app", "del", "u", "phone", "--json", check=False).returncode == 2


@pytest.mark.skipif(not harness.HAS_TERMINALS, reason="there is no /dev/pts")
def test_progress_of_an_import(login):
    """Shown on a terminal, and nowhere else."""
    path = login.dir / "shadow"
    path.write_text("".join("m%d:%s:1::::::\n" % (i, SHA512) for i in range(50)))
    login.own(path)
    terminal, end = os.openpty()
    done = subprocess.run([str(x) for x in login.argv("authctl", "import", "shadow", path, *CHEAP)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=end, timeout=60, **login.popen_as())
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):      # how a terminal ends
        while data := os.read(terminal, 4096):
            shown += data
    os.close(terminal)
    assert done.returncode == 0 and done.stdout.startswith(b"added 50,")
    assert re.match(rb"\r\d+ lines, \d+ %", shown) and b"writing" in shown and shown.endswith(b"\r\x1b[K"), shown
    assert login.authctl("import", "shadow", path, *CHEAP).stderr == b""


def test_import_is_whole_or_not_at_all(login):
    path = login.dir / "bad"
    path.write_text("good:{PLAIN}password::::::\nbad:{SSHA}xyz::::::\n")
    login.own(path)
    done = login.authctl("import", "dovecot", path, *CHEAP, check=False)
    assert done.returncode == 1 and b"bad:2:" in done.stderr and b"accepted" in done.stderr
    assert login.authctl("list").stdout.count(b"\n") == 1
    assert login.authctl("import", "nis", path, check=False).returncode == 2


def test_remembered_until_the_record_changes(make_postern):
    p = make_postern({"authd": {"cache-ttl": 300}})
    p.user("u", "maildir", MESSAGES)
    p.start()
    for _ in range(2):
        assert plain(p, "u", PASSWORD).startswith(b"+OK")
    assert b"[AUTH]" in plain(p, "u", "wrong")
    p.authctl("passwd", "u", *CHEAP, password=OTHER)
    assert b"[AUTH]" in plain(p, "u", PASSWORD)
    for _ in range(2):
        assert plain(p, "u", OTHER).startswith(b"+OK")
    p.authctl("lock", "u")
    assert b"[AUTH]" in plain(p, "u", OTHER)
    assert [a["reason"] for a in attempts(p)] == ["password", "remembered", "wrong-password", "wrong-password", "password",
                                                  "remembered", "locked"]


def test_login_delay(make_postern):
    p = make_postern({"authd": {"login-delay": 600}})
    p.user("u", "maildir", MESSAGES)
    p.start()
    assert plain(p, "u", PASSWORD).startswith(b"+OK")
    assert b"[LOGIN-DELAY]" in plain(p, "u", PASSWORD)
    assert b"[AUTH]" in plain(p, "u", "wrong"), "only who knows the password learns of the delay"
    with p.connect() as c:
        assert b"LOGIN-DELAY 600" in c.multi(b"CAPA")
        assert b"[LOGIN-DELAY]" in scram_on(c, "u", PASSWORD)[0], "by whatever mechanism"
    p.authctl("passwd", "u", *CHEAP, password=OTHER)
    assert b"[LOGIN-DELAY]" in plain(p, "u", OTHER), "nor is it forgotten with the old password"
    authd = p.daemon("authd")
    for _ in range(5):
        mark = authd.mark()
        authd.process.send_signal(signal.SIGHUP)
        authd.wait_line("event=reload", start=mark)
        assert b"[LOGIN-DELAY]" in plain(p, "u", OTHER), "nor for a moment, by a reload"
    p.write_conf(authd={"login-delay": 1})
    for name in ("authd", "pop3d"):
        p.stop_daemon(name)
        p.start(name)
    deadline = time.monotonic() + harness.TIMEOUT
    while not (row := plain(p, "u", OTHER)).startswith(b"+OK"):
        assert b"[LOGIN-DELAY]" in row and time.monotonic() < deadline, row


class From(harness.Client):
    """A client with another address of the loopback network."""

    def __init__(self, port, address):
        self.socket = socket.create_connection(("127.0.0.1", port), harness.TIMEOUT, source_address=(address, 0))
        self.buffer = b""
        self.banner = self.line()


def tried(p, address, user, password):
    """The answer, and how long it took."""
    with From(p.port, address) as c:
        start = time.monotonic()
        row = sasl(c, b"PLAIN", None, b"\0%s\0%s" % (user.encode(), password.encode()))
        return row, time.monotonic() - start


def test_throttle(make_postern):
    p = make_postern({"authd": {"throttle": "on", "throttle-exempt": "127.0.9.0/24", "cache-ttl": 0}})
    p.user("u", "maildir", MESSAGES)
    p.start()
    for i in range(5):
        tried(p, "127.0.0.2", "spray%d" % i, "wrong")
    row, first = tried(p, "127.0.0.2", "spray5", "wrong")
    row, second = tried(p, "127.0.0.2", "spray6", "wrong")
    assert first >= 0.45 and second >= 0.9, "guesses at many users from one address are slowed"
    row, elsewhere = tried(p, "127.0.0.3", "u", PASSWORD)
    assert row.startswith(b"+OK") and (harness.WRAP or elsewhere < second), "who comes from elsewhere is not"    # wrapped, a login alone takes as long
    for i in range(8):
        row, exempt = tried(p, "127.0.9.1", "spray%d" % i, "wrong")
        assert exempt < 0.4, "an exempt address is slowed"
    for i in range(9):
        tried(p, "127.0.1.%d" % i, "v", "wrong")
    row, spread = tried(p, "127.0.2.1", "v", "wrong")
    assert spread >= 0.2, "guesses at one user from many addresses are slowed"


def test_throttle_outlives_reload_crash_and_restart(make_postern):
    """Who has guessed too often is slowed by the next verifier, and by the next authd; and what was verified outlives a reload."""
    p = make_postern({"authd": {"throttle": "on", "cache-ttl": 300}})
    p.user("u", "maildir", MESSAGES)
    p.start()
    assert plain(p, "u", PASSWORD).startswith(b"+OK")
    for i in range(5):
        tried(p, "127.0.0.2", "spray%d" % i, "wrong")
    authd = p.daemon("authd")

    def reload():
        authd.process.send_signal(1)
        authd.wait_line("event=reload")

    def crash():
        mark = authd.mark()
        for pid, name in harness.children(authd.pid):
            if name == "authd: verifier":
                os.kill(pid, 9)
        authd.wait_line("event=child-died", "process=verifier", start=mark)

    def restart():
        assert p.stop_daemon("authd") == 0
        p.start("authd")

    def pop3d():
        assert p.stop_daemon("pop3d") == 0
        p.start("pop3d")

    for how in (reload, crash, pop3d, restart):
        how()
        row = tried(p, "127.0.0.3", "u", PASSWORD)[0]
        deadline = time.monotonic() + harness.TIMEOUT
        while not row.startswith(b"+OK"):       # the verifier is on its way
            assert time.monotonic() < deadline
            row = tried(p, "127.0.0.3", "u", PASSWORD)[0]
        _, took = tried(p, "127.0.0.2", "spray-after", "wrong")
        assert took >= 0.45, how.__name__
    reasons = [a["reason"] for a in attempts(p) if a["result"] == "ok"]
    assert reasons == ["password", "remembered", "remembered", "remembered", "password"], "a restart of authd forgets what was verified"
    assert (p.dir / "state/authd/throttle").stat().st_size < 1 << 20


def test_long_names_do_not_hide_the_address(login):
    plain(login, "\u00fc" * 120, "wrong")
    assert attempts(login)[-1]["remote"] == "127.0.0.1"


def test_children_that_die_come_back(login):
    """The verifier or a hasher killed: the next login works, and nothing else was restarted."""
    authd = login.daemon("authd").process.pid
    for name in ("hasher", "verifier"):
        for pid in children(authd):
            with contextlib.suppress(FileNotFoundError):    # one of them may be about to end by itself
                if name in (pathlib.Path("/proc") / pid / "comm").read_text():
                    os.kill(int(pid), 9)
        deadline = time.monotonic() + harness.TIMEOUT
        while not plain(login, "u", PASSWORD).startswith(b"+OK"):
            assert time.monotonic() < deadline
    assert login.daemon("authd").process.pid == authd


def test_reload(login):
    """New mechanisms and a new store after SIGHUP; whoever is connected stays so."""
    with login.connect() as before:
        login.write_conf(authd={"mechanisms": "PLAIN"})
        login.daemon("authd").process.send_signal(1)
        deadline = time.monotonic() + harness.TIMEOUT
        while not any(b"event=reload" in x for x in login.daemon("authd").lines):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert plain(login, "u", PASSWORD).startswith(b"+OK")
        assert before.cmd(b"NOOP") is not None


def children(pid):
    return [p for p in os.listdir("/proc") if p.isdigit() and _parent(p) == str(pid)]


def _parent(pid):
    try:
        return (pathlib.Path("/proc") / pid / "stat").read_text().rsplit(")", 1)[1].split()[1]
    except OSError:
        return None


def _memory_has(pid, needle):
    with open("/proc/%s/mem" % pid, "rb", 0) as memory:
        for line in (pathlib.Path("/proc") / pid / "maps").read_text().splitlines():
            start, end = (int(x, 16) for x in line.split()[0].split("-"))
            if "r" not in line.split()[1] or end - start > 1 << 28:
                continue
            try:
                memory.seek(start)
                if needle in memory.read(end - start):
                    return line
            except OSError:
                continue
    return None


@pytest.mark.skipif(not harness.IS_ROOT, reason="NOT RUN: needs root to read the memory of others")
def test_no_password_stays_in_memory(login):
    """After logins by every way in, right and wrong, no process has the password, an app password or a secret in it."""
    app = login.authctl("app", "add", "u", "phone").stdout.decode().strip()
    secret = login.authctl("secret", "u").stdout.decode().strip()
    login.passwords |= {app, secret}
    with login.connect("u") as c:
        assert c.stat()[0] == 2
        plain(login, "u", PASSWORD + "x")
        plain(login, "nobody-here", PASSWORD)
        for text in (app, app.replace("-", ""), app[:-1] + "-"):
            plain(login, "u", text)
        assert scram(login, "u", PASSWORD)[0].startswith(b"-ERR [IN-USE]")
        cram(login, "u", secret)
        answers = [b"u", PASSWORD.encode()]
        with login.connect() as d:
            sasl(d, b"LOGIN", lambda _: answers.pop(0))
        for name in ("authd", "pop3d", "spoold"):
            for pid in login.daemon(name).session():
                for needle in (PASSWORD, app, app.replace("-", ""), secret, secret.replace("-", "")):
                    assert _memory_has(str(pid), needle.encode()) is None, (name, harness.process_name(pid), needle)
        assert c.quit().startswith(b"+OK")


LONG = pytest.mark.skipif("CRASH_ALL" not in os.environ, reason="of the long run: make crash-store")


class Killed:
    """Runs authctl and kills it at one of its system calls."""

    def __init__(self, p, directory):
        self.p, self.killer = p, directory / "killer"
        subprocess.run([os.environ.get("CC", "cc"), "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-o", self.killer,
                        harness.REPO / "tests" / "crash" / "killer.c", "-lseccomp"], check=True, timeout=60)

    def at(self, stop, argv, typed=b""):
        """False once `stop` is beyond its last call."""
        # the shell waits for a line and becomes authctl: so it is traced from its first call on
        argv = ["/bin/sh", "-c", 'read line && exec "$@"', "sh", *[str(x) for x in self.p.argv("authctl", *argv)]]
        ctl = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self.p.popen_as())
        while not _reads(ctl.pid):
            time.sleep(0.002)
        kill = subprocess.Popen([self.killer, str(stop), str(ctl.pid)], stdout=subprocess.PIPE)
        assert kill.stdout.readline() == b"ready\n"
        ctl.communicate(b"\n" + typed, timeout=60)
        return not kill.communicate(timeout=60)[0].startswith(b"ended")

    def calls(self, argv, typed):
        """So many there are, about: the last number at which it still lives. The store is left as it was before."""
        low, high = 1, 4096
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.whole(middle, argv, typed) else (low, middle - 1)
        return low

    def whole(self, stop, argv, typed):
        with kept(self.p):
            return self.at(stop, argv, typed)


@contextlib.contextmanager
def kept(p):
    """The store is put back afterwards."""
    saved = {path: path.read_bytes() for path in p.dir.glob("*.db*")}
    yield
    for path in p.dir.glob("*.db*"):
        if path not in saved:
            path.unlink()
    for path, data in saved.items():
        path.write_bytes(data)
    p.own(p.dir)


def state(p):
    """What the store says of all its users and of u's password; and where their maildrops are."""
    users = sorted(json.loads(p.authctl("list", "--json").stdout), key=lambda u: u["user"])
    maildrops = {u["user"]: (u.pop("maildrop"), u.pop("uid")) for u in users}
    return (users, [p.authctl("test", "u", password=x, check=False).returncode for x in (PASSWORD, OTHER)]), maildrops


def _reads(pid):
    """Does it wait for its standard input?"""
    try:
        return os.readlink("/proc/%d/fd/0" % pid).startswith("pipe:") and \
            pathlib.Path("/proc/%d/syscall" % pid).read_text().split()[:2] == ["0", "0x0"]
    except OSError:
        return False


@pytest.mark.skipif(not harness.IS_ROOT, reason="NOT RUN: needs root to trace what does not dump core")
@pytest.mark.parametrize("argv,typed", [
    (("passwd", "u", *CHEAP), OTHER), (("del", "u"), ""), (("import", "shadow", "FILE", "--replace", *CHEAP), ""),
    *[pytest.param(*x, marks=LONG) for x in (
        (("add", "new", "--maildrop", "mbox:/x", *CHEAP), PASSWORD), (("lock", "u"), ""), (("app", "add", "u", "phone"), ""),
        (("secret", "u"), ""), (("cert", "add", "u", "ab" * 32), ""))]],
    ids=lambda x: x[0] if isinstance(x, tuple) else "")
def test_authctl_killed_at_any_moment(make_postern, tmp_path, argv, typed):
    """
    authctl killed before and after its system calls while it changes the store (all of them in `make crash-store`, nine in `make check`):
    all there is to be seen is the old state or the new one, and the next change works.
    """
    p = make_postern()
    p.add("u", "maildir:/nonexistent")
    file = p.dir / "FILE"
    file.write_text("u:%s:1::::::\nv:%s:1::::::\n" % (SHA512, SHA512))
    p.own(file)
    argv, typed = [file if x == "FILE" else x for x in argv], (typed + "\n").encode()
    killed, old = Killed(p, tmp_path), state(p)
    with kept(p):
        assert not killed.at(1 << 20, argv, typed)
        new = state(p)
    assert new != old and state(p) == old
    last = killed.calls(argv, typed)
    # what it does to the store is at the end
    steps = range(1, last + 2) if "CRASH_ALL" in os.environ else range(last - 80, last + 2, 10)
    for stop in steps:
        with kept(p):
            killed.at(stop, argv, typed)
            now = state(p)
            # the one command that changes both of somebody who is there: maildrops have been replaced, the rest not yet
            between = (old[0], {user: new[1][user] for user in old[1]}) if argv[0] == "import" else None
            assert now in (old, new, between), stop
            p.authctl("add", "next", *CHEAP, password=PASSWORD)


def guessing(man):
    """The reasons that authd(8) lists under "somebody may be guessing"."""
    part = man[man.index("and somebody may be guessing:"):man.index("for another reason:")]
    return set(re.findall(r"^\.Cm ([a-z-]+)(?: ,| \.)?$", part, re.M)) - {"fail"}


def source(program):
    """The text of a program's sources, string literals that follow each other made one."""
    text = "".join(path.read_text() for path in sorted((harness.REPO / program).glob("*.c")))
    return re.sub(r'"\s*\n\s*"', "", text)


def test_manual_has_every_line_of_the_log():
    """authd(8) and the code know the same lines, the same reasons and the same keys of the line a login."""
    man, code = (harness.REPO / "authd/authd.8").read_text(), source("authd")
    written = {re.sub(r"%(\.\*)?l*[a-z]", "...", x) for x in re.findall(r'log_text\((?:LOG_[A-Z]+|[a-z? :_A-Z]+), "((?:[^"\\]|\\.)*)"', code)} - {"..."}
    told = set(re.findall(r'^\.It Li text="(.*)"$', man, re.M))
    kept = {x for x in told if "the certificate expires in" in x}       # keys.c makes it of parts
    assert written == told - kept and len(written) > 30
    events = set(re.findall(r'log_begin\([A-Z_]+, "([a-z-]+)"\)', code))
    assert events == set(re.findall(r"event=([a-z-]+)", man)) - {"note", "warning", "error"}
    reasons = set(re.findall(r'(?:deny(?:_for)?|login_trouble|login_vouched|login_opened|answer)\((?:[^;"]*, )"([a-z-]+)"', code)) | \
        set(re.findall(r'reason = (?:[^";]*)"([a-z-]+)"', code)) | set(re.findall(r'return "([a-z]+-?[a-z]+)";', code[code.index("pam_reason("):][:900]))
    reasons |= {x for row in re.findall(r'deny\(l, DENIED_CREDENTIALS, ([^;]*);', code) for x in re.findall(r'"([a-z-]+)"', row)}
    part = man[man.index(".It Cm reason"):man.index(".It Cm user\n")]
    assert len(reasons) > 20 and reasons | {"certificate", "proof"} == set(re.findall(r"^\.Cm ([a-z-]+)(?: [,.])?$", part, re.M)) - {"ok", "fail"}
    line = code[code.index('log_begin(LOG_INFO, "login")'):]
    line = set(re.findall(r'log_(?:string|bytes)\("([a-z]+)"', line[:line.index("log_end")])) | {"s"}
    part = man[man.index("Every attempt leaves one line"):man.index("Besides there are")]
    assert line == set(re.findall(r"^\.It Cm ([a-z]+)$", part, re.M))


def test_fail2ban_filter(login):
    """What the filter of fail2ban takes for guessing is what the manual says, and a name cannot forge an address."""
    filter_ = (harness.REPO / "etc/fail2ban/filter.conf").read_text()
    pattern = re.search(r"failregex = (.*)", filter_)[1]
    assert set(re.search(r"reason=\(\?:([a-z|-]+)\)", pattern)[1].split("|")) == guessing((harness.REPO / "authd/authd.8").read_text())
    compiled = re.compile(pattern.replace("%(__prefix_line)s", r"postern-authd\[\d+\]: ").replace("<HOST>", r"(?P<host>\S+)"))
    plain(login, "u", "wrong")
    plain(login, "x remote=198.51.100.1 mechanism=", "wrong")
    plain(login, 'x" remote=198.51.100.1 mechanism=', "wrong")
    plain(login, "u", PASSWORD)
    with login.connect() as c:
        c.cmd(b"AUTH PLAIN =")
    attempts(login)
    found = [compiled.match(x.decode()) for x in login.daemon("authd").lines]
    assert [m["host"] for m in found if m] == ["127.0.0.1"] * 3


@pytest.mark.skipif(shutil.which("fail2ban-client") is None, reason="fail2ban is not installed")
def test_fail2ban_is_installed(tmp_path):
    """`make install` puts filter and jail where fail2ban looks; it takes them, off at first, and bans once enabled."""
    make = ["make", "-s", "-C", harness.REPO, "B=%s" % harness.BUILD, "DESTDIR=%s" % tmp_path]
    # what is installed is what is built
    subprocess.run([*make, "-o", "all", "install"], check=True, timeout=60)
    etc = tmp_path / "etc/fail2ban"
    shutil.copytree("/etc/fail2ban", etc, dirs_exist_ok=True)
    for line in ("enabled = false", "enabled = true"):
        jail = etc / "jail.d/postern.conf"
        jail.write_text(jail.read_text().replace("enabled = false", line))
        done = subprocess.run(["fail2ban-client", "-c", etc, "-d"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert ("['add', 'postern'" in done.stdout) == line.endswith("true")
    assert re.search(r"'postern', 'addfailregex', '.*postern-authd.*result=fail", done.stdout)
    mine = "# mine\n"
    jail.write_text(mine)
    subprocess.run([*make, "-o", "all", "install"], check=True, timeout=60)
    assert jail.read_text() == mine, "what is there already is not overwritten"


@pytest.mark.skipif(shutil.which("fail2ban-regex") is None, reason="fail2ban is not installed")
def test_fail2ban(login, tmp_path):
    plain(login, "u", "wrong")
    plain(login, "x remote=198.51.100.1 mechanism=", "wrong")
    plain(login, "u", PASSWORD)
    log = tmp_path / "log"
    log.write_text("".join("Nov 22 14:35:01 host %s\n" % x.decode() for x in login.daemon("authd").lines))
    filters = tmp_path / "filter.d"
    shutil.copytree("/etc/fail2ban/filter.d", filters)
    shutil.copy(harness.REPO / "etc" / "fail2ban" / "filter.conf", filters / "postern.conf")
    done = subprocess.run(["fail2ban-regex", "--print-all-matched", log, filters / "postern.conf"], capture_output=True, text=True,
                          timeout=60)
    assert re.search(r"Lines: \d+ lines, 0 ignored, 2 matched", done.stdout), done.stdout


@pytest.mark.skipif(shutil.which("mpop") is None, reason="mpop is not installed")
@pytest.mark.parametrize("mechanism", ["scram-sha-256", "cram-md5", "plain", "login", "user"])
def test_mpop(login, mechanism):
    password = PASSWORD
    if mechanism == "cram-md5":
        password = login.authctl("secret", "u").stdout.decode().strip()
    conf = login.dir / "mpoprc"
    conf.write_text("account a\nhost 127.0.0.1\nport %d\nuser u\npassword %s\nauth %s\ntls off\nkeep on\ndelivery mbox %s\n"
                    "uidls_file %s\n" % (login.port, password, mechanism, login.dir / "got", login.dir / "uidls"))
    conf.chmod(0o600)
    login.own(login.dir)
    done = subprocess.run(["mpop", "-C", str(conf), "a"], capture_output=True, timeout=60, **login.popen_as())
    assert done.returncode == 0, done.stderr
    assert (login.dir / "got").read_bytes().count(b"Subject: ") == 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_cram_md5(login):
    secret = login.authctl("secret", "u").stdout.decode().strip()
    done = subprocess.run(["curl", "-sS", "--user", "u:" + secret, "--login-options", "AUTH=CRAM-MD5",
                           "pop3://127.0.0.1:%d/1" % login.port], capture_output=True, timeout=60)
    assert done.stdout == b"Subject: one\r\n\r\n1\r\n", done.stderr


MODULE = r"""
#include <security/pam_modules.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int
pam_sm_authenticate(pam_handle_t *h, int flags, int argc, const char **argv)
{
	const char *user;

	(void)flags;
	if (argc == 3 && strcmp(argv[0], "map") == 0 && pam_get_user(h, &user, NULL) == PAM_SUCCESS && strcmp(user, argv[1]) == 0)
		return pam_set_item(h, PAM_USER, argv[2]) == PAM_SUCCESS ? PAM_IGNORE : PAM_SYSTEM_ERR;
	if (argc > 0 && strcmp(argv[0], "hang") == 0)
		for (;;)
			pause();
	if (argc > 0 && strcmp(argv[0], "crash") == 0)
		abort();
	if (argc > 0 && strcmp(argv[0], "print") == 0)
		for (int i = 0; i < 10000; i++)
			if (write(0, "+OK\r\n", 5) + write(1, "+OK\r\n", 5) + write(2, "+OK\r\n", 5) < 15)
				return PAM_SYSTEM_ERR;
	if (argc > 0 && strcmp(argv[0], "fork") == 0 && fork() == 0)
		for (;;)
			pause();
	return argc > 0 && strcmp(argv[0], "exit") == 0 ? (exit(0), PAM_SUCCESS) : PAM_IGNORE;
}

int
pam_sm_setcred(pam_handle_t *h, int flags, int argc, const char **argv)
{
	(void)h; (void)flags; (void)argc; (void)argv;
	return PAM_IGNORE;
}
"""


def pam_module(p, stage, service, how):
    """MODULE before the rest of the service."""
    module = p.dir / "pam_misbehave.so"
    (p.dir / "module.c").write_text(MODULE)
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", module, p.dir / "module.c", "-lpam"], check=True, timeout=60)
    (stage.etc / "pam.d" / service).write_text("auth required %s %s\n@include postern\n" % (module, how))


@pytest.mark.root
@pytest.mark.parametrize("how", ["print", "fork", "crash", "exit", "hang"])
def test_pam_module_that_misbehaves(make_postern, stage, tmp_path, how):
    """Only its own attempt is harmed: users of the store log in meanwhile, and nothing of it is left."""
    p = make_postern({"authd": {"pam-service": "misbehave", "cache-ttl": 0}}, stage=stage)
    pam_module(p, stage, "misbehave", how)
    p.add("virtual", "maildir:%s" % p.maildir("virtual", MESSAGES, uid=61002), uid=61002)
    p.start()
    harmed = p.connect()
    harmed.send(b"AUTH PLAIN " + b64(b"\0alice\0" + stage.passwords["alice"].encode()) + b"\r\n")
    for _ in range(3):
        assert plain(p, "virtual", PASSWORD).startswith(b"+OK")
    harmed.socket.settimeout(40)
    row = harmed.reply()
    assert row.startswith(b"+OK") if how in ("print", "fork") else b"[SYS/TEMP]" in row, row
    authd = p.daemon("authd").process.pid
    for _ in range(200):
        left = [c for q in children(authd) for c in children(q)]
        if not left:
            break
        time.sleep(0.05)
    assert not left, "what a module forked lives on"
    assert not any(b"child-died" in x for x in p.daemon("authd").lines)
    harmed.close()


def subject_of_one(p, user, password):
    with p.connect(user, password) as c:
        return c.top(1, 0).splitlines()[0]


@pytest.mark.root
def test_pam_gives_another_name(make_postern, stage):
    """A module may say who somebody is: his maildrop is opened, each time; whether he is locked counts, and not whether the name typed is."""
    p = make_postern({"authd": {"pam-service": "maps"}}, stage=stage)
    pam_module(p, stage, "maps", "map bob alice")
    for name, uid in (("alice", 61001), ("bob", 61002)):
        box = stage.path("/var/mail/" + name)
        box.write_bytes(harness.mbox([b"Subject: %s\n\nhi\n" % name.encode()]))
        os.chown(box, uid, uid)
    p.start()
    for _ in range(3):
        assert subject_of_one(p, "bob", stage.passwords["alice"]) == b"Subject: alice"
    assert [(a["reason"], a["user"]) for a in attempts(p)] == [("password", "alice")] * 3
    p.add("alice", password=OTHER)
    p.authctl("lock", "alice")
    for name in ("alice", "bob"):
        assert b"[AUTH]" in plain(p, name, stage.passwords["alice"]), name
    p.authctl("unlock", "alice")
    assert plain(p, "bob", stage.passwords["alice"]).startswith(b"+OK")


OTP_SECRET = "3132333435363738393031323334353637383930"


@pytest.mark.root
@pytest.mark.skipif(not pathlib.Path("/lib/x86_64-linux-gnu/security/pam_oath.so").exists() and not
                    list(pathlib.Path("/lib").glob("*/security/pam_oath.so")), reason="libpam-oath is not installed")
def test_second_factor(make_postern, stage):
    """pam_oath: the code is typed behind the password; an old code, a wrong one, a wrong password, either alone are refused alike."""
    p = make_postern({"authd": {"pam-service": "postern-oath", "cache-ttl": 0}}, stage=stage)
    oath = p.dir / "oath"
    oath.mkdir()
    users = oath / "users"
    users.write_text("HOTP alice + %s\n" % OTP_SECRET)
    users.chmod(0o600)
    (stage.etc / "pam.d" / "postern-oath").write_text(
        "auth requisite pam_oath.so usersfile=%s window=3 digits=6\nauth required pam_unix.so use_first_pass\n"
        "account required pam_unix.so\n" % users)
    p.start()
    codes = [hotp(bytes.fromhex(OTP_SECRET), n) for n in range(8)]
    assert codes[:2] == ["755224", "287082"], "RFC 4226 appendix D"
    password = stage.passwords["alice"]
    p.passwords.update(password + c for c in codes)
    for wrong in (password, codes[0], password + "000000", "wrong-" + codes[1], codes[0] + password):
        assert b"[AUTH]" in plain(p, "alice", wrong), wrong
    assert plain(p, "alice", password + codes[2]).startswith(b"+OK")
    assert b"[AUTH]" in plain(p, "alice", password + codes[2]), "a code is good once"
    assert plain(p, "alice", password + codes[3]).startswith(b"+OK")


def hotp(key, counter):
    digest = hmac.digest(key, counter.to_bytes(8, "big"), "sha1")
    at = digest[19] & 15
    return "%06d" % ((int.from_bytes(digest[at:at + 4], "big") & 0x7fffffff) % 1000000)


@pytest.mark.root
def test_second_prompt(make_postern, stage):
    """A module that asks again does not get the password again."""
    p = make_postern({"authd": {"pam-service": "postern-twice", "cache-ttl": 0}}, stage=stage)
    (stage.etc / "pam.d" / "postern-twice").write_text("auth required pam_unix.so\nauth required pam_oath.so usersfile=/nonexistent\n"
                                                       "account required pam_unix.so\n")
    p.start()
    assert b"[AUTH]" in plain(p, "alice", stage.passwords["alice"])
    p.daemon("authd").wait_line("PAM asked for more than one password")
    p.daemon("authd").wait_line("event=login result=fail reason=second-prompt")


@pytest.mark.root
def test_pam_access(make_postern, stage):
    """Who may come from where: pam_access sees the address of the client."""
    p = make_postern({"authd": {"pam-service": "postern-access"}}, stage=stage)
    rules = p.dir / "access.conf"
    rules.write_text("+:alice:127.0.0.1\n-:ALL:ALL\n")
    (stage.etc / "pam.d" / "postern-access").write_text(
        "auth required pam_unix.so\naccount required pam_access.so accessfile=%s\naccount required pam_unix.so\n" % rules)
    p.start()
    assert plain(p, "alice", stage.passwords["alice"]).startswith(b"+OK")
    assert b"[AUTH]" in plain(p, "bob", stage.passwords["bob"])
    assert plain(p, "alice", stage.passwords["alice"]).startswith(b"+OK")
    assert attempts(p)[-1]["reason"] == "remembered"
    assert b"[AUTH]" in tried(p, "127.0.0.5", "alice", stage.passwords["alice"])[0], "what is remembered is of one address"


@pytest.mark.root
def test_one_duration_of_pam(make_postern, stage):
    """Whoever PAM refuses costs it one attempt, and the store as many hashes."""
    p = make_postern({"postern": {"log-level": "debug"}, "authd": {"cache-ttl": 0}}, stage=stage)
    p.add("u")
    p.add("shut")
    p.authctl("lock", "shut")
    p.start()
    found = costs_of(p, {"unknown": lambda: plain(p, "nobody-here", "x"), "wrong, db": lambda: plain(p, "u", "x"),
                         "wrong, pam": lambda: plain(p, "bob", "x"), "locked": lambda: plain(p, "shut", "x"),
                         "locked, right": lambda: plain(p, "shut", PASSWORD), "no name": lambda: plain(p, b"\xff", "x")})
    assert all_alike(found) and len(found["unknown"][0]) == 2, found


@pytest.mark.root
def test_no_password_of_pam_stays_in_memory(make_postern, stage):
    """Neither of one that PAM verified, nor of one that is remembered, nor of SCRAM; in no process of authd and of pop3d."""
    p = make_postern({"authd": {"mechanisms": MECHANISMS, "cache-ttl": 300}}, stage=stage)
    p.add("u", "maildir:%s" % p.maildir("u", MESSAGES, uid=61002), uid=61002)
    p.start()
    password = stage.passwords["alice"]
    for _ in range(2):
        assert plain(p, "alice", password).startswith(b"+OK") and plain(p, "u", PASSWORD).startswith(b"+OK")
    assert b"[AUTH]" in plain(p, "alice", password + "x")
    assert scram(p, "u", PASSWORD)[0].startswith(b"+OK")
    assert [a["reason"] for a in attempts(p) if a["result"] == "ok"].count("remembered") == 2
    with p.connect("alice", password) as c:
        c.ok(b"NOOP")
        for name in ("authd", "pop3d"):
            for pid in p.daemon(name).session():
                for needle in (password, PASSWORD):
                    assert _memory_has(str(pid), needle.encode()) is None, (name, pid, harness.process_name(pid))
    for pid in p.daemon("authd").session():
        limits = (pathlib.Path("/proc/%d/limits" % pid)).read_text()
        assert re.search(r"Max core file size +0 +0 ", limits)
        if harness.process_name(pid) in ("authd: verifier", "authd: hasher"):
            if re.search(r"Max locked memory +unlimited", limits):
                assert int(harness.status_of(pid)["VmLck"].split()[0]) > 1000, "%s may be swapped" % harness.process_name(pid)
            else:       # a container whose root may not raise the limit
                p.daemon("authd").wait_line("memory is not locked")


@pytest.mark.root
def test_pam_account_phase(make_postern, stage):
    """
    A right password of an account that has expired or is locked, that ought to be changed, or is kept out by pam_nologin, is refused like
    a wrong one.
    """
    p = make_postern(stage=stage)
    p.start()
    password = stage.passwords["bob"]
    assert b"[AUTH]" in plain(p, "bob", "wrong")
    nologin = stage.etc / "nologin"
    nologin.write_text("")
    try:
        assert b"[AUTH]" in plain(p, "bob", password)
    finally:
        nologin.unlink()
    shadow = (stage.etc / "shadow").read_text()
    row = re.search(r"(?m)^bob:.*$", shadow)[0].split(":")
    for field, value in ((7, "1"), (3 - 1, "0"), (4, "1"), (1, "!" + row[1]), (1, "*")):      # expired, to be changed, too old, passwd -l, none
        changed = [value if i == field else x for i, x in enumerate(row)]
        (stage.etc / "shadow").write_text(shadow.replace(":".join(row), ":".join(changed)))
        try:
            assert b"[AUTH]" in plain(p, "bob", password), (field, value)
        finally:
            (stage.etc / "shadow").write_text(shadow)
    assert plain(p, "bob", password).startswith(b"+OK")
    assert [a["reason"] for a in attempts(p)] == ["wrong-password", "denied", "denied", "expired", "expired", "wrong-password",
                                                  "wrong-password", "password"]
