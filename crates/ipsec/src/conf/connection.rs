//! From a `conn` section to what the IKE engine acts on.
//!
//! Which of left and right is this host is found out from its addresses, so that one file serves both ends. Several subnets in
//! `leftsubnet=` are the selectors of one pair of SAs; `leftsubnets=` makes a connection for each pair of them, `NAME/1x1`,
//! `NAME/1x2` …, each with SAs of its own, for peers that can do no more (libreswan before 5).

use super::inside;
mod authentication;
mod ppk;
mod protoport;

use super::suite::{self, Use};
use super::{Conn, Problem, Setting, flag, time};
use ike::connection::{ChildPolicy, Connection, Encapsulation, Mode, Pad, Times, Upper, WhenGone};
use ike::identity::{Id, IdPattern};
use ike::message::TrafficSelector;
use ike::message::pairs::{Unfit, pairs};
use ike::proposal::Offer;
use ipnet::IpNet;
use ipsec_core::kex::Group;
use std::net::{IpAddr, ToSocketAddrs};
use std::num::NonZeroU16;
use std::time::Duration;

/// What this host knows about itself.
pub trait Here {
    /// Whether the address is one of ours.
    fn has(&self, address: IpAddr) -> bool;
    /// Which of our addresses packets to `peer` leave from; without a peer, those of the default route.
    fn address_towards(&self, peer: Option<IpAddr>) -> Option<IpAddr>;
    /// The address that a name stands for. Where nobody else waits, it is looked up on the spot.
    fn resolve(&self, name: &str) -> Option<IpAddr> {
        look_up(name)
    }
    /// The directory of ipsec.conf, with certificates below it.
    fn confs(&self) -> std::path::PathBuf {
        crate::rundir::confs()
    }
}

/// `auto=`: what is done with a connection when pluto starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Auto {
    /// Nothing; it is not even loaded.
    #[default]
    Ignore,
    /// It is loaded: the peer can begin.
    Add,
    /// Packets for it begin it.
    Route,
    /// It is begun, and kept up.
    Start,
}

/// A connection ready to be loaded, and what of it is the host's business.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// For the engine.
    pub ike: Connection,
    /// The section it comes from.
    pub section: String,
    /// What is done with it at start.
    pub auto: Auto,
    /// `leftsourceip=`: our address inside.
    pub source: Option<IpAddr>,
    /// `metric=` of its route.
    pub metric: u32,
    /// `leftupdown=`: a program told of what happens; `None` is nobody.
    pub updown: Option<String>,
}

/// One end as written, not yet known to be ours or the peer's.
struct Side<'c> {
    conn: &'c Conn,
    name: &'static str,
}

impl<'c> Side<'c> {
    fn setting(&self, key: &str) -> Option<&'c Setting> {
        self.conn.setting(&format!("{}{key}", self.name))
    }

    fn get(&self, key: &str) -> Option<&'c str> {
        self.setting(key).map(|setting| setting.value.as_str())
    }
}

enum Host {
    Any,
    DefaultRoute,
    Address(IpAddr),
}

/// Keys that would change what is protected or who is believed, and that nothing here acts on.
const UNSUPPORTED: [(&str, &str); 13] = [
    ("ah", "AH is not negotiated: use esp="),
    ("aggrmode", "aggressive mode belongs to IKEv1, which is not spoken: remove it"),
    ("aggressive", "aggressive mode belongs to IKEv1, which is not spoken: remove it"),
    ("mark", "marks are not set: remove it"),
    ("ipsec-interface", "devices are made by `interfaces=': remove it"),
    ("labeled_ipsec", "security labels are not negotiated: remove it"),
    ("policy_label", "security labels are not negotiated: remove it"),
    ("spi", "keys by hand are not for pluto: see ipsec_spi(8)"),
    ("spibase", "keys by hand are not for pluto: see ipsec_spi(8)"),
    ("espenckey", "keys by hand are not for pluto: see ipsec_spi(8)"),
    ("espauthkey", "keys by hand are not for pluto: see ipsec_spi(8)"),
    ("sha2-truncbug", "integrity by SHA-2 has the length of RFC 4868: remove it, or use AES-GCM in esp="),
    ("sha2_truncbug", "integrity by SHA-2 has the length of RFC 4868: remove it, or use AES-GCM in esp="),
];

/// The same for keys of one side.
const UNSUPPORTED_SIDE: [(&str, &str); 2] = [
    ("ckaid", "name the key's file: cert= or rsasigkey="),
    ("subnetwithin", "write the subnet itself with subnet="),
];

