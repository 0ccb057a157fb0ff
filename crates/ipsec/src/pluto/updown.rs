//! leftupdown=: the program that is told what becomes of a connection, with the names that scripts know (klips.md §7.4).
//!
//! Routes, addresses and name servers are set by ourselves, so there is no program unless somebody names one. It is run beside
//! pluto, which never waits for it: one after the other in the order of what happened, each for half a minute at most.

use ike::connection::Configured;
use ipnet::IpNet;
use ipsec_core::Selector;
use std::io::Read;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(20);
/// What of its words is logged.
const LONGEST: u64 = 4096;

/// What a program is told of one flow of a connection.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) connection: String,
    pub(super) device: String,
    pub(super) me: Option<IpAddr>,
    pub(super) peer: Option<IpAddr>,
    pub(super) my_id: String,
    pub(super) peer_id: String,
    pub(super) flow: Selector,
    pub(super) source: Option<IpAddr>,
    pub(super) metric: u32,
    pub(super) tunnel: bool,
    /// What the peer has given us.
    pub(super) configured: Option<Arc<Configured>>,
    /// The last word was up.
    pub(super) up: bool,
}

impl Told {
    /// The environment, but for the verb.
    fn environment(&self, verb: &str) -> Vec<(&'static str, String)> {
        let Selector { src, dst, proto, sport, dport } = self.flow;
        let text = |address: &Option<IpAddr>| address.map_or_else(String::new, |address| address.to_string());
        let mask = |net: IpNet| net.netmask().to_string();
        let kind = if src.prefix_len() == src.max_prefix_len() { "host" } else { "client" };
        let (six, family) = if src.addr().is_ipv6() { ("-v6", "ipv6") } else { ("", "ipv4") };
        let mut all = vec![
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("PLUTO_VERSION", "1.1".to_owned()),
            ("PLUTO_VERB", format!("{verb}-{kind}{six}")),
            ("PLUTO_CONNECTION", self.connection.clone()),
            ("PLUTO_CONNECTION_TYPE", if self.tunnel { "tunnel" } else { "transport" }.to_owned()),
            ("PLUTO_CONN_ADDRFAMILY", family.to_owned()),
            ("PLUTO_INTERFACE", self.device.clone()),
            ("PLUTO_NEXT_HOP", text(&self.peer)),
            ("PLUTO_ME", text(&self.me)),
            ("PLUTO_MY_ID", self.my_id.clone()),
            ("PLUTO_MY_CLIENT", src.to_string()),
            ("PLUTO_MY_CLIENT_NET", src.network().to_string()),
            ("PLUTO_MY_CLIENT_MASK", mask(src)),
            ("PLUTO_MY_PROTOCOL", proto.to_string()),
            ("PLUTO_MY_PORT", sport.to_string()),
            ("PLUTO_MY_SOURCEIP", text(&self.source)),
            ("PLUTO_PEER", text(&self.peer)),
            ("PLUTO_PEER_ID", self.peer_id.clone()),
            ("PLUTO_PEER_CLIENT", dst.to_string()),
            ("PLUTO_PEER_CLIENT_NET", dst.network().to_string()),
            ("PLUTO_PEER_CLIENT_MASK", mask(dst)),
            ("PLUTO_PEER_PROTOCOL", proto.to_string()),
            ("PLUTO_PEER_PORT", dport.to_string()),
            ("PLUTO_METRIC", self.metric.to_string()),
            ("PLUTO_STACK", "klips".to_owned()),
        ];
        if let Some(configured) = &self.configured {
            let dns: Vec<String> = configured.dns.iter().map(ToString::to_string).collect();
            all.push(("PLUTO_CFG_CLIENT", "1".to_owned()));
            all.push(("PLUTO_PEER_DNS_INFO", dns.join(" ")));
            all.push(("PLUTO_PEER_DOMAIN_INFO", configured.domains.join(" ")));
        }
        // A zero octet cannot stand in an environment, and what a peer sends is not to choose whether the program runs.
        all.retain(|(_, value)| !value.contains('\0'));
        all
    }
}

/// One run of a program.
struct Run {
    /// What is said of it, in the log.
    what: String,
    command: Command,
}

/// Runs programs one after the other.
#[derive(Debug)]
pub(super) struct Runner(Option<(Sender<Run>, thread::JoinHandle<()>)>);

impl Runner {
    pub(super) const fn new() -> Self {
        Self(None)
    }

    /// Has a program told; an empty name is none.
    pub(super) fn tell(&mut self, program: &str, told: &Told, verb: &str) {
        if program.trim().is_empty() {
            return;
        }
        let environment = told.environment(verb);
        let verb = environment.iter().find(|(name, _)| *name == "PLUTO_VERB").map_or("", |(_, verb)| verb);
        let what = format!("leftupdown={program} {verb}");
        if let Some(command) = command(program, &environment) {
            self.run(what, command);
        }
    }

    /// Has a command run after all those before it.
    pub(super) fn run(&mut self, what: String, command: Command) {
        if self.0.is_none() {
            let (sender, receiver) = channel();
            match thread::Builder::new().name("updown".into()).spawn(move || work(&receiver)) {
                Ok(thread) => self.0 = Some((sender, thread)),
                Err(error) => return tracing::warn!("{what}: no thread: {error}"),
            }
        }
        if let Some((sender, _)) = &self.0 {
            let _ = sender.send(Run { what, command });
        }
    }
}

