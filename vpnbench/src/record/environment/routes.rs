//! Routes of the main table as `ip route` prints them.

use std::collections::BTreeMap;
use std::fmt::Write;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType, RouteVia,
};

use super::{Missing, kept};
use crate::probe::discover::route;

/// Routes of the calling thread's namespace, IPv4 first. `names` are its devices by index.
pub(super) fn read(names: &BTreeMap<u32, String>, missing: &mut Missing) -> Vec<String> {
    let mut routes = Vec::new();
    for (family, what) in [
        (AddressFamily::Inet, "IPv4 routes"),
        (AddressFamily::Inet6, "IPv6 routes"),
    ] {
        let list = kept(route::main_routes(family), what, missing).unwrap_or_default();
        routes.extend(list.iter().map(|route| text(route, names)));
    }
    routes
}

fn text(route: &RouteMessage, names: &BTreeMap<u32, String>) -> String {
    let mut text = String::new();
    if route.header.kind != RouteType::Unicast {
        text += &format!("{:?} ", route.header.kind).to_lowercase();
    }
    text += &destination(route);
    hop(&route.attributes, names, &mut text);
    if route.header.protocol != RouteProtocol::Unspec {
        text += &format!(" proto {:?}", route.header.protocol).to_lowercase();
    }
    if matches!(route.header.scope, RouteScope::Link | RouteScope::Host) {
        text += &format!(" scope {:?}", route.header.scope).to_lowercase();
    }
    for attribute in &route.attributes {
        details(attribute, names, &mut text);
    }
    text
}

fn destination(route: &RouteMessage) -> String {
    let address = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => route::ip(address),
            _ => None,
        });
    match (address, route.header.destination_prefix_length) {
        (None, _) => "default".to_owned(),
        (Some(address), length) if length == if address.is_ipv4() { 32 } else { 128 } => {
            address.to_string()
        }
        (Some(address), length) => format!("{address}/{length}"),
    }
}

/// ` via GATEWAY dev NAME`.
fn hop(attributes: &[RouteAttribute], names: &BTreeMap<u32, String>, text: &mut String) {
    let gateway = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => route::ip(address).map(|address| address.to_string()),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(format!("inet {address}")),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(format!("inet6 {address}")),
        _ => None,
    });
    if let Some(gateway) = gateway {
        *text += " via ";
        *text += &gateway;
    }
    let device = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    if let Some(index) = device {
        *text += " dev ";
        *text += &names
            .get(&index)
            .cloned()
            .unwrap_or_else(|| format!("if{index}"));
    }
}

fn details(attribute: &RouteAttribute, names: &BTreeMap<u32, String>, text: &mut String) {
    // Writing to a String cannot fail.
    let _ = match attribute {
        RouteAttribute::PrefSource(address) => match route::ip(address) {
            Some(address) => write!(text, " src {address}"),
            None => Ok(()),
        },
        RouteAttribute::Priority(metric) => write!(text, " metric {metric}"),
        RouteAttribute::Metrics(metrics) => metrics.iter().try_for_each(|one| metric(one, text)),
        RouteAttribute::MultiPath(paths) => {
            for path in paths {
                *text += " nexthop";
                hop(&path.attributes, names, text);
                let name = names.get(&path.interface_index).map_or("?", String::as_str);
                let _ = write!(text, " dev {name} weight {}", u32::from(path.hops) + 1);
            }
            Ok(())
        }
        _ => Ok(()),
    };
}

fn metric(metric: &RouteMetric, text: &mut String) -> std::fmt::Result {
    match metric {
        RouteMetric::Mtu(value) => write!(text, " mtu {value}"),
        RouteMetric::Advmss(value) => write!(text, " advmss {value}"),
        RouteMetric::Window(value) => write!(text, " window {value}"),
        RouteMetric::Reordering(value) => write!(text, " reordering {value}"),
        RouteMetric::Cwnd(value) => write!(text, " cwnd {value}"),
        RouteMetric::SsThresh(value) => write!(text, " ssthresh {value}"),
        RouteMetric::InitCwnd(value) => write!(text, " initcwnd {value}"),
        RouteMetric::InitRwnd(value) => write!(text, " initrwnd {value}"),
        RouteMetric::RtoMin(value) => write!(text, " rto_min {value}ms"),
        RouteMetric::QuickAck(value) => write!(text, " quickack {value}"),
        RouteMetric::CcAlgo(name) => write!(text, " congctl {name}"),
        _ => Ok(()),
    }
}
