"""The same faults done to five stores, and what their readers get: a table in Markdown on stdout.

    python3 -m venv target/faults && target/faults/bin/pip install -r benches/faults/requirements.txt
    cargo build --workspace --example faults_worker
    target/faults/bin/python benches/faults/faults.py

cacheness is in no package index (0.4.0 was measured); its column appears where it can be imported. A store that cannot
be used is left out.
"""

import argparse
import contextlib
import json
import os
import random
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORKER = os.environ.get("ICECHEST_WORKER", HERE.parents[1] / "target/debug/examples/faults_worker")
KEYS = range(40)
PATIENCE = 20
SETTLE = 10
# Name, and patterns of its index; what is no index is a value, except these.
INDEXES = {
    "icechest": r"catalog\.sqlite",
    "diskcache": r"cache\.db",
    "joblib": r"func_code\.py|metadata\.json",
    "sciqlop": r"sciqlop-cache\.db",
    "cacheness": r"cache_metadata\.db",
}
TITLES = {"joblib": "joblib.Memory", "sciqlop": "pysciqlop-cache"}
NO_VALUES = re.compile(r"icechest\.json|\.gitignore|cache_signing_key\.bin|lock")
# From the worst to the best.
OUTCOMES = {
    "wrong": "WRONG VALUE",
    "older": "OLDER VALUE",
    "crash": "PROCESS DIES",
    "hang": "HANGS",
    "absent": "silently absent",
    "logged": "absent, logged",
    "error": "error",
    "exact": "exact",
}
NOTES = """
- *exact*: the value last stored; *error*: the caller gets an error; *absent, logged*: the caller is told that there is
  no value, and a warning is written; *silently absent*: not even that. Of several keys the worst counts.
- *check*: how many of the faults the store's own tool finds (`Cache.check()` of diskcache and pysciqlop-cache,
  `verify_integrity(verify_hashes=True)` of cacheness, `Chest::check` of icechest); joblib.Memory has none.
- joblib.Memory caches calls: where others answer *absent* it calls the function again. A fault there costs time, except
  where it says WRONG VALUE. Overwriting is done with `MemorizedFunc.call`.
- A store is judged by what it promises: those of caches may forget. cacheness runs in its storage mode, diskcache
  without eviction and with `sqlite_synchronous=2`, the others with their defaults.
- *disk* is the size of the directory divided by that of a store which was given the same values once; *later* is after
  the store has been open for ten seconds.
- Places in an index are drawn from the bytes that are not zero. Small values of icechest, diskcache and pysciqlop-cache
  are in their index.
- For 10, `sync()` of icechest is called after the writes; the others have no such call.
""".strip()


class Dead(Exception):
    """A worker that does not answer any more: `crash` or `hang`."""


