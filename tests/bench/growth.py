"""Scenario growth: what more messages and more sessions cost. Mailboxes of 10 to 1,000,000 messages, 1 to 5,000 sessions held open.

Messages are of 500 octets. The figures are those of a first open, of one that finds nothing new, and of STAT, LIST and UIDL together. A server that
took longer than half a minute to open one size is not asked for the next, and one that has not opened it after two is stopped: the table says
so. Sessions are each of a user of its own with ten messages, and stay open; while so many are held, others log in and out. It ends early when less
than 4 GiB of memory are left.

It can be done in pieces, each with --record: --only mbox (maildir, sessions), --sizes, --levels, --servers. A large Maildir is made once and goes
from server to server; --keep leaves it for the next piece.
"""
import functools
import pathlib
import time

import servers as sv
import stock
from stage import note

OCTETS = 500
SIZES, LEVELS = (10, 100, 1000, 10000, 100000, 1000000), (1, 10, 100, 1000, 5000)
SMALL = 10000                   # messages: so many are opened often enough for a median
STILL = 0.2                     # seconds: who opens a mailbox that has just changed has to look at it again the next time
SLOW, TOO_LONG = 30, 120        # seconds: no larger mailbox after this; and no longer than this is waited
MEMORY_LEFT = 4 << 20           # KiB
MANY = 10000                    # the number of the first of many users
AT_ONCE = 1000                  # so many more sessions are asked for at once, and then said,
CLIENTS = 4                     # by so many clients


def scenario(bench):
    o = bench.options
    sizes = o.sizes or [n for n in SIZES if n <= min(o.most, 10000 if o.short else o.most)]
    levels = o.levels or [n for n in LEVELS if n <= (100 if o.short else LEVELS[-1])]
    for kind in sv.KINDS:
        if bench.part(kind):
            messages(bench, kind, sizes)
    if bench.part("sessions"):
        sessions_all(bench, levels)


# Messages

def messages(bench, kind, sizes):
    slow = {}
    for count in sizes:
        for s in bench.with_kind(kind):
            row = row_of(kind, count)
            if s.name in slow:
                bench.figures.say(row, "first open", "s", "less", s.name, slow[s.name])
            elif count > s.most:
                bench.figures.say(row, "repeat open", "s", "less", s.name, "not tried")
            else:
                note("growth %s, %d: %s: preparing" % (kind, count, s.name))
                bench.clear(s, kind)
                stock.put(bench, s, kind, count, OCTETS)
                took = measure(bench, kind, s, count)
                stock.take_back(bench, s, kind, count, OCTETS)
                if took is None or took > SLOW:
                    slow[s.name] = "over %s at %d" % ("%d s" % TOO_LONG if took is None else "%.0f s" % took, count)
            bench.record()
        stock.discard(count, OCTETS, bench.options.keep, bench.options.image)


def row_of(kind, count):
    return "growth %s, %d messages" % (kind, count)


def measure(bench, kind, s, count):
    """The seconds of the slowest open, or None if there was none in time."""
    row, add = row_of(kind, count), bench.figures.add
    small, slowest = count <= SMALL, 0
    note("growth %s, %d: %s: opening" % (kind, count, s.name))
    time.sleep(STILL)
    for _ in turns(bench, s, 5 if small else 1, small):
        s.forget(kind, sv.BIG)
        first = bench.run(s, sv.user(kind, sv.BIG), "open", limit=TOO_LONG)
        if first is None:
            bench.figures.say(row, "first open", "s", "less", s.name, "over %d" % TOO_LONG)
            return None
        if s.name != "cyrus":   # its delivery has paid
            add(row, "first open", "s", "less", s.name, first["open"])
        slowest = max(slowest, first["open"])
    for _ in turns(bench, s, 9 if small else 3, True):
        got = bench.run(s, sv.user(kind, sv.BIG), "list", limit=TOO_LONG)
        if got is None:
            bench.figures.say(row, "STAT+LIST+UIDL", "s", "less", s.name, "over %d" % TOO_LONG)
            return None
        assert got["messages"] == count, (s.name, got)
        add(row, "repeat open", "s", "less", s.name, got["open"])
        add(row, "STAT+LIST+UIDL", "s", "less", s.name, got["open"] + got["list"] + got["uidl"])
        add(row, "CPU", "ms", "less", s.name, got["cpu"])
        slowest = max(slowest, got["open"])
        if got["open"] + got["list"] + got["uidl"] > 5:
            break
    note("growth %s, %d: %s: first open %.3g s, slowest %.3g s" % (kind, count, s.name, first["open"], slowest))
    return slowest


