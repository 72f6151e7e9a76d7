"""LANG and UTF8 (RFC 6856), and that every text has its French."""
import re
import shutil
import subprocess

import pytest

import harness
from harness import wire

PO = harness.REPO / "po" / "fr.po"
UTF8_HEADER = "Subject: Café crème\n\ntext\n".encode()
ASCII_HEADER = "Subject: plain\nContent-Transfer-Encoding: 8bit\n\nCafé\n".encode()


def unquote(text):
    return text.replace('\\"', '"').replace("\\n", "\n").replace("\\\\", "\\")


def catalogue():
    rows = re.findall(r'^msgid "(.+)"\nmsgstr "(.+)"$', PO.read_text(encoding="utf-8"), re.M)
    assert len(rows) == len(dict(rows))
    return {unquote(a): unquote(b) for a, b in rows}


def in_the_source():
    """Everything that pop3d may say to a person, and authctl of a client's settings."""
    found = set()
    for path in (harness.REPO / "pop3d").glob("*.c"):
        text = path.read_text()
        for call in re.findall(r"output_(?:ok|err)\(&s->output,\s*(.*?)\);", text, re.S):
            first = call.split('",')[0] + '"' if '",' in call else call
            found |= set(re.findall(r'"((?:[^"\\]|\\.)*)"', first))
        found |= set(re.findall(r'ARGUMENT_[A-Z]+, "((?:[^"\\]|\\.)*)"', text))     # what "usage: %s" is followed by
        for array in re.findall(r"(?:denials|failures)\[\w+\] = \{(.*?)\};", text, re.S):
            found |= set(re.findall(r'= "((?:[^"\\]|\\.)*)"', array))
    for path in (harness.REPO / "authd").glob("*.c"):
        found |= set(re.findall(r'\bsay\("((?:[^"\\]|\\.)*)"', path.read_text()))
    # what is no words: numbers, ids, and a text that stands elsewhere
    return {unquote(t) for t in found if re.search("[a-z]{2}", re.sub(r"%[a-z.*]+", "", t))}


def test_every_text_has_its_french():
    said, french = in_the_source(), catalogue()
    assert len(said) > 60
    assert not said - set(french), "without French"
    assert not set(french) - said, "of no text any more"


