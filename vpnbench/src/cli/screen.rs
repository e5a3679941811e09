//! The terminal while a view has it: entered, left on every way out, keys by their names.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::DefaultTerminal;

use super::Failure;
use super::onlooker::{no_terminal, on_terminal};
use crate::lab::signals;
use crate::report::Report;
use crate::report::live::{Key, Moment, View, Wish};

/// How often the screen is drawn and flags are looked at, in milliseconds.
const TICK: u8 = 100;

/// Set by a panic of any thread: nothing is drawn any more.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Fails where there is no terminal to show anything on.
pub(super) fn terminal() -> Result<(), Failure> {
    match on_terminal() {
        true => Ok(()),
        false => Err(no_terminal()),
    }
}

/// The terminal as a screen; as it was before when dropped, and when any thread panics.
struct Entered(DefaultTerminal);

impl Entered {
    fn enter() -> io::Result<Entered> {
        static HOOK: Once = Once::new();
        // Its panic hook gives the terminal back before the panic's message is written.
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
        HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                PANICKED.store(true, Ordering::Release);
                next(panic);
            }));
        });
        Ok(Entered(terminal))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows moments as they come, until the recording ends or the user wants it to.
pub(super) fn live(
    moments: &Receiver<Arc<Moment>>,
    ending: &AtomicBool,
    colour: bool,
) -> io::Result<()> {
    let mut entered = Entered::enter()?;
    let mut view = View::live(colour);
    loop {
        for moment in moments.try_iter() {
            view.update(moment);
        }
        let over = ending.load(Ordering::Acquire);
        if over || step(&mut entered, &mut view)? == Wish::End {
            return Ok(());
        }
    }
}

/// Shows a run that was recorded.
pub(super) fn show(report: Report, colour: bool) -> Result<(), Failure> {
    terminal()?;
    signals::install()?;
    let before = signals::received();
    let mut entered = Entered::enter()?;
    let mut view = View::whole(whole(report), colour);
    while signals::received() == before && step(&mut entered, &mut view)? != Wish::End {}
    Ok(())
}

/// A whole run as one interval.
pub(super) fn whole(report: Report) -> Moment {
    let length = report.run.duration_s.unwrap_or(0.0);
    Moment::new(None, report, length, length)
}

/// Draws, and waits a moment for a key.
fn step(entered: &mut Entered, view: &mut View) -> io::Result<Wish> {
    if PANICKED.load(Ordering::Acquire) {
        return Ok(Wish::End);
    }
    entered.0.draw(|frame| view.draw(frame))?;
    if gone(TICK.into())? {
        return Ok(Wish::End);
    }
    // All that came, since what crossterm has taken in already makes the terminal readable no more.
    while event::poll(Duration::ZERO)? {
        let Event::Key(key) = event::read()? else {
            continue;
        };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        let wish = named(key).map_or(Wish::None, |key| view.key(key));
        if wish != Wish::None {
            return Ok(wish);
        }
    }
    Ok(Wish::None)
}

/// Waits for keys, and tells whether nobody can press any: where the terminal has hung up, crossterm
/// would read its end of file for ever.
fn gone(wait: PollTimeout) -> io::Result<bool> {
    let input = io::stdin();
    let mut keys = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    match poll(&mut keys, wait) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let seen = keys[0].revents().unwrap_or(PollFlags::empty());
    Ok(seen.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL))
}

fn named(key: KeyEvent) -> Option<Key> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('c') if control => Key::Interrupt,
        KeyCode::Char(_) if control => return None,
        KeyCode::Char(letter) => Key::Char(letter),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "VPNBENCH_TEST_PANIC";
    const NAME: &str = "cli::screen::tests::a_panic_of_any_thread_gives_the_terminal_back";

    /// Enters the terminal and panics there.
    fn planned(by_other: bool) {
        let mut entered = Entered::enter().expect("script gives it a terminal");
        let view = View::live(false);
        entered.0.draw(|frame| view.draw(frame)).expect("draws");
        if by_other {
            let other = std::thread::spawn(|| panic!("as planned"));
            other.join().expect_err("it panics");
            let mut view = View::live(false);
            let wish = step(&mut entered, &mut view).expect("no error");
            assert_eq!(wish, Wish::End, "nothing is drawn any more");
        } else {
            panic!("as planned");
        }
    }

    #[test]
    fn a_panic_of_any_thread_gives_the_terminal_back() {
        if let Ok(who) = std::env::var(PLAN) {
            return planned(who == "other");
        }
        // A panic ends a test, so the terminal is entered in a child, under a pseudo terminal.
        let program = std::env::current_exe().expect("own path");
        for who in ["own", "other"] {
            let child = format!("{} --exact {NAME} --nocapture", program.display());
            let line = format!("stty -g; {child}; stty -g");
            let output = std::process::Command::new("script")
                .args(["-q", "-c", &line, "/dev/null"])
                .env(PLAN, who)
                .env("TERM", "xterm")
                .stdin(std::process::Stdio::null())
                .output()
                .expect("script of util-linux runs");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let (entered, rest) = text.split_once("\u{1b}[?1049h").expect("it was entered");
            let (_, after) = rest.split_once("\u{1b}[?1049l").expect("it was left");
            assert!(after.contains("as planned"), "{who}: {text}");
            let modes = |text: &str, last: bool| -> Option<String> {
                let mut lines = text.lines().filter(|line| line.matches(':').count() > 20);
                let line = if last {
                    lines.next_back()
                } else {
                    lines.next()
                };
                line.map(|line| line.trim().to_owned())
            };
            let (before, after) = (modes(entered, false), modes(after, true));
            assert!(before.is_some() && before == after, "{who}: {text}");
        }
    }
}
