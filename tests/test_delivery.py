"""Real delivery agents with their own locking, and a mail reader, against sessions that delete: nothing is lost, doubled or mangled.

Each agent delivers numbered messages while sessions log in, retrieve all, delete some and QUIT, one after the other as fast as they
can. In every session: each message is octet for octet one of those that were sent; none is there twice; none that an earlier QUIT
said +OK to is there again; every other one that was there before still is. In the end each that was delivered was deleted by
exactly one session or is in the mailbox exactly once. Where workers are killed at QUIT, what was marked is then there whole or gone whole.

RACES=3000 in the environment (`make races`): that many messages an agent, instead of COUNT.

Dovecot's lda has the fcntl lock while it waits for the dotlock, procmail and others the dotlock while they wait for the fcntl lock: on one
mbox they keep each other off for minutes, with nobody else there. So in no race are there both.
"""
import os
import pathlib
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import pytest

import harness
from harness import PASSWORD

sys.path.insert(0, str(pathlib.Path(__file__).parent / "delivery"))
import agents  # noqa: E402
import numbered  # noqa: E402

LONG = 1000
READERS = {"procmail": [a for a in agents.ALL.values() if a is not agents.Dovecot], "dovecot-lda": [agents.Dovecot]}
SLOTS = threading.BoundedSemaphore(4 if "RACES" in os.environ else 100)     # a short one sleeps most of its time
COUNT = int(os.environ.get("RACES", "40"))


class Ledger:
    """What is known of each number, session after session."""

    def __init__(self, reader=False):
        self.reader = reader        # a mail reader takes its own messages out
        self.seen, self.gone, self.limbo = set(), set(), []
        self.killed = self.undone = self.done = 0

    def mine(self, number):
        return not (self.reader and numbered.is_readers(number))

    def session(self, numbers):
        """What a session found."""
        there = set(numbers)
        assert len(there) == len(numbers), "doubled: %s" % sorted(n for n in there if numbers.count(n) > 1)
        for marked in self.limbo:
            left = marked & there
            assert left in (set(), marked), "an UPDATE was half done: of %s there are still %s" % (sorted(marked), sorted(left))
            self.undone += left == marked
            self.done += left != marked
            if not left:
                self.gone |= marked
        self.limbo = []
        assert not there & self.gone, "deleted, and there again: %s" % sorted(there & self.gone)
        lost = {n for n in self.seen - self.gone - there if self.mine(n)}
        assert not lost, "lost: %s" % sorted(lost)
        self.seen |= there

    def end(self, sent, numbers, saved=()):
        assert sorted(numbers) == sorted(set(numbers)), "doubled in the mailbox"
        assert sorted(saved) == sorted(set(saved)), "doubled where the reader put them"
        assert not self.gone & set(numbers) and not set(saved) & set(numbers) and not set(saved) & self.gone
        assert self.gone | set(numbers) | set(saved) == set(sent)


