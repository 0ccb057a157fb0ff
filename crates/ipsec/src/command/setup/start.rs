//! `ipsec setup start`.

use super::forward::Forwarding;
use super::{End, NAME, Turn, Voice, configuration, is_root, stop, supervise};
use crate::command::auto::amiss;
use crate::command::version::VERSION;
use crate::conf::{Conf, Interface, Protostack, Setting};
use crate::ctl::{Client, CtlError, Request, Settings};
use crate::daemon::program;
use crate::host::interfaces::keep::Mark;
use crate::host::netlink::Netlink;
use crate::log::Priority;
use crate::pluto;
use crate::process::Process;
use crate::rundir::{Rundir, confs};
use crate::table::{Device, Klipsdebug};
use nix::sys::signal::{SigSet, Signal};
use serde_json::Value;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

/// What `config setup` asks for.
pub(super) struct Wanted {
    interfaces: Vec<(String, String)>,
    settings: Settings,
    debug: Vec<String>,
    pfkeygroup: Option<String>,
    shareport: bool,
    syslog: String,
    /// `pluto`: the key daemon is started, too.
    pub(super) pluto: bool,
    /// `plutorestartoncrash`: what dies is started again.
    supervised: bool,
    /// `forwardcontrol`: packets are forwarded while IPsec runs.
    forward: bool,
}

impl Wanted {
    /// Where lines go that are said for this configuration.
    pub(super) fn voice(&self) -> Voice {
        Voice::new(Priority::parse(&self.syslog).unwrap_or(Priority::DEFAULT))
    }
}

/// Says what keeps a start from succeeding, before anything is stopped for it.
pub(super) fn check(file: Option<&Path>) -> Result<(), End> {
    let voice = Voice::new(Priority::DEFAULT);
    if !is_root(&voice) {
        return Err(End::NotRoot);
    }
    read(file, &voice).map(drop).inspect_err(|_| voice.say("...nothing was stopped: what runs goes on"))
}

pub(super) fn read(file: Option<&Path>, voice: &Voice) -> Result<Wanted, End> {
    let conf = configuration(voice, file).ok_or(End::NotConfigured)?;
    wanted(&conf).map_err(|problems| {
        problems.iter().for_each(|why| voice.say(why));
        End::NotConfigured
    })
}

pub(super) fn run(rundir: &Rundir, file: Option<&Path>) -> End {
    let voice = Voice::new(Priority::DEFAULT);
    if !is_root(&voice) {
        return End::NotRoot;
    }
    let wanted = match read(file, &voice) {
        Ok(wanted) => wanted,
        Err(end) => return end,
    };
    let voice = wanted.voice();
    // A start is short, and half of one is of no use to anybody: Ctrl-C waits.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    let _ = signals.thread_block();
    let Some(_turn) = Turn::take(rundir, &voice) else { return End::Failed };
    if let Some(daemon) = stop::who(rundir)
        && !is_ending(rundir, daemon)
    {
        let Process { pid, .. } = daemon;
        if wanted.supervised && rundir.setup_pid().exists() && supervise::who(rundir).is_none() {
            return match supervise::spawn(file, &voice) {
                Ok(()) => {
                    voice.say(&format!(
                        "{NAME} is running (klips pid {pid}); its supervisor had died, and is there again"
                    ));
                    End::Done
                }
                Err(why) => {
                    voice.say(&why);
                    End::Failed
                }
            };
        }
        voice.say(&format!("{NAME} apparently already running (klips pid {pid}), start aborted"));
        return End::Already;
    }
    // Of an accident; what it would start again is started here.
    if let Err(error) = supervise::end(rundir) {
        voice.say(&format!("the supervisor of an earlier start: {error}"));
        return End::Failed;
    }
    voice.say(&format!("Starting {NAME} {VERSION}..."));
    let orphan = stop::who_pluto(rundir).is_some();
    if orphan || rundir.klips_pid().exists() || rundir.setup_pid().exists() {
        voice.say("an earlier start was not stopped, cleaning up after it...");
        // A pluto that goes on without its klips has the old configuration.
        if let Err(why) = stop::end_pluto(rundir, &voice).and_then(|()| stop::clean(rundir)) {
            voice.say(&why);
            return End::Failed;
        }
    }
    let mark = Mark::new(rundir.path());
    // What an accident or a restart left closed stays so if this start fails.
    let closed = Netlink::open().and_then(|mut netlink| netlink.links());
    let closed = closed.is_ok_and(|links| links.iter().any(|link| mark.owns(link)));
    match bring_up(rundir, file, &wanted, &voice) {
        Ok(()) => {
            if let Err(error) = mark.remove_left(false) {
                voice.say(&format!("devices of an earlier configuration: {error}"));
            }
            voice.log(&format!("...{NAME} started"));
            End::Done
        }
        Err(Failed { end, why }) => {
            voice.say(&why);
            if let Err(why) = stop::take_down(rundir, &voice, closed) {
                voice.say(&why);
            }
            if closed {
                voice.say("what was protected stays in and is dropped: `ipsec setup stop' lets it go");
            }
            voice.say(&format!("...unable to start {NAME}; nothing is left running"));
            end
        }
    }
}

