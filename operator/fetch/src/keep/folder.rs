//! A folder, open. What is done in it is done through its descriptor, so that nobody puts a link in
//! the place of a part of its path meanwhile.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};

use super::failed;
use crate::error::Error;

/// A folder, open.
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// The folder at a path. Only the last part may be no link.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let found = Self::at(CWD, path, path.to_owned(), OFlags::PATH)?;
        found.ok_or_else(|| failed("open", path)(Errno::NOENT))
    }

    /// The folder of this name, to read; `None` if there is nothing.
    pub fn child(&self, name: &str) -> Result<Option<Self>, Error> {
        Self::at(self.as_fd(), Path::new(name), self.path.join(name), OFlags::RDONLY)
    }

    /// The folder of this name, whatever its mode lets us do; `None` if there is nothing.
    pub fn handle(&self, name: &str) -> Result<Option<Self>, Error> {
        Self::at(self.as_fd(), Path::new(name), self.path.join(name), OFlags::PATH)
    }

    fn at(
        parent: BorrowedFd<'_>,
        name: &Path,
        path: PathBuf,
        access: OFlags,
    ) -> Result<Option<Self>, Error> {
        let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(parent, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(Error::NoFolder { path }),
            Err(errno) => Err(failed("open", &path)(errno)),
        }
    }

    /// Where it is, for people.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
