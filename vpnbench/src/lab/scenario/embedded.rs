//! The scenarios the program carries, one file each in `vpnbench/scenarios/`.

/// A scenario that is compiled in.
#[derive(Debug, Clone, Copy)]
pub struct Embedded {
    /// Name: that of the file without its ending.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
}

impl Embedded {
    pub(super) fn file_name(&self) -> String {
        format!("{}.toml", self.name)
    }
}

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        &[$(Embedded {
            name: $name,
            text: include_str!(concat!("../../../scenarios/", $name, ".toml")),
        }),*]
    };
}

/// All of them, in the order they are listed.
pub const EMBEDDED: &[Embedded] = embedded!["healthy-none", "healthy-wireguard-go"];

pub(super) fn find(name: &str) -> Option<&'static Embedded> {
    EMBEDDED.iter().find(|scenario| scenario.name == name)
}
