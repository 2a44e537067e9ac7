//! A file that grows: continued where it was left, checked, then put in its place. Blocking.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::PathBuf,
};

use crate::{
    checksum::{Checksum, Hasher},
    manifest::{Entry, sync_directory},
    name::FileName,
};

/// Bytes that are read at once.
const BLOCK: usize = 1 << 20;

/// What the hub says about a file that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: FileName,
    /// Bytes.
    pub size: u64,
    /// What it should be; some mirrors do not say.
    pub checksum: Option<Checksum>,
}

/// Where a file grows and where it goes.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Where it grows.
    pub partial: PathBuf,
    /// Where it goes.
    pub target: PathBuf,
}

/// A file that grows.
pub struct Partial {
    wanted: Wanted,
    paths: Paths,
    file: File,
    length: u64,
    hasher: Hasher,
}

/// The file is not what the hub promised.
#[derive(Debug)]
pub struct Mismatch {
    /// What it should be.
    pub expected: Checksum,
    /// What it is.
    pub actual: Checksum,
}

impl Partial {
    /// Opens what is there and reads it all, for its checksum; starts anew if there is nothing, or
    /// more than there should be.
    pub fn open(wanted: Wanted, paths: Paths) -> io::Result<Self> {
        for path in [&paths.partial, &paths.target] {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
        }
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&paths.partial)?;
        let hasher = Hasher::new(wanted.size, wanted.checksum);
        let length = file.metadata()?.len();
        if length > wanted.size {
            file.set_len(0)?;
            return Ok(Self { wanted, paths, file, length: 0, hasher });
        }
        let (length, hasher) = read_all(&mut file, hasher)?;
        Ok(Self { wanted, paths, file, length, hasher })
    }

    /// Bytes that are there.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes that are missing.
    pub fn missing(&self) -> u64 {
        self.wanted.size - self.length
    }

    /// More bytes, which must not be more than are missing.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 > self.missing() {
            return Err(io::Error::other("there are more bytes than the file has"));
        }
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Throws away what is there.
    pub fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.length = 0;
        self.hasher = Hasher::new(self.wanted.size, self.wanted.checksum);
        Ok(())
    }

    /// Puts the whole file in its place if it is what it should be, and throws it away if not.
    pub fn finish(self) -> io::Result<Result<Entry, Mismatch>> {
        let Self { wanted, paths, file, hasher, .. } = self;
        let digests = hasher.finish();
        if let Some(expected) = wanted.checksum
            && let Some(actual) = digests.mismatch(expected)
        {
            fs::remove_file(&paths.partial)?;
            return Ok(Err(Mismatch { expected, actual }));
        }
        // The name must not outlive the content in a power cut.
        file.sync_data()?;
        fs::rename(&paths.partial, &paths.target)?;
        if let Some(folder) = paths.target.parent() {
            sync_directory(folder);
        }
        Ok(Ok(Entry { name: wanted.name, size: wanted.size, sha256: digests.sha256() }))
    }
}

/// The entry of a file that is in its place already, where it is what it should be.
pub fn in_place(wanted: &Wanted, paths: &Paths) -> io::Result<Option<Entry>> {
    let mut file = match File::open(&paths.target) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (Some(expected), true) = (wanted.checksum, file.metadata()?.len() == wanted.size) else {
        return Ok(None);
    };
    let (_, hasher) = read_all(&mut file, Hasher::new(wanted.size, wanted.checksum))?;
    let digests = hasher.finish();
    let entry = || Entry { name: wanted.name.clone(), size: wanted.size, sha256: digests.sha256() };
    Ok(digests.mismatch(expected).is_none().then(entry))
}

/// Reads to the end; says how much that was.
pub fn read_all(file: &mut File, mut hasher: Hasher) -> io::Result<(u64, Hasher)> {
    let mut block = vec![0; BLOCK];
    let mut length = 0;
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok((length, hasher)),
            Ok(count) => {
                hasher.update(&block[..count]);
                length += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // echo hello | sha256sum
    const HELLO: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    fn case() -> (tempfile::TempDir, Wanted, Paths) {
        let directory = tempfile::tempdir().unwrap();
        let name = FileName::try_from("a/b".to_owned()).unwrap();
        let wanted = Wanted { name, size: 6, checksum: Checksum::parse(HELLO) };
        let paths = Paths {
            partial: directory.path().join("p/a/b.x"),
            target: directory.path().join("a/b"),
        };
        (directory, wanted, paths)
    }

    #[test]
    fn what_is_there_is_continued() {
        let (_directory, wanted, paths) = case();
        let mut partial = Partial::open(wanted.clone(), paths.clone()).unwrap();
        partial.append(b"hel").unwrap();
        drop(partial);
        let mut partial = Partial::open(wanted.clone(), paths.clone()).unwrap();
        assert_eq!((partial.length(), partial.missing()), (3, 3));
        assert!(partial.append(b"lo\nx").is_err());
        partial.append(b"lo\n").unwrap();
        assert!(!paths.target.exists());
        let entry = partial.finish().unwrap().unwrap();
        assert_eq!(entry.sha256, HELLO);
        assert_eq!(fs::read(&paths.target).unwrap(), b"hello\n");
        assert!(!paths.partial.exists());
        assert_eq!(in_place(&wanted, &paths).unwrap(), Some(entry));
        fs::write(&paths.target, b"jello\n").unwrap();
        assert_eq!(in_place(&wanted, &paths).unwrap(), None);
    }

    #[test]
    fn what_is_wrong_is_thrown_away() {
        let (_directory, wanted, paths) = case();
        let mut partial = Partial::open(wanted.clone(), paths.clone()).unwrap();
        partial.append(b"jello\n").unwrap();
        let mismatch = partial.finish().unwrap().unwrap_err();
        assert_eq!(mismatch.expected.to_string(), format!("sha256 {HELLO}"));
        assert!(!paths.partial.exists() && !paths.target.exists());

        // Longer than it can be.
        fs::write(&paths.partial, b"hello, world").unwrap();
        assert_eq!(Partial::open(wanted, paths).unwrap().length(), 0);
    }
}
