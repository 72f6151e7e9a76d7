"""Scenario memory: what the worker and pop3d take of a mailbox of 1,000,000 messages.

Five states: a first open, a repeated one, the worker that lingers after that, an UPDATE that deletes every second message, and one that deletes all.
While each goes on the processes are looked at every millisecond. A process's memory "at its most" is all that it had at once (VmHWM), memory that it
shares included; "beside the catalogue" is that less the catalogue, and less what the same takes of ten messages: how it grows, in octets a message.
"""
import pathlib
import select
import time

import servers as sv
import stock
from stage import note

OCTETS, FEW, LIMIT = 500, 10, 64
NAMES = ("worker", "pop3d")


def scenario(bench):
    s = next(s for s in bench.servers if s.name == "postern")
    count = max(bench.options.sizes or [100000 if bench.options.short else bench.options.most])
    for kind in sv.KINDS:
        if bench.part(kind):
            few = dict(states(bench, s, kind, FEW))
            for state, many in states(bench, s, kind, count):
                report(bench, s.name, "memory %s, %d, %s" % (kind, count, state), count, few[state], many)
                bench.record()


def states(bench, s, kind, count):
    """state, {name: [KiB at its most, octets of the catalogue]}"""
    note("memory %s, %d: preparing" % (kind, count))
    stock.put(bench, s, kind, count, OCTETS)
    for state in ("first", "repeat"):
        note("memory %s, %d: %s" % (kind, count, state))
        s.stop()        # so that no worker lingers with something else
        s.start()
        client = bench.hold_begin(s, sv.user(kind, ""), "hold", "-b", sv.BIG, "-c", 1)
        found = watch(s, client)
        client.stdin.close()
        client.wait()
        yield state, found
    s.stop()
    s.start()
    bench.run(s, sv.user(kind, sv.BIG), "open")     # one that only looks, and says QUIT: its worker waits for the next
    time.sleep(1)       # what it gives back, it gives back now
    most = look(s, {}, "VmRSS").get("worker", [0])[0] + 1024
    yield "lingering", {"worker": look(s, {}, "VmRSS").get("worker", [0, 0])}
    for state, pattern in (("update", "alternate"), ("update, all", "all")):
        if state != "update":
            note("memory %s, %d: preparing" % (kind, count))
            s.stop()        # and with it the worker that removes what was deleted
            bench.clear(s, kind)
            stock.put(bench, s, kind, count, OCTETS)
            s.start()
        note("memory %s, %d: %s" % (kind, count, state))
        client = bench.hold_begin(s, sv.user(kind, sv.BIG), "delete", "-x", pattern)
        found = watch(s, client)
        if client.wait() != 0:
            raise SystemExit("bench: memory: the messages could not be deleted")
        note("memory %s, %d: what is left to do after QUIT" % (kind, count))
        while look(s, {}, "VmRSS").get("worker", [0])[0] > most:     # a worker that has deleted something does not linger
            time.sleep(0.01)
            look(s, found)
        yield state, found
    s.stop()
    bench.clear(s, kind)
    s.start()


def watch(s, client):
    """Until the client says something, or ends."""
    found = {}
    while not select.select([client.stdout], [], [], 0.001)[0]:
        look(s, found)
    return look(s, found)


def look(s, found, what="VmHWM"):
    for pid in s.meter.pids():
        try:
            rows = dict(r.split(":\t", 1) for r in pathlib.Path("/proc/%d/status" % pid).read_text().splitlines() if ":\t" in r)
            name = rows["Name"]
            if name in NAMES and what in rows:
                now = [int(rows[what].split()[0]), catalogue(pid)]
                found[name] = [max(a, b) for a, b in zip(found.get(name, now), now)]
        except (FileNotFoundError, ProcessLookupError):
            continue    # it has ended
    return found


def catalogue(pid):
    """The largest memory file that it has mapped."""
    sizes = [0]
    for row in pathlib.Path("/proc/%d/maps" % pid).read_text().splitlines():
        words = row.split()
        if len(words) > 5 and words[5].startswith("/memfd:"):
            sizes.append(int(words[0].split("-")[1], 16) - int(words[0].split("-")[0], 16))
    return max(sizes)


def report(bench, server, row, count, few, many):
    shared = max(octets for _, octets in many.values())
    add = bench.figures.add
    for name, (most, _) in many.items():
        if name == "worker" and "lingering" not in row:
            add(row, "worker, beside the catalogue", "octets a message", "less", server, ((most - few[name][0]) * 1024 - shared) / count, limit=LIMIT)
        add(row, name, "MiB", "less", server, most / 1024)
    if shared and "lingering" not in row:
        add(row, "catalogue", "octets a message", "less", server, shared / count)
