"""One store behind the line protocol of `faults.py`: `python stores.py NAME DIRECTORY`.

    put KEY GENERATION   ok | logged | error TYPE: MESSAGE
    get KEY              is GENERATION | wrong | absent | logged | error TYPE: MESSAGE
    sync                 ok | none
    check                clean | damage MESSAGE | none | error TYPE: MESSAGE

`logged` is what a store answers that returns as if nothing was wrong, or nothing was there, and writes a warning.
`worker.rs` makes the same values.
"""

import logging
import sys
import warnings

import numpy as np

MASK = (1 << 64) - 1


def noise(key, generation, count):
    """SplitMix64, whose stream is another for each key and generation."""
    seed = ((key << 40 | generation) * 0xD1342543DE82EF95) & MASK
    bits = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def value_of(key, generation):
    """Odd keys have small values; of the others, half have arrays (noise or steps), half bytes."""
    if key % 2:
        return generation.to_bytes(8, "little") + noise(key, generation, 50).tobytes()[: 92 + key * 37 % 300]
    count = 25_000 + key // 16 * 10_000
    if key % 4:
        return generation.to_bytes(8, "little") + noise(key, generation, count).tobytes()
    if key % 8:
        array = (np.arange(count) // 64 + key + generation * 64).astype(np.float64)
    else:
        array = (noise(key, generation, count) >> np.uint64(11)).astype(np.float64)
    array[0] = generation
    return array


def verdict(key, value):
    """The generation is in the value, and the rest has to fit it."""
    try:
        generation = int(value[0]) if isinstance(value, np.ndarray) else int.from_bytes(value[:8], "little")
        expected = value_of(key, generation)
        same = type(value) is type(expected) and len(value) == len(expected)
        if same and isinstance(value, np.ndarray):
            same = value.dtype == expected.dtype and value.tobytes() == expected.tobytes()
        elif same:
            same = value == expected
    except (TypeError, ValueError, OverflowError, IndexError):
        same = False
    return f"is {generation}" if same else "wrong"


def name_of(key):
    return f"value-{key}"


class Diskcache:
    def __init__(self, directory):
        from diskcache import Cache

        # FULL is the safest; nothing is to be evicted.
        self.cache = Cache(directory, eviction_policy="none", cull_limit=0, sqlite_synchronous=2)

    def put(self, key, value):
        self.cache.set(name_of(key), value)

    def get(self, key):
        return self.cache.get(name_of(key))

    def check(self):
        return "; ".join(str(warning.message) for warning in self.cache.check())

    def close(self):
        self.cache.close()


computed = {}


def remember(key):
    """Stands for a long computation; without one at hand it shows that joblib had to compute again."""
    return computed.pop(key)


class JoblibMemory:
    def __init__(self, directory):
        from joblib import Memory

        self.remember = Memory(directory, verbose=0).cache(remember)

    def put(self, key, value):
        computed[key] = value
        # The first call also records the function's code, `call` computes in any case.
        if self.remember.check_call_in_cache(key):
            self.remember.call(key)
        else:
            self.remember(key)

    def get(self, key):
        try:
            return self.remember(key)
        except KeyError:
            return None

    def close(self):
        pass


class Sciqlop:
    def __init__(self, directory):
        from pysciqlop_cache import Cache

        self.cache = Cache(directory)

    def put(self, key, value):
        self.cache.set(name_of(key), value)

    def get(self, key):
        return self.cache.get(name_of(key))

    def check(self):
        result = self.cache.check()
        names = ("orphaned_files", "dangling_rows", "size_mismatches", "counters_consistent", "sqlite_integrity_ok")
        return "" if result.ok else "; ".join(f"{name} {getattr(result, name)}" for name in names)

    def close(self):
        self.cache.close()


class Cacheness:
    def __init__(self, directory):
        from cacheness import CacheConfig, cacheness

        # Its mode for what must not be deleted, with the digest of every file verified.
        config = CacheConfig(
            cache_dir=directory, metadata_backend="sqlite", storage_mode=True, verify_cache_integrity=True
        )
        self.cache = cacheness(config)

    def put(self, key, value):
        self.cache.put(value, cache_key=name_of(key))

    def get(self, key):
        return self.cache.get(cache_key=name_of(key))

    def check(self):
        found = self.cache.verify_integrity(verify_hashes=True)
        return "; ".join(f"{name} {what}" for name, what in found.items() if what)

    def close(self):
        self.cache.close()


STORES = {"diskcache": Diskcache, "joblib": JoblibMemory, "sciqlop": Sciqlop, "cacheness": Cacheness}


class Warned(logging.Handler):
    """Remembers whether anything was said since it was last asked."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.any = False
        logging.getLogger().addHandler(self)
        warnings.showwarning = self.show
        warnings.simplefilter("always")

    def emit(self, record):
        self.any = True
        print(record.getMessage(), file=sys.stderr)

    def show(self, message, *_):
        self.any = True
        print(message, file=sys.stderr)

    def take(self):
        before, self.any = self.any, False
        return before


def answer(store, warned, words):
    warned.take()
    if words[0] == "put":
        key, generation = int(words[1]), int(words[2])
        store.put(key, value_of(key, generation))
        return "logged" if warned.take() else "ok"
    if words[0] == "get":
        value = store.get(int(words[1]))
        said = warned.take()
        return ("logged" if said else "absent") if value is None else verdict(int(words[1]), value)
    if words[0] == "check" and hasattr(store, "check"):
        found = store.check()
        return f"damage {found}" if found else "clean"
    return "none"


def one_line(error):
    return f"error {type(error).__name__}: {error}".replace("\n", " ")


def main():
    name, directory = sys.argv[1:]
    # What a library prints must not be taken for an answer.
    output, sys.stdout = sys.stdout, sys.stderr
    warned = Warned()
    store, broken = None, None
    try:
        store = STORES[name](directory)
    except ImportError as error:
        sys.exit(str(error))
    except Exception as error:
        broken = one_line(error)
    print("ready", file=output, flush=True)
    for line in sys.stdin:
        try:
            reply = broken or answer(store, warned, line.split())
        except Exception as error:
            reply = one_line(error)
        print(reply.replace("\n", " "), file=output, flush=True)
    if store:
        store.close()


if __name__ == "__main__":
    main()