class Fetcher(threading.Thread):
    """Sessions, one after the other, until it is told to stop."""

    def __init__(self, p, user, ledger, kill=0.0, rewrites=False):
        super().__init__(daemon=True)
        self.p, self.user, self.ledger, self.kill, self.rewrites = p, user, ledger, kill, rewrites
        self.random = random.Random(1)
        self.stop, self.trouble, self.news = threading.Event(), None, threading.Semaphore(0)
        self.sessions = self.retrieved = self.refused = self.dropped = 0

    def login(self):
        for _ in range(200):
            c = self.p.connect()
            c.ok(b"USER " + self.user.encode())
            row = c.cmd(b"PASS " + PASSWORD.encode())
            if row.startswith(b"+OK"):
                return c
            c.close()
            # who comes just after a worker was killed meets the one that finishes its UPDATE; and where so many write to one
            # mailbox the locks may not be had in time
            assert self.ledger.limbo and row.startswith(b"-ERR [IN-USE]") or self.ledger.reader and row.startswith(b"-ERR [SYS/TEMP]"), row
        raise AssertionError("the maildrop stays in use: %r" % row)

    def read_all(self, c):
        """The numbers of all messages in their order; None for one that another program has just changed or taken."""
        count = c.stat()[0]
        c.send(b"".join(b"RETR %d\r\n" % n for n in range(1, count + 1)))
        numbers = []
        for n in range(1, count + 1):
            row = c.reply()
            if row.startswith(b"-ERR"):
                assert self.rewrites, row
                self.refused += 1
                numbers.append(None)
                continue
            numbers.append(numbered.recognise(c.unstuffed().replace(b"\r\n", b"\n")))
            self.retrieved += 1
        return numbers

    def session(self, share=0.6):
        with self.login() as c:
            try:
                numbers = self.read_all(c)
            except (AssertionError, ConnectionResetError) as e:
                # rewritten in mid-message: never a clean end then, and nothing is deleted
                if isinstance(e, numbered.Mangled) or not self.rewrites or c.line() != b"":
                    raise
                self.dropped += 1
                return
            if None not in numbers:
                self.ledger.session(numbers)
            marked = {i: n for i, n in enumerate(numbers, 1) if n is not None and self.ledger.mine(n) and self.random.random() < share}
            c.send(b"".join(b"DELE %d\r\n" % i for i in marked))
            for i in marked:
                row = c.reply()
                assert row.startswith(b"+OK"), row
            killer = self.random.random() < self.kill and marked
            workers = self.workers() if killer else []
            c.send(b"QUIT\r\n")
            self.kill_all(c, workers)
            try:
                row = c.reply()
            except (AssertionError, ConnectionResetError):
                assert workers, "the connection ended at QUIT"
                row = b""
            if row.startswith(b"+OK"):
                self.ledger.gone |= set(marked.values())
            else:
                assert workers or self.ledger.reader and row.startswith(b"-ERR [SYS/TEMP]"), row
                self.ledger.limbo.append(set(marked.values()))
            self.sessions += 1

    def workers(self):
        uid = self.p.stage.USERS[self.user]
        return [pid for pid, _ in harness.children(self.p.daemon("spoold").pid) if uid_of(pid) == uid]

    def kill_all(self, c, workers):
        """At a moment within the UPDATE: before, in or after its last step."""
        if workers:
            select.select([c.socket], [], [], self.random.choice([0, 0, 0.0003, 0.001, 0.003, 0.01]))
        for pid in workers:
            try:
                os.kill(pid, signal.SIGKILL)
                self.ledger.killed += 1
            except ProcessLookupError:
                pass

    def run(self):
        try:
            while not self.stop.is_set():
                if self.news.acquire(timeout=0.2):
                    while self.news.acquire(blocking=False):
                        pass
                self.session()
            self.kill = 0
            self.rewrites = False
            self.session(share=0)       # all that is left, undisturbed
        except BaseException as e:
            self.trouble = e

    def finish(self):
        self.stop.set()
        self.join(300)
        if self.trouble is not None:
            raise self.trouble
        assert not self.is_alive(), "a session hangs"


def uid_of(pid):
    try:
        return harness.identity(pid)[0][1]
    except OSError:
        return None


def numbers_on_disk(place):
    path = place.stage.path(place.path) if place.stage else pathlib.Path(place.path)
    if place.store == "mbox":
        return [numbered.recognise(m) for m in numbered.split(path.read_bytes())]
    return [numbered.recognise((path / sub / f).read_bytes()) for sub in ("new", "cur") for f in os.listdir(path / sub)]


