#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
# Purpose: are there fast commits to replay in a log? Another reader of it than
# Sluice, for tests/crash/run (the one of debugfs loses its way where such a log
# wraps).
#
#   tests/crash/fast_commits.py LOG
#
# LOG is the log as a file (debugfs -c -R "dump <8> LOG" IMAGE) of a volume whose
# kernel was shut down, not cut off: what was begun in the log before a commit
# block is there with it. Prints "pending TID" or "none".
import struct
import sys

MAGIC = 0xC03B3998
COMMIT = 2
FAST_COMMIT = 0x20
TAG_HEAD = 9
FC_BLOCKS = 256  # where the superblock says 0


def be32(data, at):
    return struct.unpack_from(">I", data, at)[0]


def main():
    with open(sys.argv[1], "rb") as file:
        log = file.read()
    if len(log) < 1024 or be32(log, 0) != MAGIC:
        sys.exit("no log")
    blocksize, maxlen, first, sequence, start = struct.unpack_from(">5I", log, 0xC)
    if not start or not be32(log, 0x28) & FAST_COMMIT:
        print("none")
        return
    # The block behind the ring is not used.
    end = maxlen - (be32(log, 0x54) or FC_BLOCKS)
    commits = set()
    for block in range(first, end):
        at = block * blocksize
        if be32(log, at) == MAGIC and be32(log, at + 4) == COMMIT:
            commits.add(be32(log, at + 8))
    while sequence in commits:
        sequence += 1
    tag, _, _, tid = struct.unpack_from("<HHII", log, (end + 1) * blocksize)
    print(f"pending {tid}" if tag == TAG_HEAD and tid == sequence else "none")


main()
