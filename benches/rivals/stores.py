"""One rival behind `rivals.py`: `python stores.py SUBJECT WORK PHASE DIRECTORY SCALE`.

Prints a line of JSON for each measurement. `worker.rs` does the same work with the same data.
"""

import contextlib
import itertools
import json
import os
import sqlite3
import sys
import time
from pathlib import Path

import numpy as np

MASK = (1 << 64) - 1
LEN = 1 << 20
ARRAYS = 128
BUDGET = 256 << 20
# 100 MB of float64.
LARGE = 12_500_000
SMALL = 100_000
# Data are made in pieces, so that making them leaves no large buffers behind for a store to use again.
PIECE = 1 << 16


def splitmix(first, end):
    """Bits without any pattern."""
    bits = np.arange(first, end, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0xD1342543DE82EF95)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def pieces(work, length):
    """Noise, or a random walk in whole steps, as an instrument's readings are."""
    at = 0.0
    for first in range(0, length, PIECE):
        bits = splitmix(first, min(first + PIECE, length))
        if work == "arrays-smooth":
            piece = at + np.cumsum((bits >> np.uint64(32)).astype(np.int64) % 13 - 6)
            at = piece[-1]
        else:
            piece = (bits >> np.uint64(11)) / float(1 << 53)
        yield first, piece


def array_of(work, length):
    array = np.empty(length)
    for first, piece in pieces(work, length):
        array[first : first + len(piece)] = piece
    return array


class Sums:
    """What the sums must be: the arrays are the same, but for their first element, which is their number."""

    def __init__(self, work, length):
        self.rest = sum(float(piece[not first :].sum()) for first, piece in pieces(work, length))

    def check(self, i, array):
        total = float(array.sum())
        # Sums differ in their last digits, as the order of adding does.
        if abs(total - (self.rest + i)) >= 0.01:
            sys.exit(f"array {i} was read wrong: its sum is {total}")


def name(i):
    return f"value-{i}"


class Files:
    def __init__(self, directory, _budget):
        self.directory = directory

    def put(self, i, array):
        np.save(self.directory / f"{i}.npy", array)

    def get(self, i):
        return np.load(self.directory / f"{i}.npy", mmap_mode="r")


class Blosc:
    def __init__(self, directory, _budget):
        import blosc2

        self.blosc2, self.directory = blosc2, directory

    def put(self, i, array):
        self.blosc2.asarray(array, urlpath=str(self.directory / f"{i}.b2nd"), mode="w")

    def get(self, i):
        return self.blosc2.open(str(self.directory / f"{i}.b2nd"))[:]


class Cached:
    """What all caches with `set` and `get` have in common."""

    def put(self, i, array):
        self.cache.set(name(i), array)

    def get(self, i):
        return self.cache.get(name(i))

    def close(self):
        self.cache.close()


class Diskcache(Cached):
    def __init__(self, directory, _budget=None):
        from diskcache import Cache

        # By default it would remove what exceeds 1 GB.
        self.cache = Cache(directory, eviction_policy="none", cull_limit=0)


made = {}


def remember(i):
    """Stands for a long computation."""
    return made.pop(i)


class Joblib:
    def __init__(self, directory, _budget):
        from joblib import Memory

        self.remember = Memory(directory, mmap_mode="r", verbose=0).cache(remember)

    def put(self, i, array):
        made[i] = array
        self.remember(i)

    def get(self, i):
        return self.remember(i)


class Zict:
    """A dictionary of arrays on top of files of their bytes."""

    keeps = True

    def __init__(self, directory, budget):
        import zict

        files = zict.Func(lambda array: array.data.cast("B"), np.frombuffer, zict.File(directory))
        self.buffer = zict.Buffer({}, files, budget, weight=lambda _, array: array.nbytes)

    def put(self, i, array):
        self.buffer[name(i)] = array

    def get(self, i):
        return self.buffer[name(i)]


