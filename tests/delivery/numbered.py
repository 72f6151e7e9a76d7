"""Numbered messages: made from their number alone, and known again octet for octet wherever they are found.

Hardly two are of one size: mutt goes by the size of an mbox to tell whether anything in it was deleted.
"""
import hashlib
import random
import re

# What delivery agents put before a message, and what mail readers and Dovecot put among its header lines.
ADDED = re.compile(rb"(return-path|received|delivered-to|x-original-to|envelope-to|delivery-date)$", re.I)
MARKED = re.compile(rb"(status|x-status|x-uid|x-keywords|x-imap|x-imapbase|content-length|lines)$", re.I)
READER = 5      # every so manieth is for the mail reader, which moves it elsewhere


def is_readers(number):
    return number % READER == 0


def filling(octets, width=72):
    return [width] * (octets // width) + [octets % width]


def message(number):
    """On disk: lines end in LF."""
    r = random.Random(number)
    lines = []
    for i in range(r.choice([0, 1, 3, 20, 20, 60, 400])):
        kind = r.randrange(12)
        if kind == 0:
            lines.append(b"." * r.randrange(1, 4))
        elif kind == 1:
            lines.append(b"> From a quotation")
        elif kind == 2:
            lines.append(b"From: not a separator")
        elif kind == 3:
            lines.append(b"")
        elif kind == 4:
            lines.append(b"\xe4\xf6\xfc 8-bit \xff")
        else:
            lines.append(b"%d.%d " % (number, i) + b"abcdefghij" * r.randrange(0, 12))
    for length in filling(r.randrange(3000)):
        lines.append(b"z" * length)
    lines.append(b"the end of %d" % number)
    body = b"".join(x + b"\n" for x in lines)
    head = (b"X-Number: %d\nFrom: sender@example.org\nTo: somebody@localhost\nSubject: %s %d\nDate: Sat, 3 Jan 1998 01:05:34 +0000\n"
            b"Message-ID: <%d@races.example>\nX-Sum: %s\n\n")
    return head % (number, b"reader" if is_readers(number) else b"plain", number, number,
                   hashlib.sha256(body).hexdigest().encode()) + body


class Mangled(AssertionError):
    pass


def recognise(disk):
    """The number of the message that this is, with LF line ends; Mangled if it is not exactly one of them."""
    head, blank, body = disk.partition(b"\n\n")
    fields = re.findall(rb"[^\n]+(?:\n[ \t][^\n]*)*", head)
    names = [f.split(b":", 1)[0] for f in fields]
    kept = [f for f, n in zip(fields, names) if not MARKED.match(n)]
    own = [i for i, f in enumerate(kept) if f.startswith(b"X-Number: ")]
    if len(own) != 1 or not all(ADDED.match(f.split(b":", 1)[0]) for f in kept[:own[0]]):
        raise Mangled("not one of the messages: %r..." % disk[:300])
    number = int(kept[own[0]][10:])
    if b"\n".join(kept[own[0]:]) + blank + body != message(number):
        raise Mangled("message %d is not as it was sent: %r" % (number, disk))
    return number


def split(mbox):
    """The messages of an mbox file, as they lie there, without From_ lines and the blank line behind each."""
    if not mbox:
        return []
    if not mbox.startswith(b"From ") or not mbox.endswith(b"\n\n"):
        raise Mangled("the mbox begins with %r and ends with %r" % (mbox[:80], mbox[-80:]))
    found = []
    for part in re.split(rb"(?m)^From ", mbox)[1:]:
        line, message_and_blank = part.split(b"\n", 1)
        if not message_and_blank.endswith(b"\n\n"):
            raise Mangled("no blank line behind the message after %r: %r" % (line, part[-100:]))
        found.append(message_and_blank[:-1])
    return found