class Worker:
    """A process that has a store open."""

    def __init__(self, name, directory, log, prefix=()):
        script = [sys.executable, HERE / "stores.py", name] if name != "icechest" else [WORKER]
        command = [*prefix, *script, directory]
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0
        )
        self.buffer = b""
        try:
            self.answer()
        except Dead:
            self.kill()
            raise

    def send(self, text):
        try:
            self.process.stdin.write(text.encode())
        except BrokenPipeError:
            raise Dead("crash") from None

    def answer(self):
        end = time.monotonic() + PATIENCE
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.buffer:
                if not selector.select(max(0, end - time.monotonic())):
                    raise Dead("hang")
                got = os.read(self.process.stdout.fileno(), 1 << 16)
                if not got:
                    raise Dead("crash")
                self.buffer += got
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode(errors="replace")

    def ask(self, text):
        self.send(text + "\n")
        return self.answer()

    def kill(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def close(self):
        """Lets the store be closed as at the end of any program."""
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        self.kill()


class Subject:
    """A store of one kind, its directory, and a good copy to begin from."""

    def __init__(self, name, scratch, options):
        self.name, self.options, self.has_check = name, options, False
        self.random = random.Random(f"{options.seed} {name}")
        self.dir, self.good = scratch / name / "store", scratch / name / "good"
        self.dir.mkdir(parents=True)
        self.log = open(scratch / name / "log", "wb")

    def start(self, directory=None, prefix=()):
        return Worker(self.name, directory or self.dir, self.log, prefix)

    @contextlib.contextmanager
    def open(self, directory=None, prefix=()):
        worker = self.start(directory, prefix)
        try:
            yield worker
            worker.close()
        finally:
            worker.kill()

    def fill(self):
        """None, or why this store cannot be used."""
        try:
            with self.open() as worker:
                for key in KEYS:
                    reply = worker.ask(f"put {key} 1")
                    if reply != "ok":
                        return reply
                self.has_check = worker.ask("check") != "none"
        except Dead as dead:
            return f"{dead}: {(self.dir.parent / 'log').read_text(errors='replace').strip()[-300:]}"
        shutil.copytree(self.dir, self.good)
        return None

    def restore(self):
        # At the same place, because some stores keep absolute paths.
        shutil.rmtree(self.dir)
        shutil.copytree(self.good, self.dir)

    def empty(self):
        shutil.rmtree(self.dir)
        self.dir.mkdir()

    def files(self, index):
        found = sorted(path for path in self.dir.rglob("*") if path.is_file() and not NO_VALUES.fullmatch(path.name))
        return [path for path in found if bool(re.match(INDEXES[self.name], path.name)) == index]

    def count(self, number, quick):
        return quick if self.options.quick else number

    def sample(self, items):
        return items if not self.options.quick else self.random.sample(items, min(6, len(items)))

    def read(self, expected, keys=KEYS, directory=None):
        """What a new process gets for each key: an outcome."""
        outcomes, worker = {}, None
        try:
            for key in keys:
                try:
                    worker = worker or self.start(directory)
                    outcomes[key] = outcome(worker.ask(f"get {key}"), expected.get(key, {1}))
                except Dead as dead:
                    outcomes[key] = str(dead)
                    if worker:
                        worker.kill()
                    worker = None
                    if outcomes[key] == "hang":
                        return outcomes | {key: "hang" for key in keys if key not in outcomes}
        finally:
            if worker:
                worker.close()
        return outcomes

    def check(self):
        """Whether the store's own tool finds something; a store that does not open counts."""
        try:
            with self.open() as worker:
                return worker.ask("check") != "clean"
        except Dead:
            return True


def outcome(reply, expected):
    word, *rest = reply.split(maxsplit=1)
    if word == "is":
        return "exact" if int(rest[0]) in expected else "older"
    return word


def worst(outcomes):
    return min(outcomes, key=list(OUTCOMES).index, default="exact")


def killed(subject):
    """Writers are killed; afterwards each key must have the generation that was acknowledged, or the next one."""
    subject.empty()
    expected = {key: {0} for key in KEYS}
    counts, generation, rounds = Counter(), 0, subject.count(20, 5)
    for _ in range(rounds):
        jobs = [(subject.random.choice(KEYS), generation + i + 1) for i in range(3000)]
        generation += len(jobs)
        replies = run_and_kill(subject, jobs)
        # A write without an answer, or with another one, may have happened or not.
        for (key, number), reply in zip(jobs, [*replies, "killed"]):
            expected[key] = {number} if reply == "ok" else expected[key] | {number}
        stored = [key for key in KEYS if expected[key] != {0}]
        # Zero stands for no value, which is right as long as none was acknowledged.
        outcomes = subject.read(expected, [key for key in stored if 0 not in expected[key]])
        counts.update(outcomes.values())
        counts["acknowledged"] += replies.count("ok")
    used = disk_use(subject.dir)
    # Some stores remove what is left behind in the background.
    with subject.open():
        time.sleep(SETTLE)
    sizes = {"disk": used, "settled": disk_use(subject.dir), "clean": disk_use(subject.good)}
    return {"rounds": rounds, "outcomes": dict(counts), "keys": len(stored), **sizes}


def run_and_kill(subject, jobs):
    worker = subject.start()
    try:
        worker.send("".join(f"put {key} {number}\n" for key, number in jobs))
        end = time.monotonic() + subject.random.uniform(0.02, 0.8)
        replies = []
        while time.monotonic() < end and len(replies) < len(jobs):
            replies.append(worker.answer())
        worker.process.kill()
        with contextlib.suppress(Dead):
            while True:
                replies.append(worker.answer())
        return replies
    finally:
        worker.kill()


def disk_use(directory):
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def each(subject, cases, damage, keys_hit=1):
    """Does each case to a good store of its own; `damage` changes files."""
    tally, others, hit, checked = Counter(), 0, 0, 0
    for case in cases:
        if subject.has_check:
            # With a copy of its own, because the tool may change something.
            subject.restore()
            damage(case)
            checked += subject.check()
        subject.restore()
        damage(case)
        outcomes = [result for result in subject.read({}).values() if result != "exact"]
        tally[worst(outcomes)] += 1
        hit += len(outcomes)
        others += len(outcomes) > keys_hit
        progress(subject, sum(tally.values()), len(cases))
    check = checked if subject.has_check else None
    return {"cases": len(cases), "outcomes": dict(tally), "keys_hit": hit, "others_hit": others, "check": check}


def progress(subject, done, total):
    if done % 10 == 0 or done == total:
        print(f"  {subject.name}: {done} of {total}", file=sys.stderr)


def flip(path, offset, bit):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def flipped_values(subject):
    subject.restore()
    draw = subject.random
    cases = [(p, draw.randrange(p.stat().st_size), draw.randrange(8)) for p in subject.sample(subject.files(False))]
    return each(subject, cases, lambda case: flip(*case))


def truncated(subject, share):
    subject.restore()
    cut = [(path, int(path.stat().st_size * share)) for path in subject.sample(subject.files(False))]
    return each(subject, cut, lambda case: os.truncate(*case))


def swapped(subject):
    """Files of the same length change places, where there are such: no length tells."""
    subject.restore()
    files = sorted(subject.files(False), key=lambda path: (path.suffix, path.stat().st_size))
    pairs = subject.sample(list(zip(files[::2], files[1::2])))

    def swap(pair):
        third = pair[0].with_name("swapping")
        pair[0].rename(third)
        pair[1].rename(pair[0])
        third.rename(pair[1])

    return each(subject, pairs, swap, keys_hit=2)


def missing(subject):
    subject.restore()
    return each(subject, subject.sample(subject.files(False)), os.remove)


def flipped_index(subject):
    subject.restore()
    places = [(path, at) for path in subject.files(True) for at, byte in enumerate(path.read_bytes()) if byte]
    places = subject.random.sample(places, min(subject.count(60, 10), len(places)))
    cases = [(*place, subject.random.randrange(8)) for place in places]
    return each(subject, cases, lambda case: flip(*case), len(KEYS))


def deleted_index(subject):
    subject.restore()

    def delete(_):
        for path in subject.files(True):
            path.unlink()

    delete(None)
    return {"cases": len(KEYS), "outcomes": dict(Counter(subject.read({}).values()))}


@contextlib.contextmanager
def small_disk(subject, size):
    directory = subject.dir.parent / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield directory if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", directory])
        directory.rmdir()


def full_disk(subject):
    with small_disk(subject, 16 << 20) as disk:
        if disk is None:
            return {"not measured": "needs the right to mount a tmpfs"}
        ballast, store, worker = disk / "ballast", disk / "store", None
        store.mkdir()
        try:
            worker = subject.start(store)
            stored = {key: {1} for key in KEYS if worker.ask(f"put {key} 1") == "ok"}
            free = os.statvfs(disk)
            ballast.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - (100 << 10))))
            told = overfill(worker, stored)
            own = Counter(outcome(worker.ask(f"get {key}"), stored[key]) for key in KEYS)
            other = outcomes_of(subject, stored, store)
            ballast.unlink()
            again = worker.ask("put 0 1000").split()[0]
            stored[0] = {1000} if again == "ok" else stored[0] | {1000}
        finally:
            if worker:
                worker.close()
        last = outcomes_of(subject, stored, store)
        return {"told": dict(told), "own": dict(own), "other": other, "after room": again, "last": last}


