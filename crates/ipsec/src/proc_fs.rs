//! The tables as files: a read-only FUSE file system at `proc/` in the run directory.
//!
//! `net/ipsec_eroute` and the other flat names have the form of the manual pages; the nodes below `net/ipsec/` have the
//! form the kernel printed. A file is written once, when it is opened: no line is ever torn, and reading slowly changes
//! nothing. Files have size 0, as in /proc, and are read directly, so that `cat` works all the same.

use crate::daemon::mailbox::{Answer, Ask, Mailbox};
use crate::rundir::Rundir;
use crate::table::{Form, Table};
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    MountOption, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, Request, Session, SessionACL,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A node: its directory by number, its name, what it holds, its mode. Numbers are positions, from 1.
struct Node {
    parent: u64,
    name: &'static str,
    /// Nothing for a directory.
    content: Option<(Table, Form)>,
    mode: u16,
}

const fn dir(parent: u64, name: &'static str) -> Node {
    Node { parent, name, content: None, mode: 0o555 }
}

const fn file(parent: u64, name: &'static str, table: Table, form: Form) -> Node {
    // Anyone may ask which version this is; the rest says who talks to whom.
    let mode = if matches!(table, Table::Version) { 0o444 } else { 0o400 };
    Node { parent, name, content: Some((table, form)), mode }
}

const TREE: [Node; 28] = [
    dir(1, ""),
    dir(1, "net"),
    dir(2, "ipsec"),
    dir(3, "eroute"),
    dir(3, "spi"),
    dir(3, "spigrp"),
    file(2, "ipsec_eroute", Table::Eroute, Form::Man),
    file(2, "ipsec_spi", Table::Spi, Form::Man),
    file(2, "ipsec_spigrp", Table::Spigrp, Form::Man),
    file(2, "ipsec_tncfg", Table::Tncfg, Form::Man),
    file(2, "ipsec_klipsdebug", Table::Klipsdebug, Form::Man),
    file(2, "ipsec_version", Table::Version, Form::Man),
    file(2, "pf_key", Table::PfKey, Form::Man),
    file(2, "pf_key_registered", Table::PfKeyRegistered, Form::Man),
    file(2, "pf_key_supported", Table::PfKeySupported, Form::Man),
    file(4, "all", Table::Eroute, Form::Klips),
    file(5, "all", Table::Spi, Form::Klips),
    file(6, "all", Table::Spigrp, Form::Klips),
    file(3, "tncfg", Table::Tncfg, Form::Klips),
    file(3, "klipsdebug", Table::Klipsdebug, Form::Klips),
    file(3, "version", Table::Version, Form::Klips),
    file(3, "pf_key", Table::PfKey, Form::Klips),
    dir(3, "stats"),
    file(23, "trap_count", Table::TrapCount, Form::Klips),
    file(23, "trap_sendcount", Table::TrapSendcount, Form::Klips),
    file(3, "xforms", Table::Xforms, Form::Klips),
    file(3, "natt", Table::Natt, Form::Klips),
    file(3, "ocf", Table::Ocf, Form::Klips),
];

/// How long the kernel may remember that a name exists. The tree never changes.
const TTL: Duration = Duration::from_secs(3600);

/// Octets of open files kept at a time; further opens are refused until some are closed.
const ROOM: usize = 1 << 30;

struct ProcFs {
    mailbox: Mailbox,
    open: Mutex<BTreeMap<u64, Arc<str>>>,
    next: AtomicU64,
    started: SystemTime,
}

fn nodes() -> impl Iterator<Item = (u64, &'static Node)> {
    (1..).zip(&TREE)
}

fn node(ino: INodeNo) -> Option<&'static Node> {
    nodes().find(|(number, _)| *number == ino.0).map(|(_, node)| node)
}

impl ProcFs {
    fn attr(&self, ino: u64, node: &Node) -> FileAttr {
        let (kind, nlink) = match node.content {
            Some(_) => (FileType::RegularFile, 1),
            None => (FileType::Directory, 2),
        };
        FileAttr {
            ino: INodeNo(ino),
            size: 0,
            blocks: 0,
            atime: self.started,
            mtime: self.started,
            ctime: self.started,
            crtime: self.started,
            kind,
            perm: node.mode,
            nlink,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }
}

impl Filesystem for ProcFs {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match nodes().skip(1).find(|(_, node)| node.parent == parent.0 && name == node.name) {
            Some((ino, node)) => reply.entry(&TTL, &self.attr(ino, node), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match node(ino) {
            Some(node) => reply.attr(&TTL, &self.attr(ino.0, node)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let Some((table, form)) = node(ino).and_then(|node| node.content) else {
            return reply.error(Errno::EISDIR);
        };
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(Errno::EROFS);
        }
        if self.open.lock().values().map(|text| text.len()).sum::<usize>() > ROOM {
            return reply.error(Errno::ENOMEM);
        }
        let Answer::Table(snapshot) = self.mailbox.ask(Ask::Table(table)) else {
            return reply.error(Errno::EIO);
        };
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(handle, snapshot.text(form).into());
        reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(text) = self.open.lock().get(&fh.0).map(Arc::clone) else {
            return reply.error(Errno::EBADF);
        };
        let rest =
            usize::try_from(offset).ok().and_then(|offset| text.as_bytes().get(offset..)).unwrap_or(&[]);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        reply.data(rest.get(..size).unwrap_or(rest));
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.open.lock().remove(&fh.0);
        reply.ok();
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some(Node { parent, content: None, .. }) = node(ino) else {
            return reply.error(Errno::ENOTDIR);
        };
        let own = [(ino.0, FileType::Directory, "."), (*parent, FileType::Directory, "..")];
        let children = nodes().skip(1).filter(|(_, node)| node.parent == ino.0).map(|(number, node)| {
            let kind = if node.content.is_some() { FileType::RegularFile } else { FileType::Directory };
            (number, kind, node.name)
        });
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (number, kind, name)) in (1..).zip(own.into_iter().chain(children)).skip(skip) {
            if reply.add(INodeNo(number), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}

/// Mounts the tables below the run directory and serves them until the mount goes.
///
/// The caller detaches the mount; a reader that still holds a file then keeps what it has read so far.
pub fn mount(rundir: &Rundir, mailbox: Mailbox, now: SystemTime) -> io::Result<()> {
    // Looked for first, so that the reason is said in words and no helper program is tried.
    if !Path::new("/dev/fuse").exists() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "/dev/fuse is missing"));
    }
    fs::create_dir_all(rundir.proc())?;
    let (open, next) = Default::default();
    let tables = ProcFs { mailbox, open, next, started: now };
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoExec,
        MountOption::DefaultPermissions,
        MountOption::FSName("klips".into()),
    ];
    config.acl = SessionACL::All;
    let session = Session::new(tables, rundir.proc(), &config).and_then(Session::spawn).map_err(|error| {
        let _ = fs::remove_dir(rundir.proc());
        reason(&error)
    })?;
    // Dropping it would try to unmount at a moment of its own choosing.
    std::mem::forget(session);
    Ok(())
}

/// One line. Where the kernel refuses, a helper is tried, and what is known is what became of that.
fn reason(error: &io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound {
        return io::Error::other("the kernel refused the mount, and there is no fusermount3 to ask instead");
    }
    let text = error.to_string();
    io::Error::new(error.kind(), text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests;
