"""icechest against its rivals in Python and floors in Rust: tables in Markdown on stdout, a JSON file and a chart.

    cargo build --release -p icechest --no-default-features --features ndarray,blosc,zstd \\
        --target-dir target/core --example rivals_worker
    python3 benches/rivals/rivals.py

Needs Python 3.11 or newer and nothing else: the rivals go into a virtual environment of their own. A subject that
cannot be used is left out and named below the tables.
"""

import argparse
import json
import math
import mmap
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parents[1] / "target"
REQUIREMENTS = HERE / "requirements.txt"
PATIENCE = 1800

# Who is measured, and under which name; those of Rust are answered by `worker.rs`.
TITLES = {
    "icechest": "icechest",
    "icechest-get": "icechest, get",
    "icechest-view": "icechest, view",
    "rust-files": "files by hand (Rust floor)",
    "rust-sqlite": "SQLite by hand (Rust floor)",
    "sqlite3": "sqlite3 by hand (Python floor)",
    "rust-pieces": "files by 512 KiB (Rust floor)",
    "np-save": "np.save, mapped",
    "blosc2": "blosc2 files",
    "diskcache": "diskcache",
    "joblib": "joblib, mapped",
    "zict": "zict, raw files",
    "klepto": "klepto, lru + dir",
    "sciqlop": "sciqlop",
    "sciqlop-oob": "sciqlop, out-of-band",
    "sciqlop-msgspec": "sciqlop, msgspec",
    "sciqlop-index": "sciqlop, Index",
    "icechest-stage": "icechest",
    "icechest-mapped": "icechest, mapped",
    "joblib-stage": "joblib.Memory",
    "joblib-mapped": "joblib.Memory, mapped",
    "memoshelve": "memoshelve",
    "klepto-stage": "klepto, lru + dir",
    "diskcache-stage": "diskcache",
    "sciqlop-stage": "sciqlop",
    "cacheness": "cacheness",
}
RUST = {"icechest", "icechest-get", "icechest-view", "rust-files", "rust-pieces", "rust-sqlite", "icechest-stage", "icechest-mapped"}
FLOORS = {"rust-files", "rust-pieces", "rust-sqlite", "sqlite3"}
OURS = ["icechest-get", "icechest-view"]

ARRAY_SUBJECTS = [
    *OURS, "rust-files", "rust-pieces", "np-save", "blosc2", "diskcache", "joblib", "zict", "klepto", "sciqlop",
    "sciqlop-oob",
]
# Measure, title, unit, and whether more is better.
ARRAY_MEASURES = [
    ("insert", "insert", "MiB/s", True),
    ("given", "insert what is given away", "MiB/s", True),
    ("read", "read in turn", "MiB/s", True),
    ("zipf", "Zipf read", "MiB/s", True),
    ("reopen", "read by a fresh process", "MiB/s", True),
    ("rss", "peak RSS", "MiB", False),
    ("disk", "on disk", "MiB", False),
]
# Phases are processes, one after the other; the second word names the directory that they use.
WORKS = {
    "arrays-noise": {
        "title": "128 arrays of 8 MiB, noise",
        "subjects": ARRAY_SUBJECTS,
        "measures": ARRAY_MEASURES,
        "phases": [("give", "given"), ("fill", "store"), ("reopen", "store")],
        "bars": ["insert", "read", "zipf"],
    },
    "arrays-smooth": {
        "title": "128 arrays of 8 MiB, smooth",
        "subjects": ARRAY_SUBJECTS,
        "measures": ARRAY_MEASURES,
        "phases": [("give", "given"), ("fill", "store"), ("reopen", "store")],
        "bars": ["insert", "read", "zipf"],
    },
    "array-100mb": {
        "title": "one array of 100 MB",
        "subjects": [*OURS, "rust-files", "np-save", "diskcache", "joblib", "sciqlop", "sciqlop-oob"],
        "measures": [
            ("set", "set", "ms", False),
            ("get", "get by a fresh process", "ms", False),
            ("again", "get again", "ms", False),
            ("disk", "on disk", "MiB", False),
        ],
        "phases": [("fill", "store"), ("reopen", "store")],
        "bars": ["set", "get", "again"],
    },
    "small-values": {
        "title": "100,000 values of 256 bytes",
        "subjects": [
            "icechest", "rust-sqlite", "sqlite3", "diskcache", "sciqlop", "sciqlop-msgspec", "sciqlop-index"
        ],
        "measures": [
            ("together", "put, published together", "a second", True),
            ("put", "put, published one by one", "a second", True),
            ("cold", "get by a fresh process", "a second", True),
            ("warm", "get again", "a second", True),
            ("shuffled", "get again in another order", "a second", True),
            ("disk", "on disk", "MiB", False),
        ],
        "phases": [("together", "together"), ("fill", "store"), ("reopen", "store")],
        "bars": ["together", "cold", "warm"],
    },
    "stage": {
        "title": "a stage: file of 64 MiB to array of 8 MiB",
        "subjects": [
            "icechest-stage", "icechest-mapped", "joblib-stage", "joblib-mapped", "memoshelve", "klepto-stage",
            "diskcache-stage", "sciqlop-stage", "cacheness",
        ],
        "measures": [
            ("computed", "computed and stored", "ms", False),
            ("file", "again", "ms", False),
            ("hit", "again, looking at one number", "ms", False),
            ("fresh", "again by a fresh process", "ms", False),
            ("small", "two numbers to one, again", "µs", False),
            ("noticed", "notices that the file has changed", "1 or 0", True),
        ],
        "phases": [("fill", "store"), ("reopen", "store")],
        "bars": ["hit", "fresh", "small"],
    },
}
# MiB that a process may need, page cache included.
MEMORY = {"arrays-noise": 3072, "arrays-smooth": 3072, "array-100mb": 512, "small-values": 256, "stage": 512}
# What a subject does not promise is not asked of it.
WITHOUT = {("zict", "reopen")}

