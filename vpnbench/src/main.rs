//! Parse, dispatch, print the error, exit status.

fn main() {}
