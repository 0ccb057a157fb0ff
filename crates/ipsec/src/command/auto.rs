//! `ipsec auto` and `ipsec whack`: steer pluto.

use super::{Failure, Usage, verify};
use crate::conf::{Conf, Conn, Problem, connection, files, secrets};
use crate::host::clock;
use crate::host::netlink::Netlink;
use crate::pluto::ctl::{Client, Request, Unanswered};
use crate::pluto::{ports::Local, status};
use crate::print;
use crate::rundir::{Rundir, confs};
use crate::watch::traffic::Loads;
use clap::Args as ClapArgs;
use serde_json::Value;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

/// Arguments of `ipsec auto`.
#[derive(Debug, ClapArgs)]
#[command(
    override_usage = "ipsec auto --OPERATION [NAME]",
    after_help = "\
Examples:
  ipsec auto --add west-east      load a connection from ipsec.conf
  ipsec auto --up west-east       negotiate, and see how it goes
  ipsec auto --status             what is loaded, and what is up
  ipsec auto --reload --dry-run   what a reload of ipsec.conf would change

Exit codes: 0 done, 1 failed (the reason is on stderr), 2 usage."
)]
pub struct Args {
    #[command(flatten)]
    operation: Operation,
    /// The connection
    name: Option<String>,
    /// With --up: do not wait for the outcome
    #[arg(long)]
    asynchronous: bool,
    /// With --reload: only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// With --rekey: the IKE SA instead of the Child SAs
    #[arg(long)]
    ike: bool,
    /// With --status: an object for programs
    #[arg(long)]
    json: bool,
    /// Print ipsec.conf as it is understood, `also=' and defaults resolved, instead of checking more
    #[arg(long, requires = "check")]
    print: bool,
    /// Show everything pluto says
    #[arg(long)]
    verbose: bool,
}

#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own, as it always was")]
struct Operation {
    /// Load a connection, or load it anew
    #[arg(long)]
    add: bool,
    /// The same
    #[arg(long)]
    replace: bool,
    /// Take a connection down and forget it
    #[arg(long)]
    delete: bool,
    /// Negotiate, and show how it goes
    #[arg(long)]
    up: bool,
    /// Take a connection down; its packets are held or dropped until it is unrouted
    #[arg(long)]
    down: bool,
    /// Have packets begin the connection
    #[arg(long, alias = "ondemand")]
    route: bool,
    /// Give packets back to the host: they leave in clear
    #[arg(long)]
    unroute: bool,
    /// Negotiate new keys now
    #[arg(long)]
    rekey: bool,
    /// Show what is loaded and what is up
    #[arg(long)]
    status: bool,
    /// Look at the addresses of this host again, and reread ipsec.secrets
    #[arg(long)]
    ready: bool,
    /// Read ipsec.secrets again
    #[arg(long, alias = "rereadall")]
    rereadsecrets: bool,
    /// Read ipsec.secrets again, and make what is loaded what ipsec.conf says; connections that have not changed are not touched
    #[arg(long)]
    reload: bool,
    /// Read ipsec.conf and ipsec.secrets and say what is wrong; needs no daemon
    #[arg(long)]
    check: bool,
}

/// Arguments of `ipsec whack`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  ipsec whack --name west-east --initiate
  ipsec whack --status