/// Asks the system's resolver, which may take its time: half a minute where no name server answers.
pub fn look_up(name: &str) -> Option<IpAddr> {
    (name, 0).to_socket_addrs().ok()?.next().map(|found| found.ip())
}

/// Whether a word is meant for an address of IPv4: its last part is a number, as that of no name is. Resolvers take such
/// words as inet_aton(3) does, which makes 198.51.0.100 of 198.51.100; nobody means that.
pub(crate) fn is_number(word: &str) -> bool {
    let last = word.strip_suffix('.').unwrap_or(word).rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|digit| digit.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|digit| digit.is_ascii_digit()),
    }
}

/// What is wrong with such a word that is no address, and what was probably meant.
pub(crate) fn no_address(word: &str) -> String {
    let parts: Vec<&str> = word.strip_suffix('.').unwrap_or(word).split('.').collect();
    let fit = parts.iter().all(|part| part.len() <= 3 && part.parse::<u8>().is_ok());
    let rest = "0.".repeat(4_usize.saturating_sub(parts.len()));
    match parts.len() {
        1..4 if fit => format!(
            "an address of IPv4 has four parts: write {0}.N, or for the network {0}.{1}/{2} in subnet=",
            parts.join("."),
            rest.trim_end_matches('.'),
            parts.len() * 8
        ),
        _ => "an address of IPv4 has four parts, decimal numbers from 0 to 255 without zeros in front"
            .to_owned(),
    }
}

/// The names in `left=` and `right=` for which addresses have to be found.
pub fn names(conn: &Conn) -> impl Iterator<Item = &str> {
    let values = ["left", "right"].into_iter().filter_map(|side| conn.setting(side));
    values
        .map(|setting| setting.value.as_str())
        .filter(|word| !word.starts_with('%') && word.parse::<IpAddr>().is_err() && !is_number(word))
}

/// Why a section means nothing on this host.
#[derive(Clone, Debug, PartialEq)]
pub struct Unplanned {
    /// Everything that stands in the way.
    pub problems: Vec<Problem>,
    /// It may be otherwise in a moment, without a change of the file.
    pub passing: bool,
}

/// What a section means on this host.
pub fn plan(conn: &Conn, here: &dyn Here, warnings: &mut Vec<Problem>) -> Result<Vec<Planned>, Vec<Problem>> {
    plan_now(conn, here, warnings).map_err(|unplanned| unplanned.problems)
}

/// The same, for who tells what passes from what has to be mended.
pub fn plan_now(
    conn: &Conn,
    here: &dyn Here,
    warnings: &mut Vec<Problem>,
) -> Result<Vec<Planned>, Unplanned> {
    let mut plan = Plan { conn, errors: Vec::new(), passing: 0, warnings };
    let planned = plan.all(here);
    let (mut problems, passing) = (plan.errors, plan.passing);
    match planned {
        Some(planned) if problems.is_empty() => return Ok(planned),
        _ if problems.is_empty() => {
            problems.push(Problem::new(&conn.at, format!("not understood [{}]", conn.name)));
        }
        _ => {}
    }
    let passing = passing == problems.len();
    Err(Unplanned { problems, passing })
}

/// What `auto=` says; an error if it is no word for it.
pub fn auto(conn: &Conn) -> Result<Auto, Problem> {
    let Some(setting) = conn.setting("auto") else { return Ok(Auto::Ignore) };
    Ok(match setting.value.to_ascii_lowercase().as_str() {
        "ignore" => Auto::Ignore,
        "add" | "keep" => Auto::Add,
        "route" | "ondemand" | "trap" => Auto::Route,
        "start" | "up" => Auto::Start,
        "manual" => {
            return Err(Problem::new(
                &setting.at,
                "keys by hand are not for pluto: see ipsec_spi(8) [auto=manual]",
            ));
        }
        other => {
            let what = format!("value must be ignore, add, route (or ondemand) or start [auto={other}]");
            return Err(Problem::new(&setting.at, what));
        }
    })
}

/// Keys that are understood and that nothing acts on yet: who wrote them should know.
const NO_EFFECT: [&str; 9] = [
    "failureshunt",
    "ipsec-max-bytes",
    "ipsec-max-packets",
    "mtu",
    "narrowing",
    "nat-keepalive",
    "negotiationshunt",
    "priority",
    "rekey",
];

