//! What the cases found beside the truth, as the page docs/books.md: written where
//! `VPNBENCH_BOOKS_PAGE` says, from the run at hand.

use std::fmt::Write;
use std::sync::Mutex;

use anyhow::Result;
use vpnbench::report::model::Reconciliation;

static PAGE: Mutex<Page> = Mutex::new(Page {
    case: String::new(),
    figures: Vec::new(),
    counters: Vec::new(),
});

#[derive(Debug)]
struct Page {
    case: String,
    /// Case, what, found, in truth, and what nobody could see.
    figures: Vec<[String; 5]>,
    /// Case, counter, place, ours, the kernel's, and the difference.
    counters: Vec<[String; 6]>,
}

fn page() -> std::sync::MutexGuard<'static, Page> {
    PAGE.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Everything from here on is of this case.
pub(crate) fn case(name: &str) {
    name.clone_into(&mut page().case);
}

/// A figure of the ledger beside the log of whoever planted it.
pub(crate) fn figure(what: &str, found: &str, truth: &str, hidden: u64) {
    crate::say(&format!("  {what}: {found}, in truth {truth}"));
    let mut page = page();
    let hidden = if hidden == 0 {
        String::new()
    } else {
        format!("{hidden} segments")
    };
    let case = page.case.clone();
    let row = [
        case,
        what.to_owned(),
        found.to_owned(),
        truth.to_owned(),
        hidden,
    ];
    page.figures.push(row);
}

/// A counter of the kernel's TCP beside our own; lines without any count are left out.
pub(crate) fn counter(line: &Reconciliation) {
    let (Some(kernel), Some(own)) = (line.kernel, line.vpnbench) else {
        return;
    };
    let of_tcp = line.counter.starts_with("Tcp") || line.counter.starts_with("Udp");
    if !of_tcp || kernel + own == 0 {
        return;
    }
    let difference = kernel.abs_diff(own);
    let text = match (difference, &line.note) {
        (0, _) => "0".to_owned(),
        (_, Some(note)) => format!("{difference}: {note}"),
        (_, None) => difference.to_string(),
    };
    let mut page = page();
    let place = line.place.rsplit('-').next().unwrap_or_default().to_owned();
    let case = page.case.clone();
    let row = [
        case,
        line.counter.clone(),
        place,
        own.to_string(),
        kernel.to_string(),
        text,
    ];
    page.counters.push(row);
}

fn table<const N: usize>(title: [&str; N], rows: &[[String; N]]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&title.map(str::to_owned)) + &line(&title.map(|_| "---".to_owned()));
    let mut before = "";
    for row in rows {
        let mut cells = row.clone();
        // The name of a case stands once.
        if row[0] == before {
            cells[0].clear();
        }
        before = &row[0];
        text += &line(&cells);
    }
    text
}

/// Writes the page, if it is asked for.
pub(crate) fn write() -> Result<()> {
    let Some(path) = std::env::var_os("VPNBENCH_BOOKS_PAGE") else {
        return Ok(());
    };
    let page = page();
    let kernel = nix::sys::utsname::uname()?;
    let kernel = kernel.release().to_string_lossy().into_owned();
    let mut text = String::new();
    write!(
        text,
        "# The books beside the truth\n\n\
         <!-- made by VPNBENCH_BOOKS_PAGE=docs/books.md cargo test --test books; not by hand -->\n\n\
         One run of the suite `books` on Linux {kernel}: what the report says (ours) beside what the reference\n\
         tunnel and the embedded wire logged of each packet, or what the kernel counted (truth). `hidden`:\n\
         segments that the kernel's own trace events show on top of tasks on which this kernel runs no\n\
         program (tests/src/witness.rs); by at most as many a figure may differ.\n\n"
    )?;
    text += &table(["case", "figure", "ours", "truth", "hidden"], &page.figures);
    text += "\n## The kernel's counters, in every case\n\n\
             Lines in which both are 0 are left out.\n\n";
    text += &table(
        ["case", "counter", "host", "ours", "kernel", "difference"],
        &page.counters,
    );
    std::fs::write(path, text)?;
    Ok(())
}
