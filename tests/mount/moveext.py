# SPDX-License-Identifier: GPL-2.0-or-later
# tests/mount/moveext.py - EXT4_IOC_MOVE_EXT, with what it says and what both files have then
#
#   moveext.py cases     many kinds of files and ranges
#   moveext.py refused   what is not done
#   moveext.py once      4 blocks of o to those of d
#   moveext.py races     the donor's descriptor is exchanged, both are written to meanwhile
#
# In the present directory, with files o, the one that is moved, and d, the donor. A file is said
# by a character a block: "." a hole, "u" unwritten, else bytes of that character.
import errno
import fcntl
import mmap
import os
import random
import stat
import struct
import subprocess
import sys
import threading
import time

MOVE_EXT = 0xC028660F
BS = os.statvfs(".").f_bsize
RW = os.O_RDWR


def move(orig, donor, start, donor_start, length):
    arg = bytearray(struct.pack("=IIQQQQ", 0, donor, start, donor_start, length, 77))
    said = "ok"
    try:
        fcntl.ioctl(orig, MOVE_EXT, arg, True)
    except OSError as e:
        said = errno.errorcode[e.errno]
    moved = struct.unpack("=IIQQQQ", arg)[5]
    return said if moved in (0, 77) else f"{said} {moved}"


def make(name, text):
    if os.path.exists(name):
        os.unlink(name)
    fd = os.open(name, RW | os.O_CREAT, 0o644)
    for i, c in enumerate(text):
        if c == "u":
            os.posix_fallocate(fd, i * BS, BS)
        elif c != ".":
            os.pwrite(fd, c.encode() * BS, i * BS)
    os.ftruncate(fd, len(text) * BS)
    os.fsync(fd)
    return fd


# From the disk: ext4 in the kernel keeps what it has cached of the donor.
def content(fd):
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    text = ""
    for at in range(0, os.fstat(fd).st_size, BS):
        data = os.pread(fd, BS, at)
        text += "?" if len(set(data)) > 1 else "0" if data[0] == 0 else chr(data[0])
    return text


def cases():
    for orig, donor, start, donor_start, length in (
        ("abcd", "uuuu", 0, 0, 4),
        ("abcd", "wxyz", 0, 0, 4),
        ("aubu", "uuxy", 0, 0, 4),
        ("uuuu", "wxyz", 0, 0, 4),
        ("ab.d", "w.yz", 0, 0, 4),
        ("ab.d", "wxyz", 0, 0, 3),
        ("....", "wxyz", 0, 0, 4),
        ("ab..", "wxyz", 0, 0, 4),
        ("abcd", "....", 0, 0, 4),
        ("abcd", "wxyz", 1, 1, 2),
        ("abcdefgh", "klmnwxyz", 4, 0, 2),
        ("abcd", "wx", 0, 0, 4),
        ("abcd", "wxyz", 0, 0, 2**32 - 2),
        ("abcd", "wxyz", 0, 0, 2**32 - 1),
        ("abcd", "wxyz", 2**32, 0, 4),
        ("abcd", "wxyz", 0, 4, 1),
        ("", "wxyz", 0, 0, 4),
        ("abcd", "", 0, 0, 4),
    ):
        o, d = make("o", orig), make("d", donor)
        before = os.fstat(o), os.fstat(d)
        said = move(o, d, start, donor_start, length)
        for a, b in zip(before, (os.fstat(o), os.fstat(d))):
            same = all(getattr(a, f) == getattr(b, f)
                       for f in ("st_mtime_ns", "st_ctime_ns", "st_size", "st_blocks"))
            assert same, (orig, donor, a, b)
        print(f"{orig or '-'} {donor or '-'} {start} {donor_start} {length}: {said}:",
              content(o) or "-", content(d) or "-")
        os.close(o)
        os.close(d)


def attr(flag, name):
    subprocess.check_call(["chattr", flag, name])


def refused():
    o, d = make("o", "abcd"), make("d", "wxyz")

    def tell(what, a, b):
        print(f"{what}: {move(a, b, 0, 0, 4)}")

    tell("itself", o, o)
    tell("no descriptor", o, 999)
    tell("no descriptor, -1", o, 2**32 - 1)
    tell("donor read-only", o, os.open("d", os.O_RDONLY))
    tell("donor O_PATH", o, os.open("d", os.O_PATH))
    tell("read-only", os.open("o", os.O_RDONLY), d)
    tell("write-only", os.open("o", os.O_WRONLY), d)
    tell("donor a directory", o, os.open(".", os.O_RDONLY))
    tell("a directory", os.open(".", os.O_RDONLY), d)
    tell("donor of another file system", o, os.open(sys.argv[2], RW | os.O_CREAT))
    tell("donor a pipe", o, os.pipe()[1])
    os.mkfifo("fifo")
    tell("donor a FIFO", o, os.open("fifo", RW))
    for flag in "ia":
        attr("+" + flag, "d")
        tell("donor +" + flag, o, d)
        attr("-" + flag, "d")
    for bit in stat.S_ISUID, stat.S_ISGID:
        os.fchmod(d, 0o755 | bit)
        tell(f"donor {bit:o}", o, d)
    os.fchmod(d, 0o644)
    print(content(o), content(d))
    tell("donor write-only", o, os.open("d", os.O_WRONLY))
    tell("donor append", o, os.open("d", RW | os.O_APPEND))
    attr("+i", "o")
    tell("+i, open before", o, d)
    attr("-i", "o")
    os.unlink("d")
    tell("donor without a name", o, d)
    print(content(o), content(d))


def once():
    print(move(os.open("o", RW), os.open("d", RW), 0, 0, 4))


def races():
    text = "abcdefghijklmnop"
    o, mine, his = make("o", text), make("d", "u" * 16), make("his", text)
    ro = os.open("his", os.O_RDONLY)
    slot = os.dup(mine)
    stop = False

    def swap():
        while not stop:
            for fd in ro, mine:
                os.dup2(fd, slot)
                time.sleep(random.random() / 1000)

    def write():
        while not stop:
            for i, c in enumerate(text):
                os.pwrite(o, c.encode() * BS, i * BS)

    threads = [threading.Thread(target=f) for f in (swap, write)]
    for t in threads:
        t.start()
    said = {"ok 16": 0, "EBADF": 0}
    # Until each was met; what the machine's load keeps apart for good shall fail by the
    # test's time limit.
    while said["ok 16"] < 100 or not said["EBADF"]:
        what = move(o, slot, 0, 0, 16)
        assert what in said, what
        said[what] += 1
        time.sleep(random.random() / 2000)
    stop = True
    for t in threads:
        t.join()
    print(content(o), content(mine), content(his))


def mapped():
    o, d = make("o", "abcd"), make("d", "wxyz")
    m = mmap.mmap(d, 4 * BS)
    assert m[0:1] == b"w"
    m[BS:2 * BS] = b"X" * BS
    assert move(o, d, 0, 0, 4) == "ok 4"
    assert set(m[0:4 * BS]) == {0}
    m[BS:2 * BS] = b"Y" * BS
    m.flush()
    print(content(o), content(d))


globals()[sys.argv[1]]()