class Klepto:
    keeps = True

    def __init__(self, directory, budget):
        from klepto import lru_cache
        from klepto.archives import dir_archive
        from klepto.keymaps import stringmap

        # It counts entries. Its default keys are other ones in each process.
        self.remember = lru_cache(
            maxsize=max(1, budget // (LEN * 8)), cache=dir_archive(str(directory / "archive")), keymap=stringmap()
        )(remember)

    def put(self, i, array):
        made[i] = array
        self.remember(i)

    def publish(self):
        self.remember.dump()

    def get(self, i):
        return self.remember(i)


class Sciqlop(Cached):
    kind, serializer = "Cache", "PickleSerializer"

    def __init__(self, directory, _budget=None):
        import pysciqlop_cache

        serializer = getattr(pysciqlop_cache, self.serializer)()
        self.cache = getattr(pysciqlop_cache, self.kind)(str(directory), serializer=serializer)


class SciqlopOutOfBand(Sciqlop):
    serializer = "PickleOOBSerializer"


ARRAY_STORES = {
    "np-save": Files,
    "blosc2": Blosc,
    "diskcache": Diskcache,
    "joblib": Joblib,
    "zict": Zict,
    "klepto": Klepto,
    "sciqlop": Sciqlop,
    "sciqlop-oob": SciqlopOutOfBand,
}


def read(store, sums, order):
    for i in order:
        sums.check(i, store.get(i))


def publish(store):
    if hasattr(store, "publish"):
        store.publish()


def arrays(store, work, phase, count):
    sums, mib = Sums(work, LEN), count * LEN * 8 / (1 << 20)
    if phase == "reopen":
        report("reopen", mib / seconds(lambda: read(store, sums, range(count))))
        return
    if phase == "give":
        report("given", mib / give(store, work, count))
        return
    report("insert", mib / insert(store, work, count))
    made.clear()
    # Reads do not pay for the writes before them.
    os.sync()
    report("read", mib / seconds(lambda: read(store, sums, range(count))))
    order = zipf(count)
    report("zipf", mib / seconds(lambda: read(store, sums, order)))
    report_peak()


def give(store, work, count):
    """Puts arrays that are there, and that nobody needs any more."""
    array = array_of(work, LEN)
    arrays = []
    for i in range(count):
        array[0] = i
        arrays.append(array.copy())

    def put_all():
        for i in range(count):
            array, arrays[i] = arrays[i], None
            store.put(i, array)
        publish(store)

    return seconds(put_all)


def insert(store, work, count):
    """Puts what one array holds from time to time."""
    array = array_of(work, LEN)
    # Who keeps the array has to be given another one each time.
    keeps = getattr(store, "keeps", False)
    forget_peak()

    def put_all():
        for i in range(count):
            array[0] = i
            store.put(i, array.copy() if keeps else array)
        publish(store)

    return seconds(put_all)


def zipf(count):
    """As many reads as there are arrays, the n-th in proportion to 1/n."""
    limits = list(itertools.accumulate(1 / n for n in range(1, count + 1)))
    shares = (splitmix(0, count) >> np.uint64(11)) / float(1 << 53)
    # Multiplied, so that the popular ones are not the oldest.
    return [int(np.searchsorted(limits, share * limits[-1], "right")) * 37 % count for share in shares]


def large(store, phase, length):
    sums = Sums("array-100mb", length)
    if phase == "reopen":
        for measure in ("get", "again"):
            report(measure, 1e3 * seconds(lambda: read(store, sums, [0])))
        return
    array = array_of("array-100mb", length)
    array[0] = 0

    def put():
        store.put(0, array)
        publish(store)

    report("set", 1e3 * seconds(put))


class Sqlite:
    def __init__(self, directory):
        self.connection = sqlite3.connect(directory / "floor.sqlite", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute("CREATE TABLE IF NOT EXISTS t (k TEXT PRIMARY KEY, v BLOB)")

    def set(self, key, value):
        self.connection.execute("INSERT INTO t VALUES (?, ?)", (key, value))

    def get(self, key):
        return self.connection.execute("SELECT v FROM t WHERE k = ?", (key,)).fetchone()[0]

    @contextlib.contextmanager
    def transact(self):
        self.connection.execute("BEGIN")
        yield
        self.connection.execute("COMMIT")

    def close(self):
        self.connection.close()


class SciqlopMsgspec(Sciqlop):
    serializer = "MsgspecSerializer"


class SciqlopIndex(Sciqlop):
    kind = "Index"


SMALL_STORES = {
    "sqlite3": Sqlite,
    "diskcache": lambda directory: Diskcache(directory).cache,
    "sciqlop": lambda directory: Sciqlop(directory).cache,
    "sciqlop-msgspec": lambda directory: SciqlopMsgspec(directory).cache,
    "sciqlop-index": lambda directory: SciqlopIndex(directory).cache,
}


def small(store, phase, count):
    names = [name(i) for i in range(count)]
    if phase == "reopen":

        def get_all(step):
            for n in range(count):
                # In another order than that of writing.
                i = n * step % count
                value = store.get(names[i])
                if len(value) != 256 or int.from_bytes(value[:8], "little") != i:
                    sys.exit(f"value {i} was read wrong")

        for measure, step in (("cold", 7919), ("warm", 7919), ("shuffled", 7907)):
            report(measure, count / seconds(lambda step=step: get_all(step)))
        return
    noise = splitmix(0, count * 31).tobytes()
    values = [i.to_bytes(8, "little") + noise[i * 248 : (i + 1) * 248] for i in range(count)]

    def put_all():
        with store.transact() if phase == "together" else contextlib.nullcontext():
            for key, value in zip(names, values):
                store.set(key, value)

    report("together" if phase == "together" else "put", count / seconds(put_all))


def seconds(run):
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def report(measure, value):
    print(json.dumps({"measure": measure, "value": value}), file=output, flush=True)


def forget_peak():
    """The preparation of the data does not count. Where the system cannot forget, it does."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def report_peak():
    """The most memory that this process has had, pages of mapped files included; only Linux tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                report("rss", int(line.split()[1]) / 1024)


def main():
    subject, work, phase, directory, scale = sys.argv[1:]
    directory, scale = Path(directory), float(scale)
    if work == "stage":
        import stages

        stages.stage(subject, phase, directory, scale, report)
        return
    if work == "small-values":
        store = SMALL_STORES[subject](directory)
        small(store, phase, round(SMALL * scale))
    elif work == "array-100mb":
        store = ARRAY_STORES[subject](directory, None)
        large(store, phase, round(LARGE * scale))
    else:
        store = ARRAY_STORES[subject](directory, int(BUDGET * scale))
        arrays(store, work, phase, round(ARRAYS * scale))
    if hasattr(store, "close"):
        store.close()


if __name__ == "__main__":
    # What a library prints must not be taken for a measurement.
    output, sys.stdout = sys.stdout, sys.stderr
    main()
