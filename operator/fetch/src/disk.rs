//! What the volume says: how much is free, and what an error of the kernel means.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use berth_units::Bytes;

use crate::error::Error;

/// What is free on the volume for a user without privileges.
pub fn free(directory: &Path) -> io::Result<Bytes> {
    let volume = rustix::fs::statvfs(directory)?;
    Ok(Bytes(volume.f_bavail.saturating_mul(volume.f_frsize)))
}

/// An error of the kernel about `path`, where `needed` more bytes were to come into `directory`.
pub fn failed(
    directory: &Path,
    action: &'static str,
    path: &Path,
    needed: Bytes,
    source: io::Error,
) -> Error {
    let path = path.to_owned();
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            let free = free(directory).unwrap_or(Bytes::ZERO);
            Error::DiskFull { directory: directory.to_owned(), needed, free }
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Error::NotWritable { action, path, source }
        }
        _ => Error::Io { action, path, source },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_errors() {
        let full = Path::new("/dev/full");
        let error = std::fs::File::create(full).unwrap().write_all(b"x").unwrap_err();
        let error = failed(Path::new("/dev"), "write", full, Bytes(17), error);
        assert!(matches!(error, Error::DiskFull { needed: Bytes(17), .. }), "{error}");
        assert_eq!(error.exit_code(), 13);

        let denied =
            failed(Path::new("/dev"), "write", full, Bytes(1), ErrorKind::PermissionDenied.into());
        assert!(denied.to_string().contains("fsGroup"), "{denied}");
        let other =
            failed(Path::new("/dev"), "write", full, Bytes(1), ErrorKind::NotADirectory.into());
        assert!(matches!(other, Error::Io { .. }), "{other}");
    }

    #[test]
    fn there_is_something_free() {
        assert!(free(&std::env::temp_dir()).unwrap() > Bytes::ZERO);
    }
}