/// Keys that nothing acts on; who wrote `no` has what he wants.
const IGNORED: [&str; 10] = [
    "accept-redirect-to",
    "connalias",
    "ecn",
    "loopback",
    "nopmtudisc",
    "overlapip",
    "remote_peer_type",
    "reqid",
    "sareftrack",
    "xauthby",
];

/// The same of one side.
const IGNORED_SIDE: [&str; 7] =
    ["firewall", "policylabel", "rsasigkey2", "usercert", "vti", "xauthclient", "xauthserver"];

struct Plan<'c> {
    conn: &'c Conn,
    errors: Vec<Problem>,
    /// How many of them may pass without a change of the file.
    passing: usize,
    warnings: &'c mut Vec<Problem>,
}

impl<'c> Plan<'c> {
    fn all(&mut self, here: &dyn Here) -> Option<Vec<Planned>> {
        let conn = self.conn;
        for (key, why) in UNSUPPORTED {
            if let Some(setting) = conn.setting(key).filter(|setting| flag(&setting.value) != Some(false)) {
                self.refuse(setting, why);
            }
        }
        for (key, why) in UNSUPPORTED_SIDE {
            for side in ["left", "right"] {
                if let Some(setting) =
                    conn.setting(&format!("{side}{key}")).filter(|s| flag(&s.value) != Some(false))
                {
                    self.refuse(setting, why);
                }
            }
        }
        if self.yes(&["compress"], false)
            && let Some(setting) = conn.setting("compress")
        {
            self.refuse(setting, "IPComp is not negotiated: compress=no");
        }
        for setting in conn.settings.iter().filter(|setting| NO_EFFECT.contains(&setting.key.as_str())) {
            self.warnings
                .push(Problem::new(&setting.at, format!("parameter has no effect yet [{}]", setting.key)));
        }
        let is_ignored = |key: &str| match key.strip_prefix("left").or_else(|| key.strip_prefix("right")) {
            Some(rest) => IGNORED_SIDE.contains(&rest),
            None => IGNORED.contains(&key),
        };
        for setting in conn.settings.iter().filter(|setting| is_ignored(&setting.key)) {
            if flag(&setting.value) != Some(false) {
                self.warnings
                    .push(Problem::new(&setting.at, format!("parameter has no effect [{}]", setting.key)));
            }
        }
        if let Some(setting) = conn.setting("phase2").filter(|s| !s.value.eq_ignore_ascii_case("esp")) {
            self.refuse(setting, "AH is not negotiated: phase2=esp");
        }
        self.version();
        let auto = auto(conn).map_err(|problem| self.errors.push(problem)).ok()?;
        let (left, right) = (Side { conn, name: "left" }, Side { conn, name: "right" });
        // What does not depend on where the ends are comes first: it is said though a name is not found at the moment.
        let (ike, esp) = (self.ike(), self.esp());
        let mode = self.mode();
        let times = self.times();
        let (left_host, right_host) = (self.host(&left, here)?, self.host(&right, here)?);
        // Both ends are read by one rule; which is which is this host's addresses' business.
        let is_here = |host: &Host| matches!(host, Host::Address(address) if here.has(*address));
        let left_is_us = match (is_here(&left_host), is_here(&right_host)) {
            (true, false) => true,
            (false, true) => false,
            (true, true) => {
                self.error("both ends are this host");
                return None;
            }
            (false, false) => match (&left_host, &right_host) {
                (Host::DefaultRoute, _) | (Host::Any, Host::Any | Host::Address(_)) => true,
                (_, Host::DefaultRoute | Host::Any) => false,
                (Host::Address(one), Host::Address(other)) => {
                    self.passing += 1;
                    self.error(&format!(
                        "we cannot identify ourselves with either end: neither {one} nor {other} is an address of this host"
                    ));
                    return None;
                }
            },
        };
        let (us, our_host, them, their_host) = if left_is_us {
            (left, left_host, right, right_host)
        } else {
            (right, right_host, left, left_host)
        };
        let remote_address = match their_host {
            Host::Address(address) => Some(address),
            Host::Any => None,
            Host::DefaultRoute => {
                self.error("%defaultroute is for this host's own end");
                return None;
            }
        };
        let local_address = match our_host {
            Host::Address(address) => Some(address),
            Host::DefaultRoute => match here.address_towards(remote_address) {
                Some(address) => Some(address),
                None => {
                    self.passing += 1;
                    self.error("there is no default route, %defaultroute cannot be resolved");
                    return None;
                }
            },
            Host::Any => None,
        };
        let (ours, theirs) = (self.credentials(&us, here), self.credentials(&them, here));
        let local_id = self.id(&us).or_else(|| ours.id()).or_else(|| local_address.map(Id::Address));
        let Some(mut local_id) = local_id.or_else(|| here.address_towards(remote_address).map(Id::Address))
        else {
            self.error("who this host is is not known: set its id (leftid=@name)");
            return None;
        };
        let remote_id = self.peer_id(&them).unwrap_or_else(|| {
            let known = theirs.id().or_else(|| remote_address.map(Id::Address));
            known.map_or(IdPattern::Any, IdPattern::Exactly)
        });
        let (local_auth, remote_auth) =
            self.proofs((&us, &ours, &mut local_id), (&them, &theirs, &remote_id));
        let (our_proto, their_proto) = self.protoports(&us, &them);
        let protocol = if our_proto.0 != 0 { our_proto.0 } else { their_proto.0 };
        let replay_window = self.number(&["replay-window", "replay_window"], 0..=4096).unwrap_or(1024);
        let mut template = Connection {
            name: conn.name.clone(),
            local_address,
            remote_address,
            remote_port: self.side_port(&them).unwrap_or(500),
            local_id,
            remote_id,
            local_auth,
            remote_auth,
            ppk: self.ppk(),
            ike,
            child: ChildPolicy {
                offers: esp,
                mode,
                local: Vec::new(),
                remote: Vec::new(),
                pad: self.pad(mode),
                upper: Upper { protocol, local: our_proto.1, remote: their_proto.1 },
                replay_window,
            },
            times,
            encapsulation: self.encapsulation(),
            fragmentation: self.yes(&["fragmentation", "ike_frag"], true),
            attempts: self.attempts(),
            when_gone: self.when_gone(),
            unique: self.yes(&["initial-contact", "initial_contact"], true),
            mobike: self.yes(&["mobike"], true),
            childless: self.yes(&["childless"], false),
            reauthenticate: self.yes(&["reauth"], false),
            provision: None,
            request: None,
        };
        let metric = self.number(&["metric"], 0..=u32::MAX).unwrap_or(0);
        let updown = us.get("updown").filter(|program| !["%disabled", "ipsec _updown", ""].contains(program));
        let updown = updown.map(str::to_owned);
        let (our_nets, their_nets) = (self.subnets(&us), self.subnets(&them));
        if mode == Mode::Transport {
            self.hosts_only(&us, local_address, &our_nets);
            self.hosts_only(&them, remote_address, &their_nets);
        }
        let (ours, theirs) = (our_nets.concat(), their_nets.concat());
        let source = self.request(&us, &ours, &theirs, &mut template);
        self.provision(&them, &ours, &theirs, &mut template);
        let selectors = |nets: &[IpNet], address: Option<IpAddr>, ports| -> Vec<TrafficSelector> {
            let of = |net| TrafficSelector::of_range(net, protocol, ports);
            // Without a subnet it is the host itself, whose address may not be known yet: then the engine fills it in.
            if nets.is_empty() {
                return address.map(|address| of(address.into())).into_iter().collect();
            }
            nets.iter().copied().map(of).collect()
        };
        let several = our_nets.len() * their_nets.len() > 1;
        let mut all = Vec::new();
        for (n, ours) in (1..).zip(&our_nets) {
            for (m, theirs) in (1..).zip(&their_nets) {
                let mut ike = template.clone();
                if several {
                    ike.name = format!("{}/{n}x{m}", conn.name);
                }
                // What is given is known when it is given.
                if ike.request.is_none() {
                    ike.child.local = selectors(ours, local_address, our_proto.1);
                }
                if ike.provision.is_none() {
                    ike.child.remote = selectors(theirs, remote_address, their_proto.1);
                }
                self.meet(&ike.child);
                all.push(Planned {
                    ike,
                    section: conn.name.clone(),
                    auto,
                    source,
                    metric,
                    updown: updown.clone(),
                });
            }
        }
        Some(all)
    }

