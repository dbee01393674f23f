#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Files with every kind of attribute: make them, change them, show them.

attributes.py make|change|show DIR

"make" is for a file system that sets extended attributes. "change" leaves those
alone, touches everything else, and renames some files to "moved-<name>".
"show" prints one line per attribute: name, what, value.
"""
import hashlib
import os
import stat
import sys

# Before 1970, after 2038, at the end of what 34 bits hold; ns of all sizes.
TIMES = [0, 1, -1, -2147483648, 2147483648, 4294967296 + 7, 15032385535]


def name(i):
    return f"file{i}"


def make(top):
    for i in range(24):
        path = os.path.join(top, name(i))
        with open(path, "wb") as f:
            f.write(os.urandom(1 << (i % 18)))
            if i % 4 == 0:
                f.seek(300000)
                f.write(b"far away")
        # In the inode's body; in a block; both; shared by several files.
        if i % 4 != 3:
            os.setxattr(path, "user.small", f"value {i % 2}".encode())
        if i % 4 >= 2:
            os.setxattr(path, "user.large", bytes([65 + i % 2]) * 700)
        if i % 8 == 5:
            os.setxattr(path, "trusted.t", b"\x00\x01\xff")
    for i, kind in enumerate((stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK)):
        os.mknod(os.path.join(top, f"node{i}"), kind | 0o640, os.makedev(300, 70000 + i))
    os.symlink("short", os.path.join(top, "link0"))
    os.symlink("long/" * 100, os.path.join(top, "link1"))
    os.mkdir(os.path.join(top, "dir"), 0o2775)
    os.setxattr(os.path.join(top, "dir"), "user.small", b"of a directory")
    os.link(os.path.join(top, name(1)), os.path.join(top, "dir", "again"))
    for i, entry in enumerate(sorted(os.listdir(top))):
        path = os.path.join(top, entry)
        if entry == "lost+found":
            continue
        os.chown(path, 70000 * i, 4294967294 - i, follow_symlinks=False)
        if not os.path.islink(path):
            os.chmod(path, (0o7777, 0o4755, 0o1700, 0o600, 0, 0o2755)[i % 6])
        s = TIMES[i % len(TIMES)]
        os.utime(path, ns=(s * 10**9 + 999999999, s * 10**9 + i * 37),
                 follow_symlinks=False)


def change(top):
    for i in range(24):
        path = os.path.join(top, name(i))
        mode = stat.S_IMODE(os.lstat(path).st_mode)
        if i % 6 == 0:
            with open(path, "ab") as f:
                f.write(b"appended" * 1000)
        elif i % 6 == 1:
            os.truncate(path, 100)
        elif i % 6 == 2:
            os.chmod(path, mode ^ 0o111)
        elif i % 6 == 3:
            os.chown(path, 123456, 654321)
        elif i % 6 == 4:
            s = TIMES[(i // 6) % len(TIMES)]
            os.utime(path, ns=(s * 10**9 + 5, s * 10**9 + 123456789))
        else:
            os.rename(path, os.path.join(top, "moved-" + name(i)))


def show(top):
    found = []
    for base, dirs, files in os.walk(top):
        for entry in dirs + files:
            if entry != "lost+found":
                found.append(os.path.join(base, entry))
    for path in sorted(found):
        st = os.lstat(path)
        short = os.path.relpath(path, top)
        print(short, "stat", oct(st.st_mode), st.st_nlink, st.st_uid, st.st_gid, st.st_ino,
              st.st_size, st.st_rdev, st.st_blocks)
        # Reading is allowed to change the time of access.
        print(short, "times", st.st_mtime_ns, st.st_ctime_ns)
        if stat.S_ISLNK(st.st_mode):
            print(short, "target", os.readlink(path))
        if stat.S_ISREG(st.st_mode):
            with open(path, "rb") as f:
                print(short, "content", hashlib.sha256(f.read()).hexdigest())
        if stat.S_ISREG(st.st_mode) or stat.S_ISDIR(st.st_mode):
            try:
                names = sorted(os.listxattr(path))
            except OSError:
                names = []
            for attr in names:
                print(short, "xattr", attr, os.getxattr(path, attr).hex())


if __name__ == "__main__":
    {"make": make, "change": change, "show": show}[sys.argv[1]](sys.argv[2])
