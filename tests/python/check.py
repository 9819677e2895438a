"""Opens files that Rust wrote with every Python reader that can, and compares what they give with what they must.

Usage: check.py DIR. DIR/manifest.json lists the files and what is in them; paths in it begin there. Prints one line a
failure and exits with 1 if there are any.
"""

import json
import os
import struct
import sys
import traceback
from pathlib import Path


class Wrong(Exception):
    """A reader gave something else than what was written."""


def expect(got, wanted, what):
    if got != wanted:
        raise Wrong(f"{what} is {short(got)}, should be {short(wanted)}")


def short(value):
    text = repr(value)
    return text if len(text) < 1000 else text[:1000] + "…"


# Arrays


def same_array(got, wanted):
    import numpy

    expect(got.dtype, wanted.dtype, "dtype")
    expect(got.shape, wanted.shape, "shape")
    # Bytes, so that a NaN equals itself and -0.0 does not equal 0.0.
    if got.tobytes() != wanted.tobytes():
        different = got.reshape(-1) != wanted.reshape(-1)
        raise Wrong(f"{numpy.count_nonzero(different)} of {got.size} elements differ")


def wanted_array(case, root):
    import numpy

    elements = numpy.frombuffer((root / case["raw"]).read_bytes(), numpy.dtype(case["dtype"]))
    return elements.reshape(case["shape"])


def npy_readers(path):
    import numpy

    def opened():
        with open(path, "rb") as file:
            return numpy.load(file, allow_pickle=False)

    def memmap():
        with open(path, "rb") as file:
            version = numpy.lib.format.read_magic(file)
            read = {(1, 0): numpy.lib.format.read_array_header_1_0, (2, 0): numpy.lib.format.read_array_header_2_0}
            shape, fortran, dtype = read[version](file)
            offset = file.tell()
        return numpy.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")

    yield "numpy.load", lambda: numpy.load(path)
    yield "numpy.load of a file", opened
    for mode in ["r", "c"]:
        yield f"numpy.load mmap_mode={mode}", lambda mode=mode: numpy.load(path, mmap_mode=mode)
    yield "numpy.memmap", memmap


def check_npy(case, path, root):
    wanted = wanted_array(case, root)
    for name, read in npy_readers(path):
        def check():
            got = read()
            same_array(got, wanted)
            expect(got.flags.f_contiguous and not got.flags.c_contiguous, case["order"] == "F", "Fortran order")

        yield name, check