    /// Whether packets can be between the two sides, and one pair of SAs can carry all of them.
    fn meet(&mut self, child: &ChildPolicy) {
        let (ours, theirs) = (&child.local, &child.remote);
        // What is given, and who the peer is, is known later.
        if ours.is_empty() || theirs.is_empty() {
            return;
        }
        let alone = |one: &[TrafficSelector], other: &[TrafficSelector]| {
            one.iter().any(|s| other.iter().all(|o| o.is_ipv4() != s.is_ipv4()))
        };
        if alone(ours, theirs) || alone(theirs, ours) {
            self.error("the subnets of the two sides are of different families");
            return;
        }
        match pairs(ours, theirs) {
            Ok(all) if child.mode == Mode::Transport && all.len() > 1 => {
                self.error(&Unfit::Several.to_string());
            }
            Ok(_) => {}
            Err(unfit) => self.error(&unfit.to_string()),
        }
    }

    /// `leftsourceip=`: our address inside, or that the peer is asked for it.
    fn request(
        &mut self,
        us: &Side<'c>,
        ours: &[IpNet],
        theirs: &[IpNet],
        ike: &mut Connection,
    ) -> Option<IpAddr> {
        let setting = us.setting("sourceip");
        let client = us.setting("modecfgclient").filter(|setting| match flag(&setting.value) {
            Some(on) => on,
            None => {
                self.refuse(setting, "value must be yes or no");
                false
            }
        });
        let asked = setting.and_then(|setting| inside::request(&setting.value, theirs));
        ike.request = asked.or_else(|| client.and_then(|_| inside::request("%config", theirs)));
        match (setting, ike.request) {
            (_, Some(_)) if !ours.is_empty() => {
                self.error("what is on this side is the address the peer gives: remove its subnet, or leftsourceip=%config");
                None
            }
            (Some(setting), None) => self.parsed(setting, "an address, %config, %config4 or %config6"),
            _ => None,
        }
    }

