"""spoolctl: what an administrator sees of running daemons, and what scripts and collectors read of them."""
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

import harness

prometheus = pytest.importorskip("prometheus_client.openmetrics.parser", reason="python3-prometheus-client is not installed")

MAIL = [b"Subject: one\n\nfirst\n", b"Subject: two\n\nsecond\n.\n"]


def spoolctl(p, *args, check=0, input=None):
    """Runs it as the user of the daemons; its output."""
    argv = p.argv("spoolctl", *args)
    if p.stage:
        argv = p.stage.argv(argv)
    done = subprocess.run([str(x) for x in argv], capture_output=True, timeout=harness.TIMEOUT, input=input, **p.popen_as())
    assert check is None or done.returncode == check, (args, done)
    return done


def metrics(p):
    """{(sample name, labels as sorted pairs): value}, of text that a strict parser has accepted."""
    text = spoolctl(p, "metrics").stdout.decode()
    found = {}
    for family in prometheus.text_string_to_metric_families(text):
        for s in family.samples:
            found[s.name, tuple(sorted(s.labels.items()))] = s.value
    return found


def value(figures, name, **labels):
    return figures["postern_" + name, tuple(sorted(labels.items()))]


@pytest.fixture
def running(make_postern):
    p = make_postern()
    p.user("box", "mbox", MAIL)
    p.user("dir", "maildir", MAIL, new=1)
    return p.start()


# who, end

def test_who_and_end(running):
    with running.connect("box") as c:
        rows = json.loads(spoolctl(running, "who", "--json").stdout)
        assert [(r["user"], r["client"], r["maildrop"]) for r in rows] == [("box", "127.0.0.1", str(running.mail / "box"))]
        text = spoolctl(running, "who").stdout.decode()
        assert "session=%s user=box client=127.0.0.1" % rows[0]["session"] in text
        spoolctl(running, "end", rows[0]["session"])
        assert harness.wait_pid(rows[0]["pid"])
        assert c.cmd(b"STAT").startswith(b"-ERR [SYS/TEMP]")
    assert json.loads(spoolctl(running, "who", "--json").stdout) == []
    assert b"no session" in spoolctl(running, "end", "0" * 16, check=1).stderr


def test_who_goes_on_with_w(running):
    with running.connect("box") as c:
        argv = [str(x) for x in running.argv("spoolctl", "who", "-w", "--json")]
        watch = subprocess.Popen(argv, stdout=subprocess.PIPE, **running.popen_as())
        try:
            assert json.loads(watch.stdout.readline())[0]["user"] == "box"
            c.quit()
            assert any(json.loads(watch.stdout.readline()) == [] for _ in range(10))
        finally:
            watch.terminate()
            watch.wait(harness.TIMEOUT)
            watch.stdout.close()


# show

def tree(path):
    """All there is beneath a path that looking could change: names, sizes, times, also of the last access."""
    found = {}
    for directory, names, files in os.walk(path):
        for name in [directory] + [os.path.join(directory, f) for f in files]:
            st = os.lstat(name)
            found[name] = (st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_atime_ns if name in files else 0)
    return found


@pytest.mark.parametrize("user", ["box", "dir"])
def test_show_says_what_is_there_and_changes_nothing(running, user):
    with running.connect(user) as c:
        count, octets = c.stat()
        c.quit()
    before = tree(running.mail), tree(running.dir / "state")
    shown = json.loads(spoolctl(running, "show", user, "--json").stdout)
    assert (tree(running.mail), tree(running.dir / "state")) == before
    assert (shown["messages"], shown["octets"]) == (count, octets)
    assert shown["maildrop"] == str(running.mail / user) and shown["kind"] == {"box": "mbox", "dir": "maildir"}[user]
    assert shown["uid"] == running.uid and shown["store"] == "db" and shown["exists"] and shown["writable"]
    assert shown["new"] == (1 if user == "dir" else 0)
    assert shown["cache"]["size"] > 0 and shown["journal"] is None and shown["session"] is None and shown["locks"] == []
    assert shown["policy"]["server-copy"] == "as-client-says"
    text = spoolctl(running, "show", user).stdout.decode()
    assert "%s (%s" % (running.mail / user, shown["kind"]) in text and "2 (%d octets" % octets in text
    assert re.search(r"(?m)^session +none$", text)


def test_show_without_a_cache_counts_what_the_wire_will_say(running):
    for user in ("box", "dir"):
        shown = json.loads(spoolctl(running, "show", user, "--json").stdout)
        assert shown["cache"] is None
        with running.connect(user) as c:
            assert (shown["messages"], shown["octets"]) == c.stat()
            c.quit()