def slices(shape):
    """Parts along every axis: the middle, the last element, every index of the last axis."""
    middle = tuple(slice(n // 4, n // 4 + max(n // 2, 1)) for n in shape)
    return [middle, tuple(n - 1 for n in shape), (..., 0), (slice(0, 1),), (shape[0] // 2,)]


def check_b2nd(case, path, root):
    import blosc2

    wanted = wanted_array(case, root)
    opens = {
        "blosc2.open": lambda: blosc2.open(str(path)),
        "blosc2.open mode=r": lambda: blosc2.open(str(path), mode="r"),
        "blosc2.open mmap_mode=r": lambda: blosc2.open(str(path), mode="r", mmap_mode="r"),
    }
    for name, read in opens.items():
        yield f"{name} [:]", lambda read=read: same_array(read()[:], wanted)

    def header():
        array = blosc2.open(str(path), mode="r")
        expect((array.dtype, array.shape), (wanted.dtype, wanted.shape), "dtype and shape")
        filters = {blosc2.Filter.SHUFFLE: "shuffle", blosc2.Filter.BITSHUFFLE: "bitshuffle"}
        used = [filters[each] for each in array.schunk.cparams.filters if each in filters]
        expect("+".join([array.schunk.cparams.codec.name.lower(), *used]), case["compression"], "codec and filter")

    yield "blosc2 header", header
    for part in slices(wanted.shape):
        def check(part=part):
            got = blosc2.open(str(path), mode="r")[part]
            expect(got.shape, wanted[part].shape, f"shape of {part}")
            expect(got.tobytes(), wanted[part].tobytes(), f"{part}")

        yield f"blosc2 slice {part}", check


# Frames: values as JSON has them. Times are integers in their unit (those of the day in nanoseconds), bytes are
# hexadecimal, NaN and infinities are text.


def number(value):
    # `repr` of what JSON cannot say: nan, inf, -inf.
    return value if value is None or value - value == 0 else repr(float(value))


def of_arrow(scalar):
    import pyarrow
    from pyarrow import types

    dtype = scalar.type
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pyarrow.ExtensionScalar):
        return of_arrow(scalar.value)
    if types.is_dictionary(dtype):
        return of_arrow(scalar.value)
    if types.is_map(dtype):
        return [[of_arrow(item[name]) for name in ["key", "value"]] for item in scalar.values]
    if isinstance(scalar, pyarrow.ListScalar):
        return [of_arrow(item) for item in scalar.values]
    if types.is_struct(dtype):
        return {name: of_arrow(item) for name, item in scalar.items()}
    if types.is_time(dtype):
        return scalar.value * {"time32[ms]": 10**6, "time64[us]": 10**3}.get(str(dtype), 1)
    if types.is_temporal(dtype):
        return scalar.value
    if types.is_decimal(dtype):
        return str(scalar.as_py())
    if types.is_floating(dtype):
        return number(scalar.as_py())
    value = scalar.as_py()
    return value.hex() if isinstance(value, bytes) else value


def of_polars(series):
    import polars

    dtype = series.dtype
    if isinstance(dtype, (polars.Categorical, polars.Enum)):
        series = series.cast(polars.String)
    elif dtype.is_temporal():
        series = series.to_physical()
    elif isinstance(dtype, (polars.List, polars.Array)):
        return [None if item is None else of_polars(item) for item in series]
    elif isinstance(dtype, polars.Struct):
        fields = {field.name: of_polars(series.struct.field(field.name)) for field in dtype.fields}
        present = series.is_not_null().to_list()
        return [{name: values[i] for name, values in fields.items()} if here else None for i, here in enumerate(present)]
    values = series.to_list()
    if dtype.is_decimal():
        return [None if value is None else str(value) for value in values]
    if dtype.is_float():
        return [number(value) for value in values]
    if dtype == polars.Binary:
        return [None if value is None else value.hex() for value in values]
    return values


def plain_type(name):
    """Text and bytes have several layouts in Arrow; which one it is matters to nobody."""
    for kind in ["string", "binary"]:
        name = name.replace(f"large_{kind}", kind).replace(f"{kind}_view", kind)
    return name


def same_types(got, case, whose):
    different = {c["name"]: (g, c[whose]) for g, c in zip(got, case["columns"]) if g != c[whose]}
    expect(different, {}, "columns of another type")


def same_arrow(table, case, types=True):
    expect(table.column_names, [column["name"] for column in case["columns"]], "columns")
    if types:
        same_types([plain_type(str(column.type)) for column in table.columns], case, "arrow")
    for column, wanted in zip(table.columns, case["columns"]):
        expect([of_arrow(value) for value in column], wanted["values"], f"column {wanted['name']!r}")


def same_polars(frame, case):
    expect(frame.columns, [column["name"] for column in case["columns"]], "columns")
    same_types([str(dtype) for dtype in frame.dtypes], case, "polars")
    for series, wanted in zip(frame, case["columns"]):
        expect(of_polars(series), wanted["values"], f"column {wanted['name']!r}")


def same_pandas(frame, case):
    """Pandas' own types: integers with nulls are floats there, and null is NaN."""
    import pandas

    expect(list(frame.columns), [column["name"] for column in case["columns"]], "columns")
    simple = ("bool", "int", "uint", "float", "double", "halffloat", "string")
    for wanted in case["columns"]:
        if not wanted["arrow"].startswith(simple):
            continue
        for got, value in zip(frame[wanted["name"]], wanted["values"], strict=True):
            missing = value is None or value == "nan"
            expect(bool(pandas.isna(got)), missing, f"whether {got!r} of {wanted['name']!r} is missing")
            if not missing:
                special = {"inf": float("inf"), "-inf": float("-inf")}.get(value, value)
                lossy = isinstance(got, float) and isinstance(value, int)
                expect(got, float(special) if lossy else special, f"a value of {wanted['name']!r}")


def check_parquet(case, path, root):
    if "rows" in case:
        yield from check_measurements(case, path)
        return
    if any(column["polars"] for column in case["columns"]) or not case["columns"]:
        yield from polars_checks(case, path)
    if all(column["arrow"] for column in case["columns"]):
        yield from pyarrow_checks(case, path)
        yield from pandas_checks(case, path)


def polars_checks(case, path):
    import polars

    yield "polars.read_parquet", lambda: same_polars(polars.read_parquet(path), case)
    yield "polars.read_parquet of bytes", lambda: same_polars(polars.read_parquet(path.read_bytes()), case)
    yield "polars.scan_parquet", lambda: same_polars(polars.scan_parquet(path).collect(), case)


def pyarrow_checks(case, path):
    import pyarrow.dataset
    from pyarrow import parquet

    yield "pyarrow.read_table", lambda: same_arrow(parquet.read_table(path), case)
    yield "pyarrow memory_map", lambda: same_arrow(parquet.read_table(path, memory_map=True), case)
    yield "pyarrow.ParquetFile", lambda: same_arrow(parquet.ParquetFile(path).read(), case)
    yield "pyarrow.dataset", lambda: same_arrow(pyarrow.dataset.dataset(path).to_table(), case)


def pandas_checks(case, path):
    import pandas
    import pyarrow

    def backed_by_arrow():
        frame = pandas.read_parquet(path, dtype_backend="pyarrow")
        columns = [pyarrow.chunked_array(frame[name].array.__arrow_array__()) for name in frame.columns]
        same_arrow(pyarrow.table(columns, names=list(frame.columns)), case, types=False)

    yield "pandas.read_parquet", lambda: same_pandas(pandas.read_parquet(path), case)
    yield "pandas.read_parquet backed by Arrow", backed_by_arrow


def check_arrow(case, path, root):
    import polars
    import pyarrow
    import pyarrow.dataset
    from pyarrow import feather

    def mapped():
        with pyarrow.memory_map(str(path)) as file:
            return pyarrow.ipc.open_file(file).read_all()

    if any(column["polars"] for column in case["columns"]) or not case["columns"]:
        yield "polars.read_ipc", lambda: same_polars(polars.read_ipc(path), case)
        yield "polars.read_ipc of bytes", lambda: same_polars(polars.read_ipc(path.read_bytes()), case)
        yield "polars.scan_ipc", lambda: same_polars(polars.scan_ipc(path).collect(), case)
    if all(column["arrow"] for column in case["columns"]):
        yield "pyarrow.ipc", lambda: same_arrow(pyarrow.ipc.open_file(path.read_bytes()).read_all(), case)
        yield "pyarrow.ipc mapped", lambda: same_arrow(mapped(), case)
        yield "pyarrow.dataset", lambda: same_arrow(pyarrow.dataset.dataset(path, format="ipc").to_table(), case)
        yield "pyarrow.feather", lambda: same_arrow(feather.read_table(path), case)


# A large frame of known formulas, read in parts


def measurements(start, stop):
    """Rows of the large frame, as Python lists."""
    rows = range(start, stop)
    return {
        "id": list(rows),
        "half": [i / 2 for i in rows],
        "group": [f"group {i % 7}" for i in rows],
        "time": [i * 1_000_000 for i in rows],
        "some": [None if i % 3 == 0 else i for i in rows],
    }


def same_rows(table, start, stop, columns):
    wanted = measurements(start, stop)
    expect(table.column_names, columns, "columns")
    expect(table.num_rows, stop - start, "rows")
    for name in columns:
        column = table.column(name)
        got = column.cast("int64").to_pylist() if name == "time" else column.to_pylist()
        expect(got == wanted[name], True, f"equality of {name!r} in rows {start} to {stop}")


def row_groups(file, count, rows):
    expect(file.metadata.num_rows, rows, "rows")
    expect(file.num_row_groups >= count, True, f"{file.num_row_groups} row groups, at least {count},")
    start = 0
    for index in range(file.num_row_groups):
        group = file.metadata.row_group(index)
        statistics = group.column(0).statistics
        expect((statistics.min, statistics.max), (start, start + group.num_rows - 1), f"statistics of group {index}")
        same_rows(file.read_row_group(index, ["id", "group"]), start, start + group.num_rows, ["id", "group"])
        start += group.num_rows
    expect(start, rows, "rows in row groups")


def streamed(file):
    start = 0
    for batch in file.iter_batches(batch_size=100_000, columns=["half"]):
        expect(batch["half"].to_pylist() == measurements(start, start + len(batch))["half"], True, f"rows from {start}")
        start += len(batch)


def check_measurements(case, path):
    import pandas
    import polars
    import pyarrow
    import pyarrow.dataset
    from pyarrow import parquet

    rows, names = case["rows"], list(measurements(0, 0))
    low, high = rows - 1000, rows - 900
    span = [("id", ">=", low), ("id", "<", high)]
    few = ["id", "time"]
    field = pyarrow.dataset.field("id")
    inside = (polars.col("id") >= low) & (polars.col("id") < high)
    lazy = lambda: polars.scan_parquet(path)
    whole = lambda table: same_rows(table, 0, rows, names)
    part = lambda table: same_rows(table, low, high, few)

    yield "pyarrow whole", lambda: whole(parquet.read_table(path))
    yield "pyarrow filters, columns", lambda: part(parquet.read_table(path, columns=few, filters=span))
    yield "pyarrow filters, memory_map", lambda: part(
        parquet.read_table(path, columns=few, filters=span, memory_map=True, pre_buffer=False)
    )
    yield "pyarrow.dataset filter", lambda: part(
        pyarrow.dataset.dataset(path).to_table(columns=few, filter=(field >= low) & (field < high))
    )
    yield "pyarrow count_rows", lambda: expect(pyarrow.dataset.dataset(path).count_rows(), rows, "rows")
    yield "pyarrow row groups", lambda: row_groups(parquet.ParquetFile(path), case["groups"], rows)
    yield "pyarrow iter_batches", lambda: streamed(parquet.ParquetFile(path))
    yield "polars whole", lambda: whole(polars.read_parquet(path).to_arrow())
    yield "polars filter, select", lambda: part(lazy().filter(inside).select(few).collect().to_arrow())
    yield "polars streaming", lambda: part(
        lazy().filter(inside).select(few).sort("id").collect(engine="streaming").to_arrow()
    )
    yield "polars slice", lambda: same_rows(
        polars.read_parquet(path, columns=few, n_rows=1000).to_arrow(), 0, 1000, few
    )
    yield "polars last rows", lambda: same_rows(lazy().tail(10).collect().to_arrow(), rows - 10, rows, names)
    yield "polars sum of a group", lambda: expect(
        lazy().filter(polars.col("group") == "group 3").select(polars.col("id").sum()).collect().item(),
        sum(range(3, rows, 7)),
        "the sum",
    )
    yield "pandas filters, columns", lambda: part(
        pyarrow.Table.from_pandas(pandas.read_parquet(path, columns=few, filters=span))
    )
    yield "pandas whole", lambda: expect(
        (len(frame := pandas.read_parquet(path)), frame["id"].sum()), (rows, rows * (rows - 1) // 2), "rows and sum"
    )


# Labels and plain values, by docs/format.md


def split(data, form):
    """The payload of a value file, and its label."""
    import xxhash

    # Before the footer of a Parquet or Arrow file, else at the end.
    end = len(data)
    if form == "parquet":
        end -= 8 + struct.unpack("<I", data[-8:-4])[0]
    if form == "arrow":
        end -= 10 + struct.unpack("<I", data[-10:-6])[0]
    label, start = data[:end], None
    if form == "json":
        start = len(data.rstrip(b" \t\n\r"))
        digits = [b" \t\n\r".index(character) for character in data[start:]]
        label = bytes(a << 6 | b << 4 | c << 2 | d for a, b, c, d in zip(*[iter(digits)] * 4, strict=True))
    expect(label[-8:], b"ICECHEST", "the label's end")
    (length,) = struct.unpack("<I", label[-12:-8])
    text = label[-28 - length : -28]
    expect(xxhash.xxh3_128_digest(text).hex(), label[-28:-12].hex(), "the label's checksum")
    if start is None:
        start = end - 28 - length
    if form in ["bincode+lz4", "bincode+zstd"]:
        start -= 8
        expect(struct.unpack("<II", data[start : start + 8]), (0x184D2A50, length + 28), "the skippable frame")
    return data[:start] + data[end:], json.loads(text)


def check_label(case, path, root):
    import xxhash

    def check():
        payload, label = split(path.read_bytes(), case["format"])
        expect(label["icechest"], 1, "version")
        expect(label["key"], case["key"], "key")
        expect(label["format"], case["format"], "format")
        expect(label["payload"], len(payload), "payload")
        blocks = [payload[i : i + (1 << 20)] for i in range(0, max(len(payload), 1), 1 << 20)]
        expect(label["checksums"], "".join(xxhash.xxh3_128_hexdigest(block) for block in blocks), "checksums")

    yield "label", check


def check_json(case, path, root):
    def load():
        with open(path, encoding="utf-8") as file:
            return json.load(file)

    yield "json.load", lambda: expect(load(), case["value"], "the document")


def plain_readers(form, path, length):
    import lz4.frame
    import zstandard

    def zstd_stream():
        with open(path, "rb") as file:
            return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()

    if form == "bincode":
        yield "the beginning", lambda: path.read_bytes()[:length]
    elif form == "bincode+lz4":
        yield "lz4.frame.open", lambda: lz4.frame.open(path).read()
        yield "lz4.frame.decompress", lambda: lz4.frame.decompress(path.read_bytes())
    elif form == "bincode+zstd":
        yield "zstandard.open", lambda: zstandard.open(path).read()
        yield "zstandard stream", zstd_stream


def check_plain(case, path, root):
    wanted = (root / case["raw"]).read_bytes()
    for name, read in plain_readers(case["format"], path, len(wanted)):
        yield name, lambda read=read: expect(read() == wanted, True, "equality of the bytes")


CHECKS = {"arrow": check_arrow, "npy": check_npy, "b2nd": check_b2nd, "parquet": check_parquet, "json": check_json}


def run(name, check):
    """One line if it fails."""
    try:
        check()
    except Wrong as wrong:
        return f"{name}: {wrong}"
    except Exception:
        return f"{name}: {' | '.join(traceback.format_exc().splitlines()[-3:])}"
    return None


def failures(case, root):
    path = root / case["file"]
    before = path.read_bytes()
    for checks in [check_label, CHECKS.get(case["format"], check_plain)]:
        for name, check in checks(case, path, root):
            failure = run(name, check)
            if failure:
                yield f"{case['name']}: {failure}"
    if path.read_bytes() != before:
        yield f"{case['name']}: a reader changed the file"


def main():
    root = Path(sys.argv[1])
    cases = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    found = [failure for case in cases for failure in failures(case, root)]
    print("\n".join(found) or f"{len(cases)} files are right", flush=True)
    # Without the end of the interpreter, at which threads of pyarrow can abort the process (apache/arrow, issue 34314).
    os._exit(1 if found or not cases else 0)


if __name__ == "__main__":
    main()
