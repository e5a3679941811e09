//! A benchmark command that does not start, fails or is killed.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::ending::script;
use crate::recorder::Place;
use crate::traffic::Wire;

pub(crate) fn missing() -> Result<()> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    std::fs::write(place.trace(), "an older trace")?;
    let line = format!(
        "record {} -o TRACE -- nosuchprogram -c 10.2.0.2",
        wire.select()
    );
    let ended = place.run(&line)?;
    ended.expect(4, &["nosuchprogram", "PATH", "nothing was recorded"])?;
    ensure!(std::fs::read_to_string(place.trace())? == "an older trace");
    let line = format!("attach {} -- /no/such/program", wire.select());
    place
        .run(&line)?
        .expect(4, &["/no/such/program", "No such file"])
}

pub(crate) fn not_executable() -> Result<()> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    let program = place.path("program").display().to_string();
    std::fs::write(&program, "no program")?;
    let ended = place.run(&format!("record {} -o TRACE -- {program}", wire.select()))?;
    ended.expect(4, &[&program, "ermission denied"])?;
    ensure!(!place.trace().exists(), "a trace of nothing");
    Ok(())
}

pub(crate) fn fails() -> Result<()> {
    let status = ends_with("exit 7\n", "failed with status 7")?;
    ensure!(
        status["code"] == 7 && status["signal"].is_null(),
        "{status}"
    );
    Ok(())
}

pub(crate) fn killed() -> Result<()> {
    let status = ends_with("kill -KILL $$\n", "ended by signal 9")?;
    ensure!(
        status["code"].is_null() && status["signal"] == 9,
        "{status}"
    );
    Ok(())
}

/// Attaches around a script that fails; returns the command's status in the report.
fn ends_with(text: &str, says: &str) -> Result<Value> {
    let (place, wire) = (Place::new()?, Wire::new()?);
    let command = script(&place, text)?;
    let line = format!(
        "attach {} -o TRACE --report json -- {command}",
        wire.select()
    );
    let ended = place.run(&line)?;
    ended.expect(4, &[says])?;
    let mut report: Value = serde_json::from_str(&ended.stdout)?;
    ensure!(report["run"]["end_reason"] == "command");
    let again = place.report()?;
    ensure!(again["run"]["command_status"] == report["run"]["command_status"]);
    Ok(report["run"]["command_status"].take())
}
