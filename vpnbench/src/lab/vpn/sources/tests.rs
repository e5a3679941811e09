//! Tests of `sources`.

use super::*;

#[test]
fn rows_are_complete() {
    for source in SOURCES {
        let name = source.name;
        assert!(
            !source.title.is_empty() && !source.quirks.is_empty(),
            "{name}"
        );
        assert_eq!(
            source.programs.is_empty(),
            source.ways.is_empty(),
            "{name}: programs need a way to get them"
        );
        assert_eq!(
            SOURCES.iter().filter(|row| row.name == name).count(),
            1,
            "{name} twice"
        );
        assert!(source.quirks.iter().all(|quirk| quirk.ends_with('.')));
    }
}

#[test]
fn all_systems_of_the_study_have_a_row() {
    let study = [
        "Internal",
        "WireGuard",
        "ZeroTier",
        "Headscale",
        "Yggdrasil",
        "Nebula",
        "EasyTier",
        "VpnCloud",
        "Hyprspace",
        "Tinc",
        "Mycelium",
    ];
    for system in study {
        assert!(
            SOURCES.iter().any(|row| row.study == Some(system)),
            "{system}"
        );
    }
    let known = |row: &Source| row.study.is_none_or(|system| study.contains(&system));
    assert!(SOURCES.iter().all(known));
}

#[test]
fn versions_are_pinned() {
    for way in SOURCES.iter().flat_map(|source| source.ways) {
        match way {
            Way::Crate { version, .. } => {
                assert_eq!(version.split('.').count(), 3, "{version}");
            }
            Way::Go {
                version, commands, ..
            } => {
                assert!(version.starts_with('v'), "{version}");
                assert!(!commands.is_empty());
            }
            Way::Debian { packages, .. } => assert!(!packages.is_empty()),
            Way::Nowhere { why } => assert!(!why.is_empty()),
        }
    }
}
