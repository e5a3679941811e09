//! `cargo xtask tidy`: holds the code to ARCHITECTURE.md where a compiler does not.

mod imports;
mod rules;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run;

/// Where this project's Rust code is.
const FOLDERS: [&str; 5] = [
    "vpnbench-common",
    "vpnbench-ebpf",
    "vpnbench",
    "xtask",
    "tests",
];

/// One breach of a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    /// Line, counted from 1; 0 when it is about the whole file.
    line: usize,
    message: String,
}

/// Checks every file and lists the breaches.
pub(crate) fn run() -> Result<()> {
    let root = run::root()?;
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut breaches = 0;
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let name = file.strip_prefix(&root)?.to_string_lossy().into_owned();
        for breach in check(&name, &text) {
            println!("{name}:{}: {}", breach.line, breach.message);
            breaches += 1;
        }
    }
    if breaches > 0 {
        bail!("tidy: {breaches} breaches of the rules in ARCHITECTURE.md");
    }
    println!("ok      tidy: {} files", files.len());
    Ok(())
}

/// All breaches in one file, whose name is relative to the repository's top.
fn check(name: &str, text: &str) -> Vec<Breach> {
    let tokens = source::tokens(text);
    let paths = source::paths(&tokens);
    let mut breaches = rules::check(name, text, &tokens);
    breaches.extend(imports::check(name, &tokens, &paths));
    breaches.sort_by_key(|breach| breach.line);
    breaches
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, files)?;
            }
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    Ok(())
}
