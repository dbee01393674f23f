# SPDX-License-Identifier: GPL-2.0-or-later
"""Files in pieces: writes, holes, zeroed ranges, truncations and preallocation at random
places, of a few blocks each, so that one cluster of a volume gets and loses many of them.

    pieces.py work DIR MODEL SEED OPS BLOCK   changes DIR, and the copy of it in MODEL
    pieces.py check DIR MODEL                 every name and byte; prints how many files
"""
import ctypes
import os
import random
import sys

KEEP_SIZE, PUNCH, ZERO = 1, 2, 16
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def load(model):
    files = {}
    for name in sorted(os.listdir(model)):
        with open(os.path.join(model, name), 'rb') as f:
            files[name] = bytearray(f.read())
    return files


def save(model, files):
    for name in os.listdir(model):
        os.unlink(os.path.join(model, name))
    for name, data in files.items():
        with open(os.path.join(model, name), 'wb') as f:
            f.write(data)


def fallocate(fd, mode, off, length):
    if libc.fallocate(fd, mode, off, length):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def put(data, off, new):
    if off > len(data):
        data.extend(bytes(off - len(data)))
    data[off:off + len(new)] = new


def zero(data, off, length):
    end = min(off + length, len(data))
    if off < end:
        data[off:end] = bytes(end - off)


def change(rng, fd, data, block):
    """One change of the open file, and of what it should be."""
    most = 80 * block
    off = rng.randrange(most)
    length = 1 + rng.randrange(rng.choice((block, 6 * block, 40 * block)))
    if rng.random() < 0.6:
        off -= off % block
        length += -length % block
    kind = rng.choices(('write', 'punch', 'zero', 'alloc', 'keep', 'size', 'sync'),
                       (40, 16, 10, 6, 6, 12, 10))[0]
    if kind == 'write':
        new = rng.randbytes(length)
        done = 0
        while done < length:
            done += os.pwrite(fd, new[done:], off + done)
        put(data, off, new)
    elif kind == 'punch':
        fallocate(fd, PUNCH | KEEP_SIZE, off, length)
        zero(data, off, length)
    elif kind == 'zero':
        fallocate(fd, ZERO | KEEP_SIZE, off, length)
        zero(data, off, length)
    elif kind == 'alloc':
        fallocate(fd, 0, off, length)
        put(data, max(off + length, len(data)), b'')
    elif kind == 'keep':
        fallocate(fd, KEEP_SIZE, off, length)
    elif kind == 'size':
        size = rng.randrange(most)
        os.ftruncate(fd, size)
        del data[size:]
        put(data, size, b'')
    else:
        os.fsync(fd)


def work(root, model, seed, ops, block):
    rng = random.Random(seed)
    files = load(model)
    for _ in range(ops):
        name = 'f%d' % rng.randrange(12)
        path = os.path.join(root, name)
        dice = rng.random()
        if dice < 0.02 and name in files:
            os.unlink(path)
            del files[name]
        elif dice < 0.04 and name in files:
            to = 'f%d' % rng.randrange(12)
            os.rename(path, os.path.join(root, to))
            files[to] = files.pop(name)
        else:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                change(rng, fd, files.setdefault(name, bytearray()), block)
            finally:
                os.close(fd)
    save(model, files)


def check(root, model):
    files = load(model)
    names = sorted(n for n in os.listdir(root) if n != 'lost+found')
    if names != sorted(files):
        sys.exit('names: %s, not %s' % (names, sorted(files)))
    for name, data in files.items():
        with open(os.path.join(root, name), 'rb') as f:
            got = f.read()
        if got != data:
            at = next((i for i, (a, b) in enumerate(zip(got, data)) if a != b),
                      min(len(got), len(data)))
            sys.exit('%s: %d bytes, not %d; differs at %d' %
                     (name, len(got), len(data), at))
    print('%d files' % len(files))


if sys.argv[1] == 'work':
    work(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:7]))
else:
    check(sys.argv[2], sys.argv[3])
