//! Commands that need the kernel.

use super::args::{AttachArgs, DoctorArgs, RecordArgs};
use super::output::Output;
use super::{ExitStatus, Failure};

/// `vpnbench doctor`
pub(super) fn doctor(_args: DoctorArgs, _output: &mut Output) -> Result<ExitStatus, Failure> {
    Err(anyhow::anyhow!("doctor is not built in yet").into())
}

/// `vpnbench attach`
pub(super) fn attach(_args: AttachArgs, _output: &mut Output) -> Result<ExitStatus, Failure> {
    Err(anyhow::anyhow!("attach is not built in yet").into())
}

/// `vpnbench record`
pub(super) fn record(_args: RecordArgs, _output: &mut Output) -> Result<ExitStatus, Failure> {
    Err(anyhow::anyhow!("record is not built in yet").into())
}
