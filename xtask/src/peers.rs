//! What the tests' peers need: found, installed where that is allowed, or named as missing.

use crate::run::{Failed, has, root, step, works};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which peers are wanted beside the programs of this machine.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// Emulated machines with another kernel.
    pub(crate) guests: bool,
    /// A Debian with newer programs than this machine's.
    pub(crate) newer: bool,
}

/// What was found.
pub(crate) struct Peers {
    /// A Python with scapy and cryptography.
    pub(crate) python: Option<PathBuf>,
    /// The root directory of a Debian with newer programs.
    pub(crate) newer: Option<PathBuf>,
    /// What is missing and what is skipped for it.
    pub(crate) missing: Vec<String>,
}

/// A program, the Debian package that has it, and what cannot be tested without it.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("ip", "iproute2", "namespace tests"),
    ("ping", "iputils-ping", "namespace tests"),
    ("python3", "python3", "the independent ESP peer"),
    ("fusermount3", "fuse3", "tables as files without root"),
    ("c++", "g++", "net/pfkeyv2.h from C++"),
    ("clang", "clang", "net/pfkeyv2.h under clang"),
    ("mandoc", "mandoc", "the lint of the manual pages"),
    ("nft", "nftables", "IKE through a NAT"),
    ("swanctl", "strongswan-swanctl", "IKE with strongSwan"),
    (
        "/usr/sbin/iked",
        "openiked",
        "IKE with OpenIKED, and an unmodified key manager for Linux on our PF_KEY",
    ),
    ("/usr/lib/ipsec/charon", "strongswan-charon", "IKE with strongSwan"),
    // The package of its user-space ESP.
    (
        "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so",
        "libcharon-extra-plugins",
        "IKE with strongSwan",
    ),
    (
        "/usr/lib/ipsec/plugins/libstrongswan-eap-tls.so",
        "libcharon-extauth-plugins",
        "EAP-TLS with strongSwan",
    ),
];

