//! Network namespaces: made, entered, and used to run things in.
//!
//! A [`Namespace`] is a descriptor; it lives as long as that or anything inside it. Only threads started for the purpose
//! ever enter one, so the calling thread stays where it was.

use super::netlink::Netlink;
use ipnet::IpNet;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// A fresh, empty namespace with its loopback up. Needs `CAP_SYS_ADMIN` in the current user namespace.
    pub fn new() -> io::Result<Self> {
        scoped(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let mut netlink = Netlink::open()?;
            if let Some(lo) = netlink.link("lo")? {
                netlink.set_up(lo.index, true)?;
            }
            Self::current()
        })
    }

    /// The calling thread's namespace.
    pub fn current() -> io::Result<Self> {
        Ok(Self { file: File::open("/proc/thread-self/ns/net")? })
    }

    /// Runs `work` on a thread inside the namespace and waits for it. Sockets and devices it opens, and threads it
    /// starts, stay inside.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> io::Result<R> {
        scoped(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
    }

    /// Starts a program inside the namespace.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.run(|| command.spawn())?
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// One end of a cable: an interface of this name, with these addresses, in this namespace.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where.
    pub namespace: &'a Namespace,
    /// The interface's name.
    pub name: &'a str,
    /// Its addresses, with the routes to their prefixes.
    pub addresses: &'a [IpNet],
}

/// Joins two namespaces by a pair of virtual Ethernet interfaces, both up and carrying.
pub fn connect(left: End<'_>, right: End<'_>) -> io::Result<()> {
    left.namespace.run(|| {
        let mut netlink = Netlink::open()?;
        // Both ends come to be here, so the far one needs a name that is free here.
        let passing = format!("tulips{}", std::process::id() % 1_000_000);
        netlink.add_veth(left.name, &passing)?;
        let far = netlink.link(&passing)?.ok_or(io::ErrorKind::NotFound)?;
        netlink.move_link(far.index, right.namespace.as_fd())?;
        right.namespace.run(|| {
            // It keeps its name, and its index only if that was free there.
            let mut netlink = Netlink::open()?;
            let far = netlink.link(&passing)?.ok_or(io::ErrorKind::NotFound)?;
            netlink.rename(far.index, right.name)
        })?
    })??;
    for end in [left, right] {
        end.namespace.run(|| {
            let mut netlink = Netlink::open()?;
            let link = netlink.link(end.name)?.ok_or(io::ErrorKind::NotFound)?;
            for net in end.addresses {
                netlink.add_address_and_route(link.index, *net)?;
            }
            netlink.set_up(link.index, true)
        })??;
    }
    // The end that was up first gets its carrier when the other is up, and the kernel looks at such changes once a second.
    for end in [left, right] {
        end.namespace.run(|| {
            let mut netlink = Netlink::open()?;
            for _ in 0..1000 {
                if netlink.link(end.name)?.is_some_and(|link| link.running) {
                    return io::Result::Ok(());
                }
                thread::sleep(Duration::from_millis(5));
            }
            Err(io::ErrorKind::TimedOut.into())
        })??;
    }
    Ok(())
}

/// Makes the calling process root in a user namespace of its own, where it may make network namespaces, TUN devices and
/// raw sockets without being root outside.
///
/// The process must still have only one thread. The caller's ids appear as 0 inside.
pub fn become_root_in_user_namespace() -> io::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    // An unprivileged process may map its group only after giving setgroups(2) up (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// Whether this thread may make network namespaces; `Err` says why not. For tests that skip where they may not run.
pub fn available() -> Result<(), String> {
    match Namespace::new() {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(format!("cannot make a network namespace ({error}); run as root or under `unshare -Ur`"))
        }
    }
}

fn scoped<R: Send>(work: impl FnOnce() -> io::Result<R> + Send) -> io::Result<R> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