class Race:
    """Agents and sessions on one maildrop, and what came of it."""

    def __init__(self, p, place, made, count, kill=0.0, reader=False):
        self.p, self.place, self.made, self.count = p, place, made, count
        self.ledger = Ledger(reader)
        self.fetcher = Fetcher(p, place.user, self.ledger, kill, reader or place.store == "mbox" and any(a.rewrites for a in made))
        self.trouble, self.skipped, self.rounds = None, None, 0
        self.thread = threading.Thread(target=self._run)

    def start(self):
        reasons = [why for why in (a.needs() for a in self.made) if why is not None]
        if reasons:
            self.skipped = "NOT RUN: a race with %s: %s" % (self.names(), "; ".join(reasons))
        else:
            self.thread.start()

    def result(self):
        if self.skipped or self.thread.ident is None:
            pytest.skip(self.skipped or "NOT RUN: another race was asked for")
        self.thread.join()
        if self.trouble is not None:
            raise self.trouble

    def names(self):
        return ", ".join(a.name for a in self.made)

    def _run(self):
        try:
            with SLOTS:
                self._race()
            self.check()
        except BaseException as e:
            self.trouble = e

    def _race(self):
        trouble = []

        def deliver(agent, first):
            try:
                agents.deliver(agent, first, first + self.count, self.fetcher.news.release)
            except BaseException as e:
                trouble.append(e)

        try:
            for agent in self.made:
                agent.start()
            self.fetcher.start()
            reader = self.start_reader() if self.ledger.reader else None
            threads = [threading.Thread(target=deliver, args=(a, 1 + i * self.count)) for i, a in enumerate(self.made)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            self.rounds = self.stop_reader(reader) if reader else 0
            self.fetcher.finish()
        finally:
            self.fetcher.stop.set()
            for agent in self.made:
                agent.stop()
        if trouble:
            raise trouble[0]

    def check(self):
        saved, count = [], self.count * len(self.made)
        if self.ledger.reader:
            path = self.place.stage.path(self.place.home + "/saved")
            saved = [numbered.recognise(m) for m in numbered.split(path.read_bytes())] if path.exists() else []
            assert self.rounds > 1 and saved, "the mail reader did nothing"
        left = numbers_on_disk(self.place)
        self.ledger.end(range(1, count + 1), left, saved)
        f, g = self.fetcher, self.ledger
        assert f.sessions > 1 and len(g.gone) > 0, "there was no race"
        self.told = ("%s of %s by %s: %d delivered, %d sessions, %d retrieved, %d deleted, %d left, %d moved by the reader in %d rounds; "
            "%d RETRs refused, %d sessions dropped; %d workers killed: %d UPDATEs undone, %d done" % (self.place.store, self.place.user,
            self.names(), count, f.sessions, f.retrieved, len(g.gone), len(left), len(saved), self.rounds, f.refused, f.dropped,
            g.killed, g.undone, g.done))
        print(self.told)

    def start_reader(self):
        home = self.place.home
        return subprocess.Popen(self.place.stage.argv([sys.executable, agents.HERE / "reader.py", self.place.path, home],
            self.place.user), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    @staticmethod
    def stop_reader(reader):
        out, err = reader.communicate(timeout=120)
        assert reader.returncode == 0, err
        return len(out.split())


def make_maildir(path, uid):
    for d in (path, path / "tmp", path / "new", path / "cur"):
        d.mkdir(0o700)
        if harness.IS_ROOT:
            os.chown(d, uid, uid)


def place_on_stage(p, stage, store, user):
    """An empty maildrop of one of the stage's accounts, in its usual place."""
    uid, home = stage.USERS[user], "/home/" + user
    path = "/var/mail/" + user if store == "mbox" else home + "/Maildir"
    if store == "maildir":
        make_maildir(stage.path(path), uid)
    else:
        stage.path(path).touch()
        stage.path(path).chmod(0o660)
        os.chown(stage.path(path), uid, agents.MAIL)
    p.add(user, "%s:%s" % (store, path), uid=uid)
    return agents.Place(user, store, path, home, uid, stage)


def place_of_one_user(p, store, user, home):
    """An empty maildrop in a directory of the user's own, who runs all the daemons, too."""
    path = p.mail / user
    if store == "mbox":
        p.mbox(user, b"")
    else:
        make_maildir(path, p.uid)
    p.add(user, "%s:%s" % (store, path))
    return agents.Place(user, store, path, str(home), p.uid)


class Races:
    """All races at once, each on a maildrop of its own: an agent that finds the mailbox locked sleeps for seconds."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="postern-races-"))
        self.dir.chmod(0o755)
        self.stage = agents.AgentStage() if harness.IS_ROOT else None
        self.p = harness.Postern(stage=self.stage) if self.stage else None
        self.own = harness.Postern({"spoold": {"min-uid": 1}})
        self.races = {}
        racers = iter(agents.AgentStage.RACERS)
        for store in ("mbox", "maildir"):
            for name, agent in agents.ALL.items():
                if self.stage:
                    self.add(("root", store, name), [agent], place_on_stage(self.p, self.stage, store, next(racers)))
                if agent.unprivileged:
                    home = self.own.own(self.scratch())
                    self.add(("one user", store, name), [agent], place_of_one_user(self.own, store, "%s-%s" % (store, name), home))
            if self.stage:
                second = agents.Maildrop if store == "mbox" else agents.Dovecot
                self.add(("killed", store), [agents.Procmail, second], place_on_stage(self.p, self.stage, store, next(racers)), kill=0.7)
        if self.stage and COUNT >= LONG:
            # where all fight for the locks each sleeps for many seconds: in the long run only
            for first, made in READERS.items():
                self.add(("reader", first), made, place_on_stage(self.p, self.stage, "mbox", next(racers)), reader=True)

    def scratch(self):
        return pathlib.Path(tempfile.mkdtemp(dir=self.dir))

    def add(self, key, classes, place, **how):
        made = [c(place, self.scratch()) for c in classes]
        self.races[key] = Race(self.p if place.stage else self.own, place, made, COUNT if "kill" in how else max(COUNT // len(made), 10), **how)

    def start(self):
        for p in filter(None, (self.p, self.own)):
            p.start()
        for key, race in self.races.items():
            if os.environ.get("RACE", "") in " ".join(key):     # RACE=postfix: for who looks for a fault
                race.start()

    def close(self):
        for race in self.races.values():
            if race.thread.ident is not None:
                race.thread.join()
        try:
            for p in filter(None, (self.p, self.own)):
                p.close()
        finally:
            if self.stage:
                self.stage.close()
            shutil.rmtree(self.dir)


@pytest.fixture(autouse=True)
def nothing_left():
    """The races run through all the tests here, and so have descriptors open: the other tests count theirs."""
    yield


@pytest.fixture(scope="module")
def races():
    r = Races()
    try:
        r.start()
        yield r
    finally:
        r.close()


@pytest.mark.root
@pytest.mark.parametrize("name", list(agents.ALL))
def test_race(races, store, name):
    """As in production: /var/mail belongs to root and group mail, the dotlock is made by spoold's parent."""
    races.races["root", store, name].result()


@pytest.mark.parametrize("name", [n for n, a in agents.ALL.items() if a.unprivileged])
def test_race_of_one_user(races, store, name):
    """All daemons and the agent run as one ordinary user."""
    races.races["one user", store, name].result()


@pytest.mark.root
def test_workers_are_killed(races, store):
    """kill -9 at a random moment of most UPDATEs, while two agents deliver. A journal finishes or undoes each."""
    race = races.races["killed", store]
    race.result()
    assert race.ledger.killed > 0


@pytest.mark.root
@pytest.mark.parametrize("first", list(READERS))
def test_mail_reader(races, first):
    """Agents, a mail reader that rewrites the mbox and takes some messages out, and sessions that delete others."""
    if ("reader", first) not in races.races:
        pytest.skip("NOT RUN: the race with a mail reader: `make races` runs it")
    if not races.stage.has("/usr/bin/mutt"):
        pytest.skip("NOT RUN: the race with a mail reader: mutt is not installed")
    races.races["reader", first].result()


def test_nothing_is_left_behind(races):
    """No lock, no journal, after all of it."""
    for race in races.races.values():
        if race.thread.ident is not None:
            race.thread.join()
    for p in filter(None, (races.p, races.own)):
        for pid, name in harness.children(p.daemon("spoold").pid):
            assert name != "recovery" or harness.wait_pid(pid), "a recovery does not end"
        # set aside: Dovecot wrote to an mbox between the kill and the recovery, and the journal was not acted on
        left = [n for n in os.listdir(p.dir / "state/journal") if ".aside-" not in n]
        assert not left, "a journal was left"
    left = os.listdir(races.own.mail) + (os.listdir(races.stage.path("/var/mail")) if races.stage else [])
    assert not [n for n in left if "lock" in n], "a lock was left behind"