def overfill(worker, stored):
    """Overwrites all keys, then adds new ones, until ten writes have failed."""
    told = Counter()
    for key in range(2 * len(KEYS)):
        reply = worker.ask(f"put {key} 2").split()[0]
        told[reply] += 1
        # A write that failed may have happened, or not.
        stored[key] = {2} if reply == "ok" else stored.get(key, {0}) | {2}
        if told.total() - told["ok"] == 10:
            break
    return told


def outcomes_of(subject, stored, directory):
    sure = [key for key, numbers in stored.items() if 0 not in numbers]
    return dict(Counter(subject.read(stored, sure, directory).values()))


def two_processes(subject):
    subject.restore()
    rounds, tally = subject.count(50, 10), Counter()
    with subject.open() as a, subject.open() as b:
        for number in range(rounds):
            key, generation = number % len(KEYS), number + 2
            a.ask(f"get {key}")
            b.ask(f"put {key} {generation}")
            tally[outcome(a.ask(f"get {key}"), {generation})] += 1
    return {"cases": rounds, "outcomes": dict(tally)}


def durable(subject):
    """Counts the calls that make files, folders and the index durable, with strace."""
    if not shutil.which("strace"):
        return {"not measured": "needs strace"}
    subject.empty()
    trace = subject.dir.parent / "trace"
    calls = "trace=fsync,fdatasync,syncfs,sync_file_range,msync"
    with subject.open(prefix=["strace", "-f", "-y", "-o", trace, "-e", calls]) as worker:
        worker.ask("get 0")
        before = len(trace.read_text().splitlines())
        for key in range(20):
            worker.ask(f"put {key} 1")
        worker.ask("sync")
        lines = trace.read_text().splitlines()[before:]
    paths = [found[1] for line in lines if (found := re.search(r"sync\(\d+<([^>]*)>", line))]
    folders = sum(os.path.isdir(path) for path in paths)
    index = sum(bool(re.match(INDEXES[subject.name], os.path.basename(path))) for path in paths)
    values = len(subject.files(False))
    return {"writes": 20, "files": len(paths) - folders - index, "index": index, "folders": folders, "values": values}


