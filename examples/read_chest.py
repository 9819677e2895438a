"""Reads a chest without icechest, by docs/format.md.   python read_chest.py CHEST [KEY as JSON]"""
import importlib, io, json, os, pathlib, sqlite3, struct, sys
import xxhash  # pip install xxhash; numpy, pyarrow, blosc2, lz4 where a value needs them

COLUMNS = "key, kind, type, format, stored_bytes, payload, label_at, checksums, about, file, inline"
NUMBERS = {"bool": "?", "i8": "b", "u8": "B", "i16": "h", "u16": "H", "i32": "i", "u32": "I", "i64": "q", "u64": "Q",
           "isize": "q", "usize": "Q", "f32": "f", "f64": "d"}

def parts(row):
    """The files of rows that were appended to the value."""
    return json.loads(row["about"] or "{}").get("$parts", [])

def payload(chest, row):
    data = row["inline"]
    if row["file"]:
        data = (chest / row["file"]).read_bytes()
        own = row["stored_bytes"] - sum(part["stored_bytes"] for part in parts(row))
        assert len(data) == own, "the file has another length than the catalog says"
        label = own - row["payload"]
        data = data[:row["label_at"]] + data[row["label_at"] + label:]
    blocks = [data[i:i + 2**20] for i in range(0, len(data), 2**20)] or [b""]
    assert b"".join(xxhash.xxh3_128_digest(block) for block in blocks) == row["checksums"], "damaged"
    return data

def plain(name, data):
    """Decodes the bincode of a type that is built from numbers, text, lists and options."""
    if name in NUMBERS:
        return struct.unpack("<" + NUMBERS[name], data.read(struct.calcsize("<" + NUMBERS[name])))[0]
    if name == "Vec<u8>" or name in ("String", "PathBuf"):
        raw = data.read(plain("u64", data))
        return raw if name == "Vec<u8>" else raw.decode()
    outer, _, inner = name.removesuffix(">").partition("<")
    if outer in ("Vec", "VecDeque", "BTreeSet", "HashSet"):
        return [plain(inner, data) for _ in range(plain("u64", data))]
    if outer == "Option":
        return plain(inner, data) if data.read(1) == b"\1" else None
    raise TypeError(f"a {name}: its fields are known to the program that stored it")

def value(chest, row):
    """The value; of one with parts, a list with what is in each file."""
    if parts(row):
        each = [{**part, "checksums": bytes.fromhex(part["checksums"]), "about": None} for part in parts(row)]
        return [one(chest, row), *(one(chest, part) for part in each)]
    return one(chest, row)

def one(chest, row):
    data, form = payload(chest, row), row["format"]
    if form == "arrow":
        return importlib.import_module("pyarrow.ipc").open_file(io.BytesIO(data)).read_all()
    if form == "parquet":
        return importlib.import_module("pyarrow.parquet").read_table(io.BytesIO(data))
    if form == "npy":
        return importlib.import_module("numpy").load(io.BytesIO(data))
    if form == "b2nd":
        return importlib.import_module("blosc2").ndarray_from_cframe(data)[:]
    if form == "json":
        return json.loads(data)
    if form == "bincode+lz4":
        data = importlib.import_module("lz4.frame").decompress(data)
    return plain(row["type"], io.BytesIO(data)) if form.startswith("bincode") else data

def main(path, key=None):
    chest = pathlib.Path(path)
    assert json.loads((chest / "icechest.json").read_text())["version"] == 1
    catalog = sqlite3.connect(chest / "catalog.sqlite")
    catalog.row_factory = sqlite3.Row
    for row in catalog.execute(f"SELECT {COLUMNS} FROM entries ORDER BY version"):
        if key is None or row["key"] == key:
            try:
                print(row["key"], row["type"], value(chest, row), sep="\t")
            except TypeError as unknown:
                print(row["key"], row["type"], unknown, sep="\t")

main(*sys.argv[1:])
sys.stdout.flush()
os._exit(0)  # Threads of pyarrow may abort the process at its end (apache/arrow, issue 34314).