NOTES = """
- *insert*, *set* and *put* last until any other process may read the values; *read* and *get* include adding up every
  element, and each sum is verified. *read in turn* and *Zipf read* happen in the process that inserted; *get again* in
  the one that got, in the order of the first time unless it says otherwise.
- *published together*: one transaction, or one `flush()` of icechest; *one by one*: a transaction or a `flush()` each.
- zict does not publish: what is in its memory at the end is on no disk, and a fresh process is not promised anything.
- *insert*: the data are in one buffer, again and again. icechest, klepto and zict keep what they are given, so they get a
  copy each time, made within the time. *insert what is given away*: every array is one of its own, which was there before,
  and which nobody needs afterwards; so is the array of 100 MB.
- *a stage* calls a function of a file and a parameter whose result is there, and adds it up. icechest and cacheness know the
  file by its content, the others by its path, so they may give an old result. icechest hands out what it keeps, and nobody
  can change it; memoshelve and klepto hand out what they keep, too, and whoever changes it changes later hits.
- The peak RSS counts pages of mapped files, which the system may take back.
""".strip()


class Failed(Exception):
    """A subject that cannot be measured, and why."""


def environment(path):
    """The interpreter that has the rivals, and what could not be installed."""
    python, ready = path / "bin/python", path / "ready"
    wanted = REQUIREMENTS.read_text()
    if ready.exists():
        known = json.loads(ready.read_text())
        if known["requirements"] == wanted:
            return python, known["missing"]
    print(f"making {path}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", path], check=True, stdout=sys.stderr)
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    missing = []
    if subprocess.run([*pip, "-r", REQUIREMENTS], stdout=sys.stderr).returncode:
        # Each by itself, so that one that cannot be had does not keep the others away.
        missing = [line for line in wanted.split() if subprocess.run([*pip, line], stdout=sys.stderr).returncode]
    ready.write_text(json.dumps({"requirements": wanted, "missing": missing}))
    return python, missing


def measure(subject, work, scratch, options, python):
    """All measurements of one subject doing one work, in processes of its own."""
    results = {}
    script = [options.worker] if subject in RUST else [python, HERE / "stores.py"]
    for phase, folder in WORKS[work]["phases"]:
        if (subject, phase) in WITHOUT:
            continue
        directory = scratch / folder
        directory.mkdir(exist_ok=True)
        # Nobody pays for another's writes.
        os.sync()
        have_memory(math.ceil(MEMORY[work] * options.scale / (4 if phase == "reopen" else 1)))
        command = [*script, subject, work, phase, directory, options.scale]
        try:
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failed(f"{phase}: no end after {PATIENCE} s") from None
        except OSError as error:
            raise Failed(str(error)) from None
        if done.returncode:
            reason = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
            raise Failed(f"{phase}: {reason[-1][:300]}")
        for line in done.stdout.splitlines():
            found = json.loads(line)
            results[found["measure"]] = found["value"]
        if phase == "fill":
            results["disk"] = disk_use(directory) / (1 << 20)
    return results


def have_memory(mib):
    """Lets the system have free memory at hand.

    A virtual machine gives free memory back to its host and gets it again page by page, which costs several times what
    is measured here. Whoever runs after a large process would not pay for that, others would.
    """
    piece = bytes([1]) * (1 << 20)
    with mmap.mmap(-1, mib << 20) as memory:
        for _ in range(mib):
            memory.write(piece)


