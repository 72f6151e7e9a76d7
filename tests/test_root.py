"""As in production: from root, with accounts of the system and PAM passwords, on a stage of their own."""
import os
import re
import shutil
import subprocess

import pytest

import harness
from harness import mbox, wire

pytestmark = pytest.mark.root
OF = {"alice": [b"Subject: to alice\n\nsecret of alice\n"], "bob": [b"Subject: to bob\n\nsecret of bob\n", b"Subject: 2\n\nmore\n"]}


def give(stage, user, store, messages=None):
    """Puts mail where it is looked for by default. Returns the path on the stage."""
    uid = stage.USERS[user]
    messages = OF.get(user, []) if messages is None else messages
    if store == "mbox":
        path = stage.path("/var/mail/" + user)
        path.write_bytes(mbox(messages))
        path.chmod(0o660)
        os.chown(path, uid, 8)
        return path
    path = stage.path("/home/%s/Maildir" % user)
    for sub in ("", "tmp", "new", "cur"):
        (path / sub).mkdir(mode=0o700)
        os.chown(path / sub, uid, uid)
    for i, m in enumerate(messages):
        name = path / "new" / ("%010d.M1P1.host" % (1000000000 + i))
        name.write_bytes(m)
        name.chmod(0o600)
        os.chown(name, uid, uid)
    return path


