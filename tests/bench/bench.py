#!/usr/bin/python3
"""`make bench`: Postern beside Dovecot, Courier, Cyrus, Mailutils and popa3d (under tcpserver) from Debian's packages, on loopback, in one run.

Every figure is taken several times, the servers alternating, and is printed as the median and (least..most). Time is the client's, CPU time is
the server's alone: all its processes, those that ended included. The mailboxes are the same, each server has its own copy, and all of
it is in the page cache. Needs root: servers run with accounts of their own in a private mount and network namespace; nothing is installed.

    bench.py [options] [SCENARIO...]       poll list fetch retr open update idle logins tls growth memory million crowd; without any, all but the last four

The raw figures go to BUILD/bench/figures.json. Each row is compared with the last run here (BUILD/bench/last.json), or, if there was none, with
what docs/ has of a machine like this one; --record writes docs/ anew.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import crowd  # noqa: E402
import growth  # noqa: E402
import logins  # noqa: E402
import mailbox_make as make  # noqa: E402
import memory  # noqa: E402
import peers  # noqa: E402
import record  # noqa: E402
import servers as sv  # noqa: E402
import stage  # noqa: E402
import tls  # noqa: E402
from figures import Figures  # noqa: E402
from stage import note  # noqa: E402

FETCH_SECONDS = 1
STOLEN, TRIES = 0.02, 5     # more of the processors' time taken by a hypervisor makes a figure worthless
DOCS = pathlib.Path(__file__).resolve().parent.parent.parent / "docs"

# Measuring

class Bench:
    def __init__(self, options, servers):
        self.options, self.servers, self.figures, self.facts = options, servers, Figures(), facts_of(servers)
        self.names = [s.name for s in servers]
        self.client = shutil.copy(options.build / "bench/client", "/srv/client")
        self.stolen = {True: 0, False: 0}       # turns with the processors stolen, and those without
        self.most = {}          # (server, kind, messages) -> how many of them are fetched one at a time

    def warm(self):
        """The user with the big mailbox logs in once, so that no server's first open has more to do than the next one's."""
        for kind in sv.KINDS:
            for s in self.with_kind(kind):
                s.fill(kind, sv.BIG, 1, 500)
                self.run(s, sv.user(kind, sv.BIG), "open")
                self.clear(s, kind)
        note("started")

    def with_kind(self, kind, floor=False):
        return [s for s in self.servers if kind in s.kinds and (floor or s.name != "floor")]

    def rounds(self, servers, at_most=100):
        """(round, server), alternating, and beginning with another each time."""
        for r in range(min(at_most, self.options.rounds)):
            for s in servers[r % len(servers):] + servers[:r % len(servers)]:
                yield r, s

    def undisturbed(self, rounds):
        """
        The same for what can be measured again: a turn during which the processors were given to another virtual machine is taken back and
        repeated, until there have been TRIES of it.
        """
        for turn in rounds:
            for left in reversed(range(TRIES)):
                kept, before = len(self.figures.order), processors()
                yield turn
                after = processors()
                stolen = after[0] - before[0] > STOLEN * (after[1] - before[1])
                self.stolen[stolen] += 1
                if not stolen or left == 0:
                    break
                self.figures.take_back(kept)
                time.sleep(1)

    def part(self, name):
        return not self.options.only or name in self.options.only

    def run(self, server, user, scenario, *args, limit=None):
        """
        The client's figures, and the server's CPU time in milliseconds as ["cpu"]. None if it takes more than `limit` seconds: then the server has
        been started anew.
        """
        before, start = len(server.meter.pids()), server.meter.milliseconds()
        try:
            done = subprocess.run([self.client, "-p", str(server.port), "-u", user, "-w", sv.PASSWORD, *map(str, args), scenario],
                capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            note("%s, %s: more than %d s" % (server.name, scenario, limit))
            server.stop()
            server.start()
            return None
        if done.returncode != 0:
            server.log.flush()
            raise SystemExit("bench: %s, %s: %s\n%s" % (server.name, scenario, done.stderr,
                (server.dir / "log").read_text(errors="replace")[-2000:]))
        server.meter.settle(before)
        figures = json.loads(done.stdout.splitlines()[-1])
        figures["cpu"] = server.meter.milliseconds() - start
        return figures

    # poll: login, STAT, QUIT

    def poll(self):
        short = self.options.short
        for kind in sv.KINDS:
            servers = self.with_kind(kind, floor=True)
            for s in servers:
                for n in range(32):
                    s.fill(kind, n, 20, 2200)
                self.run(s, sv.user(kind, ""), "poll", "-c", 32, "-n", 128)     # logged in once, warm
            for clients, sessions in ((1, 150), (8, 400), (32, 400)):
                for _, s in self.undisturbed(self.rounds(servers)):
                    got = self.run(s, sv.user(kind, ""), "poll", "-c", clients, "-n", sessions // 2 if short else sessions)
                    row = "poll %s, %d client%s" % (kind, clients, "s"[:clients > 1])
                    self.figures.add(row, "sessions", "1/s", "more", s.name, got["sessions"] / got["seconds"], 4 if clients > 1 else 1)
                    self.figures.add(row, "CPU a session", "ms", "less", s.name, got["cpu"] / got["sessions"], 0.25 if clients > 1 else 1)

    # list: 100,000 messages of 2.2 KB, a repeated open, then STAT, LIST and UIDL

    def list(self):
        messages = 10000 if self.options.short else 100000
        for kind in sv.KINDS:
            servers = self.with_kind(kind, floor=True)
            for s in servers:
                self.prepare(s, kind, messages, 2200)
            for _, s in self.undisturbed(self.rounds(servers, 3)):
                got = self.run(s, sv.user(kind, sv.BIG), "list")
                assert got["messages"] == messages, (s.name, got)
                row = "list %s, %d" % (kind, messages)
                self.figures.add(row, "STAT+LIST+UIDL", "s", "less", s.name, got["open"] + got["list"] + got["uidl"], 0.25, "dovecot")
                self.figures.add(row, "LIST+UIDL alone", "s", "less", s.name, got["list"] + got["uidl"])
                self.figures.add(row, "CPU", "ms", "less", s.name, got["cpu"])
            for s in servers:
                self.clear(s, kind)

    def prepare(self, server, kind, messages, octets):
        """The big mailbox, opened once."""
        if server.name == "floor":
            self.restart(server, messages, octets)
            return
        self.copy_in(server, kind, messages, octets)
        got = self.run(server, sv.user(kind, sv.BIG), "open")
        assert got["messages"] == messages, (server.name, got)

    # retr: 1,000 messages of 1 MiB; fetch: 10,000 messages of 4 KiB, one at a time and pipelined

    def retr(self):
        self.fetching("retr %s, %d x 1 MiB", 200 if self.options.short else 1000, 1 << 20, (1,))

    def fetch(self):
        self.fetching("fetch %s, %d x 4 KiB", 2000 if self.options.short else 10000, 4096, (1, 64))

    def fetching(self, row_format, messages, octets, depths):
        for kind in sv.KINDS:
            servers = self.with_kind(kind, floor=True)
            for s in servers:
                self.prepare(s, kind, messages, octets)
            for depth in depths:
                row = row_format % (kind, messages) + (", pipelined" if depth > 1 else ", one at a time" if len(depths) > 1 else "")
                for _, s in self.undisturbed(self.rounds(servers)):
                    got = self.retrieve(s, kind, depth, messages)
                    self.fetched(row, s.name, got, octets, depth)
            for s in servers:
                self.clear(s, kind)

    def fetched(self, row, name, got, octets, depth):
        """The goals are of the floor, but for small pipelined messages, where they are of the best peer."""
        goal, against = (2, None) if depth > 1 else (0.9 if octets < 65536 else 0.8, "floor")
        if octets < 65536:
            self.figures.add(row, "messages", "1/s", "more", name, got["messages"] / got["seconds"], goal, against)
        else:
            self.figures.add(row, "throughput", "MB/s", "more", name, got["bytes"] / got["seconds"] / 1e6, goal, against)
        self.figures.add(row, "CPU a message", "ms", "less", name, got["cpu"] / got["messages"])

    def retrieve(self, server, kind, depth, messages, run=None):
        """Some servers stall 40 ms a message, or are slow: from these no more is fetched than takes a second or two."""
        run = run or self.run
        key = server, kind, messages
        if depth == 1 and key not in self.most:
            got = run(server, sv.user(kind, sv.BIG), "retr", "-n", 50)
            self.most[key] = min(messages, max(50, int(50 * FETCH_SECONDS / got["seconds"])))
        count = self.most[key] if depth == 1 else messages
        return run(server, sv.user(kind, sv.BIG), "retr", "-d", depth, "-n", count)

    def restart(self, server, messages, octets):
        server.stop()
        server.messages, server.octets = messages, octets
        server.start()

    def record(self):
        """What there is so far, as a long scenario goes on."""
        if self.options.record:
            record.write(DOCS, self.figures, self.facts)
            owner = DOCS.parent.stat()
            for path in (DOCS, *DOCS.glob("bench*")):
                os.chown(path, owner.st_uid, owner.st_gid)

    def clear(self, server, kind):
        if server.name != "floor":
            server.remove(kind, sv.BIG)
            server.forget(kind, sv.BIG)

    def copy_in(self, server, kind, messages, octets, sizes=True):
        """A fresh copy of the same mailbox, in the page cache and on the disk, of which nobody knows anything."""
        self.clear(server, kind)
        server.fill(kind, sv.BIG, messages, octets, sizes=sizes)
        os.sync()

    # open: 100,000 messages of 2.2 KB, to the end of STAT

    def open(self):
        messages = 10000 if self.options.short else 100000
        first = {"mbox": 1, "Maildir ,W=": 0.5, "Maildir": 1 / 3}
        for name, kind, sizes in (("mbox", "mbox", False), ("Maildir ,W=", "maildir", True), ("Maildir", "maildir", False)):
            servers = [s for s in self.with_kind(kind) if s.name != "cyrus"]    # its delivery has paid for the first open
            for r, s in self.rounds(servers, 3):
                if r == 0:
                    self.copy_in(s, kind, messages, 2200, sizes)
                s.forget(kind, sv.BIG)
                for state in ("first", "repeat", "after 10 deliveries"):
                    if state == "after 10 deliveries":
                        s.deliver(kind, sv.BIG, 10, 2200, r, sizes)
                    got = self.run(s, sv.user(kind, sv.BIG), "open")
                    assert got["messages"] == messages + 10 * (r + (state == "after 10 deliveries")), got
                    row = "open %s, %d, %s" % (name, messages, state)
                    goal, against = {"first": (first[name], None), "repeat": (0.1, "dovecot")}.get(state, (0.2, None))
                    self.figures.add(row, "to STAT", "s", "less", s.name, got["open"], goal, against)
                    self.figures.add(row, "CPU", "ms", "less", s.name, got["cpu"], goal if state != "first" else None, against)
            for s in self.with_kind(kind):
                self.clear(s, kind)

    # update: QUIT after deleting from 100,000 messages of 2.2 KB

    def update(self):
        messages = 10000 if self.options.short else 100000
        for kind, what, goal, against in (("mbox", "first", 1.3, "copy"), ("mbox", "all", 0.2, "popa3d"), ("maildir", "all", None, None)):
            # once for a Maildir: a fresh copy of 100,000 files takes longer than all else
            for _, s in self.rounds(self.with_kind(kind), 1 if kind == "maildir" else 3):
                self.copy_in(s, kind, messages, 2200)
                self.run(s, sv.user(kind, sv.BIG), "open")
                got = self.run(s, sv.user(kind, sv.BIG), "delete", "-x", what)
                row = "update %s, %d, delete %s" % (kind, messages, what)
                self.figures.add(row, "QUIT answered", "s", "less", s.name, got["quit"], goal, against)
                self.figures.add(row, "CPU", "ms", "less", s.name, got["cpu"])
                if what == "first" and s.name == "postern":
                    path = s.maildrop(kind, sv.BIG)
                    self.figures.add(row, "QUIT answered", "s", "less", "copy", make.copy_and_shift(path, sv.SRV / "copy"))
            for s in self.with_kind(kind):
                self.clear(s, kind)

    # idle: memory of a session that waits, and of a connection before its login

    def idle(self):
        for kind in sv.KINDS:
            for s in self.with_kind(kind):
                for n in range(32):
                    s.fill(kind, n, 20, 2200)
                self.run(s, sv.user(kind, ""), "poll", "-c", 32, "-n", 64)
                self.held("idle %s" % kind, s, kind, "hold", 300)
        for s in self.with_kind("mbox") + [s for s in self.with_kind("maildir") if "mbox" not in s.kinds]:
            self.held("before login", s, s.kinds[0], "wait", 150)

    def held(self, row, s, kind, scenario, limit):
        s.stop()        # or processes that wait for their users to come again would be there beforehand, and not be counted
        s.start()
        empty, before = self.pss_still(s), len(s.meter.pids())
        client = self.hold(s, sv.user(kind, ""), scenario, "-c", 32)
        self.figures.add(row, "PSS a connection", "KiB", "less", s.name, (self.pss_still(s) - empty) / 32, limit=limit)
        client.stdin.close()
        client.wait()
        s.meter.settle(before)

    def pss(self, server):
        return sum(smaps(pid).get("Pss", 0) for pid in server.meter.pids())

    def pss_still(self, server):
        """Once nothing starts or ends there any more."""
        last, now = None, self.pss(server)
        while last is None or abs(now - last) > 64:
            time.sleep(0.5)
            last, now = now, self.pss(server)
        return now

    def hold(self, server, user, scenario, *args):
        """A client with connections that are open until its standard input ends."""
        return self.holds(server, self.hold_begin(server, user, scenario, *args))

    def hold_begin(self, server, user, scenario, *args):
        """The same, without waiting until they are."""
        return subprocess.Popen([self.client, "-p", str(server.port), "-u", user, "-w", sv.PASSWORD, *map(str, args), scenario],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def holds(self, server, client):
        if not client.stdout.readline():
            raise SystemExit("bench: %s: no sessions could be held" % server.name)
        return client

    # memory: what a worker takes of 1,000,000 messages (memory.py)

    def memory(self):
        memory.scenario(self)

    # tls: whole sessions with a full handshake, and RETR (tls.py)

    def tls(self):
        tls.scenario(self)

    # growth: from 10 messages to 1,000,000, from 1 session to 5,000 (growth.py)

    def growth(self):
        growth.scenario(self)

    # crowd: 2,000 connections before login, and 500 sessions (crowd.py)

    def crowd(self):
        crowd.scenario(self, smaps)

    # logins: a remembered password and an app password, on empty maildrops (logins.py)

    def logins(self):
        logins.scenario(self)

    # million: a store of so many users (logins.py)

    def million(self):
        logins.million(self)


def processors():
    """Ticks that a hypervisor has taken from all processors, and all that there were: proc_stat(5)."""
    with open("/proc/stat") as f:
        ticks = [int(n) for n in f.readline().split()[1:9]]
    return ticks[7], sum(ticks)


def smaps(pid):
    """Kibibytes, by the names of /proc/PID/status and smaps_rollup."""
    facts = {"name": "?"}
    try:
        for name in ("status", "smaps_rollup"):
            for row in pathlib.Path("/proc/%d/%s" % (pid, name)).read_text().splitlines():
                words = row.split()
                if len(words) == 3 and words[2] == "kB":
                    facts[words[0].rstrip(":")] = int(words[1])
                elif words[0] == "Name:":
                    facts["name"] = words[1]
    except (FileNotFoundError, ProcessLookupError):
        pass    # it has ended
    return facts


SCENARIOS = ["poll", "list", "fetch", "retr", "open", "update", "idle", "logins", "tls", "growth", "memory", "million", "crowd"]


def numbers(text):
    return sorted(int(x) for x in text.split(","))


def ended(*_):
    raise KeyboardInterrupt     # no SystemExit, which is what a server that does not do its part costs


def options_parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("scenario", nargs="*", metavar="SCENARIO", help="of %s (all but the last four)" % ", ".join(SCENARIOS))
    p.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    p.add_argument("--work", type=pathlib.Path, help="where mailboxes are made: a disk, not memory (BUILD/bench/work)")
    p.add_argument("--rounds", type=int)
    p.add_argument("--short", action="store_true", help="smaller mailboxes, fewer sessions and rounds: a quick look")
    p.add_argument("--servers", default="postern,dovecot,courier,cyrus,mailutils,popa3d,floor", help="those to compare (all)")
    p.add_argument("--no-fetch", action="store_true", help="leave out what is neither installed nor unpacked already")
    p.add_argument("--fetch", action="store_true", help="only fetch and unpack what is missing")
    p.add_argument("--most", type=int, default=1000000, help="growth: no mailbox of more messages (1000000)")
    p.add_argument("--only", type=lambda x: x.split(","), default=[], metavar="PART,...", help="growth, memory: of mbox,maildir,sessions only these")
    p.add_argument("--sizes", type=numbers, default=[], metavar="N,...", help="growth, memory: mailboxes of so many messages")
    p.add_argument("--levels", type=numbers, default=[], metavar="N,...", help="growth: so many sessions")
    p.add_argument("--keep", action="store_true", help="growth, memory: leave a large Maildir in WORK, for the next piece of it")
    p.add_argument("--no-image", action="store_true", help="growth, memory: on the file system of WORK, and not on one in a file there (16 GB at most)")
    p.add_argument("--record", action="store_true", help="write the figures, tables and plots into docs/; growth adds what it has, server by server")
    p.add_argument("--shell", action="store_true", help="start the servers, and a shell among them instead of a scenario")
    o = p.parse_args()
    for name in o.scenario:     # (choices= would have none at all refused)
        if name not in SCENARIOS:
            p.error("there is no scenario %s; there are %s" % (name, ", ".join(SCENARIOS)))
    o.build = o.build.resolve()
    o.work = (o.work or o.build / "bench/work").resolve()
    o.rounds = o.rounds or (3 if o.short else 5)
    o.servers = o.servers.split(",")
    o.image = not o.no_image and bool(o.scenario) and set(o.scenario) <= {"growth", "memory"}
    o.scenario = o.scenario or [s for s in SCENARIOS if s not in ("growth", "memory", "million", "crowd")]
    return o


def facts_of(servers):
    cpu = next((r.split(":")[1].strip() for r in open("/proc/cpuinfo") if r.startswith("model name")), "?")
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": ".".join(os.uname().release.split(".")[:2]), "date": time.strftime("%Y-%m-%d %H:%M:%S"),
            "servers": {s.name: s.version() for s in servers}}


def main():
    o = options_parse()
    if os.geteuid() != 0:
        note("the servers run with accounts of their own: asking sudo")
        os.execvp("sudo", ["sudo", sys.executable, *sys.argv])
    known = [sv.Postern(o.build), sv.Dovecot(), peers.Courier(), peers.Cyrus(), peers.Mailutils(), sv.Popa3d(), sv.Floor(o.build)]
    servers, roots = stage.packages_have([s for s in known if s.name in o.servers], o.build / "bench/peers", not o.no_fetch)
    if o.fetch:
        return
    signal.signal(signal.SIGTERM, ended)
    image = stage.enter(o.work, roots, sv.etc_write, [f for s in servers for f in s.folders], o.image, o.keep)
    try:
        for kind in sv.KINDS:
            for n in range(sv.USERS):
                home = sv.SRV / "home" / sv.user(kind, n)
                home.mkdir(parents=True, exist_ok=True)
                os.chown(home, sv.uid(kind, n), sv.uid(kind, n))
        for s in servers:
            note("starting", s.name)
            s.prepare()
            s.start()
        bench = Bench(o, servers)
        bench.warm()
        if o.shell:
            subprocess.run([os.environ.get("SHELL", "/bin/sh")])
            return
        facts = bench.facts
        last_path = o.build / ("bench/last-short.json" if o.short else "bench/last.json")
        last = {} if o.short else record.last(DOCS, facts)
        last.update(json.loads(last_path.read_text()) if last_path.exists() else {})
        try:
            for name in o.scenario:
                note(name, time.strftime("%H:%M:%S"), "load %.1f" % os.getloadavg()[0])
                getattr(bench, name)()
                bench.record()
        finally:
            print("%(cpu)s, %(cores)d cores, Linux %(kernel)s; %(servers)s" % facts)
            if bench.stolen[True]:
                print("during %d of %d turns a hypervisor took the processors away: they were repeated, %d times at most" %
                    (bench.stolen[True], sum(bench.stolen.values()), TRIES - 1))
            bench.figures.print(last)
        bench.figures.save(o.build / "bench/figures.json", last_path, last, facts)
    finally:
        for s in servers:
            s.stop()
        for path in [] if image and not o.keep else sv.SRV.iterdir():
            if path.name == "lost+found" or o.keep and path.name == "stock":
                continue
            note("removing", path.name)
            shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
