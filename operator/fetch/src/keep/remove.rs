//! A tree removed, with everything in it and nothing outside of it.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, renameat, statat, unlinkat},
    io::{Errno, Result},
};

/// How deep it goes: each step down holds a descriptor. What is deeper is moved up first.
const DEEPEST: u32 = 64;

/// Removes what has this name in `parent`; one that is not there is removed already. Says how many
/// bytes that freed.
pub fn remove(parent: impl AsFd, name: &CStr) -> Result<u64> {
    let mut removal = Removal { freed: 0, moved: 0 };
    match open(parent.as_fd(), name) {
        Ok(top) => {
            removal.empty(&top, &top, 0)?;
            gone(unlinkat(parent, name, AtFlags::REMOVEDIR))?;
        }
        Err(Errno::NOENT) => {}
        Err(Errno::NOTDIR | Errno::LOOP) => removal.file(parent, name)?,
        Err(errno) => return Err(errno),
    }
    Ok(removal.freed)
}

struct Removal {
    freed: u64,
    moved: u32,
}

impl Removal {
    /// Removes all that is in a directory. Goes on after an error, and tells the first one.
    fn empty(&mut self, directory: &OwnedFd, top: &OwnedFd, depth: u32) -> Result<()> {
        loop {
            let names = names(directory)?;
            if names.is_empty() {
                return Ok(());
            }
            let mut done = Ok(());
            for name in names {
                done = done.and(self.entry(directory, &name, top, depth));
            }
            done?;
        }
    }

    fn entry(&mut self, parent: &OwnedFd, name: &CStr, top: &OwnedFd, depth: u32) -> Result<()> {
        match open(parent, name) {
            Ok(_) if depth >= DEEPEST => self.move_up(parent, name, top),
            Ok(directory) => {
                self.empty(&directory, top, depth + 1)?;
                gone(unlinkat(parent, name, AtFlags::REMOVEDIR))
            }
            Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTDIR | Errno::LOOP) => self.file(parent, name),
            Err(errno) => Err(errno),
        }
    }

    fn file(&mut self, parent: impl AsFd, name: &CStr) -> Result<()> {
        let found = match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            found => found?,
        };
        gone(unlinkat(parent, name, AtFlags::empty()))?;
        // One that has other names takes its room still.
        if found.st_nlink <= 1 && FileType::from_raw_mode(found.st_mode) == FileType::RegularFile {
            self.freed += u64::try_from(found.st_blocks).unwrap_or(0) * 512;
        }
        Ok(())
    }

    fn move_up(&mut self, parent: &OwnedFd, name: &CStr, top: &OwnedFd) -> Result<()> {
        loop {
            self.moved += 1;
            match renameat(parent, name, top, format!("deep-{}", self.moved)) {
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                done => return gone(done),
            }
        }
    }
}

fn open(parent: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn names(directory: &OwnedFd) -> Result<Vec<CString>> {
    let own = |name: &CStr| matches!(name.to_bytes(), b"." | b"..");
    Dir::read_from(directory)?
        .map(|entry| Ok(entry?.file_name().to_owned()))
        .filter(|name| !name.as_ref().is_ok_and(|name| own(name)))
        .collect()
}

/// What another one has removed at the same time is removed.
fn gone(done: Result<()>) -> Result<()> {
    if done == Err(Errno::NOENT) { Ok(()) } else { done }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, symlink},
        path::Path,
    };

    use proptest::prelude::*;
    use rustix::fs::mkdirat;

    use super::*;

    fn remove_in(parent: &Path, name: &str) -> Result<u64> {
        remove(fs::File::open(parent).unwrap(), &CString::new(name).unwrap())
    }

    #[derive(Clone, Debug)]
    enum Thing {
        Folder,
        File(usize),
        Link(&'static str),
        Hard,
    }

    fn things() -> impl Strategy<Value = Vec<(Vec<u8>, Thing)>> {
        let thing = prop_oneof![
            Just(Thing::Folder),
            (0_usize..20_000).prop_map(Thing::File),
            prop::sample::select(vec!["../outside", "../../outside/kept", "/", ".", "nowhere"])
                .prop_map(Thing::Link),
            Just(Thing::Hard),
        ];
        prop::collection::vec((prop::collection::vec(0_u8..4, 1..5), thing), 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn all_of_it_and_nothing_else(things in things()) {
            let directory = tempfile::tempdir().unwrap();
            let (outside, tree) = (directory.path().join("outside"), directory.path().join("tree"));
            fs::create_dir(&outside).unwrap();
            fs::write(outside.join("kept"), "kept").unwrap();
            fs::create_dir(&tree).unwrap();
            let mut files = Vec::new();
            for (path, thing) in things {
                let path = path.iter().fold(tree.clone(), |path, part| path.join(part.to_string()));
                // Never through a link: the tree is what is made here.
                let parents = path.parent().unwrap().ancestors();
                if parents.take_while(|p| *p != tree).any(Path::is_symlink)
                    || fs::create_dir_all(path.parent().unwrap()).is_err()
                    || fs::symlink_metadata(&path).is_ok()
                {
                    continue;
                }
                match thing {
                    Thing::Folder => fs::create_dir(path).unwrap(),
                    Thing::Link(to) => symlink(to, path).unwrap(),
                    Thing::Hard => fs::hard_link(outside.join("kept"), path).unwrap(),
                    Thing::File(size) => {
                        fs::write(&path, vec![7; size]).unwrap();
                        files.push(path);
                    }
                }
            }
            let expected: u64 = files.iter().map(|f| fs::metadata(f).unwrap().blocks() * 512).sum();
            prop_assert_eq!(remove_in(directory.path(), "tree"), Ok(expected));
            prop_assert!(!tree.exists());
            prop_assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
            prop_assert_eq!(remove_in(directory.path(), "tree"), Ok(0));
        }
    }

    /// Deeper than there are descriptors, and than a path can be.
    #[test]
    fn what_is_very_deep() {
        let directory = tempfile::tempdir().unwrap();
        let parent = fs::File::open(directory.path()).unwrap();
        mkdirat(&parent, "tree", Mode::RWXU).unwrap();
        let mut at = open(&parent, c"tree").unwrap();
        for _ in 0..3000 {
            mkdirat(&at, "deep-1", Mode::RWXU).unwrap();
            at = open(&at, c"deep-1").unwrap();
        }
        assert_eq!(remove_in(directory.path(), "tree"), Ok(0));
        assert!(!directory.path().join("tree").exists());
    }

    #[test]
    fn a_link_is_removed_and_not_what_it_leads_to() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("kept"), "kept").unwrap();
        symlink("kept", directory.path().join("link")).unwrap();
        assert_eq!(remove_in(directory.path(), "link"), Ok(0));
        assert!(directory.path().join("kept").exists());
        assert!(!directory.path().join("link").is_symlink());
    }
}
