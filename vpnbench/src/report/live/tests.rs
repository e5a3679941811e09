use std::sync::Arc;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::analysis::threads::{Blocked, DaemonLimits, Duty, OnCpu, ThreadSecond, ThreadTime};
use crate::explain::model::{Finding, Verdict};
use crate::report::Report;
use crate::report::model::{ByCause, Loss, StageTime, TapCount};
use crate::report::table::Screen;

/// A run of so many seconds: one busy thread among twenty, and everything grows evenly.
fn report(seconds: u32) -> Report {
    let time = f64::from(seconds);
    let count = u64::from(seconds);
    let thread = |number: u32| ThreadTime {
        pid: 100,
        tid: 100 + number,
        comm: format!("worker-{number}"),
        role: "daemon".to_owned(),
        duties: vec![Duty::TunReader, Duty::OuterSender],
        cpu_s: if number == 3 { 0.9 * time } else { 0.01 * time },
        runqueue_wait_s: 0.05 * time,
        blocked_s: Blocked {
            poll: 0.04 * time,
            ..Blocked::default()
        },
        cores: vec![OnCpu {
            cpu: 1,
            cpu_s: 0.9 * time,
        }],
        packets: Some(1000 * count),
        saturated_share: Some(0.5),
        idle_cpu_s: Some(0.1 * time),
        switches: 10 * count,
        seconds: (0..seconds)
            .map(|second| ThreadSecond {
                second,
                saturated_s: if number == 3 { 0.95 } else { 0.0 },
                ..ThreadSecond::default()
            })
            .collect(),
        ..ThreadTime::default()
    };
    let stages = ["tun-queue", "daemon-send", "wire"].map(|name| StageTime {
        name: name.to_owned(),
        direction: "a > b".to_owned(),
        packets: 1000 * count,
        p50_us: 4100.0,
        ..StageTime::default()
    });
    Report {
        threads: (1..=20).map(thread).collect(),
        daemon_limits: vec![DaemonLimits {
            pid: 100,
            comm: "daemon".to_owned(),
            window_s: time,
            packets_out: 1000 * count,
            bps: 8e6,
            ..DaemonLimits::default()
        }],
        taps: vec![TapCount {
            tap: "tun.tx".to_owned(),
            device: Some("tun0".to_owned()),
            namespace: "a".to_owned(),
            segments: 1000 * count,
            bytes: Some(1_000_000 * count),
            port: None,
            netns: 1,
            units: count,
            payload_bytes: None,
            first_s: 0.0,
            last_s: time,
            throughput_bps: None,
        }],
        stages: stages.to_vec(),
        retransmits: crate::report::model::Retransmits {
            total: Some(7 * count),
            by_cause: Some(ByCause {
                rack: 7 * count,
                ..ByCause::default()
            }),
            ..Default::default()
        },
        losses: vec![Loss {
            stage: "tun-queue".to_owned(),
            reason: "FULL_RING".to_owned(),
            packets: 3 * count,
            ..Loss::default()
        }],
        findings: vec![
            Finding {
                id: "path-loss".to_owned(),
                verdict: Verdict::Refuted,
                summary: "nothing was lost".to_owned(),
                ..Finding::default()
            },
            Finding {
                id: "single-thread-limit".to_owned(),
                verdict: Verdict::Supported,
                share: Some(0.9),
                summary: "worker-3 is saturated".to_owned(),
                ..Finding::default()
            },
        ],
        ..Report::default()
    }
}

/// The seventh second of the run.
fn moment() -> Moment {
    Moment::new(Some(&report(6)), report(7), 7.0, 1.0)
}

#[test]
fn an_interval_is_the_difference_of_two_reports() {
    let moment = moment();
    let busiest = &moment.threads[0];
    assert_eq!((busiest.tid, busiest.core), (103, Some(1)));
    let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
    assert!(near(busiest.on_core_share, 0.9), "{busiest:?}");
    assert!(near(busiest.runnable_share, 0.05), "{busiest:?}");
    assert!(near(busiest.blocked_share, 0.04), "{busiest:?}");
    assert!(near(busiest.saturated_share.unwrap(), 0.95), "{busiest:?}");
    assert!(near(busiest.packets_per_s.unwrap(), 1000.0), "{busiest:?}");
    // 0.9 s less 0.1 s without work, over 1000 packets.
    assert!(near(busiest.ns_per_packet.unwrap(), 8e5), "{busiest:?}");
    assert_eq!(busiest.blocked_in.as_deref(), Some("poll"));
    assert_eq!(moment.daemons[0].saturated_tid, Some(103));
    assert!(near(moment.daemons[0].bps, 8e6), "{:?}", moment.daemons);
    assert!(near(moment.taps[0].bps, 8e6), "{:?}", moment.taps);
    assert_eq!(moment.resent(), Some(7));
    assert_eq!(
        (moment.losses[0].packets, moment.losses[0].packets_so_far),
        (3, 21)
    );
    assert_eq!(moment.findings, ["single-thread-limit"]);
}

