"""Every command in every state: good, missing, extra, huge, negative and garbage arguments; and the rules of the line."""
import base64
import re
import socket

import pytest

import harness
from harness import PASSWORD, top, wire

MESSAGES = [
    b"Subject: one\n\nfirst\n.\n..dots\nlast\n",
    b"Subject: two\r\n\r\nsecond\r\n",
    b"Subject: three\n\n" + b"line\n" * 100,
]
SIZES = [len(wire(m)) for m in MESSAGES]


@pytest.fixture(scope="module")
def running():
    with harness.Postern() as p:
        p.user("demo", "mbox", MESSAGES)
        p.user("md", "maildir", MESSAGES)
        p.user("empty", "maildir", [])
        p.start()
        yield p


@pytest.fixture
def before(running):
    with running.connect() as c:
        yield c


@pytest.fixture(params=["demo", "md"])
def inside(running, request):
    with running.connect(request.param) as c:
        yield c
        c.send(b"QUIT\r\n")     # so that the next test does not meet this one's lock
        while c.line():
            pass


def b64(text):
    return base64.b64encode(text.encode() if isinstance(text, str) else text)


def plain(user, password=PASSWORD, as_user=""):
    return b64("%s\0%s\0%s" % (as_user, user, password))


# AUTHORIZATION

def test_greeting(before):
    assert before.banner.startswith(b"+OK") and before.banner.endswith(b"\r\n")
    assert b"<" not in before.banner, "an APOP banner without APOP"


OUTSIDE = [b"STAT", b"LIST", b"LIST 1", b"RETR 1", b"DELE 1", b"NOOP", b"RSET", b"TOP 1 0", b"UIDL", b"UIDL 1"]
NEVER = [b"LAST", b"XTND", b"RPOP x", b"FOO", b"", b" ", b"\t", b"QUITT", b"QUI", b"\xff\xfe", b"USER\xa0demo", b"+OK",
         b"GET / HTTP/1.0", b"EHLO x", b"%s%n", b"-1", b"\x01\x02"]


@pytest.mark.parametrize("command", OUTSIDE + NEVER)
def test_not_before_login(before, command):
    before.err(command)
    before.ok(b"CAPA")      # and the session goes on


@pytest.mark.parametrize("command", [b"USER", b"USER ", b"PASS", b"PASS x", b"APOP", b"APOP demo", b"APOP demo x",
                                     b"APOP demo c4c9334bac560ecc979e58001b3e22fb", b"QUIT now", b"CAPA x", b"AUTH FOO", b"AUTH PLAIN =",
                                     b"AUTH PLAIN !", b"AUTH PLAIN " + b64("demo"), b"AUTH PLAIN Zm9v Zm9v", b"AUTH -1",
                                     b"AUTH " + b"X" * 200, b"AUTH SCRAM-SHA-1", b"AUTH PLAIN\x01"])
def test_refused_before_login(before, command):
    before.err(command)
    before.ok(b"USER demo")


def test_login_and_out(running):
    with running.connect() as c:
        c.ok(b"USER demo")
        c.ok(b"PASS " + PASSWORD.encode())
        assert c.stat() == (3, sum(SIZES))
        assert c.quit().startswith(b"+OK")


@pytest.mark.parametrize("command", [b"user demo", b"uSeR demo", b"  USER   demo  ", b"USER\tdemo", b"USER demo\t "])
def test_case_and_blanks(before, command):
    before.ok(command)
    before.ok(b"pass " + PASSWORD.encode())
    assert before.stat()[0] == 3
    before.ok(b" quit ")


def test_bare_lf(running):
    with running.connect() as c:
        c.send(b"USER demo\nPASS " + PASSWORD.encode() + b"\nSTAT\nQUIT\n")
        assert [c.reply()[:3] for _ in range(4)] == [b"+OK"] * 4
        assert c.eof()


def test_wrong_password_and_unknown_user_are_one_answer(running):
    answers = set()
    for user in (b"demo", b"nobody-of-that-name", b"root", b"a" * 200, b"../demo", b"%s", b"demo@example.org"):
        with running.connect() as c:    # who fails too often is let go
            c.ok(b"USER " + user)
            answers.add(c.err(b"PASS wrong"))
            answers.add(c.err(b"AUTH PLAIN " + b64(b"\0" + user + b"\0wrong")))
    assert len(answers) == 1 and answers.pop().startswith(b"-ERR [AUTH]")