FAULTS = {
    "killed": ("1. Writer killed, 20 times", killed),
    "bitflip": ("2. One bit flipped in a value file", flipped_values),
    "half": ("3. Value file cut to a half", lambda subject: truncated(subject, 0.5)),
    "zero": ("3. Value file cut to nothing", lambda subject: truncated(subject, 0)),
    "swapped": ("4. Two value files swapped", swapped),
    "missing": ("5. A value file missing", missing),
    "index": ("6. One bit flipped in the index", flipped_index),
    "no-index": ("7. The index deleted", deleted_index),
    "full": ("8. Disk full", full_disk),
    "processes": ("9. Another process overwrites", two_processes),
    "fsync": ("10. fsync for 20 writes", durable),
}


def in_words(tally, total):
    parts = [(OUTCOMES[name], tally[name]) for name in OUTCOMES if tally.get(name)]
    if len(parts) == 1 and parts[0][1] == total:
        return parts[0][0]
    return ", ".join(f"{word} {count}" for word, count in parts) + f" of {total}"


def cell(fault, result):
    if result is None:
        return "stopped"
    if "not measured" in result:
        return "not measured"
    if fault == "killed":
        tally = {name: count for name, count in result["outcomes"].items() if name in OUTCOMES}
        at_once, later = (f"{result[when] / result['clean']:.1f}×" for when in ("disk", "settled"))
        return f"{in_words(tally, sum(tally.values()))}; disk {at_once}, later {later}"
    if fault == "full":
        return full_cell(result)
    if fault == "fsync":
        files = f"{result['files']} of {result['values']} value files"
        return f"{files}, {result['index']} index, {result['folders']} folders"
    words = in_words(result["outcomes"], result["cases"])
    if "others_hit" in result and fault != "index":
        words += f", OTHERS TOO in {result['others_hit']}" if result["others_hit"] else ", others fine"
    if result.get("check") is not None:
        words += f"; check {result['check']} of {result['cases']}"
    return words


def full_cell(result):
    words = "error" if result["told"].get("error") else "logged only" if result["told"].get("logged") else "nobody told"
    for name, who in (("own", "earlier values"), ("other", "in a new process"), ("last", "with room again")):
        words += f"; {who} {in_words(result[name], sum(result[name].values()))}"
    return words if result["after room"] == "ok" else f"{words}, but put: {result['after room']}"


def measure(name, scratch, options):
    """All faults of one store, or the reason why it has no column."""
    if name == "icechest" and not Path(WORKER).exists():
        return f"{WORKER} is missing; build it: cargo build --workspace --example faults_worker"
    subject = Subject(name, scratch, options)
    problem = subject.fill()
    if problem:
        return problem
    results = {}
    for fault in options.only or FAULTS:
        print(f"{name}: {FAULTS[fault][0]}", file=sys.stderr)
        try:
            results[fault] = FAULTS[fault][1](subject)
        except Dead as dead:
            results[fault] = {"not measured": f"the worker ended: {dead}"}
    return results


def table(results, options):
    names = list(results)
    titles = " | ".join(TITLES.get(name, name) for name in names)
    lines = [f"| fault | {titles} |", "| --- " * (len(names) + 1) + "|"]
    for fault in options.only or FAULTS:
        cells = [cell(fault, results[name].get(fault)) for name in names]
        lines.append(f"| {FAULTS[fault][0]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=FAULTS, metavar="NAME", help=", ".join(FAULTS))
    parser.add_argument("--store", action="append", choices=INDEXES, help="leave out the other stores")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="fewer cases")
    parser.add_argument("--json", action="store_true", help="raw counts in place of the table")
    return parser.parse_args()


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    names = options.store or list(INDEXES)
    results = {}
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        for name in names:
            found = measure(name, Path(scratch), options)
            if isinstance(found, str):
                print(f"{name} is left out: {found}", file=sys.stderr)
            else:
                results[name] = found
    print(json.dumps(results, indent=2) if options.json else f"{table(results, options)}\n\n{NOTES}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
