//! Analysis of captures, without root: every format, damage, and tshark beside it.

#[path = "offline/beside.rs"]
mod beside;
#[path = "offline/damage.rs"]
mod damage;
#[path = "offline/encapsulation.rs"]
mod encapsulation;
#[path = "offline/export.rs"]
mod export;
#[path = "offline/formats.rs"]
mod formats;
#[path = "offline/join.rs"]
mod join;
#[path = "offline/make.rs"]
mod make;
#[path = "offline/read.rs"]
mod read;
#[path = "offline/timeline.rs"]
mod timeline;
#[path = "offline/tshark.rs"]
mod tshark;
#[path = "offline/with.rs"]
mod with;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use vpnbench_tests::python;
use vpnbench_tests::trials::{Trials, trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Trials::new(&arguments);
    let mut add = |name: &str, case: fn() -> anyhow::Result<()>, missing: Option<&str>| {
        trials.add(trial(name, case), missing);
    };
    add("every_format_and_link_layer", formats::every_format, None);
    add("gzip_and_zstd", formats::packed, None);
    add("snap_length", formats::snap_length, None);
    add("a_file_that_is_still_written", formats::growing, None);
    add("a_clock_that_is_set_back", formats::clock_step, None);
    add(
        "copies_of_a_capture_of_all_devices",
        formats::duplicates,
        None,
    );
    add("damaged_files", damage::some, None);
    add("damaged_files_of_other_tools", damage::some_beside, None);
    add("a_destroyed_record", damage::one_record, None);
    add("a_hole_in_the_file", damage::hole, None);
    add("something_else", damage::something_else, None);
    add(
        "two_ends_with_clocks_of_their_own",
        join::clocks_of_their_own,
        None,
    );
    add("other_tools_beside_a_capture", with::all_kinds, None);
    add(
        "other_tools_that_cannot_be_used",
        with::what_cannot_be_used,
        None,
    );
    add("through_a_pipe", tshark::pipe, None);
    add("export_lines_of_json", export::lines, None);
    add("export_tables", export::tables, None);
    let missing = tshark::missing();
    add(
        "export_packets_in_tshark",
        export::packets,
        missing.as_deref(),
    );
    let duckdb = python::missing("duckdb");
    add(
        "queries_of_the_fleet_page",
        export::queries,
        duckdb.as_deref(),
    );
    add(
        "counts_agree_with_tshark",
        tshark::counts_agree,
        missing.as_deref(),
    );
    add("packets_inside_of_packets", encapsulation::by_hand, None);
    let vxlan = encapsulation::vxlan_missing();
    add("a_real_vxlan", encapsulation::real_vxlan, vxlan.as_deref());
    let beside = beside::missing();
    add(
        "agreement_with_tshark_and_tcptrace",
        beside::agree,
        beside.as_deref(),
    );
    let perfetto = python::missing("perfetto, google.protobuf");
    add(
        "export_timeline_in_perfettos_terms",
        timeline::perfetto,
        perfetto.as_deref(),
    );
    add("export_stacks_in_a_flame_graph", timeline::folded, None);
    let polars = python::missing("polars");
    add("export_tables_in_polars", export::polars, polars.as_deref());
    let why = "ten times the files of the default run";
    let captures = trial("ten_thousand_damaged_files", damage::many);
    trials.add_on_demand(captures, why, None);
    let beside = trial(
        "ten_thousand_damaged_files_of_other_tools",
        damage::many_beside,
    );
    trials.add_on_demand(beside, why, None);
    libtest_mimic::run(&arguments, trials.finish()).exit_code()
}
