//! A namespace's folder: there, root's, open to the cache's group and to nobody else.

use std::os::fd::{AsFd, AsRawFd};

use rustix::{
    fs::{AtFlags, Mode, chmod, chownat, fstat, mkdirat},
    io::Errno,
    process::{Gid, Uid},
};

use super::{Folder, failed};
use crate::{error::Error, name::Component};

/// What is made in it belongs to its group too, whoever makes it.
const MODE: u32 = 0o2770;

/// Makes it, or makes it right.
pub fn prepare(root: &Folder, name: &Component, group: u32) -> Result<(), Error> {
    let name = name.as_str();
    match mkdirat(root, name, Mode::RWXU | Mode::RWXG) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed("create", &root.path().join(name))(errno)),
    }
    let folder = root.handle(name)?;
    let folder = folder.ok_or_else(|| failed("open", &root.path().join(name))(Errno::NOENT))?;
    let state = || fstat(&folder).map_err(failed("look at", folder.path()));
    let found = state()?;
    if (found.st_uid, found.st_gid) != (0, group) {
        let group = Gid::from_raw(group);
        chownat(&folder, "", Some(Uid::ROOT), Some(group), AtFlags::EMPTY_PATH)
            .map_err(failed("change the owner of", folder.path()))?;
    }
    let mode = |found: rustix::fs::Stat| found.st_mode & 0o7777;
    if mode(state()?) != MODE {
        // By its descriptor, and without having to read it: its mode may not allow that yet.
        let path = format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd());
        chmod(path, Mode::from_raw_mode(MODE))
            .map_err(failed("change the mode of", folder.path()))?;
        // The kernel leaves the bit out without a word where the group is not one of ours.
        if mode(state()?) != MODE {
            let action = "set the setgid bit, as this pod lacks the group (supplementalGroups), on";
            return Err(failed(action, folder.path())(Errno::PERM));
        }
    }
    Ok(())
}
