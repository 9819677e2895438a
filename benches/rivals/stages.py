"""A stage of a file and parameters behind `rivals.py`, for the rivals; `stage.rs` has it for icechest.

A rival whose calls know no content of files gets the path: that is how its users have it.
"""

import importlib
import statistics
import sys
import time
from pathlib import Path

import numpy as np

INPUT = 64 << 20
RESULT = 1 << 20


def features(path, k):
    data = np.fromfile(path, dtype=np.uint8)
    return data[: RESULT * 8 : 8] + float(k)


def small(a, b):
    return a * b


def joblib(directory, **options):
    import joblib

    memory = joblib.Memory(directory, verbose=0, **options)
    return memory.cache(features), memory.cache(small)


def memoshelve(directory):
    import memoshelve

    cache = memoshelve.cache(filename=str(directory / "memo"))
    return cache(features), cache(small)


def klepto(directory):
    import klepto

    # Its default key is salted in each process, so that nothing would be found again.
    keymap = klepto.keymaps.picklemap(serializer="pickle")

    def cached(function):
        archive = klepto.archives.dir_archive(str(directory / function.__name__), serialized=True, cached=True)
        wrapped = klepto.lru_cache(maxsize=100, cache=archive, keymap=keymap)(function)

        def call(*args):
            known = len(archive)
            if not known:
                archive.load(wrapped.key(*args))
            result = wrapped(*args)
            if not known:
                archive.dump()
            return result

        return call

    return cached(features), cached(small)


def diskcache(directory):
    import diskcache

    cache = diskcache.Cache(directory, size_limit=1 << 40)
    return cache.memoize()(features), cache.memoize()(small)


def sciqlop(directory):
    import pysciqlop_cache

    cache = pysciqlop_cache.Cache(str(directory))
    return cache.memoize()(features), cache.memoize()(small)


def cacheness(directory):
    from cacheness import CacheConfig, cacheness

    cache = cacheness(CacheConfig(cache_dir=str(directory)))

    def cached(function, named):
        def call(*args):
            key = named(*args)
            found = cache.get(**key)
            if found is None:
                found = function(*args)
                cache.put(found, **key)
            return found

        return call

    return (
        cached(features, lambda path, k: {"path": Path(path), "k": k}),
        cached(small, lambda a, b: {"a": a, "b": b}),
    )


STAGES = {
    "joblib-stage": joblib,
    "joblib-mapped": lambda directory: joblib(directory, mmap_mode="r"),
    "memoshelve": memoshelve,
    "klepto-stage": klepto,
    "diskcache-stage": diskcache,
    "sciqlop-stage": sciqlop,
    "cacheness": cacheness,
}
MODULES = {subject: subject.split("-")[0] for subject in STAGES} | {"sciqlop-stage": "pysciqlop_cache"}


def timed(work, runs=21):
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def stage(subject, phase, directory, scale, report):
    path = directory / "input.bin"
    if phase == "fill":
        size = max(round(INPUT * scale), RESULT * 8)
        (np.arange(size, dtype=np.uint64) & 255).astype(np.uint8).tofile(path)
        time.sleep(0.2)
    store = directory / "store"
    store.mkdir(exist_ok=True)
    expected = float(((np.arange(RESULT, dtype=np.uint64) * 8) & 255).sum() + 5 * RESULT)
    # Importing takes several times as long as a hit does, and is no part of it.
    importlib.import_module(MODULES[subject])
    began = time.perf_counter()
    load, multiply = STAGES[subject](store)

    def check():
        if float(load(str(path), 5).sum()) != expected:
            sys.exit("the result is wrong")

    def look():
        if float(load(str(path), 5)[0]) != 5:
            sys.exit("the result is wrong")

    check()
    first = 1e3 * (time.perf_counter() - began)
    if phase == "reopen":
        report("fresh", first)
        return
    report("computed", first)
    report("file", 1e3 * timed(check))
    report("hit", 1e3 * timed(look))
    multiply(3, 0.5)
    calls = 100
    report("small", 1e6 * timed(lambda: [multiply(3, 0.5) for _ in range(calls)]) / calls)
    data = bytearray(path.read_bytes())
    data[8] ^= 1
    path.write_bytes(data)
    report("noticed", float(float(load(str(path), 5).sum()) != expected))
    data[8] ^= 1
    path.write_bytes(data)
    time.sleep(0.2)
    load(str(path), 5)