def disk_use(directory):
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def run_all(options, python):
    """Runs by work, subject and measure, and why subjects were left out.

    Subjects take turns, so that all see the same weather.
    """
    works = options.work or list(WORKS)
    runs, left_out = {work: {} for work in works}, {}
    for number in range(options.runs):
        for work in works:
            # In another order each time, because what runs before may matter.
            subjects = WORKS[work]["subjects"].copy()
            random.Random(number).shuffle(subjects)
            for subject in subjects:
                if (work, subject) in left_out:
                    continue
                turn = f"run {number + 1} of {options.runs}, {work}: {TITLES[subject]}"
                print(turn, end="", file=sys.stderr, flush=True)
                scratch = Path(tempfile.mkdtemp(prefix="rivals-", dir=options.dir))
                try:
                    found = measure(subject, work, scratch, options, python)
                    for name, value in found.items():
                        runs[work].setdefault(subject, {}).setdefault(name, []).append(value)
                    print("".join(f"  {name} {amount(value)}" for name, value in found.items()), file=sys.stderr)
                except Failed as failed:
                    left_out[work, subject] = str(failed)
                    runs[work].pop(subject, None)
                    print(f"  left out: {failed}", file=sys.stderr)
                finally:
                    shutil.rmtree(scratch)
    return runs, left_out


def medians(runs):
    return {
        work: {
            subject: {name: statistics.median(values) for name, values in runs[work][subject].items()}
            for subject in WORKS[work]["subjects"]
            if subject in runs[work]
        }
        for work in runs
    }


def unsteady(work, subjects):
    """The measurements of a work whose best and worst run differ more than twofold, in words."""
    spread = [
        (subject, title, min(values), max(values))
        for subject, measures in subjects.items()
        for name, title, _, _ in WORKS[work]["measures"]
        if (values := measures.get(name))
    ]
    return [
        f"{title} of {TITLES[subject]} ({amount(low)} to {amount(high)})"
        for subject, title, low, high in spread
        if high > 2 * low
    ]


