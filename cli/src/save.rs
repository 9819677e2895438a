//! Values written to files of the usual formats.

use std::fmt::{Debug, Display};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType};
use arrow_select::concat::concat_batches;
use icechest::{AnyArray, Chest, Files, Info, Kind, Plain, Value};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::failure::{Failure, Result};
use crate::get::Got;
use crate::load::ending;
use crate::preview::array::cells;
use crate::std_types::{self, Visitor};
use crate::{human, progress};

/// The endings that a value can be written to; none means any.
fn endings(info: &Info) -> Option<&'static [&'static str]> {
    let name = info.type_name.as_str();
    match info.kind {
        Kind::Frame if Vec::<RecordBatch>::reads(name) => Some(&["parquet", "csv", "arrow", "feather", "ipc"]),
        Kind::Array if AnyArray::reads(name) && dimensions(info).is_some_and(|ndim| ndim > 2) => Some(&["npy"]),
        Kind::Array if AnyArray::reads(name) => Some(&["npy", "csv"]),
        _ if String::reads(name) || Vec::<u8>::reads(name) || Files::reads(name) => None,
        _ if serde_json::Value::reads(name) || std_types::knows(name) => Some(&["json"]),
        _ => Some(&[]),
    }
}

fn dimensions(info: &Info) -> Option<usize> {
    info.about.get("shape")?.as_array().map(Vec::len)
}

/// Whether the value can be written to a file of this ending.
pub(crate) fn check(info: &Info, file: &Path) -> Result<()> {
    let Some(endings) = endings(info) else { return Ok(()) };
    if endings.is_empty() {
        let name = human::printable(&info.type_name);
        return Err(Failure::usage(format!("only a program that knows the type {name} can read this value")));
    }
    let ending = ending(file);
    if endings.contains(&ending.as_str()) {
        return Ok(());
    }
    let fitting: Vec<_> = endings.iter().map(|ending| format!(".{ending}")).collect();
    let (what, name, fitting) = (info.kind, human::printable(&info.type_name), fitting.join(" or "));
    Err(Failure::usage(format!("this {what} value ({name}) can be written to {fitting}, not to {}", file.display())))
}

/// Writes a value whose ending passed the [`check`].
pub(crate) fn save(chest: &Chest, info: &Info, got: &Got, file: &Path) -> Result<()> {
    let _working = progress::of_work(format!("writing {}", file.display()));
    let ending = ending(file);
    let mut target = Target::new(file)?;
    let mut write = || -> std::result::Result<(), Box<dyn Display>> {
        let out = &mut target.out;
        match (got, ending.as_str()) {
            (Got::Frame(batches), "parquet") => parquet(batches, out).map_err(boxed)?,
            (Got::Frame(batches), "csv") => csv(batches, out).map_err(boxed)?,
            (Got::Frame(batches), _) => ipc(batches, out).map_err(boxed)?,
            (Got::Array(array), "csv") => array_csv(array, out).map_err(boxed)?,
            (Got::Array(array), _) => array.write_npy(out).map_err(boxed)?,
            (Got::Json(json), _) => {
                serde_json::to_writer_pretty(&mut *out, &**json).map_err(boxed)?;
                writeln!(out).map_err(boxed)?;
            }
            (Got::Text(text), _) => out.write_all(text.as_bytes()).map_err(boxed)?,
            (Got::Bytes(bytes), _) => out.write_all(bytes).map_err(boxed)?,
            // Those are restored.
            (Got::Files(_), _) => {}
            (Got::Other, _) => {
                let json = std_types::visit(&info.type_name, ToJson { chest, info });
                let json = json.unwrap_or_else(|| Err(Box::new("its type is not known here")))?;
                out.write_all(&json).map_err(boxed)?;
            }
        }
        out.flush().map_err(boxed)
    };
    let written = write();
    if let Some(error) = target.out.get_mut().closed.take() {
        return Err(Failure::Output(error));
    }
    written.map_err(|error| Failure::broken(format!("cannot write {}: {error}", file.display())))?;
    target.finish(file)
}

fn boxed(error: impl Display + 'static) -> Box<dyn Display> {
    Box::new(error)
}

/// A file, or what stands for one. Notes that nobody reads any more what is written to it, which is no failure.
struct Out {
    file: File,
    closed: Option<io::Error>,
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).inspect_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe {
                self.closed = Some(error.kind().into());
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn buffered(file: File) -> BufWriter<Out> {
    BufWriter::new(Out { file, closed: None })
}

/// A file that appears under its name once it is whole.
struct Target {
    out: BufWriter<Out>,
    temporary: Option<(tempfile::TempPath, PathBuf)>,
}

impl Target {
    fn new(file: &Path) -> Result<Self> {
        let fail = || Failure::at("write", file);
        // What is no file, such as a pipe, must not be replaced by one, nor what somebody has open already.
        if let Some(out) = stream(file).map_err(fail())? {
            return Ok(Self { out: buffered(out), temporary: None });
        }
        // A link stays a link.
        let real = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let folder = match real.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".icechest-").suffix(".part");
        #[cfg(unix)]
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        // As for any new file: the umask takes from this what it takes.
        #[cfg(unix)]
        builder.permissions(mode);
        let (out, temporary) = builder.tempfile_in(folder).map_err(fail())?.into_parts();
        if let Ok(old) = fs::metadata(&real) {
            out.set_permissions(old.permissions()).map_err(fail())?;
        }
        Ok(Self { out: buffered(out), temporary: Some((temporary, real)) })
    }

    fn finish(self, file: &Path) -> Result<()> {
        let Some((temporary, real)) = self.temporary else { return Ok(()) };
        temporary.persist(&real).map_err(|error| Failure::at("write", file)(error.error))
    }
}

