//! Writes the generated parts of docs/.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    std::fs::create_dir_all(&docs)?;
    std::fs::write(
        docs.join("probes.md"),
        vpnbench::report::docs::probes_markdown(),
    )?;
    std::fs::write(
        docs.join("findings.md"),
        vpnbench::explain::text::markdown(),
    )?;
    std::fs::write(
        docs.join("lab-vpns.md"),
        vpnbench::lab::vpn::listing::markdown(),
    )
}
