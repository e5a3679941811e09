//! Exports, read by the tools they are for.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use vpnbench_tests::binary::vpnbench;
use vpnbench_tests::python::python;

use crate::join::{as_trace, written};
use crate::make::{Format, Link, SEGMENTS, connection};

/// Packets of the connection.
const PACKETS: usize = 2 * SEGMENTS as usize + 3;

fn trace() -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let capture = Format::PLAIN.file(Link::Ethernet, 65_536, &connection()?);
    let path = written(folder.path(), "run.vbt", &as_trace("client", &capture)?)?;
    Ok((folder, path))
}

fn export(trace: &Path, to: &str, output: &Path) -> Result<()> {
    let output = vpnbench()
        .arg("export")
        .arg(trace)
        .args(["--to", to, "-o"])
        .arg(output)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{to}: {said}");
    Ok(())
}

pub(crate) fn lines() -> Result<()> {
    let (folder, trace) = trace()?;
    let path = folder.path().join("run.jsonl");
    export(&trace, "jsonl", &path)?;
    let text = std::fs::read_to_string(&path)?;
    let lines: Result<Vec<serde_json::Value>, _> = text.lines().map(serde_json::from_str).collect();
    let lines = lines?;
    let packets = lines.iter().filter(|line| line["event"] == "packet");
    ensure!(packets.clone().count() == PACKETS, "{}", packets.count());
    let first = &lines[0];
    ensure!(
        first["saddr"] == "10.0.0.1"
            && first["tap"] == "outer.tx"
            && first["namespace"] == "client",
        "{first}"
    );
    ensure!(first["utc_ns"] == 1_700_000_000_000_000_000u64, "{first}");
    Ok(())
}

pub(crate) fn tables() -> Result<()> {
    let (folder, trace) = trace()?;
    let out = folder.path().join("tables");
    export(&trace, "parquet", &out)?;
    let run = std::fs::read_dir(&out)?.next().context("a run")??.path();
    let name = run
        .file_name()
        .context("a name")?
        .to_string_lossy()
        .into_owned();
    ensure!(name.starts_with("run=capture-"), "{name}");
    let host = run.join("host=client");
    for file in [
        "packet.parquet",
        "retransmit.parquet",
        "tcp_probe.parquet",
        "report.json",
    ] {
        let bytes = std::fs::read(host.join(file)).context(file)?;
        ensure!(!bytes.is_empty(), "{file}");
        if file.ends_with("parquet") {
            ensure!(
                bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"),
                "{file}"
            );
        }
    }
    Ok(())
}

pub(crate) fn packets() -> Result<()> {
    let (folder, trace) = trace()?;
    let path = folder.path().join("run.pcapng");
    export(&trace, "pcapng", &path)?;
    let tshark = |arguments: &[&str]| -> Result<String> {
        let mut tshark = Command::new("tshark");
        let output = tshark
            .arg("-r")
            .arg(&path)
            .args(arguments)
            .stderr(Stdio::piped())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "tshark: {said}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let malformed = tshark(&["-Y", "_ws.malformed"])?;
    ensure!(malformed.is_empty(), "{malformed}");
    let fields = [
        "-T",
        "fields",
        "-e",
        "frame.interface_name",
        "-e",
        "frame.comment",
        "-e",
        "tcp.len",
    ];
    let all = tshark(&fields)?;
    ensure!(all.lines().count() == PACKETS, "{}", all.lines().count());
    ensure!(
        all.starts_with("client:outer.tx\touter.tx\t0"),
        "{all:.200}"
    );
    let again: Vec<&str> = all
        .lines()
        .filter(|line| line.contains("again in Recovery"))
        .collect();
    ensure!(
        again.len() == 1 && again[0].ends_with("\t1000"),
        "{again:?}"
    );
    Ok(())
}

/// Every query of docs/fleet.md runs, and finds the one retransmission.
pub(crate) fn queries() -> Result<()> {
    let (folder, trace) = trace()?;
    let out = folder.path().join("tables");
    export(&trace, "parquet", &out)?;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/fleet.md");
    let page = std::fs::read_to_string(page)?;
    let queries: Vec<&str> = page
        .split("```sql\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    ensure!(queries.len() >= 4, "{}", queries.len());
    for query in queries {
        // A capture has no drops, so there is no such table.
        if query.contains("drop.parquet") {
            continue;
        }
        let query = query.replace("DIR", &out.display().to_string());
        let program = "import duckdb,sys; print(duckdb.sql(sys.argv[1]).fetchall())";
        let output = python().args(["-c", program, &query]).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{query}: {said}");
        let rows = String::from_utf8(output.stdout)?;
        if query.contains("spurious") {
            ensure!(rows.contains("1, 0"), "{query}: {rows}");
        }
        if query.contains("packet.parquet") {
            ensure!(rows.contains("'outer.tx'"), "{query}: {rows}");
        }
    }
    Ok(())
}

/// Polars reads the same numbers out of the tables as were put in.
pub(crate) fn polars() -> Result<()> {
    let (folder, trace) = trace()?;
    let out = folder.path().join("tables");
    export(&trace, "parquet", &out)?;
    let program = "import polars as pl, sys\nt = pl.scan_parquet(sys.argv[1] + '/*/*/packet.parquet', hive_partitioning=True).group_by('run', 'host', 'tap_name').agg(pl.len().alias('n'), pl.col('payload_len').sum().alias('b')).collect()\nprint(t['n'].sum(), t['b'].sum(), sorted(t['tap_name'].to_list()), t['host'].to_list()[0])";
    let output = python().args(["-c", program]).arg(&out).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}");
    let payload = (SEGMENTS + 1) * 1000;
    let expected = format!("{PACKETS} {payload} ['outer.rx', 'outer.tx'] client");
    let found = String::from_utf8(output.stdout)?;
    ensure!(found.trim() == expected, "{found} instead of {expected}");
    Ok(())
}
