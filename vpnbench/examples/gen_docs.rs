//! Writes the generated parts of docs/.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = top.join("docs");
    std::fs::create_dir_all(&docs)?;
    std::fs::write(
        docs.join("probes.md"),
        vpnbench::report::docs::probes_markdown(),
    )?;
    let kernels = vpnbench::report::docs::kept_reports(&top.join("tests/doctor"))?;
    std::fs::write(
        docs.join("kernels.md"),
        vpnbench::report::docs::kernels_markdown(&kernels),
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
