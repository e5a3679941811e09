//! The screen, from 20 columns and 5 rows up.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row as Cells, Sparkline, Table, TableState, Wrap};

use super::listing::{Column, Listing, Mark, Tab};
use super::moment::Moment;
use super::plain;
use super::view::{Over, View};
use crate::report::units::{count, rate};

/// Rows from which the overview has room for a plot.
const PLOT_FROM: u16 = 16;
/// Columns between two columns.
const GAP: u16 = 2;
/// Narrowest a text column gets.
const NARROWEST: u16 = 8;

const KEYS: &[(&str, &str)] = &[
    ("q, Ctrl-C", "end the recording and print the report"),
    ("Tab, arrows left and right, 1-5", "another tab"),
    (
        "arrows up and down, Page Up, Page Down, Home, End",
        "choose a row",
    ),
    ("Enter", "all about the chosen row; once more to go back"),
    ("/", "show only rows with this text; Escape clears it"),
    ("space", "freeze, and go on; recording does not stop"),
    ("?", "these keys"),
];

impl View {
    fn style(&self, mark: Mark) -> Style {
        let colour = |colour| match self.colour {
            true => Style::default().fg(colour),
            false => Style::default(),
        };
        match mark {
            Mark::None => Style::default(),
            Mark::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
            Mark::Good => colour(Color::Green),
            Mark::Faint => Style::default().add_modifier(Modifier::DIM),
        }
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);

pub(super) fn draw(view: &View, frame: &mut Frame<'_>) {
    let [head, tabs, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(header(view), head);
    frame.render_widget(tab_line(view), tabs);
    match view.shown() {
        Some(moment) => self::body(view, moment, frame, body),
        None => frame.render_widget(Paragraph::new("waiting for the first events"), body),
    }
    frame.render_widget(footer(view), foot);
    match view.over {
        Over::Nothing => {}
        Over::Help => {
            let lines = KEYS.iter().map(|(key, does)| {
                Line::from(vec![
                    Span::styled(*key, BOLD),
                    Span::raw(format!("  {does}")),
                ])
            });
            popup(frame, body, "keys", lines.collect(), 0);
        }
        Over::Detail(line) => detail(view, line, frame, body),
    }
}

fn header(view: &View) -> Line<'static> {
    let mut parts = vec![Span::styled("vpnbench", BOLD)];
    let Some(moment) = view.shown() else {
        return Line::from(parts);
    };
    let tunnel = moment.report.tunnel.as_ref().map_or_else(
        || "bare link".to_owned(),
        |tunnel| match &tunnel.daemon {
            Some(daemon) => format!("{} {} ({})", tunnel.interface, daemon.comm, daemon.pid),
            None => format!("{} {}", tunnel.interface, tunnel.kind),
        },
    );
    let state = match (view.ending, view.whole, view.is_held()) {
        (true, _, _) => "ending",
        (_, true, _) => "whole run",
        (_, _, true) => "FROZEN",
        _ => "live",
    };
    parts.push(Span::raw(format!(
        "  {state} {:.1} s  {}  {tunnel}",
        moment.time_s,
        rate(moment.bps())
    )));
    if moment.lost_events > 0 {
        let text = format!("  {} events lost", count(moment.lost_events));
        parts.push(Span::styled(text, view.style(Mark::Bad)));
    }
    Line::from(parts)
}

fn tab_line(view: &View) -> Line<'static> {
    let names = Tab::ALL.iter().enumerate().flat_map(|(at, tab)| {
        let style = if *tab == view.tab { CHOSEN } else { FAINT };
        [
            Span::styled(format!("{} {}", at + 1, tab.name()), style),
            Span::raw("  "),
        ]
    });
    Line::from(names.collect::<Vec<_>>())
}

fn footer(view: &View) -> Line<'static> {
    if view.typing {
        return Line::from(format!(
            "/{}_   Enter keeps it, Escape clears it",
            view.filter
        ));
    }
    let mut text = String::new();
    if !view.filter.is_empty() {
        text = format!("only \"{}\"  ", view.filter);
    }
    text.push_str("q end  ? keys  Tab next  / filter  Enter details  space freeze");
    Line::from(Span::styled(text, FAINT))
}

fn body(view: &View, moment: &Moment, frame: &mut Frame<'_>, area: Rect) {
    if view.tab != Tab::Overview {
        table(view, frame, area);
        return;
    }
    let notes = notes(view, moment, area.width);
    let plot = if area.height >= PLOT_FROM { 5 } else { 0 };
    let rows = u16::try_from(notes.len()).unwrap_or(u16::MAX);
    let [top, middle, bottom] = Layout::vertical([
        Constraint::Length(plot),
        Constraint::Length(rows.min(area.height / 2)),
        Constraint::Min(0),
    ])
    .areas(area);
    if plot > 0 {
        self::plot(view, frame, top);
    }
    frame.render_widget(Paragraph::new(notes), middle);
    table(view, frame, bottom);
}

fn plot(view: &View, frame: &mut Frame<'_>, area: Rect) {
    let width = usize::from(area.width);
    let skip = view.history.len().saturating_sub(width);
    let data: Vec<u64> = view.history.iter().skip(skip).copied().collect();
    let most = data.iter().copied().max().unwrap_or(0);
    let title = format!("throughput, up to {}", rate(most as f64));
    let style = match view.colour {
        true => Style::default().fg(Color::Cyan),
        false => Style::default(),
    };
    let plot = Sparkline::default()
        .block(Block::new().title(Span::styled(title, FAINT)))
        .style(style)
        .data(data);
    frame.render_widget(plot, area);
}

