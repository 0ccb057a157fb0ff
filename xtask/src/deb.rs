//! `cargo xtask deb`: the Debian package, made from what this tree builds.
//!
//! The programs stand together in `/usr/lib/tulips`, because `ipsec` finds its daemons beside itself; `/usr/sbin/ipsec`
//! is a link to it.

mod trial;

use crate::run::{Failed, cargo, has, root, step};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where to put the package
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory for the package
    #[arg(long, default_value = "target/deb")]
    out: PathBuf,
    /// Take the programs of this directory instead of building them (`target/debug` for a quick try)
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Install, start, upgrade, remove and purge it, without systemd and with it, in a copy of this machine's root that is
    /// thrown away (needs root)
    #[arg(long)]
    r#try: bool,
}

/// The programs and libraries of the package, and the directory of the package they go to.
const BUILT: &[(&str, &str)] = &[
    ("ipsec", "usr/lib/tulips"),
    ("klips", "usr/lib/tulips"),
    ("pluto", "usr/lib/tulips"),
    ("libpfkey_preload.so", "usr/lib/tulips"),
];

/// Names under which `ipsec` is also called.
const LINKS: &[(&str, &str)] =
    &[("usr/sbin/ipsec", "../lib/tulips/ipsec"), ("usr/sbin/ipseckey", "../lib/tulips/ipsec")];

pub(crate) fn deb(args: &Args) -> Result<(), Failed> {
    if !has("dpkg-deb") {
        return Err(Failed(
            "dpkg-deb is missing: apt-get install dpkg-dev (Debian and Ubuntu have it)".into(),
        ));
    }
    let programs = match &args.programs {
        Some(dir) => root().join(dir),
        None => {
            let packages = ["build", "--quiet", "--release", "-p", "ipsec", "-p", "pfkey-preload"];
            step("build", &mut cargo(&packages))?;
            root().join("target/release")
        }
    };
    let out = root().join(&args.out);
    let stage = out.join("stage");
    if stage.exists() {
        fs::remove_dir_all(&stage).map_err(|error| failed(&stage, &error))?;
    }
    fill(&stage, &programs)?;
    let mut package = Control::of(&stage, &programs)?;
    let file = package.build(&stage, &out)?;
    println!("{}", file.display());
    if !args.r#try {
        return Ok(());
    }
    // The same again as a later version, to upgrade to.
    package.version.push_str("+next");
    let next = package.build(&stage, &out)?;
    trial::by_hand(&out, &file, &next)?;
    trial::with_systemd(&out, &file, &next)
}

/// Lays out every file of the package below `stage`.
fn fill(stage: &Path, programs: &Path) -> Result<(), Failed> {
    for (name, to) in BUILT {
        let to = stage.join(to).join(name);
        install(&programs.join(name), &to, 0o755)?;
        // Names of functions stay, for what a panic says.
        if has("strip") {
            step(&format!("strip {name}"), Command::new("strip").arg("--strip-debug").arg(&to))?;
        }
    }
    for (link, to) in LINKS {
        let link = stage.join(link);
        directory(link.parent().unwrap_or(stage))?;
        symlink(to, &link).map_err(|error| failed(&link, &error))?;
    }
    let root = root();
    let packaging = root.join("packaging");
    install(&packaging.join("etc/ipsec.conf"), &stage.join("etc/ipsec.conf"), 0o644)?;
    install(&packaging.join("etc/ipsec.secrets"), &stage.join("usr/share/tulips/ipsec.secrets"), 0o644)?;
    for dir in ["cacerts", "certs", "private", "crls", "policies"] {
        directory(&stage.join("etc/ipsec.d").join(dir))?;
    }
    copy_tree(&packaging.join("systemd"), &stage.join("usr/lib/systemd/system"))?;
    copy_tree(&packaging.join("grafana"), &stage.join("usr/share/tulips/grafana"))?;
    copy_tree(&root.join("crates/pfkey/include"), &stage.join("usr/include/tulips"))?;
    let doc = stage.join("usr/share/doc/tulips");
    copy_tree(&root.join("docs/examples"), &doc.join("examples"))?;
    for name in ["README.md", "CHANGELOG.md", "docs/attacks.md", "packaging/debian/README.Debian"] {
        let from = root.join(name);
        install(&from, &doc.join(from.file_name().unwrap_or_default()), 0o644)?;
    }
    let copyright: String = ["LICENSE-MIT", "LICENSE-APACHE"]
        .iter()
        .map(|name| fs::read_to_string(root.join(name)).map_err(|error| failed(Path::new(name), &error)))
        .collect::<Result<Vec<_>, _>>()?
        .join("\n\n");
    write(&doc.join("copyright"), &copyright, 0o644)?;
    manual(stage)?;
    completions(stage, programs)
}

/// The manual pages, compressed as Debian's policy asks; `ipsec_eroute(8)` is also `ipsec-eroute(8)`.
fn manual(stage: &Path) -> Result<(), Failed> {
    for page in listing(&root().join("docs/man"))? {
        let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let section = name.rsplit('.').next().unwrap_or("8").to_owned();
        let to = stage.join(format!("usr/share/man/man{section}")).join(&name);
        install(&page, &to, 0o644)?;
        step(&format!("compress {name}"), Command::new("gzip").args(["-9n", "-f"]).arg(&to))?;
    }
    Ok(())
}

