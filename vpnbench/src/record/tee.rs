//! The command's standard output on its way through: recorded with the moment of its arrival and
//! passed on as it is.
//!
//! Where our own output is a terminal the command gets a terminal too (a pseudo terminal in raw
//! mode, of the same size), so that it goes on to colour, to redraw and to write line by line.
//! Otherwise it gets a pipe, as it would have without vpnbench; tools that buffer into pipes then
//! deliver their lines late, and the analysis does not believe their arrival.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::clock::monotonic_ns;
use crate::probe::netns::{ignore_signals, keep_only};
use crate::trace::model::CommandOutput;

/// How long the rest of the output may take once the command has ended. Its own children may hold
/// the other end for ever.
const REST: Duration = Duration::from_secs(1);
/// Bytes taken at a time; as large as a pipe.
const READ_BYTES: usize = 64 << 10;

/// Where the command's output goes on to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Onward {
    Stdout,
    Stderr,
    /// It is only recorded.
    Nowhere,
}

/// The output of a command that may still be running.
pub(super) struct Tee {
    output: Arc<Mutex<CommandOutput>>,
    ended: Receiver<()>,
}

impl Tee {
    /// The write end for the command, and the tee that reads the other one on a thread of its own.
    pub(super) fn start(onward: Onward) -> io::Result<(Stdio, Tee)> {
        let to = match onward {
            Onward::Stdout => Some(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            Onward::Stderr => Some(File::from(io::stderr().as_fd().try_clone_to_owned()?)),
            Onward::Nowhere => None,
        };
        let terminal = to.as_ref().filter(|to| to.is_terminal());
        let (reader, writer) = match terminal {
            Some(like) => pseudo_terminal(like)?,
            None => {
                let (reader, writer) = io::pipe()?;
                (OwnedFd::from(reader), OwnedFd::from(writer))
            }
        };
        let output = Arc::new(Mutex::new(CommandOutput::new(terminal.is_some())));
        let (end, ended) = channel();
        let copy = Copy {
            from: File::from(reader),
            to,
            output: output.clone(),
            _end: end,
        };
        std::thread::Builder::new()
            .name("vpnbench-tee".to_owned())
            .spawn(move || copy.run())?;
        Ok((writer.into(), Tee { output, ended }))
    }

    /// What the command wrote. Waits a moment for the last of it.
    pub(super) fn finish(self) -> CommandOutput {
        // Nothing is ever sent: the sender goes when all has been read.
        let _ended = self.ended.recv_timeout(REST);
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *output)
    }
}

/// The thread's part.
struct Copy {
    from: File,
    to: Option<File>,
    output: Arc<Mutex<CommandOutput>>,
    _end: Sender<()>,
}

impl Copy {
    fn run(mut self) {
        ignore_signals();
        // Copying bytes takes no privilege, and capabilities belong to threads.
        if let Err(error) = keep_only(&[]) {
            log::warn!("the thread that copies the command's output keeps its privileges: {error}");
        }
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = match self.from.read(&mut buffer) {
                // EIO: the last other end of a pseudo terminal was closed.
                Ok(0) | Err(_) => return,
                Ok(read) => read,
            };
            let bytes = &buffer[..read];
            let time_ns = monotonic_ns();
            self.output
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(time_ns, bytes);
            // Whoever read our output went away: closing ours tells the command, as it would have
            // been told without us.
            if self
                .to
                .as_mut()
                .is_some_and(|to| to.write_all(bytes).is_err())
            {
                return;
            }
        }
    }
}

/// Both ends of a pseudo terminal of the same size as `like`. It is raw, so that bytes come out as
/// they went in; signals from the keyboard come from the real one, which stays standard input.
fn pseudo_terminal(like: &File) -> io::Result<(OwnedFd, OwnedFd)> {
    let (mut reader, mut writer) = (-1, -1);
    // SAFETY: all-zero is a value of both plain structs; each call gets pointers to live values
    // and descriptors that are open; the two descriptors are new and nobody else has them.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        if libc::ioctl(like.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut mode: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(like.as_raw_fd(), &raw mut mode) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::cfmakeraw(&raw mut mode);
        let name = std::ptr::null_mut();
        if libc::openpty(
            &raw mut reader,
            &raw mut writer,
            name,
            &raw const mode,
            &raw const size,
        ) < 0
        {
            return Err(io::Error::last_os_error());
        }
        // The command must not inherit our end, or it would never see it close.
        libc::fcntl(reader, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::fcntl(writer, libc::F_SETFD, libc::FD_CLOEXEC);
        Ok((OwnedFd::from_raw_fd(reader), OwnedFd::from_raw_fd(writer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn tee_of(script: &str) -> CommandOutput {
        let (end, tee) = Tee::start(Onward::Nowhere).expect("a pipe");
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(end);
        let mut child = command.spawn().expect("sh starts");
        drop(command); // it holds the write end
        child.wait().expect("a child");
        tee.finish()
    }

    #[test]
    fn all_is_kept_with_the_moments_of_its_arrival() {
        let before = monotonic_ns();
        let output = tee_of("echo one; sleep 0.2; echo two; printf three");
        let lines = output.lines();
        let texts: Vec<&str> = lines.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["one", "two", "three"]);
        assert!(lines[0].0 >= before);
        assert!(lines[1].0 - lines[0].0 >= 100_000_000, "{lines:?}");
        assert!(!output.terminal);
    }

    #[test]
    fn a_child_that_holds_the_output_does_not_hold_us() {
        let begun = std::time::Instant::now();
        let output = tee_of("echo said; sleep 5 &");
        assert_eq!(output.text(), "said\n");
        assert!(begun.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn a_pseudo_terminal_passes_bytes_unchanged() {
        let like = File::options().read(true).write(true).open("/dev/ptmx");
        let like = like.expect("a terminal");
        let (reader, writer) = pseudo_terminal(&like).expect("another pseudo terminal");
        File::from(writer).write_all(b"a\nb\r\n\x03").expect("room");
        let mut bytes = [0; 16];
        let count = File::from(reader).read(&mut bytes).expect("bytes");
        assert_eq!(&bytes[..count], b"a\nb\r\n\x03");
    }
}
