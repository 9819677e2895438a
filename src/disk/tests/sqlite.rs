//! SQLite's own files on a watched medium: its file system layer, with a few of its calls going through here first.
//!
//! The layer that SQLite uses by default is copied. Files are opened by it as ever; then their table of methods is
//! replaced by a copy that differs in what is watched. The file objects stay SQLite's own.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use rusqlite::ffi;

use super::medium::{Call, Medium};

/// The media in use, by the folder that they are of.
static MEDIA: Mutex<Vec<(PathBuf, Medium)>> = Mutex::new(Vec::new());

/// SQLite's layer and tables of methods as they were, by address. SQLite keeps them for ever.
static VFS: OnceLock<usize> = OnceLock::new();

/// The watched tables, by the original ones: there is one for files with locks and one for those without.
static TABLES: Mutex<Option<HashMap<usize, usize>>> = Mutex::new(None);

/// The open files, by the addresses of SQLite's objects.
static FILES: Mutex<Option<HashMap<usize, Open>>> = Mutex::new(None);

#[derive(Clone)]
struct Open {
    path: PathBuf,
    methods: usize,
}

/// Lets a medium see what SQLite does in a folder, until it is dropped.
pub(super) struct Watch(PathBuf);

impl Watch {
    pub(super) fn begin(root: &Path, medium: &Medium) -> Self {
        install();
        MEDIA.lock().unwrap().push((root.to_owned(), medium.clone()));
        Self(root.to_owned())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        MEDIA.lock().unwrap().retain(|(root, _)| *root != self.0);
    }
}

fn install() {
    VFS.get_or_init(|| {
        // SAFETY: SQLite keeps its layers for ever; ours is leaked, so it stays too.
        unsafe {
            let original = ffi::sqlite3_vfs_find(std::ptr::null());
            let mut copy = *original;
            copy.pNext = std::ptr::null_mut();
            copy.zName = c"watched".as_ptr();
            copy.xOpen = Some(open);
            copy.xDelete = Some(delete);
            assert_eq!(ffi::sqlite3_vfs_register(Box::leak(Box::new(copy)), 1), ffi::SQLITE_OK);
            original as usize
        }
    });
}

fn vfs() -> &'static ffi::sqlite3_vfs {
    // SAFETY: the address is that of SQLite's own layer, which stays.
    unsafe { &*(*VFS.get().unwrap() as *const ffi::sqlite3_vfs) }
}

fn medium_of(path: &Path) -> Option<Medium> {
    let media = MEDIA.lock().unwrap();
    media.iter().find(|(root, _)| path.starts_with(root)).map(|(_, medium)| medium.clone())
}

/// A file that was opened here: its own methods, its path, and its medium if that is still watched.
fn opened(file: *mut ffi::sqlite3_file) -> (&'static ffi::sqlite3_io_methods, PathBuf, Option<Medium>) {
    let open = FILES.lock().unwrap().as_ref().unwrap()[&(file as usize)].clone();
    // SAFETY: the address is that of one of SQLite's own tables, which stay.
    let methods = unsafe { &*(open.methods as *const ffi::sqlite3_io_methods) };
    let medium = medium_of(&open.path);
    (methods, open.path, medium)
}

/// What SQLite calls an error of the system; `usual` where it has no name of its own.
fn code(error: &io::Error, usual: c_int) -> c_int {
    const ENOSPC: i32 = 28;
    if error.raw_os_error() == Some(ENOSPC) { ffi::SQLITE_FULL } else { usual }
}

fn run(result: c_int) -> io::Result<c_int> {
    // A failure of the real medium would be one of the test.
    if result == ffi::SQLITE_OK { Ok(result) } else { Err(io::Error::other(format!("SQLite says {result}"))) }
}

