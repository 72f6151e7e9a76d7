"""Mailboxes to measure with: the same messages in every one, as a mail system would have delivered them, with LF line ends."""
import functools
import os
import pathlib
import shutil
import time

LINE = 76       # as MIME wraps base64


@functools.lru_cache(16)
def body(octets):
    """Lines of LINE octets, one of them with a dot at its start, to `octets` in all."""
    lines = []
    for i in range(64):
        lines.append(bytes(65 + (i * 7 + j * 11) % 26 for j in range(LINE)) + b"\n")
    block = b"".join(lines)
    text = (block * (octets // len(block) + 1))[:octets - 1] + b"\n"
    return b".dot" + text[4:] if octets >= 8 else text


def message(number, octets, tail):
    """Message number, of exactly `octets`; `tail` is body(octets)."""
    head = (b"Return-Path: <sender@example.org>\nDelivered-To: user@example.net\nReceived: from mail.example.org (mail.example.org [192.0.2.1])\n"
            b"\tby mx.example.net with ESMTP id %010d\n\tfor <user@example.net>; Sat,  3 Jan 1998 01:05:34 +0100\n"
            b"Date: Sat, 3 Jan 1998 01:05:34 +0100\nFrom: Sender <sender@example.org>\nTo: user@example.net\n"
            b"Subject: message %d\nMessage-ID: <%d.bench@example.org>\n\n") % (number, number, number)
    if octets < len(head) + 8:
        head = b"Subject: %d\n\n" % number
    return head + tail[:3 + 0] + tail[3:octets - len(head) - 1] + b"\n"


def maildir_name(number, octets, lines, sizes, seen):
    name = "%010d.M%06dP4711.bench" % (1700000000 + number // 10, number)
    if sizes:
        name += ",S=%d,W=%d" % (octets, octets + lines)
    return name + (":2,S" if seen else "")


def mbox_append(f, first, count, octets):
    tail, from_ = body(octets), b"From sender@example.org Sat Jan  3 01:05:34 1998\n"
    for n in range(first, first + count):
        f.write(from_)
        f.write(message(n, octets, tail))
        f.write(b"\n")


def maildir_fill(path, first, count, octets, uid, sizes, seen):
    """Of many files each core makes its share."""
    workers, pids = os.cpu_count() if count >= 10000 else 1, []
    for i in range(workers):
        share = range(first + count * i // workers, first + count * (i + 1) // workers)
        if i == workers - 1:
            maildir_fill_some(path, share, octets, uid, sizes, seen)
        elif pid := os.fork():
            pids.append(pid)
        else:
            status = 1
            try:
                maildir_fill_some(path, share, octets, uid, sizes, seen)
                status = 0
            finally:
                os._exit(status)
    for pid in pids:
        if os.waitpid(pid, 0)[1] != 0:
            raise OSError("%s: not all messages could be made" % path)


def maildir_fill_some(path, numbers, octets, uid, sizes, seen):
    tail = body(octets)
    folder = path / ("cur" if seen else "new")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for n in numbers:
        text = message(n, octets, tail)
        name = maildir_name(n, octets, text.count(b"\n"), sizes, seen)
        out = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=fd)
        os.write(out, text)
        os.fchown(out, uid, uid)
        os.close(out)
    os.close(fd)


def age(seconds, *paths):
    """As if the last change were so long ago: several servers wait or look again when it was in this very second."""
    then = time.time() - seconds
    for p in paths:
        os.utime(p, (then, then))


def remove(path):
    path = pathlib.Path(path)
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


def maildrop(kind, path, count, octets, uid, cur=False, sizes=True):
    """A new one in place of what is there."""
    path = pathlib.Path(path)
    remove(path)
    if kind == "mbox":
        with open(path, "wb", buffering=1 << 20) as f:
            mbox_append(f, 1, count, octets)
            os.fchown(f.fileno(), uid, 8)
            os.fchmod(f.fileno(), 0o660)
        age(7200, path)
        return
    for name in ("", "tmp", "new", "cur"):
        (path / name).mkdir(mode=0o700)
        os.chown(path / name, uid, uid)
    maildir_fill(path, 1, count, octets, uid, sizes, cur)
    age(7200, path, path / "new", path / "cur")


def deliver(kind, path, count, octets, uid, generation, sizes=True):
    """So many more, as a delivery agent adds them."""
    first = 50000000 + generation * 1000
    if kind == "mbox":
        with open(path, "ab") as f:
            mbox_append(f, first, count, octets)
    else:
        maildir_fill(pathlib.Path(path), first, count, octets, uid, sizes, False)
    path = pathlib.Path(path)
    age(3600 - 60 * generation, path if kind == "mbox" else path / "new")


def copy_and_shift(path, scratch):
    """What a journal must cost at least: the seconds of copying the file with fsync, then shifting it in place by a message, with fsync."""
    piece, start = 1 << 20, time.monotonic()
    with open(path, "r+b", buffering=0) as f, open(scratch, "wb", buffering=0) as to:
        at = 0
        while chunk := os.pread(f.fileno(), piece, at):
            to.write(chunk)
            at += len(chunk)
        os.fsync(to.fileno())
        at = 2300
        while chunk := os.pread(f.fileno(), piece, at):
            os.pwrite(f.fileno(), chunk, at - 2300)
            at += len(chunk)
        os.ftruncate(f.fileno(), at - 2300)
        os.fsync(f.fileno())
    took = time.monotonic() - start
    os.unlink(scratch)
    return took