def test_show_names_the_session_and_the_locks(running):
    with running.connect("box") as c:
        shown = json.loads(spoolctl(running, "show", "box", "--json").stdout)
        assert shown["session"]["client"] == "127.0.0.1" and shown["session"]["user"] == "box"
        assert ("FLOCK", shown["session"]["pid"]) in [(x["kind"], x["pid"]) for x in shown["locks"]]
        assert "since" in re.search(r"(?m)^session .*$", spoolctl(running, "show", "box").stdout.decode())[0]
        c.quit()


def test_show_names_a_dotlock_and_whose_it_is(running):
    lock = running.mail / "box.lock"
    lock.write_text("%d\n" % os.getpid())
    running.own(lock)
    dotlock = json.loads(spoolctl(running, "show", "box", "--json").stdout)["dotlock"]
    lock.unlink()
    assert dotlock["pid"] == os.getpid() and dotlock["command"] == harness.process_name(os.getpid())


def test_show_of_what_is_not_there(running):
    assert b"no such user" in spoolctl(running, "show", "nobody-such", check=1).stderr
    running.add("empty", "mbox:%s" % (running.mail / "empty"))
    shown = json.loads(spoolctl(running, "show", "empty", "--json").stdout)
    assert shown["exists"] is False and shown["messages"] == 0
    (running.mail / "odd").write_bytes(b"not an mbox\n")
    running.own(running.mail / "odd")
    running.add("odd", "mbox:%s" % (running.mail / "odd"))
    done = spoolctl(running, "show", "odd", check=1)
    assert b"neither an mbox nor a Maildir" in done.stdout


@pytest.mark.root
def test_show_looks_with_the_owners_rights(make_postern, stage):
    p = make_postern(stage=stage)
    box = stage.path("/var/mail/alice")
    box.write_bytes(harness.mbox(MAIL))
    os.chown(box, stage.USERS["alice"], 8)
    box.chmod(0o600)
    p.start("spoold", "authd")
    shown = json.loads(spoolctl(p, "show", "alice", "--json").stdout)
    assert (shown["uid"], shown["store"], shown["messages"]) == (stage.USERS["alice"], "pam", 2)
    os.chown(box, stage.USERS["bob"], 8)
    done = spoolctl(p, "show", "alice", "--json", check=1)
    assert json.loads(done.stdout)["failure"] == "its owner may not read it"
    box.unlink()


# rebuild, recover, uidl-diff

def test_rebuild_of_several(running):
    out = spoolctl(running, "rebuild", "box", "dir").stdout.decode()
    assert re.findall(r"(?m)^(\w+): 2 messages", out) == ["box", "dir"]
    with running.connect("box") as c:
        done = spoolctl(running, "rebuild", "box", "dir", check=1)
        assert b"in use" in done.stderr and done.stdout.startswith(b"dir: 2 messages")
        c.quit()


@pytest.mark.skipif(not harness.HAS_TERMINALS, reason="there is no /dev/pts")
def test_long_work_tells_how_far_it_is_on_a_terminal(running):
    master, slave = pty.openpty()
    argv = [str(x) for x in running.argv("spoolctl", "rebuild", "box", "dir")]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=slave, timeout=harness.TIMEOUT, **running.popen_as())
    os.close(slave)
    told = os.read(master, 4096)
    os.close(master)
    assert done.returncode == 0 and b"maildrops: 1 of 2" in told and done.stdout.count(b"\n") == 2


def test_recover_says_that_nothing_is_left(running):
    assert b"nothing to recover" in spoolctl(running, "recover").stdout


def test_uidl_diff_as_json(running, tmp_path):
    with running.connect("box") as c:
        ids = c.uidl()
        c.quit()
    saved = running.dir / "ids"
    saved.write_bytes(b"1 " + ids[1] + b"\n")
    running.own(saved)
    diff = json.loads(spoolctl(running, "uidl-diff", "box", saved, "--json", check=1).stdout)
    assert diff == {"new": [{"number": 2, "id": ids[2].decode()}], "messages": 2, "stay": 1, "listed": 1}
    saved.write_bytes(b"".join(b"%d %s\n" % kv for kv in ids.items()))
    assert b"2 of 2 stay" in spoolctl(running, "uidl-diff", "box", saved).stdout


# metrics