/// Completions are printed by the program itself, so they cannot differ from what it takes.
fn completions(stage: &Path, programs: &Path) -> Result<(), Failed> {
    let places = [
        ("bash", "usr/share/bash-completion/completions/ipsec"),
        ("zsh", "usr/share/zsh/vendor-completions/_ipsec"),
        ("fish", "usr/share/fish/vendor_completions.d/ipsec.fish"),
    ];
    for (shell, place) in places {
        let output = Command::new(programs.join("ipsec"))
            .args(["completion", shell])
            .output()
            .map_err(|error| failed(&programs.join("ipsec"), &error))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(Failed(format!("ipsec completion {shell}: {}", why.trim())));
        }
        write(&stage.join(place), &String::from_utf8_lossy(&output.stdout), 0o644)?;
    }
    Ok(())
}

/// What the package says of itself.
struct Control {
    version: String,
    architecture: String,
    depends: String,
    size: u64,
}

impl Control {
    fn of(stage: &Path, programs: &Path) -> Result<Self, Failed> {
        let architecture = answer(Command::new("dpkg").arg("--print-architecture"))?;
        let mut octets = 0;
        size(stage, &mut octets)?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").into(),
            architecture,
            depends: depends(programs),
            size: octets.div_ceil(1024),
        })
    }

    /// The package below `out`, of what is laid out below `stage`.
    fn build(&self, stage: &Path, out: &Path) -> Result<PathBuf, Failed> {
        self.write(stage)?;
        let file = out.join(format!("tulips_{}_{}.deb", self.version, self.architecture));
        let mut build = Command::new("dpkg-deb");
        build.args(["--root-owner-group", "-Zxz", "--build"]).arg(stage).arg(&file);
        step("package", &mut build)?;
        Ok(file)
    }

    fn write(&self, stage: &Path) -> Result<(), Failed> {
        let from = root().join("packaging/debian");
        let to = stage.join("DEBIAN");
        let control = fs::read_to_string(from.join("control"))
            .map_err(|error| failed(&from.join("control"), &error))?;
        let control = control
            .replace("@VERSION@", &self.version)
            .replace("@ARCHITECTURE@", &self.architecture)
            .replace("@DEPENDS@", &self.depends)
            .replace("@SIZE@", &self.size.to_string());
        write(&to.join("control"), &control, 0o644)?;
        install(&from.join("conffiles"), &to.join("conffiles"), 0o644)?;
        // By which purge knows the file that nobody changed.
        let sum = answer(Command::new("sha256sum").arg(root().join("packaging/etc/ipsec.secrets")))?;
        let sum = sum.split(' ').next().unwrap_or_default();
        for script in ["postinst", "prerm", "postrm"] {
            let path = from.join(script);
            let text = fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
            write(&to.join(script), &text.replace("@SECRETS_SHA256@", sum), 0o755)?;
        }
        Ok(())
    }
}

/// The packages whose libraries the programs are linked to, in the version they were built with: a program built on
/// a newer system would not start on an older one, and is better refused there.
fn depends(programs: &Path) -> String {
    let mut packages = String::new();
    for (library, package) in [("libc.so.6", "libc6"), ("libgcc_s.so.1", "libgcc-s1")] {
        let linked = BUILT.iter().any(|(name, _)| {
            answer(Command::new("ldd").arg(programs.join(name))).is_ok_and(|text| text.contains(library))
        });
        if !linked {
            continue;
        }
        if !packages.is_empty() {
            packages.push_str(", ");
        }
        let version =
            answer(Command::new("dpkg-query").args(["-W", "-f", "${source:Upstream-Version}", package]));
        let _ = match version {
            Ok(version) if package == "libc6" => write!(packages, "{package} (>= {version})"),
            _ => write!(packages, "{package}"),
        };
    }
    packages
}

fn answer(command: &mut Command) -> Result<String, Failed> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| Failed(format!("cannot run {name}: {error}")))?;
    if !output.status.success() {
        return Err(Failed(format!("{name} failed ({})", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn size(dir: &Path, octets: &mut u64) -> Result<(), Failed> {
    for path in listing(dir)? {
        let about = path.symlink_metadata().map_err(|error| failed(&path, &error))?;
        if about.is_dir() {
            size(&path, octets)?;
        } else {
            *octets = octets.saturating_add(about.len());
        }
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), Failed> {
    directory(to)?;
    for path in listing(from)? {
        let to = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() { copy_tree(&path, &to)? } else { install(&path, &to, 0o644)? }
    }
    Ok(())
}

/// What is in a directory, in an order that is the same everywhere.
fn listing(dir: &Path) -> Result<Vec<PathBuf>, Failed> {
    let entries = fs::read_dir(dir).map_err(|error| failed(dir, &error))?;
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    if let Ok(paths) = &mut paths {
        paths.sort();
    }
    paths.map_err(|error| failed(dir, &error))
}

fn install(from: &Path, to: &Path, mode: u32) -> Result<(), Failed> {
    directory(to.parent().unwrap_or(to))?;
    fs::copy(from, to).map_err(|error| failed(from, &error))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).map_err(|error| failed(to, &error))
}

fn write(to: &Path, text: &str, mode: u32) -> Result<(), Failed> {
    directory(to.parent().unwrap_or(to))?;
    fs::write(to, text).map_err(|error| failed(to, &error))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).map_err(|error| failed(to, &error))
}

fn directory(dir: &Path) -> Result<(), Failed> {
    fs::create_dir_all(dir).map_err(|error| failed(dir, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> Failed {
    Failed(format!("{}: {error}", path.display()))
}