def clear(stage):
    for user in stage.passwords:
        for path in (stage.path("/var/mail/" + user), stage.path("/home/%s/Maildir" % user)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


@pytest.fixture
def p(make_postern, stage):
    clear(stage)
    postern = make_postern(stage=stage)
    yield postern
    clear(stage)


def login(p, user):
    return p.connect(user, p.stage.passwords[user])


def worker_of(p, before):
    """The processes that spoold's parent has and had not before."""
    return [pid for pid, name in harness.children(p.daemon("spoold").pid) if pid not in before]


@pytest.mark.confined
def test_two_accounts(p, stage, store):
    for user in OF:
        give(stage, user, store)
    p.start()
    spare = {pid for pid, _ in harness.children(p.daemon("spoold").pid)}
    with login(p, "alice") as alice:
        worker = worker_of(p, spare)
        with login(p, "bob") as bob:
            other = [x for x in worker_of(p, spare) if x not in worker]
            assert [alice.retr(n) for n in range(1, alice.stat()[0] + 1)] == [wire(m) for m in OF["alice"]]
            assert [bob.retr(n) for n in range(1, bob.stat()[0] + 1)] == [wire(m) for m in OF["bob"]]
            for user, pids in (("alice", worker), ("bob", other)):
                uid = stage.USERS[user]
                owned = [pid for pid in pids if harness.identity(pid)[0] == [uid] * 4]
                assert len(owned) == 1, "one worker of %s's uid; is %s" % (user, [harness.identity(x) for x in pids])
                uids, gids, groups = harness.identity(owned[0])
                assert gids == [uid] * 4
                assert groups in ([], [uid]), "alice is in group mail, her worker must not be"
                status = harness.status_of(owned[0])
                assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapInh"], 16) == 0
                assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
            alice.ok(b"DELE 1")
            assert alice.quit().startswith(b"+OK")
            assert bob.quit().startswith(b"+OK")
    with login(p, "alice") as c:
        assert c.stat() == (0, 0)
    with login(p, "bob") as c:
        assert c.stat()[0] == 2


def test_neither_reaches_the_other(p, stage, store):
    """Not by name, not by asking for the other's authority, not through a link in one's own maildrop."""
    for user in OF:
        give(stage, user, store)
    p.start()
    import base64
    with p.connect() as c:
        for text in (b"bob\0alice\0" + stage.passwords["alice"].encode(), b"\0bob\0" + stage.passwords["alice"].encode()):
            c.err(b"AUTH PLAIN " + base64.b64encode(text))
    for user in (b"bob", b"alice/../bob", b"../bob", b"alice%2fbob", b"61002", b"ALICE"):
        wrong(p, user, stage.passwords["alice"].encode())
    # alice makes her maildrop point at bob's
    clear(stage)
    target = give(stage, "bob", store)
    mine = stage.path("/var/mail/alice" if store == "mbox" else "/home/alice/Maildir")
    os.symlink("/var/mail/bob" if store == "mbox" else "/home/bob/Maildir", mine)
    os.lchown(mine, stage.USERS["alice"], stage.USERS["alice"])
    with p.connect() as c:
        c.ok(b"USER alice")
        row = c.cmd(b"PASS " + stage.passwords["alice"].encode())
        if row.startswith(b"+OK"):
            assert c.stat() == (0, 0), "alice reads bob's mail"
            c.quit()
    assert target.exists()


def test_identities_of_all_processes(p, stage, store):
    """Who runs as whom; nobody but the parents (and PAM's) is root, and nobody is who has to do with the network."""
    give(stage, "alice", store)
    p.start()
    with login(p, "alice") as c:
        assert c.stat()[0] == 1
        seen = {}
        for name in ("pop3d", "authd", "spoold"):
            for pid in p.daemon(name).session():
                seen.setdefault(harness.process_name(pid), set()).add((name, harness.identity(pid)[0][1]))
        for process, facts in seen.items():
            for daemon, uid in facts:
                if daemon == "pop3d":
                    assert uid == stage.USERS["_postern"], (process, uid)
                if daemon == "authd":
                    assert uid in (0, stage.USERS["_postern-auth"]), (process, uid)
                if daemon == "spoold":
                    assert uid in (0, stage.USERS["alice"]), (process, uid)
        roots = sorted((d, n) for n, facts in seen.items() for d, uid in facts if uid == 0)
        assert not [n for d, n in roots if "verif" in n or "hash" in n or "worker" in n], roots
        assert {d for d, _ in roots} == {"authd", "spoold"}
        assert c.quit().startswith(b"+OK")


def test_refused_accounts(p, stage):
    """uid 0 and what is under min-uid have no mail here, whatever the password."""
    p.start()
    with p.connect() as c:
        c.ok(b"USER system")
        row = c.err(b"PASS " + stage.passwords["system"].encode())
        assert row.startswith((b"-ERR [SYS/PERM]", b"-ERR [AUTH]"))
        c.ok(b"CAPA")


def wrong(p, user, password):
    with p.connect() as c:      # who fails too often is let go, so one attempt a connection
        c.ok(b"USER " + user)
        return c.err(b"PASS " + password)


def test_wrong_passwords_and_accounts(p, stage):
    p.start()
    answers = {wrong(p, user, password) for user in (b"alice", b"no-such-account", b"_postern", b"root") for password in (b"wrong", b"!")}
    assert len(answers) == 1 and answers.pop().startswith(b"-ERR [AUTH]")


def test_db_user_beside_pam(p, stage):
    """A user of the db with a uid of the system, whose maildrop is that account's to read."""
    path = p.mbox("virtual", OF["bob"], uid=stage.USERS["bob"])
    p.add("virtual", "mbox:%s" % path, uid=stage.USERS["bob"])
    p.start()
    with p.connect("virtual") as c:
        assert c.retr(1) == wire(OF["bob"][0])
        c.ok(b"DELE 1")
        assert c.quit().startswith(b"+OK")
    assert path.read_bytes() == mbox(OF["bob"][1:])
    assert os.stat(path).st_uid == stage.USERS["bob"]


def test_foreign_maildrop_is_refused(p, stage, store):
    """The maildrop of a db user who has alice's uid, but the mail is bob's: the kernel says no."""
    path = getattr(p, store)("theirs", OF["bob"], uid=stage.USERS["bob"])
    path.chmod(0o600 if store == "mbox" else 0o700)
    p.add("wrong", "%s:%s" % (store, path), uid=stage.USERS["alice"])
    p.start()
    with p.connect() as c:
        c.ok(b"USER wrong")
        assert c.err(b"PASS " + harness.PASSWORD.encode()).startswith(b"-ERR [SYS/PERM]")


def test_mailbox_keeps_owner_and_mode(p, stage):
    path = give(stage, "bob", "mbox")
    before = os.stat(path)
    p.start()
    with login(p, "bob") as c:
        c.ok(b"DELE 1")
        assert c.quit().startswith(b"+OK")
    after = os.stat(path)
    assert path.read_bytes() == mbox(OF["bob"][1:])
    assert (before.st_uid, before.st_gid, before.st_mode, before.st_ino) == (after.st_uid, after.st_gid, after.st_mode, after.st_ino)
    assert os.listdir(path.parent) == ["bob"], "something was left in the spool directory"


def test_no_maildrop_is_an_empty_one(p, stage):
    p.start()
    with login(p, "carol") as c:
        assert c.stat() == (0, 0) and c.uidl() == {}
        assert c.quit().startswith(b"+OK")
    assert not stage.path("/var/mail/carol").exists()


@pytest.mark.unwrapped("valgrind has files of its own open")
def test_descriptors_of_a_session(p, stage, store):
    """pop3d with a session has no path and no directory open; its root cannot be walked."""
    give(stage, "alice", store)
    p.start()
    with login(p, "alice") as c:
        assert c.stat()[0] == 1
        held = []
        for pid in p.daemon("pop3d").session():
            for fd in os.listdir("/proc/%d/fd" % pid):
                held.append(os.readlink("/proc/%d/fd/%s" % (pid, fd)))
        named = [h for h in held if h.startswith("/") and not h.startswith(("/dev/null", "/memfd:")) and "pipe" not in h]
        assert [h for h in named if "alice" not in h] == [], named
        if store == "maildir":
            assert named == []
        assert c.quit().startswith(b"+OK")


def test_sockets_are_not_for_everybody(p, stage):
    p.start()
    run = p.conf["postern"]["run-dir"]
    modes = {n: oct(os.stat(run / n).st_mode & 0o777) for n in os.listdir(run)}
    assert {"authd.sock", "spoold.sock"} <= set(modes)
    # an ordinary user is not served: neither by the one nor by the other
    script = ("import socket,sys\n"
              "for n in ('authd.sock','spoold.sock','authd.ctl','spoold.ctl'):\n"
              "  s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET)\n"
              "  s.settimeout(20)\n"
              "  try:\n"
              "    s.connect(sys.argv[1]+'/'+n)\n"
              "    s.send(b'x')\n"
              "    assert s.recv(100)==b'', n\n"
              "  except OSError as e:\n"
              "    pass\n"
              "print('refused')\n")
    done = subprocess.run(stage.argv(["/usr/bin/python3", "-c", script, run], "carol"), capture_output=True, timeout=60)
    assert done.stdout == b"refused\n", done
    for name in ("authd", "spoold"):
        p.daemon(name).wait_line("refus|not allowed|peer")
