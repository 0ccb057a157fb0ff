//! `klips`: the data-plane daemon.

fn main() {}
