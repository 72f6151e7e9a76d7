"""Where the servers run: other accounts, the peers' packages over /usr without being installed, a folder of the build as /srv, and a loopback
interface that nobody else sees. All of it is gone with the process that made it."""
import ctypes
import fcntl
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import time

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE, MS_RDONLY, MS_NOATIME = 4096, 16384, 1 << 18, 1, 1024
IMAGE = "16G"   # it takes as much of the disk as is written

libc = ctypes.CDLL(None, use_errno=True)


STARTED = time.monotonic()


def note(*words):
    print("# %4d s " % (time.monotonic() - STARTED), *words, file=sys.stderr, flush=True)


def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount(source, target, kind=None, flags=0, data=None):
    check(libc.mount(*(None if x is None else str(x).encode() for x in (source, target, kind)), ctypes.c_ulong(flags),
        None if data is None else data.encode()))


def lacking(packages, without):
    """What this machine has not of packages and all that they depend on, as apt sees it; None if apt does not know them."""
    done = subprocess.run(["apt-get", "-s", "-y", "--no-install-recommends", "install", *packages], capture_output=True, text=True)
    if done.returncode != 0:
        return None
    names = [r.split()[1] for r in done.stdout.splitlines() if r.startswith("Inst ")]
    return [n for n in names if not n.startswith(tuple(without))]


def unpack(archives, root):
    for deb in sorted(archives.glob("*.deb")):
        subprocess.run(["dpkg", "-x", deb, root], check=True)
    for name in ("bin", "sbin", "lib"):     # packages from before these were one with /usr
        if (root / name).is_dir() and not (root / name).is_symlink():
            shutil.copytree(root / name, root / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(root / name)


def packages_fetch(name, packages, without, to):
    """
    Unpacks what is missing of a server's packages into to/NAME/root, once: nothing is installed. The folder, or None after saying why the server
    cannot be had.
    """
    at = to / name
    if (at / "complete").exists():
        return at / "root"
    names = lacking(packages, without)
    shutil.rmtree(at, ignore_errors=True)
    (at / "archives").mkdir(parents=True)
    (at / "root/usr").mkdir(parents=True)
    if names is None:
        note("%s is not installed, and apt does not know its packages (%s): left out" % (name, " ".join(packages)))
        return None
    if names:
        note("%s: fetching" % name, *names)
        done = subprocess.run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *names], cwd=at / "archives",
            capture_output=True, text=True)
        if done.returncode != 0:
            note("%s is not installed, and its packages cannot be fetched: left out: %s" % (name, done.stderr.strip()[-300:]))
            return None
        unpack(at / "archives", at / "root")
    (at / "complete").touch()
    return at / "root"


def packages_have(servers, to, fetch):
    """The servers that can be run, and the folders with what of their packages is not installed."""
    have, roots = [], []
    for s in servers:
        if s.packages and not fetch and not (to / s.name / "complete").exists() and lacking(s.packages, s.without) != []:
            note("%s is not installed: left out (make bench-install unpacks it)" % s.name)
            continue
        root = packages_fetch(s.name, s.packages, s.without, to) if s.packages else None
        if s.packages and root is None:
            continue
        have.append(s)
        if root is not None and (root / "usr").is_dir() and any((root / "usr").iterdir()):
            roots.append(root)
    return have, roots[::-1]    # of two that have a file the later one's counts: Mailutils' pop3d is a program, Courier's a script that we do not need


def image_mount(path, keep):
    """
    A file system of its own on /srv, in a file: it goes at once with all that is in it, where to remove a million files takes minutes of a disk.
    It is gone with the last process here, too, unless it is kept for the next time. False after saying why there is none.
    """
    made = path.exists()
    commands = [] if made else [["truncate", "-s", IMAGE, path], ["mkfs.ext4", "-q", "-F", "-m0", "-O", "^has_journal", "-N", "3000000", "-E", "nodiscard", path]]
    try:
        for argv in commands:
            subprocess.run(argv, check=True, capture_output=True, text=True)
        loop = subprocess.run(["losetup", "--direct-io=on", "--find", "--show", path], check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as e:
        note("no file system in a file: %s" % (getattr(e, "stderr", None) or e))
        path.unlink(missing_ok=True)
        return False
    mount(loop, "/srv", "ext4", MS_NOATIME)
    subprocess.run(["losetup", "-d", loop], check=True)      # once nobody has it mounted
    if not keep:
        path.unlink()
    return True


def enter(work, roots, etc_write, folders, image=False, keep=False):
    """
    This process and its children are on the stage from now on. `folders` are made under /run, /var/lib and /var/spool. With `image` /srv is a file
    system in a file, which goes with them unless `keep`; returns whether it is.
    """
    check(libc.unshare(CLONE_NEWNS | CLONE_NEWNET))
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    with socket.socket() as s:      # ip link set lo up
        fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
    (work / "srv").mkdir(parents=True, exist_ok=True)
    (work / "srv").chmod(0o755)
    image = image and image_mount(work / "image", keep)
    if not image:
        mount(work / "srv", "/srv", None, MS_BIND)
    if roots:
        mount("peers", "/usr", "overlay", MS_RDONLY, "lowerdir=%s" % ":".join([str(r / "usr") for r in roots] + ["/usr"]))
    mount("bench", "/run", "tmpfs", 0, "mode=755")
    # not a mount a file: when the host's /etc/passwd is replaced, one upon it would be gone; what is written stays in the memory of /run
    for name in ("upper", "work"):
        os.makedirs("/run/etc/" + name)
    mount("accounts", "/etc", "overlay", 0, ",".join(["lowerdir=%s" % ":".join([str(r / "etc") for r in roots if (r / "etc").is_dir()] + ["/etc"]),
        "upperdir=/run/etc/upper", "workdir=/run/etc/work"]))
    etc_write(pathlib.Path("/etc"))
    os.makedirs("/srv/popa3d/mbox", exist_ok=True)
    mount("/srv/popa3d/mbox", "/var/mail", None, MS_BIND)
    for path in ("/var/lib", "/var/spool"):
        os.makedirs(path, exist_ok=True)
        mount("bench", path, "tmpfs", 0, "mode=755")
    for name in folders:
        for path in ("/run", "/var/lib", "/var/spool"):
            os.makedirs(os.path.join(path, name), mode=0o755, exist_ok=True)
    return image
