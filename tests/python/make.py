"""Writes files with Python's libraries, for Rust to read.

Usage: make.py npy|strange_npy|parquet|blosc2 DIR. DIR/made.json lists the files and what is in them.
"""

import datetime
import json
import sqlite3
import struct
import sys
import time
import warnings
from decimal import Decimal
from pathlib import Path

import numpy

DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]


def random_array(dtype, shape, seed=0):
    """Every bit pattern, so every NaN too."""
    size = int(numpy.prod(shape)) * numpy.dtype(dtype).itemsize
    data = numpy.random.default_rng(seed).bytes(size)
    if dtype == "?":
        return (numpy.frombuffer(data, "u1") > 127).reshape(shape)
    return numpy.frombuffer(data, "<" + dtype).reshape(shape)


class Made:
    def __init__(self, root):
        self.root = root
        self.files = []

    def path(self, ending):
        return self.root / f"{len(self.files)}.{ending}"

    def add(self, path, **facts):
        self.files.append({"file": path.name, **facts})

    def add_array(self, path, what, array):
        little = array.astype(array.dtype.newbyteorder("<"))
        raw = path.with_suffix(".raw")
        raw.write_bytes(little.tobytes())
        is_fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        order = "F" if is_fortran else "C"
        self.add(path, what=what, dtype=little.dtype.str, shape=array.shape, order=order, raw=raw.name)


# NPY


def npy_shapes(dtype):
    for shape in [(), (0,), (3, 0, 2), (1,), (7,), (5, 6), (4, 3, 2), (2,) * 9, (300, 130)]:
        array = random_array(dtype, shape, len(shape))
        yield "C order", array
        yield "Fortran order", numpy.asfortranarray(array)
    yield "every second", random_array(dtype, (40, 50))[::2, ::-3]
    yield "turned axes", random_array(dtype, (4, 5, 6)).transpose(1, 2, 0)


def make_npy(made):
    for dtype in DTYPES:
        for what, array in npy_shapes(dtype):
            path = made.path("npy")
            numpy.save(path, array)
            # What numpy's own reader makes of it, for the order.
            made.add_array(path, what, numpy.load(path))
        for order in "CF":
            path = made.path("npy")
            big = random_array(dtype, (9, 8))
            numpy.save(path, numpy.asarray(big.astype(big.dtype.newbyteorder(">")), order=order))
            made.add_array(path, "big endian", numpy.asarray(big, order=order))
        for version in [(1, 0), (2, 0), (3, 0)]:
            path = made.path("npy")
            array = random_array(dtype, (6, 5))
            with open(path, "wb") as file:
                numpy.lib.format.write_array(file, array, version=version)
            made.add_array(path, f"version {version}", array)
    written_by_memmap(made)
    followed_by_more(made)


def written_by_memmap(made):
    path = made.path("npy")
    array = numpy.lib.format.open_memmap(path, "w+", "<f8", (30, 20))
    array[:] = random_array("f8", (30, 20))
    array.flush()
    made.add_array(path, "open_memmap", numpy.array(array))


def followed_by_more(made):
    path = made.path("npy")
    array = random_array("f8", (3, 4))
    with open(path, "wb") as file:
        numpy.save(file, array)
        numpy.save(file, array + 1)
    made.add_array(path, "the first of two arrays", array)


def make_strange_npy(made):
    arrays = {
        "text": numpy.array(["a", "ß"]),
        "bytes": numpy.array([b"a", b"bc"]),
        "times": numpy.array(["2024-01-01"], "M8[ns]"),
        "durations": numpy.array([7], "m8[s]"),
        "long doubles": numpy.array([1.5], numpy.longdouble),
        "long complex numbers": numpy.array([1.5], numpy.clongdouble),
        "void": numpy.array([b"abc"], "V3"),
        "objects": numpy.array([None, {}], object),
        "records": numpy.array([(1, 2.5)], [("a", "i4"), ("b", "f8")]),
        # Of version 3, for the name's sake.
        "records with a name beyond Latin 1": numpy.zeros(2, [("☃", "i4")]),
    }
    for what, array in arrays.items():
        path = made.path("npy")
        with warnings.catch_warnings(action="ignore"):
            numpy.save(path, array, allow_pickle=True)
        made.add(path, what=what)