impl Drop for Runner {
    /// What was told last, that all is over, is heard: the end waits for it.
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.0.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

fn work(receiver: &Receiver<Run>) {
    for Run { what, command } in receiver {
        if let Err(why) = run(command) {
            tracing::warn!("{what}: {why}");
        }
    }
}

/// What `leftupdown=` says, with what it is told and nothing else around it.
fn command(program: &str, environment: &[(&'static str, String)]) -> Option<Command> {
    let mut words = program.split_whitespace();
    let mut command = Command::new(words.next()?);
    command.args(words).env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    Some(command)
}

fn run(mut command: Command) -> Result<(), String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let stderr = child.stderr.take();
    let said = thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut pipe) = stderr {
            let _ = (&mut pipe).take(LONGEST).read_to_end(&mut text);
            // It must not be held up by a pipe that is full.
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        String::from_utf8_lossy(&text).trim().replace('\n', "; ")
    });
    let ended = within(&mut child, PATIENCE);
    // A child of its own may hold the pipe open for ever: its words are not waited for then.
    let words =
        if ended.is_ok() && said.is_finished() { said.join().unwrap_or_default() } else { String::new() };
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{status}: {words}").trim_end_matches([':', ' ']).to_owned()),
        Err(why) => Err(why),
    }
}

fn within(child: &mut Child, patience: Duration) -> Result<std::process::ExitStatus, String> {
    let mut waited = Duration::ZERO;
    loop {
        match child.try_wait() {
            // A moment for the reader of its words to see the end, too.
            Ok(Some(status)) => {
                thread::sleep(LOOK);
                return Ok(status);
            }
            Ok(None) if waited >= patience => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("ended after {} s without an end", patience.as_secs()));
            }
            Ok(None) => {
                thread::sleep(LOOK);
                waited = waited.saturating_add(LOOK);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn told() -> Told {
        Told {
            connection: "west-east".into(),
            device: "ipsec0".into(),
            me: Some("192.0.2.1".parse().unwrap()),
            peer: Some("198.51.100.7".parse().unwrap()),
            my_id: "@west".into(),
            peer_id: "@east".into(),
            flow: Selector {
                src: "10.1.0.0/24".parse().unwrap(),
                dst: "10.2.0.0/16".parse().unwrap(),
                proto: 6,
                sport: 0,
                dport: 443,
            },
            source: Some("10.1.0.1".parse().unwrap()),
            metric: 7,
            tunnel: true,
            configured: None,
            up: false,
        }
    }

    #[test]
    fn a_program_is_told_what_scripts_know_by_these_names() {
        let all = told().environment("up");
        let is = |name: &str| {
            all.iter().find(|(one, _)| *one == name).unwrap_or_else(|| panic!("{name}")).1.as_str()
        };
        for (name, value) in [
            ("PLUTO_VERSION", "1.1"),
            ("PLUTO_VERB", "up-client"),
            ("PLUTO_CONNECTION", "west-east"),
            ("PLUTO_CONNECTION_TYPE", "tunnel"),
            ("PLUTO_CONN_ADDRFAMILY", "ipv4"),
            ("PLUTO_INTERFACE", "ipsec0"),
            ("PLUTO_ME", "192.0.2.1"),
            ("PLUTO_MY_ID", "@west"),
            ("PLUTO_MY_CLIENT", "10.1.0.0/24"),
            ("PLUTO_MY_CLIENT_NET", "10.1.0.0"),
            ("PLUTO_MY_CLIENT_MASK", "255.255.255.0"),
            ("PLUTO_MY_PROTOCOL", "6"),
            ("PLUTO_MY_PORT", "0"),
            ("PLUTO_MY_SOURCEIP", "10.1.0.1"),
            ("PLUTO_PEER", "198.51.100.7"),
            ("PLUTO_PEER_ID", "@east"),
            ("PLUTO_PEER_CLIENT", "10.2.0.0/16"),
            ("PLUTO_PEER_CLIENT_MASK", "255.255.0.0"),
            ("PLUTO_PEER_PORT", "443"),
            ("PLUTO_METRIC", "7"),
        ] {
            assert_eq!(is(name), value, "{name}");
        }
        let mut six = told();
        six.flow.src = "2001:db8::1/128".parse().unwrap();
        six.flow.dst = "2001:db8:2::/48".parse().unwrap();
        let all = six.environment("down");
        assert!(all.contains(&("PLUTO_VERB", "down-host-v6".to_owned())));
    }

    fn script(dir: &tempfile::TempDir, text: &str) -> String {
        let path = dir.path().join("updown");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    #[test]
    fn programs_are_run_in_the_order_of_what_happened_and_nobody_waits_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        // What this process has in its environment is none of the program's business.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        // The first takes longest.
        let text = format!(
            "case $PLUTO_VERB in route*) sleep 0.3;; esac\necho $PLUTO_VERB $1 $CARGO_MANIFEST_DIR >>{}",
            out.display()
        );
        let program = format!("{} word", script(&dir, &text));
        let mut runner = Runner::new();
        for verb in ["route", "up", "down", "unroute"] {
            runner.tell(&program, &told(), verb);
        }
        assert!(!out.exists(), "it was waited for");
        drop(runner);
        let said = fs::read_to_string(out).unwrap();
        assert_eq!(said, "route-client word\nup-client word\ndown-client word\nunroute-client word\n");
    }

    #[test]
    fn one_that_fails_or_never_ends_is_said_to() {
        let dir = tempfile::tempdir().unwrap();
        let failing = script(&dir, "echo no such bridge >&2; exit 3");
        let run = |program: &str| command(program, &[]).map(run);
        assert_eq!(run(&failing), Some(Err("exit status: 3: no such bridge".to_owned())));
        assert!(run("/nowhere/updown").is_some_and(|said| said.is_err()));
        assert_eq!(run("  "), None);
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert!(within(&mut child, Duration::from_millis(50)).is_err());
    }
}
