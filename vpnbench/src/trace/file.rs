//! The file under a [`Writer`](super::Writer): each write is stored whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::TraceError;

/// What to do about a file that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Fail.
    Refuse,
    /// Empty it.
    Replace,
}

/// A trace file that only its owner may read: addresses and peers of other people are in it.
///
/// When a write fails half-way (full disk), the half is cut off again, so that the file ends with
/// a complete frame at any time.
#[derive(Debug)]
pub struct TraceFile {
    file: File,
    path: PathBuf,
    good: u64,
    /// Pipes and devices cannot be cut.
    regular: bool,
}

impl TraceFile {
    /// Creates the file with mode 0600.
    ///
    /// # Errors
    ///
    /// [`TraceError::Open`] with the path.
    pub fn create(path: &Path, existing: Existing) -> Result<Self, TraceError> {
        let open = || {
            let mut options = OpenOptions::new();
            options.write(true).mode(0o600);
            match existing {
                Existing::Refuse => options.create_new(true),
                Existing::Replace => options.create(true).truncate(true),
            };
            let file = options.open(path)?;
            let regular = file.metadata()?.is_file();
            if regular {
                file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            }
            Ok(TraceFile {
                file,
                path: path.to_owned(),
                good: 0,
                regular,
            })
        };
        let failed = |source| TraceError::Open {
            operation: "create",
            path: path.display().to_string(),
            source,
        };
        open().map_err(failed)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Cuts the file to its first `length` bytes and goes on writing there.
    ///
    /// # Errors
    ///
    /// The system's, for instance on a pipe.
    pub fn truncate_to(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(length))?;
        self.good = length;
        Ok(())
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        if self.regular {
            self.file.sync_all()
        } else {
            Ok(())
        }
    }
}

impl Write for TraceFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            let error = match self.file.write(&bytes[done..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(count) => {
                    done += count;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            if done == 0 || (self.regular && self.truncate_to(self.good).is_ok()) {
                return Err(error);
            }
            break;
        }
        self.good += done as u64;
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_private_and_not_overwritten_by_accident() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("run.vbt");
        std::fs::write(&path, "old").expect("writes");
        let refused = TraceFile::create(&path, Existing::Refuse).expect_err("exists");
        assert!(refused.to_string().contains("run.vbt"), "{refused}");
        let mut file = TraceFile::create(&path, Existing::Replace).expect("creates");
        assert_eq!(
            std::fs::metadata(&path)
                .expect("exists")
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        file.write_all(b"0123456789").expect("writes");
        file.truncate_to(4).expect("cuts");
        file.write_all(b"x").expect("writes");
        assert_eq!(std::fs::read(file.path()).expect("reads"), b"0123x");
        file.sync().expect("syncs");
    }

    #[test]
    fn a_write_that_fails_half_way_is_taken_back() {
        // A file size limit makes write(2) store a part, then fail: as a full disk does. The limit
        // belongs to the process, so it is set in a child.
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("limited.vbt");
        if std::env::var_os("VPNBENCH_TEST_LIMITED").is_none() {
            let program = std::env::current_exe().expect("own path");
            let status = std::process::Command::new(program)
                .args([
                    "--exact",
                    "trace::file::tests::a_write_that_fails_half_way_is_taken_back",
                ])
                .env("VPNBENCH_TEST_LIMITED", "1")
                .stdout(std::process::Stdio::null())
                .status()
                .expect("runs");
            assert!(status.success());
            return;
        }
        use nix::sys::resource::{Resource, setrlimit};
        use nix::sys::signal::{SigHandler, Signal, signal};
        // SAFETY: ignoring a signal installs no handler that could run.
        unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.expect("ignores SIGXFSZ");
        let mut file = TraceFile::create(&path, Existing::Refuse).expect("creates");
        file.write_all(&[1; 1000]).expect("writes");
        setrlimit(Resource::RLIMIT_FSIZE, 1500, 1500).expect("limits");
        assert!(file.write_all(&[2; 1000]).is_err());
        assert_eq!(std::fs::metadata(&path).expect("exists").len(), 1000);
        file.write_all(&[3; 400])
            .expect("what fits is still written");
        assert_eq!(std::fs::metadata(&path).expect("exists").len(), 1400);
    }
}
