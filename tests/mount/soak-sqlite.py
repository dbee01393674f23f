#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that write into one SQLite database, and what must be in it then.

  soak-sqlite.py write DB MODE WRITER ACKS   until something fails; each row
      that is committed is then told in a line of the file ACKS
  soak-sqlite.py check DB ACKS               integrity, all rows of ACKS, and
      each transaction whole

MODE is a journal mode: delete, truncate, persist or wal. A transaction is a row
and the number of rows of its writer.
"""
import os
import random
import sqlite3
import sys
import time


def blob(writer, n):
    return random.Random(writer * 1000003 + n).randbytes(100 + n * 37 % 9000)


def connect(path):
    db = sqlite3.connect(path, timeout=600, isolation_level=None)
    db.execute("pragma synchronous=extra")
    return db


def set_mode(db, mode):
    """The one statement that does not wait for others by itself."""
    while True:
        try:
            return db.execute(f"pragma journal_mode={mode}").fetchone()[0]
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(0.05)


def write(path, mode, writer, acks):
    db = connect(path)
    got = set_mode(db, mode)
    if got != mode:
        sys.exit(f"journal mode {got}")
    db.execute("pragma wal_autocheckpoint=50")
    db.execute("begin immediate")
    db.execute("create table if not exists rows"
               "(writer int, n int, data blob, primary key (writer, n))")
    db.execute("create table if not exists counts(writer integer primary key, n int)")
    db.execute("insert or ignore into counts values(?, 0)", (writer,))
    db.execute("commit")
    out = os.open(acks, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        db.execute("begin immediate")
        n = db.execute("select n from counts where writer=?", (writer,)).fetchone()[0] + 1
        db.execute("insert into rows values(?, ?, ?)", (writer, n, blob(writer, n)))
        db.execute("update counts set n=? where writer=?", (n, writer))
        db.execute("commit")
        # In the modes with a rollback journal SQLite takes it for success if it cannot
        # open the directory, to sync it after the unlink, as when the daemon has died. It
        # was alive then if it still is: this asks it.
        os.statvfs(os.path.dirname(path))
        os.write(out, f"{writer} {n}\n".encode())


def check(path, acks):
    db = connect(path)
    result = db.execute("pragma integrity_check").fetchall()
    if result != [("ok",)]:
        sys.exit(f"integrity_check: {result}")
    counts = dict(db.execute("select writer, n from counts"))
    have = {writer: 0 for writer in counts}
    for writer, n, data in db.execute("select writer, n, data from rows order by writer, n"):
        have[writer] += 1
        if n != have[writer]:
            sys.exit(f"writer {writer}: row {n} where {have[writer]} was to come")
        if data != blob(writer, n):
            sys.exit(f"writer {writer}: row {n} has other bytes")
    if have != counts:
        sys.exit(f"half a transaction: {have} rows, {counts} counted")
    with open(acks, encoding="ascii") as lines:
        for line in lines:
            writer, n = map(int, line.split())
            if n > have.get(writer, 0):
                sys.exit(f"writer {writer}: row {n} was committed and is lost")


if sys.argv[1] == "write":
    write(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
else:
    check(*sys.argv[2:])