# Parquet: columns as Python values, and as JSON has them: times in their unit, those of the day in nanoseconds


def columns():
    import pyarrow as arrow

    utc = datetime.timezone.utc
    moment = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)
    micros = 1709209815123456
    day, long = datetime.timedelta(days=1), "a text that is longer than a view holds"
    integers = {
        getattr(arrow, f"{sign}int{bits}")(): ((0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
        for sign in ["", "u"]
        for bits in [8, 16, 32, 64]
    }
    for dtype, (low, high) in integers.items():
        yield dtype, [low, None, high, 7]
    special = [float("nan"), None, float("-inf"), 0.1]
    yield arrow.bool_(), [True, None, False, True]
    yield arrow.float32(), [1.5, None, float("inf"), -0.25], [1.5, None, "inf", -0.25]
    yield arrow.float64(), special, ["nan", None, "-inf", 0.1]
    yield arrow.string(), ["a", None, "", long]
    yield arrow.large_string(), ["ß ☃", None, "\0", '"']
    yield arrow.binary(), [b"\0\xff", None, b"", b"abc"], ["00ff", None, "", "616263"]
    yield arrow.date32(), [datetime.date(1969, 12, 31), None, datetime.date(2024, 2, 29), None], [-1, None, 19782, None]
    for unit, value in [("ms", micros // 1000), ("us", micros), ("ns", micros * 1000)]:
        times = [moment, None, datetime.datetime(1970, 1, 1), moment]
        if unit == "ms":
            times = [t and t.replace(microsecond=t.microsecond // 1000 * 1000) for t in times]
        yield arrow.timestamp(unit), times, [value, None, 0, value]
        aware = [t and t.replace(tzinfo=utc) for t in times]
        yield arrow.timestamp(unit, "Europe/Berlin"), aware, [value, None, 0, value]
    yield arrow.duration("us"), [day, None, -day, day], [86400 * 10**6, None, -86400 * 10**6, 86400 * 10**6]
    clock = datetime.time(23, 59, 59, 999999)
    yield arrow.time64("us"), [clock, None, datetime.time(), clock], [86399999999000, None, 0, 86399999999000]
    decimals = ["-12.345", None, "0.000", "0.099"]
    yield arrow.decimal128(20, 3), [text and Decimal(text) for text in decimals], decimals
    yield arrow.dictionary(arrow.int32(), arrow.string()), ["b", None, "a", "b"]
    yield arrow.list_(arrow.int64()), [[1, None], None, [], [3]]
    yield arrow.large_list(arrow.string()), [["x", None], ["y"], [], [long]]
    records = [{"x": 1, "s": "a"}, {"x": None, "s": "b"}, {"x": 3, "s": None}, {"x": 4, "s": "d"}]
    yield arrow.struct([("x", arrow.int16()), ("s", arrow.string())]), records
    yield arrow.list_(arrow.struct([("x", arrow.int16())])), [[{"x": 1}, {"x": None}], [], [{"x": 3}], []]
    yield arrow.null(), [None] * 4


def arrow_table():
    """A table of all types, and its columns as JSON."""
    import pyarrow

    arrays, wanted = [], []
    for number, (dtype, values, *told) in enumerate(columns()):
        arrays.append(pyarrow.array(values, dtype))
        wanted.append({"name": f"{number} {dtype}", "values": told[0] if told else values})
    return pyarrow.table(arrays, names=[column["name"] for column in wanted]), wanted


def of_pyarrow(made):
    from pyarrow import parquet

    table, wanted = arrow_table()
    variants = [
        {},
        {"compression": "none"},
        {"compression": "zstd"},
        {"compression": "lz4"},
        {"data_page_version": "2.0"},
        {"use_dictionary": False, "write_statistics": False},
        {"row_group_size": 1},
        {"write_page_index": True, "write_page_checksum": True},
    ]
    for options in variants:
        path = made.path("parquet")
        parquet.write_table(table, path, **options)
        made.add(path, what=f"pyarrow {options}", columns=wanted)
    path = made.path("parquet")
    parquet.write_table(table.slice(0, 0), path)
    made.add(path, what="pyarrow without rows", columns=[{**column, "values": []} for column in wanted])


def of_polars(made):
    import polars

    table, wanted = arrow_table()
    frame = polars.from_arrow(table)
    for options in [{}, {"compression": "lz4"}, {"compression": "snappy"}, {"compression": "uncompressed"}]:
        path = made.path("parquet")
        frame.write_parquet(path, row_group_size=3, **options)
        made.add(path, what=f"polars {options}", columns=wanted)
    path = made.path("parquet")
    frame.lazy().sink_parquet(path)
    made.add(path, what="polars sink_parquet", columns=wanted)
    frame = polars.DataFrame({"e": polars.Series(["b", None, "a"], dtype=polars.Enum(["a", "b"]))})
    frame = frame.with_columns(c=polars.col("e").cast(polars.String).cast(polars.Categorical))
    path = made.path("parquet")
    frame.write_parquet(path)
    names = [{"name": name, "values": ["b", None, "a"]} for name in "ec"]
    made.add(path, what="polars categories", columns=names)


def of_pandas(made):
    import pandas

    times = pandas.to_datetime(["2024-02-29 12:30", None, "1970-01-01 00:00"])
    nanoseconds = [1709209800 * 10**9, None, 0]
    frame = pandas.DataFrame(
        {
            "i": [1, 2, 3],
            "nullable": pandas.array([1, None, 3], "Int64"),
            "f": [0.5, float("nan"), float("inf")],
            "s": ["a", None, "ß ☃"],
            "b": [True, False, True],
            "c": pandas.Categorical(["x", None, "y"]),
            "t": times.as_unit("ns"),
            "z": times.as_unit("ns").tz_localize("UTC").tz_convert("Europe/Berlin"),
            "l": [[1, 2], None, []],
        },
    )
    wanted = {
        "i": [1, 2, 3],
        "nullable": [1, None, 3],
        # Pandas writes NaN as null.
        "f": [0.5, None, "inf"],
        "s": ["a", None, "ß ☃"],
        "b": [True, False, True],
        "c": ["x", None, "y"],
        "t": nanoseconds,
        "z": nanoseconds,
        "l": [[1, 2], None, []],
    }
    indexes = {
        "a range": (frame, {}),
        "labels": (frame.set_axis(["p", "q", "r"]), {"__index_level_0__": ["p", "q", "r"]}),
        "a named index": (frame.set_axis(pandas.Index([7, 8, 9], name="id")), {"id": [7, 8, 9]}),
    }
    for what, (indexed, index) in indexes.items():
        path = made.path("parquet")
        indexed.to_parquet(path)
        listed = [{"name": name, "values": values} for name, values in {**wanted, **index}.items()]
        made.add(path, what=f"pandas, {what}", columns=listed)


def make_parquet(made):
    of_pyarrow(made)
    of_polars(made)
    of_pandas(made)


# Arrays put into a chest by docs/format.md alone

ELEMENTS = dict(zip(DTYPES, "bool i8 i16 i32 i64 u8 u16 u32 u64 f16 f32 f64 Complex<f32> Complex<f64>".split()))


def signed(number):
    return struct.unpack("<q", struct.pack("<Q", number))[0]


def sealed(row):
    """What the seal of a row without facts is the checksum of."""
    texts = [row["key"], row["kind"], row["type"], row["format"], "", row["file"]]
    numbers = [row[name] for name in ("bytes", "stored_bytes", "payload", "label_at", "created_ns")]
    return (
        b"".join(struct.pack("<Q", len(text.encode())) + text.encode() for text in texts)
        + struct.pack("<5Q", *numbers)
        + bytes([False, True])
        + row["checksums"]
    )


def enter(catalog, buckets, short, version):
    """Puts a version into the index, which has so many buckets."""
    import xxhash

    level = buckets.bit_length() - 1
    number = short % (2 << level)
    if number >= buckets:
        number = short % (1 << level)
    (blob,) = catalog.execute("SELECT entries FROM buckets WHERE number = ?", [number]).fetchone()
    assert blob[:8] == struct.pack("<Q", xxhash.xxh3_64_intdigest(blob[8:], seed=number))
    rest = blob[8:] + struct.pack("<Iq", short, version)
    blob = struct.pack("<Q", xxhash.xxh3_64_intdigest(rest, seed=number)) + rest
    catalog.execute("UPDATE buckets SET entries = ? WHERE number = ?", [blob, number])


def adopt(chest, key, payload, form, element, ndim):
    """Makes a file a value of a chest: with a label in `values/`, and a row in the catalog."""
    import xxhash

    canonical = json.dumps(key, ensure_ascii=False)
    blocks = [payload[i : i + (1 << 20)] for i in range(0, max(len(payload), 1), 1 << 20)]
    checksums = b"".join(xxhash.xxh3_128_digest(block) for block in blocks)
    row = {
        "key": canonical,
        "kind": "array",
        "type": f"Array<{element}, {ndim}>",
        "format": form,
        "bytes": len(payload),
        "created_ns": time.time_ns(),
        "payload": len(payload),
    }
    text = json.dumps({"icechest": 1, **row, "checksums": checksums.hex(), "about": {}}).encode()
    label = text + xxhash.xxh3_128_digest(text) + struct.pack("<I", len(text)) + b"ICECHEST"
    name = f"values/{key}.{len(payload):016x}.{form}"
    (chest / name).write_bytes(payload + label)
    row |= {
        "hash": signed(xxhash.xxh3_64_intdigest(canonical.encode())),
        "stored_bytes": len(payload) + len(label),
        "label_at": len(payload),
        "checksums": checksums,
        "file": name,
        "used": 0,
    }
    row["seal"] = signed(xxhash.xxh3_64_intdigest(sealed(row)))
    with sqlite3.connect(chest / "catalog.sqlite") as catalog:
        live, stored, waiting, synced, last, buckets, boot = catalog.execute(
            "SELECT live, stored, waiting, synced, last, buckets, boot FROM state"
        ).fetchone()
        row["version"] = last + 1
        names, holes = ", ".join(row), ", ".join(f":{name}" for name in row)
        catalog.execute(f"INSERT INTO entries ({names}) VALUES ({holes})", row)
        enter(catalog, buckets, row["hash"] & 0xFFFFFFFF, row["version"])
        numbers = live + 1, stored + row["stored_bytes"], waiting, synced, last + 1, buckets
        seal = signed(xxhash.xxh3_64_intdigest(struct.pack("<6q", *numbers) + boot.encode()))
        columns = "live = ?, stored = ?, waiting = ?, synced = ?, last = ?, buckets = ?, seal = ?"
        catalog.execute(f"UPDATE state SET {columns}", (*numbers, seal))
    catalog.close()


def blosc2_arrays():
    """Arrays with names, and how they are stored."""
    import blosc2

    lz4 = {"codec": blosc2.Codec.LZ4}
    steps = numpy.arange(200_000) // 50
    for dtype in DTYPES:
        array = steps.astype("<" + dtype if dtype != "?" else dtype).reshape(400, 500)
        yield f"lz4 {ELEMENTS[dtype]}", array, {"cparams": lz4}
    array = numpy.sin(numpy.arange(300_000) / 1000).reshape(60, 50, 100)
    for codec in [blosc2.Codec.BLOSCLZ, blosc2.Codec.LZ4HC]:
        yield str(codec), array, {"cparams": {"codec": codec, "clevel": 9}}
    for filters in [["NOFILTER"], ["SHUFFLE"], ["BITSHUFFLE"]]:
        chosen = [blosc2.Filter[name] for name in filters]
        yield f"filters {filters}", array, {"cparams": {**lz4, "filters": chosen, "filters_meta": [0]}}
    yield "level 0", array, {"cparams": {**lz4, "clevel": 0}}
    yield "noise", random_array("f8", (301, 257)), {"cparams": lz4}
    yield "odd chunks", array, {"cparams": lz4, "chunks": (17, 23, 31), "blocks": (5, 7, 11)}
    yield "thin chunks", array, {"cparams": lz4, "chunks": (1, 50, 100), "blocks": (1, 10, 100)}
    yield "Fortran order", numpy.asfortranarray(array), {"cparams": lz4}
    yield "zeros", numpy.zeros((300, 400)), {"cparams": lz4}
    yield "one value", numpy.full((300, 400), 7.5), {"cparams": lz4}
    yield "no dimension", numpy.array(7.5), {"cparams": lz4}
    yield "empty", numpy.zeros((0, 5)), {"cparams": lz4}
    yield "one element", numpy.ones((1, 1)), {"cparams": lz4}
    yield "five dimensions", random_array("u2", (3, 5, 4, 6, 7)), {"cparams": lz4}
    yield "with attributes", array, {"cparams": lz4, "attributes": {"unit": "m", "list": [1, 2]}}


def blosc2_lazy():
    """Arrays that Blosc2 makes by itself, some without storing anything."""
    import blosc2

    lz4 = {"cparams": {"codec": blosc2.Codec.LZ4}}
    yield "blosc2.zeros", blosc2.zeros((300, 500), "f8", **lz4)
    yield "blosc2.full", blosc2.full((300, 500), 7.25, "f8", **lz4)
    yield "blosc2.nans", blosc2.nans((300, 500), "f8", **lz4)
    yield "blosc2.arange", blosc2.arange(100_000, dtype="i8", **lz4)
    array = blosc2.zeros((300, 500), "f8", **lz4)
    array[100:200, 7:9] = 3.5
    yield "blosc2.zeros, written to in part", array
    array = blosc2.asarray(numpy.arange(1000.0), **lz4)
    array.resize((1500,))
    yield "resized", array


def blosc2_refused():
    import blosc2

    array = numpy.sin(numpy.arange(100_000) / 1000)
    yield "zstd", blosc2.asarray(array, cparams={"codec": blosc2.Codec.ZSTD}), "f8"
    yield "zstd", blosc2.asarray(array), "f8"
    yield "zlib", blosc2.asarray(array, cparams={"codec": blosc2.Codec.ZLIB}), "f8"
    delta = {"codec": blosc2.Codec.LZ4, "filters": [blosc2.Filter.DELTA, blosc2.Filter.SHUFFLE], "filters_meta": [0, 0]}
    yield "delta", blosc2.asarray(array, cparams=delta), "f8"


def make_blosc2(made):
    import blosc2

    chest = made.root / "chest"
    frames = []
    for what, array, options in blosc2_arrays():
        attributes = options.pop("attributes", {})
        frame = blosc2.asarray(array, **options)
        for name, value in attributes.items():
            frame.schunk.vlmeta[name] = value
        frames.append((what, frame, array))
    frames += [(what, frame, frame[()]) for what, frame in blosc2_lazy()]
    for number, (what, frame, array) in enumerate(frames):
        array = numpy.ascontiguousarray(array).reshape(array.shape)
        path = made.path("b2nd")
        key = f"{number} {what}".replace("/", " ")
        kind = array.dtype.str[1:] if array.dtype != bool else "?"
        adopt(chest, key, frame.to_cframe(), "b2nd", ELEMENTS[kind], array.ndim)
        made.add_array(path, key, array)
    for number, (what, frame, kind) in enumerate(blosc2_refused()):
        key = f"refused {number} {what}"
        adopt(chest, key, frame.to_cframe(), "b2nd", ELEMENTS[kind], frame.ndim)
        made.add(made.path("b2nd"), what=key, names=what)


def main():
    made = Made(Path(sys.argv[2]))
    globals()[f"make_{sys.argv[1]}"](made)
    (made.root / "made.json").write_text(json.dumps(made.files, allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    main()