def turns(bench, s, count, again):
    """`again`: it is quick enough to be repeated when it was disturbed."""
    rounds = ((r, s) for r in range(count))
    return bench.undisturbed(rounds) if again else rounds


# Sessions

def memory_left():
    rows = dict(r.split(":") for r in pathlib.Path("/proc/meminfo").read_text().splitlines())
    return int(rows["MemAvailable"].split()[0])


def sessions_all(bench, levels):
    servers = bench.with_kind("maildir") + [s for s in bench.with_kind("mbox") if "maildir" not in s.kinds]
    numbers = range(MANY, MANY + levels[-1])
    note("growth, sessions: %d users" % len(numbers))
    sv.accounts_add(numbers)
    for s in servers:
        s.users_add(numbers)
        sessions(bench, s, s.kinds[-1], levels)
        bench.record()


def sessions(bench, s, kind, levels):
    levels = [n for n in levels if n <= s.most_sessions]
    note("growth, sessions: %s: mailboxes" % s.name)
    for n in [*range(MANY, MANY + levels[-1]), *range(8)]:
        s.fill(kind, n, 10, OCTETS)
    bench.run(s, sv.user(kind, ""), "poll", "-c", 8, "-n", 32)
    empty, before, clients, held = bench.pss(s), len(s.meter.pids()), [], 0
    try:
        for level in levels:
            if not hold(bench, s, kind, clients, held, level):
                break
            held = level
            weigh(bench, s, kind, level, empty)
            if memory_left() < MEMORY_LEFT:
                note("growth: %s: little memory is left after %d sessions" % (s.name, held))
                break
    finally:
        note("growth, sessions: %s: ending" % s.name)
        for c in clients:
            c.stdin.close()
            c.wait()
        s.meter.settle(before)
        s.stop()        # what it keeps of so many is not the next one's
        s.start()
    for n in range(MANY, MANY + levels[-1]):
        s.remove_many(kind, n)


def hold(bench, s, kind, clients, held, level):
    """As many more sessions as make `level`; some at a time, so that one sees how it goes. False if it cannot hold them."""
    start = s.meter.milliseconds()
    for first in range(held, level, AT_ONCE):
        last = min(level, first + AT_ONCE)
        step = -(-(last - first) // CLIENTS)
        begun = [bench.hold_begin(s, sv.user(kind, ""), "hold", "-b", MANY + n, "-c", min(step, last - n)) for n in range(first, last, step)]
        clients += begun
        try:
            for c in begun:
                bench.holds(s, c)
        except SystemExit as e:
            note("growth: %s holds no %d sessions: %s" % (s.name, level, e))
            bench.figures.say(sessions_row(level), "PSS in total", "MiB", "less", s.name, "none beyond %d" % first)
            return False
        note("growth, sessions: %s: %d" % (s.name, last))
    bench.figures.add(sessions_row(level), "CPU a login", "ms", "less", s.name, (s.meter.milliseconds() - start) / (level - held))
    return True


def sessions_row(level):
    return "growth, %d sessions" % level


def weigh(bench, s, kind, level, empty):
    row = sessions_row(level)
    add = functools.partial(bench.figures.add, row)
    add("PSS in total", "MiB", "less", s.name, (bench.pss(s) - empty) / 1024)
    got = bench.run(s, sv.user(kind, ""), "poll", "-c", 8, "-n", 100)
    add("others log in", "1/s", "more", s.name, got["sessions"] / got["seconds"])
    note("%s: %s: %.0f others a second" % (row, s.name, got["sessions"] / got["seconds"]))
