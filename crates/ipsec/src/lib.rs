//! Everything of tulips that touches the outside world, and what the programs `ipsec` and `klips` are made of.
//!
//! * [`command`]: one module per `ipsec COMMAND`.
//! * [`host`]: devices, sockets, namespaces, threads.
//! * [`conf`]: the grammar of ipsec.conf.
//! * [`keyclient`]: a connection to the PF_KEY service.
//! * [`mod@print`]: standard output and standard error.
//! * [`rundir`]: where the files of one instance are.
//! * [`table`]: the tables as text.
//! * [`watch`]: what there is to see at one moment, for metrics and `ipsec top`.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod command;
pub mod conf;
pub mod ctl;
pub mod daemon;
pub mod host;
pub mod ikesock;
pub mod keyclient;
pub mod keysock;
pub mod log;
pub mod peer;
pub mod pluto;
pub mod print;
pub mod proc_fs;
pub mod process;
pub mod rundir;
pub mod table;
pub mod watch;