    /// `rightaddresspool=`, `modecfgdns=`, `modecfgdomains=`: what peers that ask are given.
    fn provision(&mut self, them: &Side<'c>, ours: &[IpNet], theirs: &[IpNet], ike: &mut Connection) {
        let mut provision = ike::connection::Provision::default();
        for (key, read) in [
            ("modecfgdns", inside::dns as fn(&str, &mut ike::connection::Provision) -> Result<(), String>),
            ("modecfgdomains", inside::domains),
        ] {
            if let Some(setting) = self.conn.setting(key)
                && let Err(why) = read(&setting.value, &mut provision)
            {
                self.refuse(setting, &why);
            }
        }
        let Some(setting) = them.setting("addresspool") else {
            let server = ["left", "right"].map(|side| format!("{side}modecfgserver"));
            let server = server.iter().find_map(|key| self.conn.setting(key));
            if let Some(setting) = server.filter(|s| flag(&s.value) == Some(true))
                && ike.request.is_none()
            {
                self.refuse(setting, "say which addresses peers are given: rightaddresspool=FIRST-LAST");
            }
            return;
        };
        match inside::pools(&setting.value) {
            Ok(pools) => provision.pools = pools,
            Err(why) => self.refuse(setting, &why),
        }
        if !theirs.is_empty() {
            self.refuse(
                setting,
                "what is on the peers' side is the addresses they are given: remove their subnet",
            );
        }
        // A network of everything is no news to anybody.
        provision.subnets = ours.iter().copied().filter(|net| net.prefix_len() != 0).collect();
        ike.provision = Some(provision);
    }

    fn error(&mut self, what: &str) {
        self.errors.push(Problem::new(&self.conn.at, format!("{what} [conn {}]", self.conn.name)));
    }

    fn refuse(&mut self, setting: &Setting, why: &str) {
        let what = format!("{why} [{}={}]", setting.key, setting.value);
        self.errors.push(Problem::new(&setting.at, what));
    }