def test_french_fits():
    for english, french in catalogue().items():
        conversions = re.compile(r"%[-0-9.*]*(?:ll|z|l)?[a-z]")
        assert conversions.findall(english) == conversions.findall(french), english
        code = re.match(r"\[[A-Z/0-9-]+\] ", english)
        assert re.match(r"\[[A-Z/0-9-]+\] ", french) is None if code is None else french.startswith(code[0]), english
        assert " :" not in french and " ;" not in french and "'" not in french, french
        assert len(french.encode()) < 400 and "\n" not in french
    if shutil.which("msgfmt"):
        done = subprocess.run(["msgfmt", "--check", "-o", "/dev/null", PO], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def served():
    with harness.Postern({"pop3d": {"language": "fr"}}) as p:
        p.user("u", "mbox", [UTF8_HEADER, ASCII_HEADER])
        p.start()
        yield p


def test_lang(served):
    with served.connect() as c:
        assert {b"LANG", b"UTF8 USER"} <= set(c.multi(b"CAPA"))
        rows = c.multi(b"LANG")
        assert rows == [b"en English", "fr Français".encode()]
        assert c.err(b"XYZZY") == b"-ERR unknown command"
        assert c.ok(b"LANG fr") == "+OK fr les réponses sont maintenant en français".encode()
        assert c.err(b"XYZZY") == b"-ERR commande inconnue"
        c.err(b"LANG uga")
        assert c.err(b"XYZZY") == b"-ERR commande inconnue"      # one that is not there changes nothing
        c.ok(b"USER u")
        assert c.err(b"PASS wrong") == "-ERR [AUTH] nom d’utilisateur ou mot de passe incorrect".encode()
        c.login("u")
        assert {b"LANG", b"UTF8 USER"} <= set(c.multi(b"CAPA"))
        assert c.err(b"RETR 9") == "-ERR ce message n’existe pas, il y en a 2".encode()
        assert c.ok(b"DELE 1") == "+OK message 1 supprimé".encode()
        assert c.stat() == (1, len(wire(ASCII_HEADER)))
        assert c.ok(b"lang EN-gb").startswith(b"+OK en ")
        assert c.ok(b"RSET") == b"+OK 2 messages (%d octets)" % (len(wire(ASCII_HEADER)) + len(wire(UTF8_HEADER)))
        assert c.ok(b"LANG *").startswith(b"+OK fr ")
        assert c.quit() == "+OK au revoir, il reste 2 messages".encode()


@pytest.mark.parametrize("asked, tag", [(b"fr", b"fr"), (b"fr-CA", b"fr"), (b"FR", b"fr"), (b"en", b"en"), (b"i-default", b"en"),
                                        (b"*", b"fr"), (b"f", None), (b"frx", None), (b"de-fr", None),
                                        (b"fr-Latn-FR", b"fr"), (b"fr-FR x", None), (b"fr-\xff", None), (b"fr_FR", None)])
def test_ranges(served, asked, tag):
    with served.connect() as c:
        row = c.cmd(b"LANG " + asked)
        assert row.startswith(b"-ERR ") if tag is None else row.startswith(b"+OK " + tag + b" "), row


def test_usage(served):
    with served.connect() as c:
        c.ok(b"LANG fr")
        assert c.err(b"USER").decode() == "-ERR usage\u00a0: USER nom"
        assert c.err(b"LANG fr x y z w").decode().startswith("-ERR ") and c.err(b"PASS").decode().endswith("PASS mot-de-passe")


def test_texts_within_texts(make_postern):
    p = make_postern({"authd": {"login-delay": 600}})
    p.user("u", "maildir", [ASCII_HEADER])
    p.start()
    with p.connect("u"), p.connect() as c:
        c.ok(b"LANG fr")
        c.ok(b"USER u")
        row = c.err(b"PASS " + harness.PASSWORD.encode())
        assert re.fullmatch("-ERR \\[LOGIN-DELAY\\] trop tôt après la dernière connexion \\(encore \\d+ secondes à attendre\\)", row.decode())


def test_utf8(served):
    with served.connect() as c:
        c.ok(b"UTF8")
        c.err(b"UTF8 x")
        c.login("u")
        assert c.retr(1) == wire(UTF8_HEADER) and c.retr(2) == wire(ASCII_HEADER)
        c.err(b"UTF8")      # it is of the AUTHORIZATION state
        c.quit()
    with served.connect() as c:
        c.err(b"USER \xff\xfe") if c.ok(b"UTF8") else None
        c.ok("USER é".encode())
        assert b"UTF-8" in c.err(b"PASS \xc3")
        assert c.err("PASS é".encode()).startswith(b"-ERR [AUTH]")
    with served.connect("u") as c:      # without it, as it is: the configuration's choice
        assert c.retr(1) == wire(UTF8_HEADER)
        c.quit()


def test_utf8_names(make_postern):
    """UTF8 USER: names and passwords are UTF-8, however they are composed."""
    p = make_postern()
    p.user("é", "maildir", [ASCII_HEADER])
    p.start()
    for name in ("\u00e9", "e\u0301"):
        with p.connect() as c:
            c.ok(b"UTF8")
            c.ok(b"USER " + name.encode())
            assert c.ok(b"PASS " + harness.PASSWORD.encode()).startswith(b"+OK 1 ")
            c.quit()


def test_refused_by_the_rfc(make_postern, store):
    p = make_postern({"pop3d": {"raw-headers": "refuse"}})
    long = b"Subject: x\n" + b"X: " + b"y" * 9000 + "\nFrom: é <a@b>\n\n".encode()
    latin = b"Subject: \xe9\r\n\r\n"
    messages = [UTF8_HEADER, ASCII_HEADER, long, b"\nCaf\xc3\xa9\n", latin]
    p.user("u", store, messages)
    p.start()
    with p.connect("u") as c:
        c.ok(b"LIST 1")
        for n in (1, 3, 5):
            assert c.err(b"RETR %d" % n).startswith(b"-ERR [UTF8] ")
            assert c.err(b"TOP %d 0" % n).startswith(b"-ERR [UTF8] ")
        assert c.retr(2) == wire(ASCII_HEADER) and c.retr(4) == wire(messages[3])
        c.quit()
    with p.connect() as c:
        c.ok(b"UTF8")
        c.login("u")
        for n, m in enumerate(messages, 1):
            assert c.retr(n) == wire(m)
        c.quit()
