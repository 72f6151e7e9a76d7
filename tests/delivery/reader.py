"""A mail reader that rewrites an mbox, a round of it for what came on standard input, until that ends. Prints a line for each round: how
many messages it moved to ~/saved.

mutt, on a terminal of its own, moves what is for the reader and marks the rest as old. Where it has not had the locks for five seconds, it
reads the mbox without them, and will not write it: it is left then, for it would copy the same messages again and again. movemail (GNU mailutils) moves the first few of
all, with the dotlock held, and renames a new file into the place of the mbox.

Mutt takes the fcntl lock and waits for the dotlock, the delivery agents the other way round: if it were asked again at once each time that
it fails, both would wait for good, so ever more time is left to the others. And now and then it waits without end for a dotlock that it
has made itself: one that does so for long is killed, and that lock removed as mutt would.

usage: reader.py mutt|movemail MBOX HOME
"""
import os
import pty
import select
import signal
import subprocess
import sys
import time

PATIENCE = 60       # seconds
IDLE, LONGEST = 0.3, 9.6
MOVE, QUIT, LEAVE = b"Z", b"q", b"x"
AT_ONCE = 3         # what movemail moves

RC = """set quit=yes delete=yes move=no mark_old=yes mbox_type=mbox confirmappend=no confirmcreate=no copy=no wait_key=no
set folder="~" header_cache="" mail_check=0 timeout=1 sleep_time=0 beep=no
macro index Z "<untag-pattern>~A<enter><tag-pattern>~s reader !~D<enter><tag-prefix-cond><save-message>=saved<enter><end-cond><sync-mailbox><quit>"
""" + "".join("bind index %s noop\n" % key for key in [
    # what is left of the macro where there is nothing to tag must not be taken for commands
    "s", "<space>", "r", "e", "a", "d", "~", "=", "v", "!", "A", "D", "<enter>", "<return>"])


def mutt(mbox, home):
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(HOME=home, TERM="vt100", LC_ALL="C")
        os.execv("/usr/bin/mutt", ["mutt", "-n", "-F", home + "/muttrc", "-f", mbox])
    screen, begun, killed, before, keys = b"", time.monotonic(), False, None, b""
    pause, asked, times = IDLE, 0, 0
    try:
        while True:
            now = is_own_lock(mbox)
            if now is None or now != before:
                begun, before = time.monotonic(), now
            elif not killed and time.monotonic() > begun + PATIENCE:
                os.kill(pid, signal.SIGKILL)
                killed = True
            if not select.select([terminal], [], [], IDLE)[0]:
                # it forgets what it was told to do when it finds the mailbox changed: abort, if it asks something, and again
                if time.monotonic() > asked + pause:
                    times += 1
                    # in an mbox that is empty by now nothing can be tagged, and the macro ends there
                    os.write(terminal, b"\x07" + (QUIT if keys == MOVE and times % 4 == 0 else keys))
                    asked = time.monotonic()
                continue
            data = os.read(terminal, 65536)
            if not data:
                break
            screen = (screen + data)[-4000:]
            if b"Lock count exceeded" in data or b"Timeout exceeded" in data:
                pause = min(2 * pause, LONGEST)
                asked = time.monotonic()
                os.write(terminal, b"\x07")
            if b"Mutt: " in screen and keys != LEAVE:
                keys = LEAVE if b"-%-Mutt: " in screen else MOVE
    except OSError:
        pass        # a terminal without a process is an error
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if killed:
        subprocess.run(["/usr/bin/mutt_dotlock", "-p", "-u", mbox], check=False)
        status = 0
    return status, screen


def is_own_lock(mbox):
    """Is there a dotlock of mutt's helper, which has ended long ago? Then which, and how the mbox is: while that changes mutt is at work."""
    try:
        with open(mbox + ".lock") as f:
            pid, lock = f.read().strip(), os.fstat(f.fileno())
        box = os.stat(mbox)
        if lock.st_uid == os.getuid() and pid.isdigit() and int(pid) > 0 and not os.path.exists("/proc/" + pid):
            return lock.st_ino, box.st_ino, box.st_size, box.st_mtime_ns
    except OSError:
        pass
    return None


def movemail(mbox, home):
    done = subprocess.run(["/usr/bin/movemail.mailutils", "--max-messages=%d" % AT_ONCE, mbox, home + "/saved"], capture_output=True,
        env={**os.environ, "HOME": home, "LC_ALL": "C"}, check=False)
    # it gives up if it cannot have the locks for some seconds, or finds no mbox
    harmless = b"Conflict with previous locker", b"Requested item not found"
    status = 0 if any(x in done.stderr for x in harmless) else done.returncode
    return status, done.stderr


def saved(home):
    try:
        with open(home + "/saved", "rb") as f:
            return f.read().count(b"\nX-Number: ")
    except FileNotFoundError:
        return 0


def main():
    kind, mbox, home = sys.argv[1:]
    with open(home + "/muttrc", "w") as f:
        f.write(RC)
    before = saved(home)
    while os.read(0, 65536):
        if not os.path.exists(mbox) or os.path.getsize(mbox) == 0:
            continue
        status, words = {"mutt": mutt, "movemail": movemail}[kind](mbox, home)
        if status != 0:
            sys.exit("%s: %d: %r" % (kind, status, words))
        now = saved(home)
        print(now - before, flush=True)
        before = now


if __name__ == "__main__":
    main()