/// Whether a name is not the name of a file.
pub(crate) fn is_stream(file: &Path) -> bool {
    let is_of_this_process = ["/dev/fd", "/proc/self/fd"].iter().any(|folder| file.starts_with(folder));
    let names = ["-", "/dev/stdout", "/dev/stderr"];
    let is_neither = |meta: fs::Metadata| !meta.is_file() && !meta.is_dir();
    is_of_this_process || names.iter().any(|name| file == Path::new(name)) || fs::metadata(file).is_ok_and(is_neither)
}

/// What a name stands for that is not the name of a file.
#[cfg(unix)]
fn stream(file: &Path) -> io::Result<Option<File>> {
    use std::os::fd::AsFd;

    let descriptor = ["/dev/fd", "/proc/self/fd"].iter().find_map(|folder| file.strip_prefix(folder).ok());
    let name = descriptor.unwrap_or(file).to_str().unwrap_or_default();
    let own = match (descriptor.is_some(), name) {
        (false, "-" | "/dev/stdout") | (true, "1") => io::stdout().as_fd().try_clone_to_owned()?,
        (false, "/dev/stderr") | (true, "2") => io::stderr().as_fd().try_clone_to_owned()?,
        (true, _) => return File::options().append(true).open(file).map(Some),
        (false, _) if fs::metadata(file).is_ok_and(|meta| !meta.is_file()) => {
            return File::options().write(true).open(file).map(Some);
        }
        (false, _) => return Ok(None),
    };
    Ok(Some(own.into()))
}

#[cfg(not(unix))]
fn stream(file: &Path) -> io::Result<Option<File>> {
    let is_none = fs::metadata(file).is_ok_and(|meta| !meta.is_file());
    if is_none { File::options().write(true).open(file).map(Some) } else { Ok(None) }
}

fn parquet(batches: &[RecordBatch], out: &mut BufWriter<Out>) -> std::result::Result<(), ArrowError> {
    let Some(first) = batches.first() else { return Ok(()) };
    let codec = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(codec).build();
    let mut writer = ArrowWriter::try_new(out, first.schema(), Some(properties))?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.close()?;
    Ok(())
}

fn csv(batches: &[RecordBatch], out: &mut BufWriter<Out>) -> std::result::Result<(), ArrowError> {
    if batches.first().is_none_or(|batch| batch.num_columns() == 0) {
        // The writer would make a column of an empty name.
        return Ok(());
    }
    let mut writer = arrow_csv::WriterBuilder::new().with_header(true).build(out);
    batches.iter().try_for_each(|batch| writer.write(batch))
}

fn ipc(batches: &[RecordBatch], out: &mut BufWriter<Out>) -> std::result::Result<(), ArrowError> {
    let Some(first) = batches.first() else { return Ok(()) };
    let schema = first.schema();
    let mut writer = FileWriter::try_new(out, &schema)?;
    let has_dictionary =
        schema.flattened_fields().iter().any(|field| matches!(field.data_type(), DataType::Dictionary(..)));
    if has_dictionary {
        // The format has room for one dictionary a column, and batches may have different ones.
        writer.write(&concat_batches(&schema, batches)?)?;
    } else {
        batches.iter().try_for_each(|batch| writer.write(batch))?;
    }
    writer.finish()
}

/// One line a row; numbers in the shortest form that reads back as the same.
fn array_csv(array: &AnyArray, out: &mut dyn Write) -> io::Result<()> {
    let columns = if array.shape().len() == 2 { array.shape()[1] } else { 1 };
    let mut at = 0;
    cells(array, &mut |cell| {
        at += 1;
        let end = if at % columns == 0 { "\n" } else { "," };
        write!(out, "{cell}{end}")
    })
}

/// A plain value of a type of `std` as JSON, if nothing is lost by that.
struct ToJson<'a> {
    chest: &'a Chest,
    info: &'a Info,
}

impl Visitor for ToJson<'_> {
    type Output = std::result::Result<Vec<u8>, Box<dyn Display>>;

    fn visit<T: Plain + Debug + PartialEq>(self) -> Self::Output {
        let value = self.chest.get::<T>(&self.info.key).map_err(boxed)?;
        let mut json = serde_json::to_vec_pretty(&*value).map_err(boxed)?;
        // JSON has no infinities and no NaN, for example.
        let back = serde_json::from_slice::<T>(&json);
        if !back.is_ok_and(|back| back == *value) {
            return Err(Box::new("JSON cannot carry this value"));
        }
        json.push(b'\n');
        Ok(json)
    }
}