/// Daemons, what was sent again, and what is found.
fn notes(view: &View, moment: &Moment, width: u16) -> Vec<Line<'static>> {
    let daemons = moment.daemons.iter().map(|one| {
        let bad = one.saturated_tid.is_some() || one.serialised;
        let mark = if bad { Mark::Bad } else { Mark::None };
        Span::styled(plain::daemon(one, moment), view.style(mark))
    });
    let again = moment.resent().map(|now| {
        let mark = if now > 0 { Mark::Bad } else { Mark::None };
        let all = moment.report.retransmits.total.unwrap_or(0);
        let text = format!(
            "sent again: {} in the last {:.1} s, {} so far",
            count(now),
            moment.interval_s,
            count(all)
        );
        Span::styled(text, view.style(mark))
    });
    let found = moment.report.supported().take(3).map(|one| {
        let text = format!("found: {}: {}", one.id, one.summary);
        Span::styled(text, view.style(Mark::Bad))
    });
    let all = daemons.chain(again).chain(found);
    all.map(|span| {
        let content = cut(&span.content, width);
        Line::from(Span::styled(content, span.style))
    })
    .collect()
}

fn cut(text: &str, width: u16) -> String {
    let width = usize::from(width);
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(2)).collect();
    short.push_str("..");
    short
}

fn table(view: &View, frame: &mut Frame<'_>, area: Rect) {
    let (list, chosen) = view.list();
    if list.rows.is_empty() {
        let text = match view.filter.is_empty() {
            true => list.empty.to_owned(),
            false => format!("no row contains \"{}\"", view.filter),
        };
        frame.render_widget(Paragraph::new(Span::styled(text, FAINT)), area);
        return;
    }
    let (columns, widths) = fit(&list, area.width);
    let cell = |at: usize, text: &str, width: u16| {
        let text = cut(text, width);
        match list.columns.get(at) {
            Some(Column { number: true, .. }) => {
                format!("{text:>width$}", width = usize::from(width))
            }
            _ => text,
        }
    };
    let line = |texts: &[String]| -> Vec<String> {
        let cells = columns.iter().zip(&widths);
        cells
            .map(|(&at, &width)| cell(at, texts.get(at).map_or("", String::as_str), width))
            .collect()
    };
    let names: Vec<String> = list.columns.iter().map(|one| one.name.to_owned()).collect();
    let rows = list
        .rows
        .iter()
        .map(|row| Cells::new(line(&row.cells)).style(view.style(row.mark)));
    let constraints = widths.iter().map(|width| Constraint::Length(*width));
    let table = Table::new(rows, constraints)
        .column_spacing(GAP)
        .header(Cells::new(line(&names)).style(FAINT))
        .row_highlight_style(CHOSEN);
    let mut state = TableState::new().with_selected(chosen);
    frame.render_stateful_widget(table, area, &mut state);
}

/// Which columns there is room for, and their widths.
fn fit(list: &Listing, available: u16) -> (Vec<usize>, Vec<u16>) {
    let natural = |at: usize| -> u16 {
        let cells = list.rows.iter().filter_map(|row| row.cells.get(at));
        let longest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        let name = list.columns[at].name.len();
        u16::try_from(longest.max(name)).unwrap_or(u16::MAX)
    };
    let mut columns: Vec<usize> = (0..list.columns.len()).collect();
    let mut widths: Vec<u16> = columns.iter().map(|at| natural(*at)).collect();
    let total = |widths: &[u16]| {
        let gaps = GAP as usize * widths.len().saturating_sub(1);
        gaps + widths
            .iter()
            .map(|width| usize::from(*width))
            .sum::<usize>()
    };
    loop {
        // Text gives way first, then columns.
        while total(&widths) > usize::from(available) {
            let texts = columns.iter().enumerate();
            let texts = texts.filter(|(_, at)| !list.columns[**at].number);
            let widest = texts
                .map(|(place, _)| place)
                .max_by_key(|place| widths[*place]);
            match widest {
                Some(place) if widths[place] > NARROWEST => widths[place] -= 1,
                _ => break,
            }
        }
        if total(&widths) <= usize::from(available) {
            break;
        }
        let goes = columns
            .iter()
            .enumerate()
            .filter(|(_, at)| list.columns[**at].goes > 0)
            .max_by_key(|(_, at)| list.columns[**at].goes)
            .map(|(place, _)| place);
        let Some(place) = goes else { break };
        columns.remove(place);
        widths = columns.iter().map(|at| natural(*at)).collect();
    }
    (columns, widths)
}

fn detail(view: &View, line: u16, frame: &mut Frame<'_>, body: Rect) {
    let (list, chosen) = view.list();
    let Some(row) = chosen.and_then(|at| list.rows.get(at)) else {
        return;
    };
    let lines = row.detail.iter().enumerate().map(|(at, text)| {
        let style = if at == 0 { BOLD } else { Style::default() };
        Line::from(Span::styled(text.clone(), style))
    });
    popup(frame, body, "Enter goes back", lines.collect(), line);
}

fn popup(frame: &mut Frame<'_>, body: Rect, title: &str, lines: Vec<Line<'_>>, from: u16) {
    let room = usize::from(body.width.saturating_sub(2).max(1));
    let rows: usize = lines
        .iter()
        .map(|line| line.width().div_ceil(room).max(1))
        .sum();
    let height = u16::try_from(rows + 2).unwrap_or(u16::MAX).min(body.height);
    let area = Rect {
        y: body.y + (body.height - height),
        height,
        ..body
    };
    let text = Paragraph::new(lines)
        .block(Block::bordered().title(title.to_owned()))
        .wrap(Wrap { trim: false })
        .scroll((from, 0));
    frame.render_widget(Clear, area);
    frame.render_widget(text, area);
}