def test_metrics_count_what_happened(running):
    before = metrics(running)
    assert value(before, "up", program="spoold") == value(before, "up", program="authd") == 1
    with running.connect("box") as c:
        assert value(metrics(running), "sessions") == 1
        c.retr(1)
        c.ok(b"DELE 1")
        c.quit()
    with running.connect() as c:
        c.ok(b"USER box")
        c.err(b"PASS wrong-%s" % b"password")
    with running.connect("dir") as c:       # gone without QUIT: what it got counts all the same
        c.retr(2)
    running.daemon("pop3d").wait_line("event=session end=client-gone", "user=dir")
    until = time.monotonic() + harness.TIMEOUT
    while value(after := metrics(running), "messages_sent_total") < 2 or value(after, "sessions") > 0:
        assert time.monotonic() < until, after
    assert value(after, "logins_total", mechanism="USER", result="ok") == 2
    assert value(after, "logins_total", mechanism="USER", result="credentials") == 1
    assert value(after, "opens_total", result="ready") == 2 and value(after, "updates_total", result="ok") == 1
    assert value(after, "messages_removed_total") == 1
    assert 0 < value(after, "sent_bytes_total") < 10000
    for name, count in (("session", 2), ("open", 2), ("update", 1), ("login", 3)):
        assert value(after, name + "_duration_seconds_count") == count, name
    assert value(after, "sandbox", program="spoold", mode=running.conf["postern"]["sandbox"]) in (0, 1)


def await_metrics(p, **wanted):
    until = time.monotonic() + harness.TIMEOUT
    while any(value(m := metrics(p), name, **({"result": "ready"} if name == "opens_total" else {})) != n for name, n in wanted.items()):
        assert time.monotonic() < until, (wanted, m)


def test_metrics_count_an_opening_once(running):
    """Of a session that lasts while it lasts, of one that only looks with its end."""
    with running.connect("box") as c:
        await_metrics(running, opens_total=1, sessions=1)
        c.quit()
    for n in (2, 3):
        with running.connect("box") as c:
            c.quit()
        await_metrics(running, opens_total=n, open_duration_seconds_count=n, sessions=0)


def test_metrics_count_workers_that_died(running):
    with running.connect("box") as c:
        worker = json.loads(spoolctl(running, "who", "--json").stdout)[0]["pid"]
        os.kill(worker, signal.SIGKILL)
        running.daemon("spoold").wait_line("event=worker-died")
        assert harness.wait_pid(worker)
        c.err(b"STAT")
    assert value(metrics(running), "workers_died_total") == 1


def test_metrics_of_logins_outlive_a_reload(running):
    with running.connect("box") as c:
        c.quit()
    authd = running.daemon("authd")
    start = authd.mark()
    os.kill(authd.pid, signal.SIGHUP)
    authd.wait_line("event=reload", start=start)
    with running.connect("dir") as c:
        c.quit()
    assert value(metrics(running), "logins_total", mechanism="USER", result="ok") == 2


def test_metrics_count_connections_without_a_login(running):
    def settled(waiting, none, failed):
        until = time.monotonic() + harness.TIMEOUT
        while True:
            figures = metrics(running)
            got = (value(figures, "connections_waiting"), *(value(figures, "connections_unused_total", tried=t) for t in ("none", "failed")))
            if got == (waiting, none, failed):
                return value(figures, "connections_total")
            assert time.monotonic() < until, got

    before = settled(0, 0, 0)
    with running.connect():
        assert settled(1, 0, 0) == before + 1
        with running.connect("box") as c:
            assert settled(1, 0, 0) == before + 2      # who has logged in does not wait
            c.quit()
    settled(0, 1, 0)
    with running.connect() as c:
        c.ok(b"USER box")
        c.err(b"PASS wrong-%s" % b"password")
        settled(1, 1, 0)
    assert settled(0, 1, 1) == before + 3


def test_metrics_count_lock_waits(running):
    lock = running.mail / "box.lock"
    lock.write_text("%d\n" % os.getpid())
    running.own(lock)
    running.mail.joinpath("box").write_bytes(harness.mbox(MAIL * 2))
    with running.connect() as c:
        c.ok(b"USER box")
        c.send(b"PASS " + harness.PASSWORD.encode() + b"\r\n")
        running.daemon("authd").wait_line("event=login result=ok", "user=box")
        wait_dotlocked(running)
        lock.unlink()
        assert c.reply().startswith(b"+OK")
        c.quit()
    assert value(metrics(running), "lock_waits_total", result="had") == 1
    assert value(metrics(running), "lock_wait_seconds_count") == 1


