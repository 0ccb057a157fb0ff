//! `LD_PRELOAD` library: `socket(PF_KEY, SOCK_RAW, PF_KEY_V2)` of an unmodified program becomes a connection to the PF_KEY
//! service of tulips, an `AF_UNIX` `SOCK_SEQPACKET` socket whose path is in the environment, and the calls that follow on
//! it behave as those on a kernel's PF_KEY socket do. `ipsec run` sets it up.
//!
//! Most of that is the kernel's own: records, truncation, `poll`, `select`, `epoll`, time limits, `dup`, `fork`. What is
//! here is the difference:
//!
//! | call | difference |
//! |---|---|
//! | `socket` | EPROTONOSUPPORT, ESOCKTNOSUPPORT, and EPERM from the service, which is EACCES to programs for KLIPS |
//! | `write`, `send` … | returns when the answer is there, as a kernel's does; no SIGPIPE; no octets are no message; a refusal is the errno of the call, too, for programs written for KLIPS |
//! | `read`, `recv` … | a service that has gone is ENETDOWN, not the end of a file, and is told once (`end`); there is no address of a sender |
//! | `bind`, `connect`, `listen`, `accept`, `shutdown` | EOPNOTSUPP |
//! | `getsockname`, `getpeername` | a family and nothing else |
//! | `getsockopt`, `setsockopt` | SO_DOMAIN, SO_TYPE, SO_PROTOCOL, SO_USELOOPBACK; SO_PRIORITY is 0; other levels EOPNOTSUPP |
//!
//! On other sockets one thing differs: `IP_IPSEC_POLICY` and `IPV6_IPSEC_POLICY` with a policy that says to leave packets
//! alone succeed, since that is what happens to them here. One that asks for protection goes to the kernel as it is.
//!
//! **What makes a descriptor one of ours** is in the open socket, not in this process: family, type, and a priority no
//! one gives a Unix socket. So it follows `dup`, `fork`, `exec` and passing to another process, and a number that was closed
//! and is now something else is never mistaken. Nothing is allocated and no lock is taken: these functions are called
//! from signal handlers and between `fork` and `exec`.
//!
//! What goes past the C library goes past this: a program that makes its system calls itself, and `fread` and `fwrite`,
//! whose calls are inside it (they work, but a service that has gone is the end of a file to them).
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "a C library's functions, called by C and calling C")]

mod end;
mod ours;
mod real;
mod service;
mod stand_in;
