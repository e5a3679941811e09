//! Reproduces tunnels on one machine: hosts, wires, daemons, benchmarks.