def wait_dotlocked(p):
    """The worker has found the dotlock, when it sleeps in poll(2) for the next try: its time of sleeping grows."""
    until = time.monotonic() + harness.TIMEOUT
    while time.monotonic() < until:
        for pid, name in harness.children(p.daemon("spoold").pid):
            if name.startswith("worker"):
                switches = int(harness.status_of(pid)["voluntary_ctxt_switches"])
                if switches > 8:
                    return
    raise harness.Failed("no worker waits")


def test_metrics_are_of_the_older_text_format_too(running):
    """node_exporter's textfile collector knows no other: a type that it does not know would cost it the whole file."""
    text = spoolctl(running, "metrics").stdout.decode()
    assert set(re.findall(r"(?m)^# TYPE \S+ (\S+)$", text)) == {"counter", "gauge", "histogram"}
    if shutil.which("promtool"):
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
        assert "parsing error" not in done.stderr


def test_metrics_without_daemons_say_so(make_postern):
    p = make_postern()
    figures = metrics(p)
    assert value(figures, "up", program="spoold") == value(figures, "up", program="authd") == 0


def test_metrics_to_a_file_replace_it_whole(running):
    path = running.dir / "postern.prom"
    path.write_text("old\n")
    running.own(running.dir / "postern.prom")
    spoolctl(running, "metrics", "--output", path)
    assert path.read_text().endswith("# EOF\n") and path.stat().st_mode & 0o777 == 0o644
    assert b"No such file" in spoolctl(running, "metrics", "--output", "/no/such/place", check=1).stderr


@pytest.mark.parametrize("request_line, status", [(b"GET /metrics HTTP/1.1", b"200"), (b"GET /metrics?x=1 HTTP/1.0", b"200"),
    (b"GET / HTTP/1.1", b"404"), (b"GET /metricsx HTTP/1.1", b"404"), (b"POST /metrics HTTP/1.1", b"405")])
def test_metrics_by_http(running, request_line, status):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        argv = [str(x) for x in running.argv("spoolctl", "metrics", "--http")]
        child = subprocess.Popen(argv, stdin=theirs, stdout=theirs, **running.popen_as())
        theirs.close()
        ours.sendall(request_line + b"\r\nHost: x\r\n\r\n")
        answer = b""
        while data := ours.recv(65536):
            answer += data
        child.wait(harness.TIMEOUT)
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.0 " + status) and int(re.search(rb"Content-Length: (\d+)", head)[1]) == len(body)
    if status == b"200":
        assert b"application/openmetrics-text; version=1.0.0" in head
        assert list(prometheus.text_string_to_metric_families(body.decode()))


@pytest.mark.root
def test_root_is_given_up_before_a_request_is_read(make_postern, stage):
    p = make_postern(stage=stage)
    p.start("spoold", "authd")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        argv = stage.argv(p.argv("spoolctl", "metrics", "--http"))
        child = subprocess.Popen([str(x) for x in argv], stdin=theirs, stdout=theirs)
        theirs.close()
        until = time.monotonic() + harness.TIMEOUT
        while harness.identity(child.pid)[:2] != ([harness.NOBODY] * 4, [harness.NOBODY] * 4):      # nothing has been sent
            assert time.monotonic() < until and child.poll() is None
        ours.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b"postern_up{program=\"authd\"} 1" in b"".join(iter(lambda: ours.recv(65536), b""))
        assert child.wait(harness.TIMEOUT) == 0


@pytest.mark.root
def test_only_root_may_ask(make_postern, stage):
    p = make_postern(stage=stage)
    p.start("spoold", "authd")
    for name in ("authd.ctl", "spoold.ctl"):
        st = os.stat(p.dir / "run" / name)
        assert (st.st_uid, st.st_mode & 0o777) == (0, 0o600)


# the command line

def test_commands_are_checked(running):
    for args in (["nonsense"], ["who", "x"], ["end"], ["show"], ["rebuild"], ["recover", "--json"], ["metrics", "--http", "--output", "x"], []):
        done = spoolctl(running, *args, check=2)
        assert b"usage: " in done.stderr, args
    assert spoolctl(running, "-h").stdout.startswith(b"usage: spoolctl")


def test_daemons_that_do_not_run_are_named(make_postern):
    p = make_postern()
    for args in (["who"], ["end", "x"], ["show", "x"], ["recover"], ["rebuild", "x"]):
        assert b"cannot reach spoold at %s/spoold.ctl" % os.fsencode(p.dir / "run") in spoolctl(p, *args, check=1).stderr


# etc/monitoring

MONITORING = harness.REPO / "etc/monitoring"


