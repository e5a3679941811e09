//! Before explaining a figure: is it one? Audits of a run's own result.

pub(super) mod across;
pub(super) mod counter_artifact;
pub(super) mod dead_flow;
pub(super) mod impairment_unit;
pub(super) mod impairment_void;
pub(super) mod missing_samples;
pub(super) mod offered_load;
pub(super) mod tool_failure;
pub(super) mod unit;