def test_many_wrong_passwords_end_the_connection(running):
    with running.connect() as c:
        for n in range(100):
            try:
                c.send(b"USER demo\r\nPASS wrong\r\n")
                rows = [c.line(), c.line()]
            except ConnectionError:
                break
            if not rows[1]:
                break
            assert rows[1].startswith(b"-ERR [AUTH]")
        assert 2 <= n < 50


def test_user_may_be_given_again(before):
    before.ok(b"USER nobody-of-that-name")
    before.ok(b"USER demo")
    before.ok(b"PASS " + PASSWORD.encode())
    before.ok(b"QUIT")


def test_pass_needs_user_each_time(before):
    before.ok(b"USER demo")
    before.err(b"PASS wrong")
    before.err(b"PASS " + PASSWORD.encode())
    before.login("demo").ok(b"QUIT")


def test_password_with_blanks(running):
    running.user("blanks", "maildir", [])
    for n, password in enumerate([" two  blanks ", "a b", "p\u00e4ss\u20ac"]):
        running.authctl("passwd", "blanks", password=password)
        with running.connect() as c:
            c.ok(b"USER blanks")
            c.ok(b"PASS " + password.encode())
            assert c.quit().startswith(b"+OK")


def test_capa_before_login(before):
    rows = before.multi(b"CAPA")
    assert {b"TOP", b"UIDL", b"USER", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING"} <= set(rows)
    sasl = [r.split()[1:] for r in rows if r.startswith(b"SASL")]
    assert len(sasl) == 1 and {b"PLAIN", b"LOGIN"} <= set(sasl[0])
    assert before.multi(b"AUTH") == sasl[0]
    assert {b"LANG", b"UTF8"} <= {r.split()[0] for r in rows}
    assert b"STLS" not in rows, "announced, and not there"
    before.err(b"STLS")


def test_capa_after_login(inside):
    rows = inside.multi(b"CAPA")
    assert {b"TOP", b"UIDL", b"RESP-CODES", b"PIPELINING"} <= set(rows)


def test_login_delay_and_expire_as_configured(before):
    rows = before.multi(b"CAPA")
    assert b"EXPIRE NEVER" in rows
    assert not [r for r in rows if r.startswith(b"LOGIN-DELAY")]


def test_auth_lists(before):
    listed = before.multi(b"AUTH")
    assert {b"PLAIN", b"LOGIN"} <= set(listed)
    assert before.multi(b"auth ") == listed


@pytest.mark.parametrize("name", [b"AUTH PLAIN", b"auth plain", b"Auth  Plain"])
def test_auth_plain(running, name):
    with running.connect() as c:
        c.ok(name + b" " + plain("demo"))
        assert c.stat()[0] == 3
        assert c.quit().startswith(b"+OK")


def test_auth_plain_without_initial_response(before):
    assert before.cmd(b"AUTH PLAIN") == b"+ "
    before.ok(plain("demo"))
    assert before.stat()[0] == 3
    before.ok(b"QUIT")


def test_auth_plain_authzid(before):
    before.err(b"AUTH PLAIN " + plain("demo", as_user="md"))    # nobody acts for another
    before.ok(b"AUTH PLAIN " + plain("demo", as_user="demo"))
    before.ok(b"QUIT")


def test_auth_login(before):
    assert before.cmd(b"AUTH LOGIN").startswith(b"+ ")
    assert before.cmd(b64("demo")).startswith(b"+ ")
    before.ok(b64(PASSWORD))
    assert before.stat()[0] == 3
    before.ok(b"QUIT")


def test_auth_login_initial_response(before):
    assert before.cmd(b"AUTH LOGIN " + b64("demo")).startswith(b"+ ")
    before.ok(b64(PASSWORD))
    before.ok(b"QUIT")


@pytest.mark.parametrize("answer", [b"*", b"!!", b"====", b"", b"A", plain("demo", "wrong"), b64("\0\0"), b64("demo"), b64("\0demo"),
                                    b64("\0demo\0" + PASSWORD + "\0more"), b64(b"\0" * 50), b"=" * 12280, b"A" * 12287, b"A" * 12288,
                                    b"A" * 12289, b"A" * 60000, b64("\0" + "u" * 300 + "\0p"), b64("\0demo\0" + "p" * 2000)])
def test_auth_plain_bad_answers(before, answer):
    assert before.cmd(b"AUTH PLAIN") == b"+ "
    before.err(answer)
    before.ok(b"CAPA")
    before.rows()
    before.login("demo").ok(b"QUIT")


@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize("answer", [b"*", b"!!", b"A" * 20000, b"\x80\x81"])
def test_auth_login_bad_answers(before, where, answer):
    assert before.cmd(b"AUTH LOGIN").startswith(b"+ ")
    if where == 1:
        assert before.cmd(b64("demo")).startswith(b"+ ")
    before.err(answer)
    before.login("demo").ok(b"QUIT")


def test_auth_long_initial_response(before):
    assert before.err(b"AUTH PLAIN " + b64("\0demo\0" + "x" * 700)).startswith(b"-ERR [AUTH]")
    before.err(b"AUTH PLAIN " + b"A" * 13000)
    before.login("demo").ok(b"QUIT")


def test_quit_before_login(before):
    before.ok(b"QUIT")
    assert before.eof()


# TRANSACTION

NUMBERS = [b"0", b"4", b"-1", b"+1", b"99999999999999999999999", b"4294967297", b"18446744073709551617", b"2147483648", b"abc", b"1x",
           b"0x1", b"1.0", b"1 2 3", b"*", b"\xff", b"1,2", b"%d", b"1" * 240]


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_that_are_none(inside, number):
    for name in (b"LIST ", b"RETR ", b"DELE ", b"UIDL "):
        inside.err(name + number)
    inside.err(b"TOP " + number + b" 0")
    inside.err(b"TOP 1 " + number if number not in (b"0", b"4", b"4294967297", b"2147483648") else b"TOP 4 0")
    assert inside.stat() == (3, sum(SIZES))


@pytest.mark.parametrize("command", [b"RETR", b"DELE", b"TOP", b"TOP 1", b"TOP  ", b"STAT x", b"NOOP x", b"RSET x", b"QUIT x", b"CAPA x",
                                     b"LIST 1 2", b"UIDL 1 2", b"RETR 1 2", b"DELE 1 2", b"TOP 1 2 3"])
def test_missing_and_extra_arguments(inside, command):
    inside.err(command)
    assert inside.stat() == (3, sum(SIZES))


@pytest.mark.parametrize("command", [b"USER demo", b"PASS x", b"AUTH", b"AUTH PLAIN", b"AUTH PLAIN " + plain("demo"), b"APOP a b", b"STLS"] + NEVER)
def test_not_after_login(inside, command):
    inside.err(command)
    assert inside.stat() == (3, sum(SIZES))


def test_lists(inside):
    assert inside.stat() == (3, sum(SIZES))
    assert inside.list() == {i + 1: n for i, n in enumerate(SIZES)}
    uids = inside.uidl()
    assert sorted(uids) == [1, 2, 3] and len(set(uids.values())) == 3
    assert all(re.fullmatch(rb"[\x21-\x7e]{1,70}", u) for u in uids.values())
    for n in (1, 2, 3):
        assert inside.ok(b"LIST %d" % n).split()[1:3] == [b"%d" % n, b"%d" % SIZES[n - 1]]
        assert inside.ok(b"UIDL %d" % n).split()[1:3] == [b"%d" % n, uids[n]]


def test_retr(inside):
    for n, m in enumerate(MESSAGES, 1):
        assert inside.retr(n) == wire(m)
    inside.ok(b"retr 1")
    assert inside.body() == harness.stuffed(wire(MESSAGES[0]))
    inside.ok(b"RETR  \t 2  ")
    inside.body()


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 4, 5, 99, 100, 101, 99999999])
def test_top(inside, lines):
    for n, m in enumerate(MESSAGES, 1):
        assert inside.top(n, lines) == top(m, lines)