def expressions():
    """Every query of the dashboard and the rules, with where it stands."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    found = [(p["title"], t["expr"]) for p in dashboard["panels"] for t in p["targets"]]
    text = (MONITORING / "postern.rules.yml").read_text()
    return found + list(zip(re.findall(r"- alert: (\w+)", text), re.findall(r"(?m)^ +expr: (.*)$", text), strict=True))


def test_dashboard_and_rules_ask_for_what_there_is(make_postern, tmp_path):
    argv = ["certtool", "--generate-privkey", "--key-type", "ecdsa", "--outfile", tmp_path / "key"]
    subprocess.run([str(x) for x in argv], check=True, capture_output=True)
    (tmp_path / "template").write_text('cn = "pop.example.org"\ndns_name = "pop.example.org"\nexpiration_days = 30\n')
    argv = ["certtool", "--generate-self-signed", "--load-privkey", tmp_path / "key", "--template", tmp_path / "template", "--outfile", tmp_path / "crt"]
    subprocess.run([str(x) for x in argv], check=True, capture_output=True)
    p = make_postern()
    for name in ("key", "crt"):
        (p.dir / name).write_bytes((tmp_path / name).read_bytes())
        (p.dir / name).chmod(0o600)
    p.own(p.dir)
    p.write_conf(tls={"certificate": p.dir / "crt", "key": p.dir / "key"})
    p.start("spoold", "authd")
    figures = metrics(p)
    days = [v for (name, labels), v in figures.items() if name == "postern_certificate_days_left" and ("names", "pop.example.org") in labels]
    assert len(days) == 1 and 29 < days[0] <= 30
    there = {}
    for name, labels in figures:
        for key, v in labels:
            there.setdefault(name, {}).setdefault(key, set()).add(v)
        there.setdefault(name, {})
    asked = set()
    for where, expr in expressions():
        for name, labels in re.findall(r"\b(postern_\w+)(?:\{([^}]*)\})?", expr):
            assert name in there, "%s asks for %s" % (where, name)
            asked.add(name)
            for key, how, want in re.findall(r'(\w+)(=~?)"([^"]*)"', labels):
                if key != "instance":
                    wanted = set(want.split("|")) if how == "=~" else {want}
                    assert wanted <= there[name][key], "%s: %s of %s" % (where, wanted, name)
    for name in there:      # and nothing is left out of the dashboard but what is the same in another form
        base = re.sub(r"_(bucket|count|sum)$", "_bucket", name)
        assert base in asked or name in ("postern_build_info", "postern_certificate_not_after_seconds", "postern_recoveries_running"), name


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_rules_are_rules():
    done = subprocess.run(["promtool", "check", "rules", MONITORING / "postern.rules.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_says_what_to_do():
    text = (MONITORING / "postern.rules.yml").read_text()
    rules = text.split("- alert: ")[1:]
    assert len(rules) >= 10
    for rule in rules:
        assert re.search(r"severity: (critical|warning|info)\n", rule) and "summary: '" in rule and "description: '" in rule


def test_units_of_the_collector_are_sound():
    for path in sorted(MONITORING.glob("*.service")):
        text = path.read_text()
        assert "@SBINDIR@/spoolctl -c @SYSCONFDIR@/postern/postern.conf metrics" in text and "NoNewPrivileges=yes" in text
        args = re.search(r"ExecStart=\S+ -c \S+ (.*)", text)[1].split()
        assert subprocess.run([harness.BUILD / "spoolctl", "-c", harness.REPO / "etc/postern.conf", *args, "surplus"], capture_output=True).returncode == 2


def test_who_polls_is_counted_each_time(make_postern):
    """A worker that lingers is no session, and each session that it serves is one."""
    running = make_postern({"spoold": {"linger": 600, "linger-workers": 8}})
    running.user("box", "mbox", MAIL)
    running.start()
    sent, workers = 0, set()
    for i in range(1, 5):
        with running.connect("box") as c:
            c.uidl()
            rows = json.loads(spoolctl(running, "who", "--json").stdout)
            workers.add(rows[0]["pid"])
            assert len(rows) == value(metrics(running), "sessions") == 1
            c.quit()
        until = time.monotonic() + harness.TIMEOUT
        while value(figures := metrics(running), "session_duration_seconds_count") < i:
            assert time.monotonic() < until
        assert value(figures, "sessions") == 0 and json.loads(spoolctl(running, "who", "--json").stdout) == []
        assert value(figures, "sent_bytes_total") > sent and value(figures, "opens_total", result="ready") == i
        sent = value(figures, "sent_bytes_total")
    assert len(workers) < 4     # one has lingered, or this tests nothing