/// One that was killed a moment ago may still be there; it does not answer and is soon gone.
fn is_ending(rundir: &Rundir, daemon: Process) -> bool {
    let answer = Client::connect(rundir).and_then(|client| client.within(stop::FIRST)?.call(Request::Status));
    answer.is_err() && daemon.wait(stop::FIRST).unwrap_or(false)
}

/// Checks what can be checked before anything is touched; all that is wrong at once, each with its place in the file.
fn wanted(conf: &Conf) -> Result<Wanted, Vec<String>> {
    let setup = &conf.setup;
    let mut problems = Vec::new();
    let mut complain = |key: &str, why: String| {
        let at = setup.settings.iter().rfind(|setting| setting.key == key);
        problems.push(match at {
            Some(Setting { at, value, .. }) => {
                format!("{}:{}: {why} [{key}={value}]", at.file.display(), at.line)
            }
            None => format!("config setup has no {key}=: {why}"),
        });
    };
    if !matches!(setup.protostack, Protostack::Auto | Protostack::Klips) {
        complain("protostack", format!("{NAME} has its own data plane only, write protostack=klips"));
    }
    let syslog = setup.get("syslog").unwrap_or("daemon.error").to_owned();
    if Priority::parse(&syslog).is_none() {
        complain("syslog", "value must be a facility and a priority, such as daemon.error".into());
    }
    let debug = setup.get("klipsdebug").unwrap_or("none");
    let debug = debug.split([' ', '\t', ',']).filter(|word| !word.is_empty() && *word != "none");
    let debug: Vec<String> = debug.map(str::to_owned).collect();
    if let Some(word) = debug.iter().find(|word| !Klipsdebug::default().change(word, true)) {
        let known = Klipsdebug::WORDS.join(", ");
        complain("klipsdebug", format!("no debug flag {word}: there are {known}, all, none"));
    }
    if let Err(why) = program::group(setup.pfkeygroup.as_deref()) {
        complain("pfkeygroup", why);
    }
    if setup.shareport && setup.pluto {
        complain("shareport", "pluto has its messages from klips: write pluto=no, or shareport=no".into());
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let interfaces = setup.interfaces.iter().map(|interface| match interface {
        Interface::DefaultRoute => ("ipsec0".to_owned(), "%defaultroute".to_owned()),
        Interface::Pair { name, physical } => (name.clone(), physical.clone()),
    });
    Ok(Wanted {
        interfaces: interfaces.collect(),
        settings: Settings {
            hidetos: Some(setup.hidetos),
            fragicmp: Some(setup.fragicmp),
            copydf: Some(setup.copydf),
            overridemtu: setup.overridemtu,
        },
        debug,
        pfkeygroup: setup.pfkeygroup.clone(),
        shareport: setup.shareport,
        syslog,
        pluto: setup.pluto,
        supervised: setup.plutorestartoncrash && (setup.pluto || std::env::var_os("NOTIFY_SOCKET").is_some()),
        forward: setup.forwardcontrol,
    })
}

/// Why a start did not succeed.
pub(super) struct Failed {
    end: End,
    pub(super) why: String,
}

impl Failed {
    fn new(why: impl ToString) -> Self {
        Self { end: End::Failed, why: why.to_string() }
    }
}

impl From<CtlError> for Failed {
    fn from(error: CtlError) -> Self {
        Self::new(error)
    }
}

fn bring_up(rundir: &Rundir, file: Option<&Path>, wanted: &Wanted, voice: &Voice) -> Result<(), Failed> {
    data_plane(rundir, wanted, voice)?;
    if wanted.forward && Forwarding::of_host(rundir.forwarding()).turn_on().map_err(Failed::new)? {
        voice.say("forwarding of IPv4 packets is on; stop turns it off again");
    }
    if wanted.pluto {
        key_daemon(wanted, voice)?;
        // It goes on without, for what it has to say of its files it says in its log; here somebody may be looking.
        amiss(&confs(), "/proc/sys/net".as_ref()).iter().for_each(|line| voice.say(line));
    }
    if wanted.supervised {
        supervise::spawn(file, voice).map_err(Failed::new)?;
    }
    Ok(())
}

/// Starts the key daemon.
pub(super) fn key_daemon(wanted: &Wanted, voice: &Voice) -> Result<(), Failed> {
    spawn("pluto", pluto::program::command(), wanted, voice)
}

/// Starts the data plane and tells it what the configuration says.
pub(super) fn data_plane(rundir: &Rundir, wanted: &Wanted, voice: &Voice) -> Result<(), Failed> {
    let lock = rundir.setup_pid();
    let unwritten = |path: &Path, error: io::Error| {
        Failed::new(format!("...unable to create {}, aborting start!  {error}", path.display()))
    };
    // First ourselves, so that status never finds a daemon without a lock; then the daemon, which stays.
    Process::me().and_then(|me| me.write(&lock)).map_err(|error| unwritten(&lock, error))?;
    spawn(program::NAME, program::command(), wanted, voice)?;
    let daemon = Process::read(&rundir.klips_pid())
        .ok_or_else(|| Failed::new("klips ended as soon as it had started"))?;
    daemon.write(&lock).map_err(|error| unwritten(&lock, error))?;
    let mut client = Client::connect(rundir)?;
    client.call(Request::Configure(wanted.settings.clone()))?;
    if !wanted.debug.is_empty() {
        client.call(Request::Debug { set: wanted.debug.clone(), clear: Vec::new() })?;
    }
    let mut info = String::new();
    for (name, physical) in &wanted.interfaces {
        let (r#virtual, on) = (name.clone(), physical.clone());
        let device = client.call(Request::Attach { r#virtual, physical: on, addresses: None })?;
        let device: Device = serde_json::from_value(device).map_err(Failed::new)?;
        // Sealed packets would have no source.
        if device.more.get("addresses").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            let physical = device.physical.as_deref().unwrap_or(physical);
            return Err(Failed::new(format!("unable to determine address of `{physical}'")));
        }
        voice.log(&format!(
            "KLIPS {name} on {} mtu {}",
            device.physical.as_deref().unwrap_or(physical),
            device.mtu
        ));
        info.push_str(&facts(physical, &device));
    }
    // What status has to know: whether it is strange that no pluto runs.
    info.push_str(if wanted.pluto { "pluto=yes\n" } else { "pluto=no\n" });
    if wanted.supervised {
        info.push_str("supervisor=yes\n");
    }
    fs::write(rundir.info(), info).map_err(|error| unwritten(&rundir.info(), error))?;
    if let Some(why) = client.call(Request::Status)?.get("no_files").and_then(Value::as_str) {
        let at = rundir.proc();
        voice.say(&format!(
            "no table files below {}: {why}; `ipsec eroute` and the others still work",
            at.display()
        ));
    }
    Ok(())
}

/// Starts a daemon, which returns when it can be asked.
fn spawn(name: &str, command: io::Result<Command>, wanted: &Wanted, voice: &Voice) -> Result<(), Failed> {
    let mut command = command.map_err(|error| Failed {
        end: End::NotInstalled,
        why: format!("{name} cannot be found beside ipsec: {error}"),
    })?;
    command.arg("--syslog").arg(&wanted.syslog).stdin(Stdio::null()).stdout(Stdio::null());
    if let Some(group) = wanted.pfkeygroup.as_ref().filter(|_| name == program::NAME) {
        command.arg("--pfkeygroup").arg(group);
    }
    if wanted.shareport && name == program::NAME {
        command.arg("--share-port");
    }
    let out =
        command.stderr(Stdio::piped()).output().map_err(|error| Failed::new(format!("{name}: {error}")))?;
    let said = String::from_utf8_lossy(&out.stderr);
    if out.status.success() {
        said.lines().for_each(|line| voice.say(line));
        return Ok(());
    }
    let why = said.trim_end();
    Err(Failed::new(if why.is_empty() { format!("{name}: {}", out.status) } else { why.replace('\n', "; ") }))
}

/// What other scripts source: shell syntax, as `_startklips` wrote it.
fn facts(asked: &str, device: &Device) -> String {
    if asked != "%defaultroute" {
        return "#dr: no default route\n".into();
    }
    let physical = device.physical.as_deref().unwrap_or("");
    let mut out = format!("defaultroutephys={physical}\ndefaultroutevirt={}\n", device.name);
    let addresses = device.more.get("addresses").and_then(Value::as_array).into_iter().flatten();
    let first = addresses.filter_map(Value::as_str).filter_map(|net| net.split('/').next()).next();
    if let Some(address) = first {
        out.push_str(&format!("defaultrouteaddr={address}\n"));
    }
    let four = first.is_none_or(|address| address.parse::<IpAddr>().is_ok_and(|a| a.is_ipv4()));
    let routes = Netlink::open().and_then(|mut netlink| netlink.default_routes()).unwrap_or_default();
    let route = routes.iter().find(|route| route.dst.addr().is_ipv4() == four);
    let next = route.and_then(|route| route.via).map_or_else(|| "%direct".to_owned(), |via| via.to_string());
    out.push_str(&format!("defaultroutenexthop={next}\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Result<Wanted, Vec<String>> {
        wanted(&Conf::parse("ipsec.conf", &format!("config setup\n{text}")).unwrap())
    }

    #[test]
    fn the_key_daemon_is_started_unless_that_is_not_wanted() {
        let pluto = |text: &str| conf(text).unwrap_or_else(|why| panic!("{why:?}")).pluto;
        assert!(pluto("\tinterfaces=%none\n"));
        assert!(!pluto("\tpluto=no\n"));
    }

    #[test]
    fn what_cannot_be_done_is_said_all_at_once_with_line_word_and_remedy() {
        let text = "\tpluto=yes\n\tprotostack=netkey\n\tsyslog=nowhere\n\tklipsdebug=\"pfkey frob\"\n\tpfkeygroup=no:such\n\tshareport=yes\n";
        let Err(why) = conf(text) else { panic!() };
        for (line, place, remedy) in [
            (0, "ipsec.conf:3: ", "write protostack=klips [protostack=netkey]"),
            (1, "ipsec.conf:4: ", "such as daemon.error [syslog=nowhere]"),
            (2, "ipsec.conf:5: no debug flag frob: there are tunnel, ", "all, none [klipsdebug=pfkey frob]"),
            (3, "ipsec.conf:6: ", "`getent group` lists them [pfkeygroup=no:such]"),
            (4, "ipsec.conf:7: ", "write pluto=no, or shareport=no [shareport=yes]"),
        ] {
            assert!(why[line].starts_with(place) && why[line].ends_with(remedy), "{}", why[line]);
        }
        assert_eq!(why.len(), 5);
    }

    #[test]
    fn interfaces_and_debug_words_are_taken_over() {
        let text = "\tpluto=no\n\tinterfaces=\"ipsec0=eth0 ipsec1=eth1\"\n\tklipsdebug=\"pfkey rcv\"\n\thidetos=no\n";
        let all = conf(text).unwrap_or_else(|why| panic!("{why:?}"));
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(all.interfaces, [pair("ipsec0", "eth0"), pair("ipsec1", "eth1")]);
        assert_eq!(all.debug, ["pfkey", "rcv"]);
        assert_eq!(all.settings.hidetos, Some(false));
        assert_eq!(
            conf("\tpluto=no\n").unwrap_or_else(|w| panic!("{w:?}")).interfaces,
            [pair("ipsec0", "%defaultroute")]
        );
    }
}
