//! Catalogs in directories that nobody here may write to: on a read-only medium, or somebody else's.
//!
//! Where nobody has the catalog open there is no log, and SQLite is told that the file stays as it is, for it could not make
//! what its locks need. Where somebody has, what he made is there, and can be read.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{BUSY_TIMEOUT, sql_error};
use crate::error::{Error, ErrorKind, Result};

/// Whether a directory can be read, but not written to.
#[cfg(unix)]
pub(in crate::disk) fn is_read_only(dir: &Path) -> bool {
    use rustix::fs::{Access, access};
    use rustix::io::Errno;
    matches!(access(dir, Access::WRITE_OK), Err(Errno::ACCESS | Errno::ROFS | Errno::PERM))
}

#[cfg(not(unix))]
pub(in crate::disk) fn is_read_only(_: &Path) -> bool {
    false
}

/// Why nothing can be changed.
pub(in crate::disk) fn refusal() -> Error {
    let message =
        "the chest can only be read, because its directory cannot be written to; copy the directory to change it";
    Error::unsupported(message)
}

/// Opens a catalog for reading; tells whether it is taken to stay as it is.
pub(super) fn connect(path: &Path) -> Result<(Connection, bool)> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let is_alone = !Path::new(&log).exists();
    let connection = open(path, is_alone).map_err(|error| match error.kind() {
        ErrorKind::Damaged => error,
        _ if is_alone => error,
        kind => {
            let message = "the chest can only be read, and its last writer did not close it; open it once where its \
                           directory can be written to, or copy it";
            Error::new(kind, message).with_source(error.plain())
        }
    })?;
    Ok((connection, is_alone))
}

fn open(path: &Path, is_alone: bool) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let open = || {
        let connection = Connection::open_with_flags(uri(path, is_alone), flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.set_prepared_statement_cache_capacity(32);
        // A file is opened when it is read for the first time.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    open().map_err(sql_error)
}

/// The path as SQLite reads it in a URI.
fn uri(path: &Path, is_alone: bool) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let text = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") };
    let path: String = path.as_os_str().as_encoded_bytes().iter().map(|&byte| text(byte)).collect();
    format!("file:{path}{}", if is_alone { "?immutable=1" } else { "" })
}