`ipsec auto` does the same in other words.
Exit codes: 0 done, 1 failed (the reason is on stderr), 2 usage.")]
pub struct WhackArgs {
    /// The connection
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    operation: WhackOperation,
    /// With --initiate: do not wait for the outcome
    #[arg(long)]
    asynchronous: bool,
    /// With --status: an object for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own, as it always was")]
struct WhackOperation {
    /// Negotiate
    #[arg(long)]
    initiate: bool,
    /// Take down
    #[arg(long)]
    terminate: bool,
    /// Take down and forget
    #[arg(long)]
    delete: bool,
    /// Have packets begin the connection
    #[arg(long)]
    route: bool,
    /// Give packets back to the host
    #[arg(long)]
    unroute: bool,
    /// Negotiate new keys for the Child SAs
    #[arg(long)]
    rekey_ipsec: bool,
    /// Negotiate new keys for the IKE SA
    #[arg(long)]
    rekey_ike: bool,
    /// Look at the addresses of this host again
    #[arg(long)]
    listen: bool,
    /// Read ipsec.secrets again
    #[arg(long, alias = "rereadall")]
    rereadsecrets: bool,
    /// Show what is loaded and what is up
    #[arg(long)]
    status: bool,
    /// End pluto
    #[arg(long)]
    shutdown: bool,
}

/// Runs `ipsec auto`.
pub fn run(args: &Args) -> ExitCode {
    let named = |word: &str| {
        args.name.clone().ok_or_else(|| Usage::new(format_args!("--{word} needs the NAME of a connection")))
    };
    let of = &args.operation;
    if of.check {
        return super::finish("auto", if args.print { shown() } else { check(args.name.as_deref()) });
    }
    let request = if of.add || of.replace {
        named("add").map(|name| Request::Add { name })
    } else if of.delete {
        named("delete").map(|name| Request::Delete { name })
    } else if of.up {
        named("up").map(|name| Request::Up { name, asynchronous: args.asynchronous })
    } else if of.down {
        named("down").map(|name| Request::Down { name })
    } else if of.route {
        named("route").map(|name| Request::Route { name })
    } else if of.unroute {
        named("unroute").map(|name| Request::Unroute { name })
    } else if of.rekey {
        named("rekey").map(|name| Request::Rekey { name, ike: args.ike })
    } else if of.status {
        return super::finish("auto", show(args.json));
    } else if of.reload {
        Ok(Request::Reload { dry_run: args.dry_run })
    } else if of.ready {
        return super::finish(
            "auto",
            ask(&Request::Listen).and_then(|_| ask(&Request::RereadSecrets)).and_then(|answer| tell(&answer)),
        );
    } else {
        Ok(Request::RereadSecrets)
    };
    match request {
        Ok(request) => super::finish("auto", ask(&request).and_then(|answer| tell(&answer))),
        Err(usage) => usage.report("auto"),
    }
}

/// Runs `ipsec whack`.
pub fn whack(args: &WhackArgs) -> ExitCode {
    let of = &args.operation;
    if of.status {
        return super::finish("whack", show(args.json));
    }
    let request = if of.listen {
        Request::Listen
    } else if of.rereadsecrets {
        Request::RereadSecrets
    } else if of.shutdown {
        Request::Stop { leave: false }
    } else {
        let Some(name) = args.name.clone() else {
            return Usage::new("--name is required").report("whack");
        };
        if of.initiate {
            Request::Up { name, asynchronous: args.asynchronous }
        } else if of.terminate {
            Request::Down { name }
        } else if of.delete {
            Request::Delete { name }
        } else if of.route {
            Request::Route { name }
        } else if of.unroute {
            Request::Unroute { name }
        } else {
            Request::Rekey { name, ike: of.rekey_ike }
        }
    };
    super::finish("whack", ask(&request).and_then(|answer| tell(&answer)))
}

/// Prints what an answer has to say beyond that it is done.
fn tell(answer: &Value) -> Result<(), Failure> {
    if let Some(lines) = answer.as_array() {
        lines.iter().filter_map(Value::as_str).try_for_each(print::line)?;
    } else if let Some(line) = answer.as_str() {
        print::line(line)?;
    }
    Ok(())
}

fn show(json: bool) -> Result<(), Failure> {
    let loads = Loads::ask(&Rundir::from_env());
    let mut answer = ask(&Request::Status)?;
    Loads::add_to(loads.as_ref().ok(), &mut answer);
    Ok(if json { print::line(answer) } else { status::lines(&answer).iter().try_for_each(print::line) }?)
}

/// Asks pluto, shows its progress, and returns what it answers.
fn ask(request: &Request) -> Result<Value, Failure> {
    let mut client = Client::connect(&Rundir::from_env()).map_err(Failure::new)?;
    client
        .call(request, |text| print::line(text))
        .map_err(|why| if let Unanswered::Unwritten(error) = why { error.into() } else { Failure::new(why) })
}

/// Prints ipsec.conf as it is understood. Keys by hand are as secret as a file that others cannot read: they stay there.
fn shown() -> Result<(), Failure> {
    let conf = Conf::load(&confs()).map_err(|problems| {
        Failure::new(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    Ok(print::text(conf.text(is_public))?)
}

/// Whether everybody may see the value of a key of ipsec.conf.
fn is_public(key: &str) -> bool {
    !key.ends_with("key") || ["sigkey", "pubkey", "rekey"].iter().any(|public| key.ends_with(public))
}

/// A host that looks no name up: whoever only starts things does not wait for a name server.
struct Unnamed(Local);

impl connection::Here for Unnamed {
    fn has(&self, address: IpAddr) -> bool {
        self.0.has(address)
    }

    fn address_towards(&self, peer: Option<IpAddr>) -> Option<IpAddr> {
        self.0.address_towards(peer)
    }

    fn resolve(&self, _: &str) -> Option<IpAddr> {
        None
    }
}

/// What pluto will complain of in its log when it reads the two files, for whoever starts it at a terminal.
/// `net`: where the kernel says what it forwards, /proc/sys/net.
pub(crate) fn amiss(confs: &Path, net: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    if let (Ok(conf), Ok(here)) = (Conf::load(confs), Local::now()) {
        let (here, mut refused, mut any) = (Unnamed(here), false, false);
        let loaded = |conn: &&Conn| connection::auto(conn).is_ok_and(|auto| auto != connection::Auto::Ignore);
        for conn in conf.conns.iter().filter(loaded) {
            any = true;
            let Err(why) = connection::plan_now(conn, &here, &mut Vec::new()) else { continue };
            if !why.passing || connection::names(conn).next().is_none() {
                refused |= !why.passing;
                let waits = if why.passing { "waits: " } else { "" };
                lines.extend(why.problems.iter().map(|problem| format!("{waits}{problem}")));
            }
        }
        if !any {
            return lines;
        }
        lines.extend(verify::unforwarded(net, confs, &here));
        if refused {
            lines.push("no connection is loaded: mend ipsec.conf, then `ipsec auto --reload'".to_owned());
        }
    }
    match secrets::read(&confs.join("ipsec.secrets")) {
        Ok(read) => lines.extend(read.warnings.iter().map(ToString::to_string)),
        Err(problems) => {
            lines.extend(problems.iter().map(ToString::to_string));
            lines.push("there are no secrets: mend that, then `ipsec auto --rereadsecrets'".to_owned());
        }
    }
    lines
}

/// What `interfaces=` names and start would not find.
fn absent(conf: &Conf) -> io::Result<Vec<Problem>> {
    let links = Netlink::open()?.links()?;
    Ok(conf.setup.absent(|device| links.iter().any(|link| link.name == device)))
}

/// Reads both files, and says everything that is wrong in them.
fn check(name: Option<&str>) -> Result<(), Failure> {
    let lines =
        |problems: &[Problem]| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let confs = confs();
    let conf = Conf::load(&confs).map_err(|problems| Failure::new(lines(&problems)))?;
    let here = Local::now().map_err(|error| Failure::new(format_args!("netlink: {error}")))?;
    let mut warnings = conf.warnings.clone();
    let mut errors = absent(&conf).map_err(|error| Failure::new(format_args!("netlink: {error}")))?;
    let mut all = Vec::new();
    for conn in conf.conns.iter().filter(|conn| name.is_none_or(|name| conn.name == name)) {
        // Sections that are only there to be pulled in by others are not connections.
        if name.is_none() && connection::auto(conn).is_ok_and(|auto| auto == connection::Auto::Ignore) {
            continue;
        }
        match connection::plan(conn, &here, &mut warnings) {
            Ok(planned) => all.extend(planned),
            Err(problems) => errors.extend(problems),
        }
    }
    let mut without = Vec::new();
    match secrets::read(&confs.join("ipsec.secrets")) {
        Ok(read) => {
            without = secrets::missing(&read.secrets, &all);
            warnings.extend(read.warnings);
        }
        Err(problems) => errors.extend(problems),
    }
    let now = clock::wall();
    let (_, lines_of_trust) = files::trust(&confs, conf.setup.strictcrlpolicy, now);
    lines_of_trust.iter().for_each(|line| print::complain(format_args!("warning: {line}")));
    warnings.iter().for_each(|problem| print::complain(format_args!("warning: {problem}")));
    if !errors.is_empty() || !without.is_empty() {
        let all: Vec<String> = errors.iter().map(ToString::to_string).chain(without).collect();
        return Err(Failure::new(all.join("\n")));
    }
    match name {
        Some(name) if all.is_empty() => {
            Err(Failure::new(format_args!("no conn section \"{name}\" in ipsec.conf")))
        }
        _ => Ok(print::line(format_args!("{} connections, nothing wrong", all.len()))?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_by_hand_are_not_printed_and_everything_else_is() {
        let text = "conn a\n\tleft=192.0.2.1\n\tespenckey=0x6372_6f63\n\tespauthkey=0x6372_6f63\n\tleftrsasigkey=0sAQ\n\tright=192.0.2.9\n\trekey=no\n";
        let said = Conf::parse("f", text).unwrap().text(is_public);
        assert!(!said.contains("6372") && said.contains("# espenckey is left out"), "{said}");
        assert!(said.contains("leftrsasigkey=\"0sAQ\"") && said.contains("rekey=\"no\""), "{said}");
    }

    #[test]
    fn what_is_amiss_is_said_without_looking_names_up() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let said = |conf: &str| {
            std::fs::write(dir.path().join("ipsec.conf"), conf).unwrap();
            amiss(dir.path(), &dir.path().join("net"))
        };
        let secrets = dir.path().join("ipsec.secrets");
        std::fs::write(&secrets, ": PSK \"crocus\"\n").unwrap();
        std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(0o600)).unwrap();
        let named =
            "conn a\n\tleft=%defaultroute\n\tleftid=@a\n\tright=east.invalid\n\trightid=@b\n\tauto=add\n";
        assert_eq!(said(named), [""; 0], "it may be found by and by");
        let wrong = said(&format!("{named}\tesp=rot13\n"));
        assert!(wrong.last().is_some_and(|line| line.starts_with("no connection is loaded")), "{wrong:?}");
        // Not here is no reason not to load the others.
        let away = said("conn a\n\tleft=203.0.113.1\n\tright=203.0.113.2\n\tauto=add\n");
        assert!(away.len() == 1 && away[0].starts_with("waits: "), "{away:?}");
        std::fs::write(&secrets, "crocus\n").unwrap();
        let unread = said(named);
        assert!(unread.iter().any(|line| line.contains("there are no secrets")), "{unread:?}");
        std::fs::remove_file(&secrets).unwrap();
        let missing = said(named);
        assert!(missing.len() == 1 && missing[0].contains("no secrets are known"), "{missing:?}");
        assert_eq!(said("conn a\n\tleft=203.0.113.1\n"), [""; 0], "nothing is to be loaded");
    }

    #[test]
    fn who_starts_a_gateway_that_does_not_forward_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let net = dir.path().join("ipv4");
        std::fs::create_dir(&net).unwrap();
        let forwards = |on: &str| std::fs::write(net.join("ip_forward"), on).unwrap();
        let warned = |local: &str| {
            let conf = format!("conn a\n\tleft=127.0.0.1\n{local}\tright=%any\n\trightid=@b\n\tauto=add\n");
            std::fs::write(dir.path().join("ipsec.conf"), conf).unwrap();
            amiss(dir.path(), dir.path()).iter().any(|line| {
                line.contains("not forwarded")
                    && line.contains("ip_forward=1")
                    && line.contains("forwardcontrol=yes")
            })
        };
        let behind = "\tleftsubnet=10.1.0.0/16\n\trightsubnet=10.2.0.0/16\n";
        forwards("0\n");
        assert!(warned(behind));
        assert!(!warned(""), "the host itself needs none");
        forwards("1\n");
        assert!(!warned(behind));
    }

    /// A host that has one address.
    struct Loopback;

    impl connection::Here for Loopback {
        fn has(&self, address: IpAddr) -> bool {
            address == IpAddr::from([127, 0, 0, 1])
        }

        fn address_towards(&self, _: Option<IpAddr>) -> Option<IpAddr> {
            Some([127, 0, 0, 1].into())
        }
    }

    #[test]
    fn a_connection_without_its_secret_is_said_before_it_fails() {
        let plan = |body: &str| {
            let conf =
                Conf::parse("f", &format!("conn a\n\tleft=127.0.0.1\n\tleftid=@a\n{body}\tauto=add\n"))
                    .unwrap();
            connection::plan(&conf.conns[0], &Loopback, &mut Vec::new()).unwrap()
        };
        let known = |text: &str| {
            use std::os::unix::fs::PermissionsExt;
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
            secrets::read(file.path()).unwrap().secrets
        };
        let one = plan("\tright=192.0.2.9\n\trightid=@b\n");
        assert_eq!(secrets::missing(&known("@a @b : PSK \"crocus\"\n"), &one), [""; 0]);
        assert_eq!(secrets::missing(&known(": PSK \"crocus\"\n"), &one), [""; 0]);
        let said = secrets::missing(&known("@a @c : PSK \"crocus\"\n"), &one);
        let words = "\"a\": no secret for @a and @b: add a line `@a @b : PSK \"...\"' to ipsec.secrets";
        assert_eq!(said, [words], "the words of --up");
        // Whoever comes may have the one that is there.
        let anybody = plan("\tright=%any\n");
        assert_eq!(secrets::missing(&known("@a @c : PSK \"crocus\"\n"), &anybody), [""; 0]);
        assert_eq!(secrets::missing(&known(""), &anybody).len(), 1);
    }
}