unsafe extern "C" fn open(
    layer: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: the arguments are SQLite's own, passed on to the function that they are meant for.
    let real = || unsafe { vfs().xOpen.unwrap()(layer, name, file, flags, out) };
    // SAFETY: SQLite gives a C string or null.
    let path = (!name.is_null()).then(|| PathBuf::from(unsafe { CStr::from_ptr(name) }.to_str().unwrap()));
    let Some((path, medium)) = path.and_then(|path| medium_of(&path).map(|medium| (path, medium))) else {
        return real();
    };
    let result = medium.call(Call::Sqlite, || run(real()), |record, _| record.make(&path));
    if let Err(error) = result {
        // SAFETY: a file that could not be opened is not closed if it has no methods.
        unsafe { (*file).pMethods = std::ptr::null() };
        return code(&error, ffi::SQLITE_CANTOPEN);
    }
    // SAFETY: the file was opened, so it has methods.
    let methods = unsafe { (*file).pMethods };
    let table = *TABLES.lock().unwrap().get_or_insert_default().entry(methods as usize).or_insert_with(|| {
        // SAFETY: a table of methods is plain data that SQLite keeps for ever.
        let mut copy = unsafe { *methods };
        copy.xRead = Some(read);
        copy.xWrite = Some(write);
        copy.xTruncate = Some(truncate);
        copy.xSync = Some(sync);
        std::ptr::from_ref(Box::leak(Box::new(copy))) as usize
    });
    FILES.lock().unwrap().get_or_insert_default().insert(file as usize, Open { path, methods: methods as usize });
    // SAFETY: the copied table fits the file as the original one does.
    unsafe { (*file).pMethods = table as *const ffi::sqlite3_io_methods };
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(layer: *mut ffi::sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    // SAFETY: the arguments are SQLite's own.
    let real = || unsafe { vfs().xDelete.unwrap()(layer, name, sync_dir) };
    // SAFETY: SQLite gives a C string.
    let path = PathBuf::from(unsafe { CStr::from_ptr(name) }.to_str().unwrap());
    let Some(medium) = medium_of(&path) else { return real() };
    match medium.call(Call::Sqlite, || Ok(real()), |record, _| record.remove(&path)) {
        Ok(result) => result,
        Err(error) => code(&error, ffi::SQLITE_IOERR_DELETE),
    }
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, buf: *mut c_void, len: c_int, offset: i64) -> c_int {
    let (methods, _, medium) = opened(file);
    // SAFETY: the arguments are SQLite's own.
    let real = || unsafe { methods.xRead.unwrap()(file, buf, len, offset) };
    let Some(medium) = medium else { return real() };
    // A short read is no error here: SQLite asks beyond the end of files.
    match medium.call(Call::Sqlite, || Ok(real()), |_, _| {}) {
        Ok(result) => result,
        Err(_) => ffi::SQLITE_IOERR_READ,
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, buf: *const c_void, len: c_int, offset: i64) -> c_int {
    let (methods, path, medium) = opened(file);
    // SAFETY: the arguments are SQLite's own.
    let real = || unsafe { methods.xWrite.unwrap()(file, buf, len, offset) };
    let Some(medium) = medium else { return real() };
    // SAFETY: SQLite gives so many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(buf.cast::<u8>(), len as usize) };
    match medium.call(Call::Sqlite, || run(real()), |record, _| record.write(&path, offset as u64, bytes)) {
        Ok(result) => result,
        Err(error) => code(&error, ffi::SQLITE_IOERR_WRITE),
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    let (methods, path, medium) = opened(file);
    // SAFETY: the arguments are SQLite's own.
    let real = || unsafe { methods.xTruncate.unwrap()(file, len) };
    let Some(medium) = medium else { return real() };
    match medium.call(Call::Sqlite, || run(real()), |record, _| record.truncate(&path, len as u64)) {
        Ok(result) => result,
        Err(error) => code(&error, ffi::SQLITE_IOERR_TRUNCATE),
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // The real medium need not be waited for.
    let (_, path, Some(medium)) = opened(file) else { return ffi::SQLITE_OK };
    match medium.sync_call(Call::SqliteSync, &path, || Ok(())) {
        Ok(()) => ffi::SQLITE_OK,
        Err(error) => code(&error, ffi::SQLITE_IOERR_FSYNC),
    }
}