def test_dele_and_rset(inside):
    inside.ok(b"DELE 2")
    for command in (b"DELE 2", b"RETR 2", b"LIST 2", b"UIDL 2", b"TOP 2 0"):
        inside.err(command)
    assert inside.stat() == (2, SIZES[0] + SIZES[2])
    assert sorted(inside.list()) == sorted(inside.uidl()) == [1, 3]
    assert inside.retr(3) == wire(MESSAGES[2])      # numbers do not move
    inside.ok(b"DELE 1")
    inside.ok(b"DELE 3")
    assert inside.stat() == (0, 0) and inside.list() == {} and inside.uidl() == {}
    inside.ok(b"RSET")
    inside.ok(b"NOOP")
    assert inside.stat() == (3, sum(SIZES)) and sorted(inside.list()) == [1, 2, 3]


def test_empty_maildrop(running):
    with running.connect("empty") as c:
        assert c.stat() == (0, 0) and c.list() == {} and c.uidl() == {}
        for command in (b"RETR 1", b"DELE 1", b"TOP 1 0", b"LIST 1", b"UIDL 1", b"LIST 0"):
            c.err(command)
        c.ok(b"RSET")
        assert c.quit().startswith(b"+OK")


# The line

def test_line_of_255_octets(before):
    before.send(b"USER " + b"x" * 248 + b"\r\n")      # 255 with its end
    assert b"long" not in before.reply()
    before.send(b"USER " + b"x" * 249 + b"\r\n")
    assert before.reply().startswith(b"-ERR")
    before.login("demo").ok(b"QUIT")