def amount(value):
    """Three digits, or all before the point."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0}f}"


def short(value):
    return f"{value / 1e6:.1f}M" if value >= 999_500 else f"{value / 1e3:.0f}k" if value >= 99_500 else amount(value)


def tables(results):
    lines = []
    for work, subjects in results.items():
        measures = WORKS[work]["measures"]
        heads = [f"{title}, {unit}" for _, title, unit, _ in measures]
        lines += [f"| {' | '.join([WORKS[work]['title'], *heads])} |", "| --- " + "| ---: " * len(measures) + "|"]
        best = {name: the_best(subjects, name, more) for name, _, _, more in measures}
        for subject, values in subjects.items():
            # Floors are no rivals.
            cells = [cell(values.get(name), None if subject in FLOORS else best[name]) for name, *_ in measures]
            lines.append(f"| {' | '.join([TITLES[subject], *cells])} |")
        lines.append("")
    return "\n".join(lines)


def the_best(subjects, name, more):
    values = [values[name] for subject, values in subjects.items() if name in values and subject not in FLOORS]
    return (max if more else min)(values, default=None)


def cell(value, best):
    if value is None:
        return "-"
    return f"**{amount(value)}**" if value == best else amount(value)


# The chart: a row of panels for each work, a bar for each subject.
PANEL, GAP, MARGIN = 296, 20, 16
BAR, LABELS, NUMBERS = 18, 138, 48
# Above this ratio the smallest bar would not be seen.
LINEAR_UP_TO = 60
STYLE = """
  svg { font: 12px system-ui, sans-serif; }
  .page { fill: #ffffff; } text { fill: #24292f; } .faint { fill: #57606a; }
  .ours { fill: #0969da; } .rival { fill: #a3adb8; } .floor { fill: none; stroke: #8c959f; stroke-dasharray: 3 2; }
  .title { font-weight: 600; font-size: 14px; } .name { text-anchor: end; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; } text { fill: #e6edf3; } .faint { fill: #9198a1; }
    .ours { fill: #4493f8; } .rival { fill: #59636e; } .floor { stroke: #9198a1; }
  }
"""


def chart(results, scale):
    columns = max((len(WORKS[work]["bars"]) for work in results), default=1)
    width = 2 * MARGIN + columns * PANEL + (columns - 1) * GAP
    parts, top = [], MARGIN
    for work, subjects in results.items():
        parts.append(text(MARGIN, top + 12, WORKS[work]["title"] + of_scale(scale), "title"))
        top += 22
        bottoms = [top]
        measures = {measure[0]: measure for measure in WORKS[work]["measures"]}
        for column, name in enumerate(WORKS[work]["bars"]):
            left = MARGIN + column * (PANEL + GAP)
            bottoms.append(panel(parts, left, top, subjects, *measures[name]))
        top = max(bottoms) + GAP
    legend = "blue: icechest · dashed: written by hand, no store · medians"
    parts.append(text(MARGIN, top, legend, "faint"))
    height = top + MARGIN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    label = 'role="img" aria-label="icechest and its rivals"'
    page = f'<rect class="page" width="{width}" height="{height}"/>'
    return "\n".join([f"{head} {label}>", f"<style>{STYLE}</style>", page, *parts, "</svg>", ""])


def panel(parts, left, top, subjects, name, title, unit, more):
    """The bars of one measure, the best on top. Gives where they end."""
    bars = sorted(((v[name], s) for s, v in subjects.items() if v.get(name, 0) > 0), reverse=more)
    if not bars:
        return top
    values = [value for value, _ in bars]
    low, high = min(values), max(values)
    is_log = high / low > LINEAR_UP_TO
    # On a logarithmic scale a bar starts at the power of ten below all of them.
    start = 10 ** math.floor(math.log10(low * 0.999))
    room = PANEL - LABELS - NUMBERS
    kind = f"{unit}, {'more' if more else 'less'} is better{', log scale' if is_log else ''}"
    parts.append(text(left, top + 10, f"{title}, {kind}", "faint"))
    top += 18
    for value, subject in bars:
        share = math.log(value / start) / math.log(high / start) if is_log else value / high
        length = max(1.5, room * share)
        style = "floor" if subject in FLOORS else "ours" if subject.startswith("icechest") else "rival"
        label = TITLES[subject].replace(" by hand", "").replace(" floor)", ")")
        parts.append(text(left + LABELS - 6, top + 13, label, "name"))
        parts.append(
            f'<rect class="{style}" x="{left + LABELS}" y="{top + 3}" width="{length:.1f}" height="{BAR - 5}" rx="2"/>'
        )
        parts.append(text(round(left + LABELS + length + 5, 1), top + 13, short(value)))
        top += BAR
    return top


def text(x, y, words, style=""):
    style = f' class="{style}"' if style else ""
    return f'<text x="{x}" y="{y}"{style}>{escape(words)}</text>'


def of_scale(scale):
    return "" if scale == 1 else f" (times {scale:g})"


def machine():
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        pairs = [line.split(":", 1) for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = pairs[0][1].strip() if pairs else model
    return f"{os.cpu_count()} cores of {model}, {platform.system()} {platform.release()}"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="medians of so many runs (5)")
    parser.add_argument("--work", nargs="+", choices=WORKS, metavar="NAME", help=", ".join(WORKS))
    parser.add_argument("--scale", type=float, default=1.0, metavar="F", help="0.1: a tenth of the data, for a test; 10 at most")
    parser.add_argument("--out", type=Path, metavar="FILE.json", default=TARGET / "rivals/rivals.json",
                        help="all runs; the chart is put next to it, as FILE.svg")
    parser.add_argument("--worker", type=Path, metavar="PATH", help="the built example rivals_worker",
                        default=TARGET / "core/release/examples/rivals_worker")
    parser.add_argument("--dir", type=Path, metavar="D", default=TARGET / "rivals", help="where the stores are made")
    parser.add_argument("--venv", type=Path, metavar="D", default=TARGET / "rivals-python", help="where the rivals are")
    options = parser.parse_args()
    if options.runs < 1 or not 0 < options.scale <= 10:
        parser.error("--runs is at least 1, --scale more than 0 and at most 10")
    return options


def main():
    options = arguments()
    # So that the stores of an interrupted run are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    options.dir.mkdir(parents=True, exist_ok=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.worker, options.dir = options.worker.resolve(), options.dir.resolve()
    python, missing = environment(options.venv.absolute())
    runs, left_out = run_all(options, python)
    results = medians(runs)
    versions = subprocess.run([python, "--version"], capture_output=True, text=True).stdout.strip()
    about = {
        "machine": machine(),
        "python": versions,
        "rivals": [line for line in REQUIREMENTS.read_text().split() if line not in missing],
        "not installed": missing,
        "left out": [{"work": work, "subject": subject, "why": why} for (work, subject), why in left_out.items()],
        "runs": options.runs,
        "scale": options.scale,
    }
    options.out.write_text(json.dumps({"about": about, "medians": results, "all": runs}, indent=1) + "\n")
    picture = options.out.with_suffix(".svg")
    picture.write_text(chart(results, options.scale))
    print(tables(results))
    rivals = ", ".join(about["rivals"])
    print(f"{about['machine']}; {versions}; {rivals}; medians of {options.runs}{of_scale(options.scale)}.\n\n{NOTES}")
    for work, subjects in runs.items():
        if words := unsteady(work, subjects):
            print(f"- Best and worst run of {work} differ more than twofold: {'; '.join(words)}.")
    for line in missing:
        print(f"- Not installed: {line}.")
    for (work, subject), why in left_out.items():
        print(f"- Left out of {work}: {TITLES[subject]}: {why}")
    print(f"{options.out} and {picture} are written", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
