//! A real Linux kernel with its own IPsec, as Debian has it, in an emulated machine on a cable in a namespace. Emulated also where the processor
//! could help: that is the same everywhere, and user-mode-linux does not start on every processor.
//!
//! Its root directory is that of this machine, read-only below a file system in its memory: every program of the host can be run in it,
//! and nothing that is written there reaches the host.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use crate::skipped::skipped;
use ipsec::host::clock;
use ipsec::host::netns::Namespace;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const MACHINE: &str = "/usr/bin/qemu-system-x86_64";
/// Its shell has no libraries.
const BUSYBOX: &str = "/usr/bin/busybox";

/// What brings it from the file system in memory to one laid over the host's.
const FIRST: &str = include_str!("guest-initramfs.sh");
/// A line of the serial port is the number of a script, whose output and exit status are files in the directory that both see.
const SECOND: &str = include_str!("guest.sh");

/// What FIRST needs of the kernel's modules.
const MODULES: &[&str] = &[
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "fs/fscache/fscache",
    "fs/netfs/netfs",
    "net/9p/9pnet",
    "net/9p/9pnet_virtio",
    "fs/9p/9p",
    "fs/overlayfs/overlay",
];

/// How long the guest may take to start, and for one command, before the test fails.
const PATIENCE: Duration = Duration::from_secs(150);

/// A kernel that nobody installed: that is for booting this machine. `cargo xtask test --guests` puts it there;
/// `TULIPS_LINUX_ROOT=DIR` names another.
const LINUX: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/../peers-linux");

/// A libreswan that nobody installed: it would start, and would take the place of strongSwan's starter. `cargo xtask test
/// --guests` puts it there; `TULIPS_LIBRESWAN_ROOT=DIR` names another.
const LIBRESWAN: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/../peers-libreswan");

/// A kernel for the guest: its image and its modules.
struct Kernel {
    root: PathBuf,
    version: String,
}

/// The kernel to try with; says why there is none.
fn kernel() -> Option<Kernel> {
    let root = std::env::var_os("TULIPS_LINUX_ROOT").map_or_else(|| LINUX.into(), PathBuf::from);
    let found = || {
        let root = fs::canonicalize(&root).ok()?;
        let entry = fs::read_dir(root.join("lib/modules")).ok()?.next()?.ok()?;
        let version = entry.file_name().into_string().ok()?;
        root.join(format!("boot/vmlinuz-{version}")).exists().then_some(Kernel { root, version })
    };
    let programs = Path::new(MACHINE).exists() && Path::new(BUSYBOX).exists();
    let kernel = found().filter(|_| programs);
    if kernel.is_none() {
        skipped(
            "a Linux kernel as peer: none unpacked (cargo xtask test --guests does, as root with apt; TULIPS_LINUX_ROOT: where it is), \
             or no qemu-system-x86_64 and busybox (apt-get install qemu-system-x86 busybox-static)",
        );
    }
    kernel
}

/// Whether there is a guest to try with; says why not.
pub(crate) fn is_there() -> bool {
    kernel().is_some()
}

/// The root below which libreswan is; says why there is none.
pub(crate) fn libreswan() -> Option<PathBuf> {
    let root = std::env::var_os("TULIPS_LIBRESWAN_ROOT").map_or_else(|| LIBRESWAN.into(), PathBuf::from);
    let root = fs::canonicalize(&root).ok().filter(|root| root.join("usr/libexec/ipsec/pluto").exists());
    if root.is_none() {
        skipped(
            "libreswan: not unpacked (cargo xtask test --guests does, as root with apt; TULIPS_LIBRESWAN_ROOT: where it is)",
        );
    }
    root
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) ok: bool,
    pub(crate) text: String,
}

pub(crate) struct Guest {
    /// Where its cable is.
    pub(crate) namespace: Namespace,
    dir: tempfile::TempDir,
    process: Child,
    line: Mutex<ChildStdin>,
    count: AtomicU32,
}