@pytest.mark.parametrize("length", [256, 512, 4096, 12288, 12290, 14336, 20000, 100000])
def test_long_lines_are_skipped_whole(before, length):
    before.send(b"X" * length + b" QUIT\r\nQUIT\r\n")
    assert before.reply().startswith(b"-ERR")
    assert before.reply().startswith(b"+OK")
    assert before.eof()


def test_long_line_in_pieces(before):
    for _ in range(20):
        before.send(b"Y" * 1000)
    before.send(b"\r\n")
    before.ok(b"CAPA") if before.reply().startswith(b"-ERR") else pytest.fail("taken for a command")


def test_line_without_end_is_bounded(running, before):
    """Whoever sends for ever without an end of line is let go."""
    mark = running.daemon("pop3d").mark()
    try:
        for _ in range(256):
            before.send(b"Z" * (1 << 17))
    except ConnectionError:
        pass
    line = running.daemon("pop3d").wait_line("event=session", "end=nonsense", start=mark)
    assert int(re.search(r" in=(\d+)", line)[1]) < 1 << 22


def test_nul_in_line(before):
    before.err(b"USER de\0mo")
    before.err(b"\0")
    before.login("demo").ok(b"QUIT")


def test_nonsense_ends_the_session(before):
    rows = []
    for _ in range(100):
        try:
            before.send(b"NONSENSE\r\n")
            row = before.line()
        except ConnectionError:
            break
        if not row:
            break
        rows.append(row)
    assert 5 <= len(rows) < 100 and all(r.startswith(b"-ERR") for r in rows)


def test_byte_by_byte(before):
    for byte in b"USER demo\r\nPASS " + PASSWORD.encode() + b"\r\nSTAT\r\nRETR 1\r\nQUIT\r\n":
        before.send(bytes([byte]))
    for _ in range(4):
        assert before.reply().startswith(b"+OK")
    assert before.body() == harness.stuffed(wire(MESSAGES[0]))
    assert before.reply().startswith(b"+OK")
    assert before.eof()


# Pipelining

def test_whole_session_in_one_packet(running):
    with running.connect() as c:
        c.send(b"CAPA\r\nUSER demo\r\nPASS " + PASSWORD.encode() + b"\r\nSTAT\r\nLIST\r\nRETR 1\r\nTOP 3 1\r\nUIDL\r\nDELE 1\r\nRSET\r\nQUIT\r\n")
        c.reply(), c.rows(), c.reply(), c.reply(), c.reply()
        c.reply(), c.rows()
        assert c.reply().startswith(b"+OK") and c.unstuffed() == wire(MESSAGES[0])
        assert c.reply().startswith(b"+OK") and c.unstuffed() == top(MESSAGES[2], 1)
        c.reply(), c.rows()
        assert [c.reply()[:3] for _ in range(3)] == [b"+OK"] * 3
        assert c.eof()