    fn first(&self, keys: &[&str]) -> Option<&'c Setting> {
        keys.iter().find_map(|key| self.conn.setting(key))
    }

    fn parsed<T: std::str::FromStr>(&mut self, setting: &Setting, what: &str) -> Option<T> {
        let value = setting.value.parse().ok();
        if value.is_none() {
            self.refuse(setting, &format!("value must be {what}"));
        }
        value
    }

    fn yes(&mut self, keys: &[&str], default: bool) -> bool {
        let Some(setting) = self.first(keys) else { return default };
        // `force`, `accept` and the like are shades of yes here.
        match setting.value.to_ascii_lowercase().as_str() {
            "force" | "accept" | "always" => true,
            "never" => false,
            value => flag(value).unwrap_or_else(|| {
                self.refuse(setting, "value must be yes or no");
                default
            }),
        }
    }

    fn time(&mut self, keys: &[&str]) -> Option<Duration> {
        let setting = self.first(keys)?;
        let span = time(&setting.value);
        if span.is_none() {
            self.refuse(setting, "value must be a time, such as 20s or 1h");
        }
        span
    }

    fn number(&mut self, keys: &[&str], range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let setting = self.first(keys)?;
        let number = setting.value.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            self.refuse(
                setting,
                &format!("value must be a number from {} to {}", range.start(), range.end()),
            );
        }
        number
    }

    fn host(&mut self, side: &Side<'c>, here: &dyn Here) -> Option<Host> {
        let Some(setting) = side.setting("") else {
            self.error(&format!("{}= is missing", side.name));
            return None;
        };
        match setting.value.as_str() {
            "%any" | "0.0.0.0" | "::" | "%any4" | "%any6" => Some(Host::Any),
            "%defaultroute" => Some(Host::DefaultRoute),
            word if word.starts_with('%') => {
                self.refuse(setting, "opportunistic encryption and groups are not done: name the address");
                None
            }
            word => match word.parse() {
                Ok(address) => Some(Host::Address(address)),
                Err(_) if is_number(word) => {
                    self.refuse(setting, &no_address(word));
                    None
                }
                Err(_) => match here.resolve(word) {
                    Some(found) => Some(Host::Address(found)),
                    None => {
                        self.passing += 1;
                        self.refuse(setting, "neither an address nor a name that can be resolved");
                        None
                    }
                },
            },
        }
    }

    /// Who we are; `None` where the file does not say, or leaves it to the certificate.
    fn id(&mut self, side: &Side<'c>) -> Option<Id> {
        let setting = side.setting("id").filter(|setting| setting.value != "%fromcert")?;
        Id::parse(&setting.value).map_err(|why| self.refuse(setting, &why)).ok()
    }

    /// Who the peer must be; `None` where the file does not say.
    fn peer_id(&mut self, side: &Side<'c>) -> Option<IdPattern> {
        let setting = side.setting("id")?;
        // Whoever has a certificate that is believed: what it says it is must stand in there all the same.
        if setting.value == "%fromcert" {
            return Some(IdPattern::Any);
        }
        IdPattern::parse(&setting.value).map_err(|why| self.refuse(setting, &why)).ok()
    }

    fn version(&mut self) {
        if let Some(setting) = self.first(&["keyexchange", "ikev2"]) {
            match setting.value.to_ascii_lowercase().as_str() {
                "ikev1" | "no" | "never" => self.refuse(setting, "IKEv1 is not spoken: keyexchange=ikev2"),
                "ike" | "ikev2" | "insist" | "propose" | "permit" | "yes" => {}
                _ => self.refuse(setting, "value must be ikev2, or yes, insist, propose or permit of ikev2="),
            }
        }
    }

    /// The subnets of a side: those of one connection, and in `leftsubnets=` those of one after the other. Never empty; the
    /// host itself is one list without subnets.
    fn subnets(&mut self, side: &Side<'c>) -> Vec<Vec<IpNet>> {
        let each = side.setting("subnets");
        let Some(setting) = each.or_else(|| side.setting("subnet")) else {
            return vec![Vec::new()];
        };
        let words = setting.value.split([',', ' ', '\t']).filter(|word| !word.is_empty());
        let mut nets: Vec<IpNet> = Vec::new();
        for word in words {
            // `%default` is everything, in the family of the peer; `vhost:` lists belong to another time.
            match ipsec_core::text::subnet(word, None) {
                Ok((net, None)) if nets.contains(&net.trunc()) => {
                    self.refuse(setting, &format!("{word} is there twice; leave one out"));
                }
                Ok((net, None)) => nets.push(net.trunc()),
                Ok((_, Some(_))) => self.refuse(setting, "a port goes into protoport="),
                Err(why) => self.refuse(setting, &format!("{word}: {why}")),
            }
        }
        if each.is_none() || nets.is_empty() {
            return vec![nets];
        }
        nets.into_iter().map(|net| vec![net]).collect()
    }

    fn side_port(&mut self, side: &Side<'c>) -> Option<u16> {
        let setting = side.setting("ikeport")?;
        self.parsed(setting, "a port, 1 to 65535").map(NonZeroU16::get)
    }

    fn offers(&mut self, keys: &[&str], what: Use) -> Vec<Offer> {
        let Some(setting) = self.first(keys) else { return suite::default_offers(what) };
        match suite::offers(&setting.value, what) {
            Ok((offers, weak)) => {
                for weak in weak {
                    let what =
                        format!("{weak}: use it only for peers that have nothing better [{}]", setting.key);
                    self.warnings.push(Problem::new(&setting.at, what));
                }
                offers
            }
            Err(why) => {
                self.refuse(setting, &why);
                Vec::new()
            }
        }
    }

    /// Additional key exchanges with ML-KEM: none, offered before proposals without, or insisted on.
    fn ike(&mut self) -> Vec<Offer> {
        let offers = self.offers(&["ike"], Use::Ike);
        let hybrid = |offer: &Offer| {
            let mut offer = offer.clone();
            if offer.additional.is_empty() && !offer.groups.iter().all(|group| group.row().post_quantum) {
                offer.additional = vec![vec![Some(Group::MlKem768)]];
            }
            offer
        };
        let Some(setting) = self.conn.setting("pq") else { return offers };
        match setting.value.to_ascii_lowercase().as_str() {
            "no" => offers,
            // A peer that does not know the transform type passes the whole proposal over, so each is there twice.
            "allow" | "yes" => offers.iter().map(hybrid).chain(offers.iter().cloned()).collect(),
            "require" | "insist" => offers.iter().map(hybrid).collect(),
            _ => {
                self.refuse(setting, "value must be no, allow or require");
                offers
            }
        }
    }

    fn esp(&mut self) -> Vec<Offer> {
        let mut offers = self.offers(&["phase2alg", "esp"], Use::Esp);
        let pfs = self.yes(&["pfs"], true);
        let groups = match self.conn.setting("pfsgroup") {
            Some(setting) => match Group::from_name(&setting.value.to_ascii_lowercase()) {
                Some(group) => vec![group],
                None => {
                    self.refuse(setting, "unknown key exchange method, such as modp2048 or x25519");
                    Vec::new()
                }
            },
            None => {
                let of_ike =
                    self.conn.setting("ike").and_then(|ike| suite::offers(&ike.value, Use::Ike).ok());
                let (offers, _) = of_ike.unwrap_or_else(|| (suite::default_offers(Use::Ike), Vec::new()));
                // Any of these may be what IKE agrees on, and the first child's keys do not say which the peer lacks.
                let mut all = Vec::new();
                for group in offers.iter().flat_map(|offer| &offer.groups) {
                    if !all.contains(group) {
                        all.push(*group);
                    }
                }
                all
            }
        };
        let esn = self.conn.setting("esn").map(|setting| (setting, setting.value.to_ascii_lowercase()));
        for offer in &mut offers {
            match (pfs, offer.groups.is_empty()) {
                (false, _) => offer.groups.clear(),
                (true, true) => offer.groups.clone_from(&groups),
                (true, false) => {}
            }
            match esn.as_ref().map(|(_, value)| value.as_str()) {
                None | Some("either") => {}
                Some(value) => match flag(value) {
                    Some(on) => offer.esn = vec![on],
                    None => {
                        if let Some((setting, _)) = esn {
                            let what = format!("value must be yes, no or either [esn={}]", setting.value);
                            self.errors.push(Problem::new(&setting.at, what));
                        }
                        break;
                    }
                },
            }
        }
        offers
    }

    fn mode(&mut self) -> Mode {
        let Some(setting) = self.conn.setting("type") else { return Mode::Tunnel };
        match setting.value.to_ascii_lowercase().as_str() {
            "tunnel" => {}
            "transport" => return Mode::Transport,
            "passthrough" | "pass" | "drop" | "reject" => {
                self.refuse(setting, "connections without keys are eroutes: see ipsec_eroute(8)");
            }
            _ => self.refuse(setting, "value must be tunnel or transport"),
        }
        Mode::Tunnel
    }

    /// `tfc=`: to how many octets packets are padded. strongSwan says `%mtu` and libreswan `%pmtu`.
    fn pad(&mut self, mode: Mode) -> Option<Pad> {
        let setting = self.conn.setting("tfc")?;
        let pad = match setting.value.to_ascii_lowercase().as_str() {
            "0" | "no" => return None,
            "%mtu" | "%pmtu" | "mtu" => Some(Pad::Path),
            number => number.parse().ok().map(Pad::To),
        };
        match pad {
            None => self.refuse(setting, "value must be a number of octets up to 65535, %mtu or no"),
            Some(_) if mode == Mode::Transport => {
                self.refuse(setting, "only what is in a tunnel can be padded: remove it, or type=tunnel");
            }
            Some(_) => {}
        }
        pad
    }

    /// Transport mode is between the two hosts themselves: what names other addresses on either side does not go with it.
    fn hosts_only(&mut self, side: &Side<'c>, host: Option<IpAddr>, nets: &[Vec<IpNet>]) {
        let other = |net: &IpNet| host.is_none_or(|host| *net != IpNet::from(host));
        if nets.iter().flatten().any(other) {
            for setting in ["subnet", "subnets"].into_iter().filter_map(|key| side.setting(key)) {
                self.refuse(
                    setting,
                    "transport mode is between the hosts themselves: remove it, or type=tunnel",
                );
            }
        }
        for setting in ["sourceip", "addresspool"].into_iter().filter_map(|key| side.setting(key)) {
            self.refuse(setting, "no addresses are given in transport mode: remove it, or type=tunnel");
        }
    }

    fn times(&mut self) -> Times {
        let known = Times::default();
        let ike_life = self.time(&["ikelifetime"]).unwrap_or(known.ike_life);
        let child_life = self.time(&["salifetime", "keylife", "lifetime"]).unwrap_or(known.child_life);
        let shortest = ike_life.min(child_life);
        // A margin that is as long as the life itself would have SAs replaced without end.
        let margin = self.time(&["rekeymargin", "margintime"]).unwrap_or(known.margin.min(shortest / 4));
        let fuzz = self.first(&["rekeyfuzz"]).and_then(|setting| {
            let number = setting.value.trim_end_matches('%').parse().ok().filter(|percent| *percent <= 1000);
            if number.is_none() {
                self.refuse(setting, "value must be a percentage, such as 100%");
            }
            number
        });
        let fuzz = fuzz.unwrap_or(known.fuzz);
        let longest = margin.saturating_add(margin.saturating_mul(fuzz) / 100);
        if longest >= shortest && !shortest.is_zero() {
            self.error(&format!(
                "rekeymargin= with rekeyfuzz= ({} s at most) must be shorter than ikelifetime= and salifetime= ({} s)",
                longest.as_secs(),
                shortest.as_secs()
            ));
        }
        let liveness = match self.time(&["dpddelay"]) {
            Some(delay) => Some(delay).filter(|delay| !delay.is_zero()),
            None => known.liveness,
        };
        let retransmit = match self.first(&["retransmit-interval"]) {
            // libreswan counts it in milliseconds where there is no unit.
            Some(setting) => {
                let span =
                    setting.value.parse().ok().map(Duration::from_millis).or_else(|| time(&setting.value));
                if span.is_none() {
                    self.refuse(setting, "value must be a time, such as 500 (milliseconds) or 1s");
                }
                span
            }
            None => None,
        };
        let give_up = self.time(&["retransmit-timeout", "dpdtimeout"]).filter(|span| !span.is_zero());
        Times {
            ike_life,
            child_life,
            margin,
            fuzz,
            liveness,
            retransmit: retransmit.filter(|span| !span.is_zero()).unwrap_or(known.retransmit),
            give_up: give_up.unwrap_or(known.give_up),
        }
    }

    fn encapsulation(&mut self) -> Encapsulation {
        let Some(setting) = self.first(&["encapsulation", "forceencaps"]) else { return Encapsulation::Auto };
        match (setting.key.as_str(), setting.value.to_ascii_lowercase().as_str()) {
            (_, "auto") => Encapsulation::Auto,
            ("forceencaps", value) if flag(value) == Some(false) => Encapsulation::Auto,
            (_, value) => match flag(value) {
                Some(true) => Encapsulation::Yes,
                Some(false) => Encapsulation::No,
                None => {
                    self.refuse(setting, "value must be auto, yes or no");
                    Encapsulation::Auto
                }
            },
        }
    }

    fn attempts(&mut self) -> Option<u32> {
        let setting = self.conn.setting("keyingtries")?;
        if setting.value.eq_ignore_ascii_case("%forever") {
            return None;
        }
        let tries: Option<u32> = self.parsed(setting, "a number or %forever");
        tries.filter(|tries| *tries != 0)
    }

    fn when_gone(&mut self) -> WhenGone {
        let Some(setting) = self.conn.setting("dpdaction") else { return WhenGone::Clear };
        match setting.value.to_ascii_lowercase().as_str() {
            "restart" | "restart_by_peer" => WhenGone::Restart,
            "clear" | "hold" | "none" => WhenGone::Clear,
            _ => {
                self.refuse(setting, "value must be clear, hold or restart");
                WhenGone::Clear
            }
        }
    }
}

#[cfg(test)]
mod tests;
