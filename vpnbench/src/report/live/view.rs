//! What the screen shows and what keys do to it. Knows neither a terminal nor a clock.

use std::collections::VecDeque;
use std::sync::Arc;

use ratatui::Frame;

use super::listing::{Listing, Tab, listing};
use super::moment::Moment;

/// Intervals of which the throughput is kept.
const HISTORY: usize = 240;
/// Rows that Page Up and Page Down move by.
const PAGE: usize = 10;

/// A key, whatever the terminal calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character, space included.
    Char(char),
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// Tab.
    Tab,
    /// Shift and Tab.
    BackTab,
    /// Arrow.
    Up,
    /// Arrow.
    Down,
    /// Arrow.
    Left,
    /// Arrow.
    Right,
    /// Page Up.
    PageUp,
    /// Page Down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
    /// Ctrl-C.
    Interrupt,
}

/// What a key asks of whoever owns the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nothing, the view has seen to it.
    None,
    /// The end.
    End,
}

/// What lies over the list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing.
    #[default]
    Nothing,
    /// The keys.
    Help,
    /// The chosen row in full, from this line on.
    Detail(u16),
}

/// The screen of a run that is recorded, or of one that was.
#[derive(Debug, Default)]
pub struct View {
    pub(super) tab: Tab,
    /// Chosen row of each tab.
    chosen: [usize; Tab::ALL.len()],
    /// Only rows that contain it.
    pub(super) filter: String,
    /// Whether keys are letters of the filter.
    pub(super) typing: bool,
    pub(super) over: Over,
    /// The last moment that came.
    latest: Option<Arc<Moment>>,
    /// The moment that stands still.
    held: Option<Arc<Moment>>,
    /// bit/s of the last intervals, oldest first.
    pub(super) history: VecDeque<u64>,
    pub(super) colour: bool,
    /// Whether the run is over: nothing more will come.
    pub(super) whole: bool,
    pub(super) ending: bool,
}

impl View {
    /// The view of a run that goes on.
    #[must_use]
    pub fn live(colour: bool) -> View {
        View {
            colour,
            ..View::default()
        }
    }

    /// The view of a run as a whole.
    #[must_use]
    pub fn whole(moment: Moment, colour: bool) -> View {
        let mut view = View {
            colour,
            whole: true,
            ..View::default()
        };
        view.update(Arc::new(moment));
        view
    }

    /// Takes the next interval.
    pub fn update(&mut self, moment: Arc<Moment>) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(moment.bps().round() as u64);
        self.latest = Some(moment);
    }

    /// The moment that is shown.
    pub(super) fn shown(&self) -> Option<&Arc<Moment>> {
        self.held.as_ref().or(self.latest.as_ref())
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The rows of the tab that pass the filter, and which of them is chosen.
    pub(super) fn list(&self) -> (Listing, Option<usize>) {
        let Some(moment) = self.shown() else {
            return (Listing::default(), None);
        };
        let mut list = listing(self.tab, moment);
        if !self.filter.is_empty() {
            let wanted = self.filter.to_lowercase();
            list.rows.retain(|row| row.contains(&wanted));
        }
        let last = list.rows.len().checked_sub(1);
        let chosen = last.map(|last| self.chosen[self.tab as usize].min(last));
        (list, chosen)
    }

    /// Draws everything.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        super::draw::draw(self, frame);
    }

    /// Does what a key asks for.
    pub fn key(&mut self, key: Key) -> Wish {
        if key == Key::Interrupt {
            return self.end();
        }
        if self.typing {
            self.typed(key);
            return Wish::None;
        }
        match (self.over, key) {
            (_, Key::Char('q')) => return self.end(),
            (Over::Help, _) => self.over = Over::Nothing,
            (_, Key::Char('?')) => self.over = Over::Help,
            (_, Key::Char(' ')) => self.hold(),
            (Over::Detail(_), Key::Escape | Key::Enter) => self.over = Over::Nothing,
            (Over::Detail(line), Key::Down | Key::Char('j')) => self.detail(line, 1),
            (Over::Detail(line), Key::Up | Key::Char('k')) => self.detail(line, -1),
            (Over::Detail(line), Key::PageDown) => self.detail(line, PAGE as i32),
            (Over::Detail(line), Key::PageUp) => self.detail(line, -(PAGE as i32)),
            (_, Key::Tab | Key::Right | Key::Char('l')) => self.turn(1),
            (_, Key::BackTab | Key::Left | Key::Char('h')) => self.turn(Tab::ALL.len() - 1),
            (_, Key::Char(digit @ '1'..='5')) => {
                self.over = Over::Nothing;
                self.tab = Tab::ALL[digit as usize - '1' as usize];
            }
            (Over::Nothing, key) => self.list_key(key),
            _ => {}
        }
        Wish::None
    }

    fn end(&mut self) -> Wish {
        self.ending = true;
        Wish::End
    }

    fn hold(&mut self) {
        self.held = match self.held {
            Some(_) => None,
            None => self.latest.clone(),
        };
    }

    fn detail(&mut self, line: u16, by: i32) {
        let line = i32::from(line).saturating_add(by).clamp(0, 500);
        self.over = Over::Detail(line as u16);
    }

    fn turn(&mut self, by: usize) {
        self.over = Over::Nothing;
        self.tab = Tab::ALL[(self.tab as usize + by) % Tab::ALL.len()];
    }

    fn typed(&mut self, key: Key) {
        match key {
            Key::Enter => self.typing = false,
            Key::Escape => {
                self.typing = false;
                self.filter.clear();
            }
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Char(letter) => self.filter.push(letter),
            _ => {}
        }
    }

    fn list_key(&mut self, key: Key) {
        let (list, chosen) = self.list();
        let (last, now) = (list.rows.len().saturating_sub(1), chosen.unwrap_or(0));
        let place = &mut self.chosen[self.tab as usize];
        match key {
            Key::Down | Key::Char('j') => *place = (now + 1).min(last),
            Key::Up | Key::Char('k') => *place = now.saturating_sub(1),
            Key::PageDown => *place = (now + PAGE).min(last),
            Key::PageUp => *place = now.saturating_sub(PAGE),
            Key::Home | Key::Char('g') => *place = 0,
            Key::End | Key::Char('G') => *place = last,
            Key::Enter if chosen.is_some() => self.over = Over::Detail(0),
            Key::Escape => self.filter.clear(),
            Key::Char('/') => self.typing = true,
            _ => {}
        }
    }
}