/// The same for machines that are emulated, with another kernel: each test of theirs takes minutes.
const GUESTS: &[(&str, &str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86", "a Linux kernel as peer"),
    ("busybox", "busybox-static", "a Linux kernel as peer"),
];

/// Packages that are unpacked below `target` and not installed, a file that then is there, and the package that names them: a kernel is not to boot
/// this machine, and libreswan would start and take the place of strongSwan's starter.
const UNPACKED: &[(&str, &str, &str, &str)] = &[
    ("peers-linux", "lib/modules", "linux-image-amd64", "a Linux kernel as peer"),
    ("peers-libreswan", "usr/libexec/ipsec/pluto", "libreswan", "IKE with libreswan"),
];

/// Downloads what `package` needs and this machine does not have, and unpacks it below `to`.
const UNPACK: &str = r#"
set -e
debs=$(mktemp -d)
trap 'rm -rf "$debs"' EXIT
mkdir -p "$debs/partial" "$2.new/usr/bin" "$2.new/usr/sbin" "$2.new/usr/lib"
if [ "$1" = linux-image-amd64 ]; then
  # Of the package that names the newest one; what goes with an installed kernel is of no use here.
  kernel=$(apt-cache depends "$1" | sed -n 's/.*Depends: \(linux-image-[^ ]*\)/\1/p' | head -n 1)
  (cd "$debs" && apt-get download "$kernel")
else
  apt-get install --download-only -y -qq --no-install-recommends -o "Dir::Cache::archives=$debs" "$1"
fi
# Its own directories must not take the place of what are links on the machine that it is laid over.
for name in bin sbin lib; do ln -sfn "usr/$name" "$2.new/$name"; done
for deb in "$debs"/*.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$2.new"; done
for version in $(ls "$2.new/lib/modules" 2>/dev/null); do depmod -b "$2.new" "$version"; done
mv "$2.new" "$2"
"#;

fn unpack(may: bool, missing: &mut Vec<String>) {
    for (name, file, package, what) in UNPACKED {
        let to = root().join("target").join(name);
        if may && !to.join(file).exists() {
            let mut command = Command::new("sh");
            command.args(["-c", UNPACK, "sh", package]).arg(&to);
            let _ = step(&format!("unpack {package}"), &mut command);
        }
        if !to.join(file).exists() {
            missing
                .push(format!("{what}: {package} is not unpacked in {} (root and apt do it)", to.display()));
        }
    }
}

/// Debian's newest strongSwan, which has ML-KEM, and OpenIKED in a root directory of their own; `$1` is that directory. The programs run with a
/// chroot into it, so that nothing of this machine changes.
const NEWER: &str = r#"
set -e
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m 1 '/debian$')
command -v debootstrap > /dev/null || apt-get install -y -qq --no-install-recommends debootstrap
rm -rf "$1.new"
debootstrap --variant=minbase --include=iproute2,ca-certificates trixie "$1.new" "$mirror"
echo "deb $mirror sid main" > "$1.new/etc/apt/sources.list.d/sid.list"
printf '#!/bin/sh\nexit 101\n' > "$1.new/usr/sbin/policy-rc.d"
chmod +x "$1.new/usr/sbin/policy-rc.d"
within() { chroot "$1" /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive sh -ec "$2"; }
# A mirror may be a snapshot of some weeks ago.
within "$1.new" 'echo "Acquire::Check-Valid-Until \"false\";" > /etc/apt/apt.conf.d/50snapshot
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends -t sid strongswan-charon strongswan-swanctl libcharon-extra-plugins \
    libcharon-extauth-plugins libstrongswan-extra-plugins libstrongswan-standard-plugins openiked
  apt-get clean'
mv "$1.new" "$1"
"#;

/// The root directory with the newer programs.
fn newer(may: bool, missing: &mut Vec<String>) -> Option<PathBuf> {
    let to = root().join("target/peers-debian");
    if may && !to.exists() {
        let mut command = Command::new("sh");
        command.args(["-c", NEWER, "sh"]).arg(&to);
        let _ = step("a newer Debian", &mut command);
    }
    if !to.exists() {
        missing.push(format!(
            "newer strongSwan and OpenIKED: no {} (root, apt and debootstrap make it)",
            to.display()
        ));
        return None;
    }
    Some(to)
}

/// Finds the peers; installs what is missing if `install` and this is root on a machine with apt.
pub(crate) fn prepare(install: bool, Wanted { guests, newer }: Wanted) -> Peers {
    println!("=== peers");
    let may = install && rustix::process::geteuid().is_root() && has("apt-get");
    let programs = || PROGRAMS.iter().chain(if guests { GUESTS } else { &[] });
    let wanted: Vec<&str> =
        programs().filter(|(program, ..)| !has(program)).map(|(_, package, _)| *package).collect();
    if may && !wanted.is_empty() && apt(&wanted).is_err() {
        // One package that cannot be had must not keep the others away.
        for package in wanted {
            let _ = apt(&[package]);
        }
    }
    let mut missing: Vec<String> = programs()
        .filter(|(program, ..)| !has(program))
        .map(|(program, package, what)| format!("{what}: no {program} (apt-get install {package})"))
        .collect();
    if guests {
        unpack(may, &mut missing);
    }
    let newer = if newer { self::newer(may, &mut missing) } else { None };
    let python = python(may);
    match &python {
        Some(python) => println!("independent ESP peer: scapy under {}", python.display()),
        None => missing.push(
            "the independent ESP peer: no scapy (pip install scapy cryptography, or apt-get install python3-scapy python3-cryptography)".into(),
        ),
    }
    Peers { python, newer, missing }
}

/// Any Python with both libraries: the system's, one in a virtual environment of ours, or Debian's packages.
fn python(may_install: bool) -> Option<PathBuf> {
    let system = PathBuf::from("python3");
    let venv = root().join("target/peers-venv");
    let inside = venv.join("bin/python3");
    if imports(&system) {
        return Some(system);
    }
    if imports(&inside) {
        return Some(inside);
    }
    if has("python3") {
        if may_install && !works(Command::new("python3").args(["-c", "import ensurepip"])) {
            let _ = apt(&["python3-venv"]);
        }
        // Needs no privilege, only the network; pip's own settings are respected.
        let made = step("venv", Command::new("python3").args(["-m", "venv"]).arg(&venv));
        let pip = |_| {
            step(
                "pip",
                Command::new(&inside).args(["-m", "pip", "install", "--quiet", "scapy", "cryptography"]),
            )
        };
        if made.and_then(pip).is_ok() && imports(&inside) {
            return Some(inside);
        }
    }
    let debian = PathBuf::from("/usr/bin/python3");
    if may_install {
        let _ = apt(&["python3-scapy", "python3-cryptography"]);
    }
    imports(&debian).then_some(debian)
}

fn imports(python: &Path) -> bool {
    works(Command::new(python).args(["-c", "import scapy.layers.ipsec, cryptography"]))
}

fn apt(packages: &[&str]) -> Result<(), Failed> {
    let install = |packages: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages);
        step(&format!("apt-get install {}", packages.join(" ")), &mut command)
    };
    install(packages).or_else(|_| {
        // The lists may be older than what the mirror still has.
        step("apt-get update", Command::new("apt-get").args(["update", "-qq"]))?;
        install(packages)
    })
}