impl Guest {
    /// Boots one whose `eth0` takes the place of the interface of that name in `namespace`. What is below `extra` is in its root directory, too.
    pub(crate) fn boot(namespace: Namespace, extra: Option<&Path>) -> Self {
        let kernel = kernel().expect("a kernel");
        let dir = tempfile::Builder::new().prefix("guest").tempdir().expect("directory");
        let share = dir.path().join("share");
        fs::create_dir(&share).expect("directory");
        fs::write(share.join("second"), SECOND).expect("script");
        let initramfs = initramfs(&kernel, dir.path());
        // The guest owns this end of the cable: the host must not answer for it.
        script(
            &namespace,
            "ip addr flush dev eth0 && ip tuntap add tap0 mode tap && ip link add bridge0 type bridge && \
             ip link set eth0 master bridge0 && ip link set tap0 master bridge0 && \
             for link in eth0 tap0 bridge0; do ip link set $link up || exit 1; done",
        );
        let console = dir.path().join("console");
        let mut command = Command::new(MACHINE);
        command.args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-m",
            "512",
            "-nodefaults",
            "-no-user-config",
        ]);
        command.args(["-display", "none", "-no-reboot", "-serial", "stdio", "-serial"]);
        command.arg(format!("file:{}", console.display()));
        command.arg("-kernel").arg(kernel.root.join(format!("boot/vmlinuz-{}", kernel.version)));
        command.arg("-initrd").arg(initramfs);
        command.arg("-append").arg(format!(
            "console=ttyS1 quiet panic=-1 mitigations=off GUEST_KERNEL={}",
            kernel.root.display()
        ));
        let mut sees = |tag: &str, path: &Path, rest: &str| {
            let path = path.display();
            command.arg("-fsdev").arg(format!("local,id={tag},path={path},security_model=none,{rest}"));
            command.arg("-device").arg(format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
        };
        sees("host", Path::new("/"), "readonly=on,multidevs=remap");
        sees("share", &share, "multidevs=remap");
        if let Some(extra) = extra {
            sees("extra", extra, "readonly=on,multidevs=remap");
        }
        command.args(["-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no"]);
        command.args(["-device", "virtio-net-pci,netdev=net,romfile=,mac=02:00:00:00:00:07"]);
        let errors = File::create(dir.path().join("errors")).expect("file");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(errors);
        let mut process = namespace.spawn(&mut command).expect("qemu");
        let line = Mutex::new(process.stdin.take().expect("piped"));
        let mut guest = Self { namespace, dir, process, line, count: AtomicU32::new(0) };
        let began = clock::now();
        while !guest.share().join("ready").exists() {
            let ended = guest.process.try_wait().expect("child");
            assert!(
                ended.is_none() && clock::now().since(began) < PATIENCE,
                "the guest did not start: {ended:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        guest
    }

    /// The directory that is `/share` in it.
    pub(crate) fn share(&self) -> PathBuf {
        self.dir.path().join("share")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.share().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("directory");
        fs::write(path, text).expect("file");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.share().join(name)).unwrap_or_default()).into_owned()
    }

    /// Runs a script of the shell in it.
    pub(crate) fn run(&self, script: &str) -> Said {
        let n = self.count.fetch_add(1, Relaxed);
        let share = self.share();
        self.write(&format!("script.{n}"), script);
        let (done, heard) = (share.join(format!("done.{n}")), share.join(format!("heard.{n}")));
        let (began, mut said) = (clock::now(), 0);
        while !done.exists() {
            let waited = clock::now().since(began);
            assert!(waited < PATIENCE, "the guest does not end: {script}");
            // A line that comes while the port is opened is lost.
            if !heard.exists() && waited >= Duration::from_secs(3 * said) {
                said += 1;
                let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
                writeln!(line, "{n}").and_then(|()| line.flush()).expect("the guest is there");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let ok = fs::read_to_string(&done).expect("status").trim() == "0";
        Said { ok, text: self.read(&format!("out.{n}")) }
    }

    /// Runs one that must succeed, and says what it printed.
    pub(crate) fn done(&self, script: &str) -> String {
        let said = self.run(script);
        assert!(said.ok, "in the guest: {script}\n{}", said.text);
        said.text
    }
}

/// Runs a script in a namespace of the host.
fn script(namespace: &Namespace, text: &str) {
    let output = namespace.run(|| Command::new("sh").args(["-c", text]).output());
    let output = output.expect("namespace").expect("sh");
    assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What the kernel finds in its memory.
fn initramfs(kernel: &Kernel, dir: &Path) -> PathBuf {
    let root = dir.join("root");
    for name in ["bin", "proc", "dev", "rw", "extra", "host", "modules"] {
        fs::create_dir_all(root.join(name)).expect("directory");
    }
    fs::write(root.join("init"), FIRST).expect("init");
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).expect("mode");
    fs::copy(BUSYBOX, root.join("bin/busybox")).expect("busybox");
    for applet in ["sh", "mount", "umount", "insmod", "mkdir", "rm", "ln", "switch_root"] {
        symlink("busybox", root.join("bin").join(applet)).expect("link");
    }
    for module in MODULES {
        let from = kernel.root.join(format!("lib/modules/{}/kernel/{module}.ko", kernel.version));
        let name = Path::new(module).file_name().expect("a name");
        fs::copy(&from, root.join("modules").join(name).with_extension("ko")).expect("module");
    }
    let archive = dir.join("initramfs");
    let packed = Command::new("sh")
        .args(["-c", "find . | busybox cpio -o -H newc >\"$1\"", "sh"])
        .arg(&archive)
        .current_dir(&root)
        .output();
    assert!(packed.expect("sh").status.success(), "cpio");
    archive
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["console", "errors"] {
                let text = fs::read(self.dir.path().join(name)).unwrap_or_default();
                let text = String::from_utf8_lossy(&text).into_owned();
                let end = text.lines().rev().take(15).collect::<Vec<_>>();
                eprintln!("---- the guest's {name}, the last line first\n{}", end.join("\n"));
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
