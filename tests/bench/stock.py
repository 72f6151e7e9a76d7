"""Large mailboxes are made once, and go from server to server: making a Maildir of a million files takes most of a minute, and removing it more."""
import os
import subprocess

import mailbox_make as make
import servers as sv
from stage import note

LARGE = 100000  # messages; smaller ones are made anew


def path_of(count, octets):
    return sv.SRV / "stock" / ("maildir-%d-%d" % (count, octets))


def shared(server, kind, count):
    return kind == "maildir" and count >= LARGE and server.name != "cyrus"


def warm(path):
    """Into the page cache, as a new one would be."""
    with open(os.devnull, "wb") as nowhere:
        subprocess.run(["sh", "-c", 'find "$1" -type f -print0 | xargs -0 -r cat', "sh", str(path)], stdout=nowhere, check=True)


def put(bench, server, kind, count, octets):
    """A mailbox that this server knows nothing of."""
    if not shared(server, kind, count):
        bench.copy_in(server, kind, count, octets)
        return
    path, to = path_of(count, octets), server.maildrop(kind, sv.BIG)
    if not path.exists():
        note("a Maildir of %d messages" % count)
        path.parent.mkdir(exist_ok=True)
        half = path.with_suffix(".half")    # what is cut short here is nobody's
        make.maildrop(kind, half, count, octets, sv.uid(kind, sv.BIG), cur=True)
        os.rename(half, path)
        os.sync()
    else:
        warm(path)
    to.parent.mkdir(exist_ok=True)
    os.rename(path, to)


def take_back(bench, server, kind, count, octets):
    """From a server that has only looked at it."""
    if shared(server, kind, count):
        server.forget(kind, sv.BIG)
        os.rename(server.maildrop(kind, sv.BIG), path_of(count, octets))
    bench.clear(server, kind)


def discard(count, octets, keep, image):
    path = path_of(count, octets)
    if path.exists() and not keep and not image:
        note("removing the Maildir of %d messages" % count)
        make.remove(path)
