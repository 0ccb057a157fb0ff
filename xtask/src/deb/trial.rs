//! `cargo xtask deb --try`: the package in copies of this machine's root that are thrown away.

use super::directory;
use crate::run::{Failed, root, step};
use std::path::Path;
use std::process::Command;

/// Makes the copy below the first argument and goes there: an overlay, so that what changes is in memory and gone afterwards.
const COPY: &str = r#"
    set -eu
    over=$1; shift
    mount -t tmpfs over "$over"
    mkdir "$over/upper" "$over/work" "$over/root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$over/upper,workdir=$over/work" "$over/root"
    cd "$over/root"
    mount -t proc proc proc
    mount -t sysfs sysfs sys 2>/dev/null || true
    mount -t tmpfs run run
    mount -t tmpfs tmp tmp
    mkdir try
    cp "$@" try/
    script=$(basename "$1") old=$(basename "$2") new=$(basename "$3")
"#;

/// Runs the script as the first process. Without systemd `/run/systemd/system` is not there, which is how everybody tells.
const BY_HAND: &str = r#"
    mount --rbind /dev dev
    exec chroot . "/try/$script" "/try/$old" "/try/$new"
"#;

/// Runs systemd as the first process, and the script as a service whose end is systemd's.
const WITH_SYSTEMD: &str = r#"
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=755 dev dev
    for device in null zero full random urandom tty fuse net/tun; do
        mkdir -p "dev/$(dirname "$device")"
        : >"dev/$device"
        mount --bind "/dev/$device" "dev/$device"
    done
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    : >try/said
    mount --bind "$said" try/said
    cat >etc/systemd/system/try.service <<UNIT
[Unit]
SuccessAction=exit
FailureAction=exit
FailureActionExitStatus=1
[Service]
Type=oneshot
ExecStart=/try/$script /try/$old /try/$new
StandardOutput=append:/try/said
StandardError=inherit
TimeoutStartSec=300
UNIT
    mkdir -p etc/systemd/system/multi-user.target.wants
    ln -s ../try.service etc/systemd/system/multi-user.target.wants/
    # The host is not to be changed by what systemd does at a start, nor known by its number.
    rm -f etc/machine-id
    echo 7475 6c69 7073 0000 7475 6c69 7073 0000 | tr -d ' ' >etc/machine-id
    mkdir try/host
    pivot_root . try/host
    cd /
    umount -l try/host
    container=other exec /lib/systemd/systemd --system --unit=multi-user.target >/dev/null 2>&1
"#;

/// Namespaces that a first process of its own needs. What is mounted in them the host does not see.
const APART: &str =
    "unshare --mount --net --pid --uts --ipc --cgroup --fork --kill-child --propagation private";

/// Everything by `ipsec setup`, as where another init is.
pub(super) fn by_hand(out: &Path, old: &Path, new: &Path) -> Result<(), Failed> {
    run(out, "try.sh", &format!("exec {APART} sh -c \"$0\" sh \"$@\""), BY_HAND, [old, new])
}

/// As a service of systemd.
pub(super) fn with_systemd(out: &Path, old: &Path, new: &Path) -> Result<(), Failed> {
    if !Path::new("/lib/systemd/systemd").exists() {
        println!("skipped: the service under systemd: this machine has none (apt-get install systemd)");
        return Ok(());
    }
    // The first process writes to nobody, so what the script says comes by a file.
    let outside = format!(
        "said=$(mktemp); export said; tail -f \"$said\" & tail=$!; code=0; {APART} sh -c \"$0\" sh \"$@\" || code=$?; \
         sleep 1; kill $tail; rm \"$said\"; exit $code"
    );
    run(out, "try-systemd.sh", &outside, WITH_SYSTEMD, [old, new])
}

fn run(out: &Path, script: &str, outside: &str, inside: &str, packages: [&Path; 2]) -> Result<(), Failed> {
    let over = out.join("root");
    directory(&over)?;
    let mut command = Command::new("sh");
    command.args(["-c", outside]).arg(format!("{COPY}{inside}")).arg(&over);
    command.arg(root().join("packaging").join(script)).args(packages);
    step(script, &mut command)
}