def test_pipelined_behind_auth(running):
    with running.connect() as c:
        c.send(b"AUTH PLAIN\r\n" + plain("demo") + b"\r\nSTAT\r\nAUTH\r\nQUIT\r\n")
        assert c.reply() == b"+ "
        assert [c.reply()[:3] for _ in range(4)] == [b"+OK", b"+OK", b"-ER", b"+OK"]
        assert c.eof()


def test_many_pipelined_commands(running):
    """Nothing is lost of 30,000 commands sent before one answer is read, as far as both sides' buffers go."""
    import threading
    count = 30000
    with running.connect("demo") as c:
        sender = threading.Thread(target=c.send, args=(b"NOOP\r\nSTAT\r\nLIST 1\r\n" * count + b"QUIT\r\n",))
        sender.start()
        for i in range(3 * count + 1):
            assert c.reply().startswith(b"+OK"), i
        sender.join()
        assert c.eof()


def test_pipelined_retr_of_everything(running):
    with running.connect("md") as c:
        c.send(b"".join(b"RETR %d\r\nDELE %d\r\nRSET\r\n" % (n, n) for n in (1, 2, 3)) * 100)
        for _ in range(100):
            for m in MESSAGES:
                assert c.reply().startswith(b"+OK") and c.unstuffed() == wire(m)
                c.reply(), c.reply()
        assert c.quit().startswith(b"+OK")


# One reply, one write: a connection that keeps the bounds of writes shows it.

@pytest.mark.parametrize("user", ["demo", "md"])
def test_a_reply_is_one_write(running, user):
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.settimeout(harness.TIMEOUT)
    daemon = harness.Watched("pop3d-nowait", running.argv("pop3d"), stdin=there, stdout=there, **running.popen_as())
    there.close()
    try:
        assert here.recv(1 << 20).startswith(b"+OK")

        def ask(command):
            here.send(command + b"\r\n")
            return here.recv(1 << 20)
        ask(b"USER " + user.encode())
        assert ask(b"PASS " + PASSWORD.encode()).startswith(b"+OK")
        for command in (b"LIST", b"UIDL", b"RETR 1", b"RETR 3", b"TOP 1 0", b"CAPA"):
            assert ask(command).endswith(b"\r\n.\r\n"), command
        # answers to a pipeline leave together
        assert ask(b"STAT\r\nNOOP\r\nLIST 1").count(b"+OK") == 3
        assert ask(b"QUIT").startswith(b"+OK")
        assert here.recv(10) == b""
    finally:
        here.close()
        daemon.process.wait(harness.TIMEOUT)
        daemon.wait_gone(5)
        daemon.close()


# The log

def test_session_id_runs_through_all_three(running):
    marks = {name: running.daemon(name).mark() for name in ("pop3d", "authd", "spoold")}
    with running.connect("demo") as c:
        assert c.quit().startswith(b"+OK")
    line = running.daemon("pop3d").wait_line("event=session", start=marks["pop3d"])
    session = re.search(r" s=([0-9a-f]{16}) ", line)[1]
    for name in ("authd", "spoold"):
        running.daemon(name).wait_line("s=" + session, start=marks[name])


def test_log_escapes_what_a_client_sends(running):
    mark = running.daemon("authd").mark()
    with running.connect() as c:
        c.ok(b'USER x" event=login result=ok user="demo')
        c.err(b"PASS wrong")
        c.quit()
    line = running.daemon("authd").wait_line("event=login", "x22", start=mark)
    assert " result=ok" not in re.sub(r'"[^"]*"', "", line) and "result=fail" in line
    with running.connect() as c:        # nor does what has control characters get there as it is
        c.ok(b"USER \x1b[2J\x07\x7f\xff\xc2\x85")
        c.err(b"PASS \x1b")
        c.err(b"\x1b]0;title\x07 x")
        c.quit()
    running.daemon("authd").wait_line("event=login", "result=fail", start=mark + 1)