#[test]
fn a_table_and_a_line_of_json() {
    let mut out = Vec::new();
    let screen = Screen {
        width: 100,
        colour: false,
    };
    plain::write(&moment(), screen, &mut out).expect("a vector takes everything");
    let text = String::from_utf8(out).expect("text");
    assert!(text.contains("1,000 packets/s, 8.00 Mbit/s"), "{text}");
    assert!(text.contains("worker-3 (103) saturated 95.0 %"), "{text}");
    assert!(text.contains("and 8 more with 8.0 % of a core"), "{text}");
    let mut line = Vec::new();
    plain::write_json(&moment(), &mut line).expect("a vector takes everything");
    assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    let json: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
    assert_eq!(json["schema"], "vpnbench.live.v1");
    assert_eq!(json["threads"][0]["tid"], 103);
    assert_eq!(json["report"], serde_json::Value::Null);
}

/// The screen's lines.
fn drawn(view: &View, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test screen");
    terminal.draw(|frame| view.draw(frame)).expect("draws");
    let buffer = terminal.backend().buffer();
    let line = |row| {
        let cells = (0..width).map(|column| buffer[(column, row)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..height).map(line).collect()
}

fn view() -> View {
    let mut view = View::live(true);
    view.update(Arc::new(moment()));
    view
}

fn has(lines: &[String], text: &str) -> bool {
    lines.iter().any(|line| line.contains(text))
}

#[test]
fn every_tab_fits_small_and_large_screens() {
    let wanted = [
        ["tun.tx", "sent again: 7 in the last 1.0 s, 49 so far"],
        ["daemon-send", "4.10 ms"],
        ["FULL_RING", "RACK"],
        ["worker-3", "95.0 %"],
        ["single-thread-limit", "refuted"],
    ];
    for (width, height) in [(80, 24), (200, 50)] {
        let mut view = view();
        for (tab, texts) in wanted.iter().enumerate() {
            let lines = drawn(&view, width, height);
            for text in texts {
                assert!(has(&lines, text), "tab {tab}: {text} in {lines:#?}");
            }
            assert!(lines[0].contains("live 7.0 s  8.00 Mbit/s"), "{lines:#?}");
            let keys = lines.last().expect("a last line");
            assert!(keys.contains("q end"), "{lines:#?}");
            view.key(Key::Tab);
        }
        let lines = drawn(&view, width, height);
        assert!(has(&lines, "tun.tx"), "after the last comes the first");
    }
    // Threads: what there is no room for is left out, not cut.
    let mut view = view();
    view.key(Key::Char('4'));
    let (small, large) = (drawn(&view, 80, 24), drawn(&view, 200, 50));
    assert!(
        has(&small, "saturated") && !has(&small, "asleep in"),
        "{small:#?}"
    );
    assert!(
        has(&large, "asleep in") && has(&large, "worker-20"),
        "{large:#?}"
    );
}

#[test]
fn tiny_and_empty_screens_are_drawn() {
    for (width, height) in [(1, 1), (5, 2), (20, 5), (40, 8)] {
        let mut view = view();
        for _ in 0..5 {
            drawn(&view, width, height);
            view.key(Key::Enter);
            drawn(&view, width, height);
            view.key(Key::Char('?'));
            drawn(&view, width, height);
            view.key(Key::Escape);
            view.key(Key::Tab);
        }
    }
    let waiting = drawn(&View::live(false), 80, 24);
    assert!(
        has(&waiting, "waiting for the first events"),
        "{waiting:#?}"
    );
    let whole = View::whole(Moment::new(None, Report::default(), 0.0, 0.0), false);
    assert!(has(&drawn(&whole, 80, 24), "whole run"));
}

#[test]
fn keys_do_what_people_expect() {
    let mut view = view();
    let shows = |view: &View, text: &str| has(&drawn(view, 80, 24), text);
    // The keys.
    view.key(Key::Char('?'));
    assert!(shows(&view, "recording does not stop"));
    view.key(Key::Escape);
    assert!(!shows(&view, "recording does not stop"));
    // A filter.
    view.key(Key::Char('4'));
    view.key(Key::Char('/'));
    "WORKER-1q".chars().for_each(|letter| {
        assert_eq!(view.key(Key::Char(letter)), Wish::None);
    });
    assert!(shows(&view, "no row contains"));
    view.key(Key::Backspace);
    view.key(Key::Enter);
    assert!(shows(&view, "worker-19") && !shows(&view, "worker-3"));
    view.key(Key::Escape);
    assert!(shows(&view, "worker-3"));
    // Details of the chosen row: the busiest thread is first.
    view.key(Key::Down);
    view.key(Key::Up);
    view.key(Key::Enter);
    assert!(shows(&view, "worker-3 (103) of process 100"));
    view.key(Key::Enter);
    assert!(!shows(&view, "of process 100"));
    // Frozen: the new moment waits.
    view.key(Key::Char(' '));
    let later = Moment::new(Some(&report(7)), report(8), 8.0, 1.0);
    view.update(Arc::new(later));
    assert!(shows(&view, "FROZEN 7.0 s"));
    view.key(Key::Char(' '));
    assert!(shows(&view, "live 8.0 s"));
    // Ends.
    assert_eq!(view.key(Key::Char('q')), Wish::End);
    assert_eq!(View::live(true).key(Key::Interrupt), Wish::End);
}

#[test]
fn the_chosen_row_is_on_the_screen() {
    let mut view = view();
    view.key(Key::Char('4'));
    view.key(Key::End);
    let lines = drawn(&view, 80, 12);
    let (list, chosen) = view.list();
    let chosen = &list.rows[chosen.expect("a row")].cells[0];
    assert!(has(&lines, chosen), "{chosen} in {lines:#?}");
    view.key(Key::Home);
    assert!(has(&drawn(&view, 80, 12), "worker-3"));
}
