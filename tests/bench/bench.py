#!/usr/bin/python3
"""`make bench`: Postern beside Dovecot, Courier, Cyrus, Mailutils and popa3d (under tcpserver) from Debian's packages, on loopback, in one run.

Every figure is taken several times, the servers alternating, and is printed as the median and (least..most). Time is the client's, CPU time is
the server's alone: all its processes, those that ended included. The mailboxes are the same, each server has its own copy, and all of
it is in the page cache. Needs root: servers run with accounts of their own in a private mount and network namespace; nothing is installed.

    bench.py [options] [SCENARIO...]       poll retr open update idle logins tls memory; without any, all but memory

The raw figures go to BUILD/bench/figures.json; the last figure of each row is kept in BUILD/bench/last.json and compared with the next run.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import logins  # noqa: E402
import mailbox_make as make  # noqa: E402
import peers  # noqa: E402
import servers as sv  # noqa: E402
import stage  # noqa: E402
import tls  # noqa: E402
from figures import Figures  # noqa: E402
from stage import note  # noqa: E402

# Measuring

class Bench:
    def __init__(self, options, servers):
        self.options, self.servers, self.figures = options, servers, Figures()
        self.client = shutil.copy(options.build / "bench/client", "/srv/client")

    def with_kind(self, kind, floor=False):
        return [s for s in self.servers if kind in s.kinds and (floor or s.name != "floor")]

    def rounds(self, servers, at_most=100):
        """(round, server), alternating, and beginning with another each time."""
        for r in range(min(at_most, self.options.rounds)):
            for s in servers[r % len(servers):] + servers[:r % len(servers)]:
                yield r, s

    def run(self, server, user, scenario, *args):
        """The client's figures, and the server's CPU time in milliseconds as ["cpu"]."""
        before, start = len(server.meter.pids()), server.meter.milliseconds()
        done = subprocess.run([self.client, "-p", str(server.port), "-u", user, "-w", sv.PASSWORD, *map(str, args), scenario],
            capture_output=True, text=True)
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
                for _, s in self.rounds(servers):
                    got = self.run(s, sv.user(kind, ""), "poll", "-c", clients, "-n", sessions // 2 if short else sessions)
                    row = "poll %s, %d client%s" % (kind, clients, "s"[:clients > 1])
                    self.figures.add(row, "sessions", "1/s", "more", s.name, got["sessions"] / got["seconds"], 1)
                    self.figures.add(row, "CPU a session", "ms", "less", s.name, got["cpu"] / got["sessions"], 1)

    # retr: 1,000 messages of 1 MiB

    def retr(self):
        messages, octets = (200 if self.options.short else 1000), 1 << 20
        for kind in sv.KINDS:
            servers = self.with_kind(kind, floor=True)
            for s in servers:
                if s.name == "floor":
                    self.restart(s, messages, octets)
                else:
                    self.copy_in(s, kind, messages, octets)
                    self.run(s, sv.user(kind, sv.BIG), "open")
            for _, s in self.rounds(servers):
                got = self.run(s, sv.user(kind, sv.BIG), "retr")
                row = "retr %s, %d x 1 MiB" % (kind, messages)
                self.figures.add(row, "throughput", "MB/s", "more", s.name, got["bytes"] / got["seconds"] / 1e6, 1)
                self.figures.add(row, "CPU a message", "ms", "less", s.name, got["cpu"] / messages, 1)
            for s in servers:
                self.clear(s, kind)

    def restart(self, server, messages, octets):
        server.stop()
        server.messages, server.octets = messages, octets
        server.start()

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
            for r, s in self.rounds(self.with_kind(kind), 3):
                if r == 0:
                    self.copy_in(s, kind, messages, 2200, sizes)
                s.forget(kind, sv.BIG)
                for state in ("first", "repeat", "after 10 deliveries"):
                    if state == "after 10 deliveries":
                        s.deliver(kind, sv.BIG, 10, 2200, r, sizes)
                    got = self.run(s, sv.user(kind, sv.BIG), "open")
                    assert got["messages"] == messages + 10 * (r + (state == "after 10 deliveries")), got
                    row = "open %s, %d, %s" % (name, messages, state)
                    goal = first[name] if state == "first" else 0.2
                    self.figures.add(row, "to STAT", "s", "less", s.name, got["open"], goal)
                    self.figures.add(row, "CPU", "ms", "less", s.name, got["cpu"], goal if state != "first" else None)
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

    # idle: memory of a session that waits

    def idle(self):
        for kind in sv.KINDS:
            for s in self.with_kind(kind):
                for n in range(32):
                    s.fill(kind, n, 20, 2200)
                before, empty = len(s.meter.pids()), self.pss(s)
                client = self.hold(s, sv.user(kind, ""), "-c", 32)
                self.figures.add("idle %s" % kind, "PSS a session", "KiB", "less", s.name, (self.pss(s) - empty) / 32)
                client.stdin.close()
                client.wait()
                s.meter.settle(before)

    def pss(self, server):
        return sum(smaps(pid).get("Pss", 0) for pid in server.meter.pids())

    def hold(self, server, user, *args):
        """A client with sessions that are open until its standard input ends."""
        client = subprocess.Popen([self.client, "-p", str(server.port), "-u", user, "-w", sv.PASSWORD, *map(str, args), "hold"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if not client.stdout.readline():
            raise SystemExit("bench: %s: no sessions could be held" % server.name)
        return client

    # memory: what a session on 1,000,000 messages takes. At its peak (VmHWM) the worker has the catalogue mapped, too, which is what pop3d's
    # RssShmem is: what a worker takes besides is VmHWM less that.

    def memory(self):
        messages = 100000 if self.options.short else 1000000
        for kind in sv.KINDS:
            s = next(s for s in self.servers if s.name == "postern")
            self.copy_in(s, kind, messages, 200)
            for state in ("first", "repeat"):
                before = len(s.meter.pids())
                client = self.hold(s, sv.user(kind, ""), "-b", sv.BIG, "-c", 1)
                for facts in map(smaps, s.meter.pids()):
                    if facts["name"] not in ("worker", "pop3d"):
                        continue
                    row = "memory %s, %d, %s" % (kind, messages, state)
                    for name in ("VmHWM", "RssAnon", "RssShmem"):
                        self.figures.add(row, "%s %s" % (facts["name"], name), "bytes a message", "less", s.name,
                            facts.get(name, 0) * 1024 / messages)
                client.stdin.close()
                client.wait()
                s.meter.settle(before)
            self.clear(s, kind)

    # tls: whole sessions with a full handshake, and RETR (tls.py)

    def tls(self):
        tls.scenario(self)

    # logins: a remembered password and an app password, on empty maildrops (logins.py)

    def logins(self):
        logins.scenario(self)


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


SCENARIOS = ["poll", "retr", "open", "update", "idle", "logins", "tls", "memory"]


def options_parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("scenario", nargs="*", choices=[[], *SCENARIOS], default=[])
    p.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    p.add_argument("--work", type=pathlib.Path, help="where mailboxes are made: a disk, not memory (BUILD/bench/work)")
    p.add_argument("--rounds", type=int)
    p.add_argument("--short", action="store_true", help="smaller mailboxes, fewer sessions and rounds: a quick look")
    p.add_argument("--servers", default="postern,dovecot,courier,cyrus,mailutils,popa3d,floor", help="those to compare (all)")
    p.add_argument("--no-fetch", action="store_true", help="leave out what is neither installed nor unpacked already")
    p.add_argument("--fetch", action="store_true", help="only fetch and unpack what is missing")
    p.add_argument("--shell", action="store_true", help="start the servers, and a shell among them instead of a scenario")
    o = p.parse_args()
    o.build = o.build.resolve()
    o.work = (o.work or o.build / "bench/work").resolve()
    o.rounds = o.rounds or (3 if o.short else 5)
    o.servers = o.servers.split(",")
    o.scenario = o.scenario or [s for s in SCENARIOS if s != "memory"]
    return o


def facts_of(servers):
    cpu = next((r.split(":")[1].strip() for r in open("/proc/cpuinfo") if r.startswith("model name")), "?")
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": os.uname().release, "date": time.strftime("%Y-%m-%d %H:%M:%S"),
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
    stage.enter(o.work, roots, sv.etc_write, [f for s in servers for f in s.folders])
    try:
        for kind in sv.KINDS:
            for n in range(sv.USERS):
                home = sv.SRV / "home" / sv.user(kind, n)
                home.mkdir(parents=True, exist_ok=True)
                os.chown(home, sv.uid(kind, n), sv.uid(kind, n))
        for s in servers:
            s.prepare()
            s.start()
        bench = Bench(o, servers)
        if o.shell:
            subprocess.run([os.environ.get("SHELL", "/bin/sh")])
            return
        facts = facts_of(servers)
        last_path = o.build / ("bench/last-short.json" if o.short else "bench/last.json")
        last = json.loads(last_path.read_text()) if last_path.exists() else {}
        try:
            for name in o.scenario:
                note(name, time.strftime("%H:%M:%S"), "load %.1f" % os.getloadavg()[0])
                getattr(bench, name)()
        finally:
            print("%(cpu)s, %(cores)d cores, Linux %(kernel)s; %(servers)s" % facts)
            bench.figures.print(last)
        bench.figures.save(o.build / "bench/figures.json", last_path, last, facts)
    finally:
        for s in servers:
            s.stop()
        for path in sv.SRV.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
