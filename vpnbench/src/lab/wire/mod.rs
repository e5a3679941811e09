//! What joins the hosts: devices, and the impairments of `tc netem` on the way.

mod impairment;
mod links;
mod spec;
mod values;

pub use impairment::{Distribution, Impairment};
pub use spec::{Backend, DirectionSpec, InvalidKey, Model, Place, Profile, Unit, WireSpec};
pub use values::{Percent, Rate, Time};

use super::error::{LabError, Result};
use super::hosts::Hosts;
use super::undo::Undo;

/// The devices between the hosts, ready to carry packets.
#[derive(Debug)]
pub struct Wire {
    /// What acts; never [`Backend::Auto`].
    pub backend: Backend,
}

/// Joins the hosts, gives their wire devices addresses and brings them up. Draws that the wire
/// makes itself start from `seed`.
pub(crate) fn start(
    spec: &WireSpec,
    hosts: &Hosts,
    undo: &mut Undo,
    id: &str,
    seed: u64,
) -> Result<Wire> {
    spec.validate()
        .map_err(LabError::failed("checking", "the wire's settings"))?;
    let _ = seed;
    if !spec.is_plain() {
        let reason = "only a plain wire is built so far";
        return Err(LabError::failed("building", "the wire")(reason));
    }
    links::plain(hosts, undo, id)?;
    Ok(Wire {
        backend: Backend::None,
    })
}
