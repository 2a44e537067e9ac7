//! Models removed from a namespace's folder. They get out of the way under another name first, so
//! that whoever comes meanwhile finds either a whole model or none.

use std::{ffi::CString, fs::File, fs::TryLockError};

use berth_units::Bytes;
use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, fstat, mkdirat, openat, renameat, statat},
    io::Errno,
};

use super::{Deed, Folder, failed, remove::remove};
use crate::{
    error::Error,
    lock::holder,
    name::{Component, OWN_FOLDER},
};

/// How names of models begin that are being removed; a number and the model's name follow.
const GOING: &str = ".evicted-";

/// Removes models of one folder, and what earlier removals left in it.
pub fn evict(
    root: &Folder,
    name: &Component,
    keys: &[&Component],
    tell: &mut impl FnMut(&Deed),
    fail: &mut impl FnMut(Error),
) {
    let folder = match root.child(name.as_str()) {
        Ok(Some(folder)) => folder,
        Ok(None) => return,
        Err(error) => return fail(error),
    };
    let leftovers = leftovers(&folder).unwrap_or_else(|error| {
        fail(error);
        vec![]
    });
    let moved = keys.iter().filter_map(|key| match put_aside(&folder, name, key) {
        Ok(Some(aside)) => Some((aside, false)),
        Ok(None) => None,
        Err(error) => {
            fail(error);
            None
        }
    });
    let moved: Vec<_> = moved.collect();
    for (aside, leftover) in moved.into_iter().chain(leftovers.into_iter().map(|name| (name, true)))
    {
        let text = aside.to_string_lossy();
        let key = text.trim_start_matches(GOING);
        let key = key.split_once('-').map_or(key, |(_, key)| key);
        let place = format!("{name}/{key}");
        match remove(&folder, &aside) {
            Ok(freed) => tell(&Deed::Removed { place, freed: Bytes(freed), leftover }),
            Err(errno) => fail(failed("remove", &folder.path().join(&*text))(errno)),
        }
    }
}

fn leftovers(folder: &Folder) -> Result<Vec<CString>, Error> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder).map_err(failed("read", folder.path()))? {
        let entry = entry.map_err(failed("read", folder.path()))?;
        if entry.file_name().to_bytes().starts_with(GOING.as_bytes()) {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Renames a model that nobody downloads; `None` if it is not there.
fn put_aside(folder: &Folder, name: &Component, key: &Component) -> Result<Option<CString>, Error> {
    let Some(model) = folder.child(key.as_str())? else { return Ok(None) };
    let lock = lock(&model, || format!("{name}/{key}"))?;
    // Another one may have removed it before we had the lock.
    let failed = |action| failed(action, model.path());
    let ours = fstat(&model).map_err(failed("look at"))?;
    match statat(folder, key.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino) => {}
        Ok(_) | Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed("look at")(errno)),
    }
    for number in 1_u32.. {
        let aside = format!("{GOING}{number}-{key}");
        match renameat(folder, key.as_str(), folder, aside.as_str()) {
            // What another one left.
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            Err(Errno::NOENT) => break,
            Err(errno) => return Err(failed("rename")(errno)),
            Ok(()) => {
                drop(lock);
                return Ok(CString::new(aside).ok());
            }
        }
    }
    Ok(None)
}

/// The lock of the one that downloads. One that waits for it sees that it is not the directory's
/// any more.
fn lock(model: &Folder, place: impl Fn() -> String) -> Result<Option<File>, Error> {
    let failed = || failed("lock", model.path());
    match mkdirat(model, OWN_FOLDER, Mode::RWXU | Mode::RWXG) {
        Ok(()) | Err(Errno::EXIST) => {}
        // Nobody made it, so nobody downloads; and there is room for nothing, not even for it.
        Err(Errno::NOSPC | Errno::DQUOT) => return Ok(None),
        Err(errno) => return Err(failed()(errno)),
    }
    let Some(own) = model.handle(OWN_FOLDER)? else { return Ok(None) };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP;
    let mut file = match openat(&own, "lock", flags, mode) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOSPC | Errno::DQUOT) => return Ok(None),
        Err(errno) => return Err(failed()(errno)),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            Err(Error::InUse(format!("{} ({} downloads)", place(), holder(&mut file))))
        }
        Err(TryLockError::Error(source)) => {
            Err(Error::Io { action: "lock", path: model.path().to_owned(), source })
        }
    }
}
