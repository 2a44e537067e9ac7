//! One downloads, the others wait: an advisory lock on a file of the volume. The kernel lets go of
//! it when its holder ends, however it ends.

use std::{
    fs::{self, File, Metadata, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::MetadataExt,
    time::Duration,
};

use berth_units::Bytes;
use tokio::time::Instant;

use crate::{error::Error, layout::Layout, progress::Progress};

/// Between two looks at a lock that another holds.
const LOOK: Duration = Duration::from_millis(250);

/// Between two words about waiting.
const WORD: Duration = Duration::from_secs(30);

/// The right to write into the directory, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Whether it is the directory's: what was removed while we waited has left us another one's.
    pub fn is_of(&self, layout: &Layout) -> bool {
        let inode = |found: Metadata| (found.dev(), found.ino());
        let ours = self.file.metadata().map(inode);
        ours.is_ok_and(|ours| fs::metadata(layout.lock()).is_ok_and(|there| inode(there) == ours))
    }
}

/// Waits for the lock.
pub async fn acquire(layout: &Layout, progress: &Progress) -> Result<Lock, Error> {
    let path = layout.lock();
    let failed = |source| layout.failed("lock", &path, Bytes::ZERO, source);
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    let started = Instant::now();
    let mut said: Option<Instant> = None;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        progress.waits(true);
        if said.is_none_or(|said| said.elapsed() >= WORD) {
            said = Some(Instant::now());
            let seconds = started.elapsed().as_secs();
            tracing::info!(
                "{} is downloading; waiting for it, {seconds} s so far",
                holder(&mut file)
            );
        }
        tokio::time::sleep(LOOK).await;
    }
    progress.waits(false);
    // Only for those who wait.
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let _ = file.set_len(0);
    let _ = file.rewind();
    let _ = file.write_all(name.trim().as_bytes());
    Ok(Lock { file })
}

/// The pod that holds the lock.
pub fn holder(file: &mut File) -> String {
    let mut name = Vec::new();
    let _ = file.rewind();
    let _ = file.take(253).read_to_end(&mut name);
    match String::from_utf8(name) {
        Ok(name) if !name.is_empty() && !name.chars().any(char::is_control) => {
            format!("pod {name}")
        }
        _ => "another pod".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_for_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        fs::create_dir(layout.own()).unwrap();
        let progress = Progress::new().unwrap();
        let first = acquire(&layout, &progress).await.unwrap();
        let second = acquire(&layout, &progress);
        tokio::pin!(second);
        assert!(tokio::time::timeout(Duration::from_millis(300), &mut second).await.is_err());
        assert!(progress.text().contains("berth_fetch_waiting 1"));
        drop(first);
        let second = second.await.unwrap();
        assert!(second.is_of(&layout));
        fs::remove_file(layout.lock()).unwrap();
        assert!(!second.is_of(&layout));
        let third = acquire(&layout, &progress).await.unwrap();
        assert!(third.is_of(&layout) && !second.is_of(&layout));
        assert!(progress.text().contains("berth_fetch_waiting 0"));
    }
}
