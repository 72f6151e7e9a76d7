"""Scenario growth: what more messages and more sessions cost. Mailboxes of 10 to 1,000,000 messages, 1 to 5,000 sessions held open.

Messages are of 500 octets. The figures are those of a first open, of one that finds nothing new, and of STAT, LIST and UIDL together. A server that
took more than a minute for one size is not asked for the next. Sessions are each of a user of its own with ten messages, and stay open; while so
many are held, others log in and out. It ends early when less than 4 GiB of memory are left.
"""
import os
import pathlib
import subprocess

import servers as sv
from stage import note

OCTETS = 500
TOO_LONG = 60
MEMORY_LEFT = 4 << 20   # KiB
MANY = 10000            # the number of the first of many users


def scenario(bench):
    short, most = bench.options.short, bench.options.most
    sizes = [n for n in ((10, 100, 1000, 10000) if short else (10, 100, 1000, 10000, 100000, 1000000)) if n <= most]
    for kind in sv.KINDS:
        messages(bench, kind, sizes)
    levels = (1, 10, 100) if short else (1, 10, 100, 1000, 5000)
    servers = bench.with_kind("maildir") + [s for s in bench.with_kind("mbox") if "maildir" not in s.kinds]
    numbers = range(MANY, MANY + levels[-1])
    sv.accounts_add(numbers)
    for s in servers:
        s.users_add(numbers)
        sessions(bench, s, s.kinds[-1], levels)


# Messages

def messages(bench, kind, sizes):
    slow = set()
    for count in sizes:
        before = None
        servers = [s for s in bench.with_kind(kind) if s.name not in slow and count <= s.most]
        for s in servers:
            note("growth %s, %d: %s" % (kind, count, s.name))
            take(bench, kind, s, before, count)
            if s.name != "cyrus":
                before = s
            took = measure(bench, kind, s, count)
            if took > TOO_LONG and count < sizes[-1]:
                note("growth: %s took %.0f s for %d messages: no more of them" % (s.name, took, count))
                slow.add(s.name)
        for s in servers:
            bench.clear(s, kind)


def take(bench, kind, server, before, count):
    """A mailbox that nobody knows anything of: a new one, or, where making it takes minutes, the one that another server had."""
    if before is None or count < 100000 or kind == "mbox" or server.name == "cyrus":
        bench.copy_in(server, kind, count, OCTETS)
    else:
        bench.clear(server, kind)
        before.forget(kind, sv.BIG)
        server.maildrop(kind, sv.BIG).parent.mkdir(exist_ok=True)
        os.rename(before.maildrop(kind, sv.BIG), server.maildrop(kind, sv.BIG))


def measure(bench, kind, s, count):
    row, add = "growth %s, %d messages" % (kind, count), bench.figures.add
    first = bench.run(s, sv.user(kind, sv.BIG), "open")
    if s.name != "cyrus":   # its delivery has paid
        add(row, "first open", "s", "less", s.name, first["open"])
    for _ in range(3):
        got = bench.run(s, sv.user(kind, sv.BIG), "list")
        assert got["messages"] == count, (s.name, got)
        add(row, "repeat open", "s", "less", s.name, got["open"])
        add(row, "STAT+LIST+UIDL", "s", "less", s.name, got["open"] + got["list"] + got["uidl"])
        add(row, "CPU", "ms", "less", s.name, got["cpu"])
        if got["open"] > 5:
            break
    return first["open"]


# Sessions

def memory_left():
    rows = dict(r.split(":") for r in pathlib.Path("/proc/meminfo").read_text().splitlines())
    return int(rows["MemAvailable"].split()[0])


def sessions(bench, s, kind, levels):
    note("growth, sessions: %s" % s.name)
    for n in range(MANY, MANY + levels[-1]):
        if s.name != "cyrus" or n < MANY + 1000:
            s.fill(kind, n, 10, OCTETS)
    for n in range(8):
        s.fill(kind, n, 10, OCTETS)
    bench.run(s, sv.user(kind, ""), "poll", "-c", 8, "-n", 32)
    empty, before, clients, held = bench.pss(s), len(s.meter.pids()), [], 0
    try:
        for level in levels:
            if s.name == "cyrus" and level > 1000:
                break
            start = s.meter.milliseconds()
            try:
                clients.append(bench.hold(s, sv.user(kind, ""), "hold", "-b", MANY + held, "-c", level - held))
            except SystemExit as e:
                note("growth: %s holds no %d sessions: %s" % (s.name, level, e))
                break
            cpu = (s.meter.milliseconds() - start) / (level - held)
            held, row, add = level, "growth, %d sessions" % level, bench.figures.add
            add(row, "PSS in total", "MiB", "less", s.name, (bench.pss(s) - empty) / 1024)
            add(row, "CPU a login", "ms", "less", s.name, cpu)
            got = bench.run(s, sv.user(kind, ""), "poll", "-c", 8, "-n", 100)
            add(row, "others log in", "1/s", "more", s.name, got["sessions"] / got["seconds"])
            if memory_left() < MEMORY_LEFT:
                note("growth: %s: little memory is left after %d sessions" % (s.name, held))
                break
    finally:
        for c in clients:
            c.stdin.close()
            c.wait()
        s.meter.settle(before)
        s.stop()        # what it keeps of so many is not the next one's
        s.start()
    subprocess.run(["sh", "-c", 'rm -rf "$1"/%s1????' % sv.KINDS[kind], "rm", str(s.maildrop(kind, MANY).parent)], check=False)
