//! `config setup`, typed.

use super::value::{flag, time};
use super::{Problem, Setting};
use std::time::Duration;

/// One word of `interfaces=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// `%defaultroute`: `ipsec0` on the device of the default route.
    DefaultRoute,
    /// `ipsecN=DEV`.
    Pair {
        /// The device we make.
        name: String,
        /// The device it stands on.
        physical: String,
    },
}

/// `protostack=`: who does IPsec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protostack {
    /// Whatever is there; for us that is our own.
    #[default]
    Auto,
    /// Ours.
    Klips,
    /// The Linux kernel's.
    Netkey,
    /// The one with interfaces per connection.
    Mast,
    /// None at all.
    None,
}

/// `config setup` with defaults for what the file does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// `interfaces=`; `%none` is empty.
    pub interfaces: Vec<Interface>,
    /// `protostack=`.
    pub protostack: Protostack,
    /// `pluto=`: start the IKE daemon.
    pub pluto: bool,
    /// `plutowait=`: bring connections up one after the other.
    pub plutowait: bool,
    /// `plutorestartoncrash=`: a daemon that dies is started again.
    pub plutorestartoncrash: bool,
    /// `forwardcontrol=`: IPv4 packets are forwarded while IPsec runs.
    pub forwardcontrol: bool,
    /// `uniqueids=`: a new connection of a peer replaces its old ones.
    pub uniqueids: bool,
    /// `hidetos=`: the outer header does not show the TOS of the inner.
    pub hidetos: bool,
    /// `fragicmp=`: answer packets too big for the tunnel with ICMP.
    pub fragicmp: bool,
    /// `copydf=`: the outer packet must not be fragmented where the inner must not.
    pub copydf: bool,
    /// `overridemtu=`: the MTU of all `ipsecN`.
    pub overridemtu: Option<u32>,
    /// `nat_traversal=`. On unless it says otherwise; IKEv2 always can.
    pub nat_traversal: bool,
    /// `keep_alive=`: between NAT keepalives.
    pub keep_alive: Duration,
    /// `strictcrlpolicy=`.
    pub strictcrlpolicy: bool,
    /// `crlcheckinterval=`; zero is never.
    pub crlcheckinterval: Duration,
    /// `oe=`: the policy groups of opportunistic encryption.
    pub oe: bool,
    /// `nhelpers=`: threads for public-key work, by default one less than there are processors.
    pub nhelpers: Option<u32>,
    /// `pfkeygroup=`: the group that may speak PF_KEY besides root.
    pub pfkeygroup: Option<String>,
    /// `shareport=`: UDP 4500 is that of a key manager other than ours.
    pub shareport: bool,
    /// Every setting as it stands, for those that are text: `klipsdebug`, `plutodebug`, `syslog`, `virtual_private` ….
    pub settings: Vec<Setting>,
}

impl Default for Setup {
    fn default() -> Self {
        Self::from_settings(&[], &mut Vec::new(), &mut Vec::new())
    }
}

impl Setup {
    /// The devices that `interfaces=` names and this host has not, each as a problem.
    pub fn absent(&self, is_there: impl Fn(&str) -> bool) -> Vec<Problem> {
        let Some(setting) = self.settings.iter().find(|setting| setting.key == "interfaces") else {
            return Vec::new();
        };
        let problem = |device: &str| {
            let what = format!(
                "this host has no device {device}; `ip link' lists those it has [interfaces={}]",
                setting.value
            );
            Problem::new(&setting.at, what)
        };
        self.devices().filter(|device| !is_there(device)).map(problem).collect()
    }

    /// The devices that `interfaces=` names.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        self.interfaces.iter().filter_map(|interface| match interface {
            Interface::Pair { physical, .. } => Some(physical.as_str()),
            Interface::DefaultRoute => None,
        })
    }

    /// The text of a key, named in lower case.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|setting| setting.key == key).map(|setting| setting.value.as_str())
    }

    pub(super) fn from_settings(
        settings: &[Setting],
        errors: &mut Vec<Problem>,
        warnings: &mut Vec<Problem>,
    ) -> Self {
        let mut setup = Self {
            interfaces: vec![Interface::DefaultRoute],
            protostack: Protostack::default(),
            pluto: true,
            plutowait: false,
            plutorestartoncrash: true,
            forwardcontrol: false,
            uniqueids: true,
            hidetos: true,
            fragicmp: true,
            copydf: false,
            overridemtu: None,
            nat_traversal: true,
            keep_alive: Duration::from_secs(20),
            strictcrlpolicy: false,
            crlcheckinterval: Duration::ZERO,
            oe: false,
            nhelpers: None,
            pfkeygroup: None,
            shareport: false,
            settings: settings.to_vec(),
        };
        for setting in settings {
            if let Err(what) = setup.apply(setting, warnings) {
                errors.push(Problem::new(&setting.at, format!("{what} [{}={}]", setting.key, setting.value)));
            }
        }
        setup
    }

    fn apply(&mut self, setting: &Setting, warnings: &mut Vec<Problem>) -> Result<(), &'static str> {
        let value = setting.value.as_str();
        let yes = || flag(value).ok_or("value must be yes or no");
        let span = || time(value).ok_or("value must be a time, such as 20s or 1h");
        match setting.key.as_str() {
            "interfaces" => self.interfaces = interfaces(value)?,
            "protostack" => {
                self.protostack = match value.to_ascii_lowercase().as_str() {
                    "auto" => Protostack::Auto,
                    "klips" => Protostack::Klips,
                    "netkey" | "xfrm" | "native" => Protostack::Netkey,
                    "mast" => Protostack::Mast,
                    "none" => Protostack::None,
                    _ => return Err("value must be auto, klips, netkey, mast or none"),
                }
            }
            "pluto" => self.pluto = yes()?,
            "plutowait" => self.plutowait = yes()?,
            "plutorestartoncrash" => self.plutorestartoncrash = yes()?,
            "forwardcontrol" => self.forwardcontrol = yes()?,
            "uniqueids" => self.uniqueids = yes()?,
            "hidetos" => self.hidetos = yes()?,
            "fragicmp" => self.fragicmp = yes()?,
            "copydf" => self.copydf = yes()?,
            "nat_traversal" => self.nat_traversal = yes()?,
            "strictcrlpolicy" | "crl-strict" => self.strictcrlpolicy = yes()?,
            "oe" => self.oe = yes()?,
            "overridemtu" => {
                let mtu = value.parse().ok().filter(|mtu| (68..=65_535).contains(mtu));
                self.overridemtu = Some(mtu.ok_or("value must be an MTU, 68 to 65535")?);
            }
            "keep_alive" => {
                // Zero meant the built-in interval.
                self.keep_alive = Some(span()?).filter(|span| !span.is_zero()).unwrap_or(self.keep_alive);
            }
            "crlcheckinterval" => self.crlcheckinterval = span()?,
            "nhelpers" => self.nhelpers = Some(value.parse().map_err(|_| "value must be a number")?),
            "shareport" => self.shareport = yes()?,
            "pfkeygroup" => self.pfkeygroup = Some(value.to_owned()),
            key if TEXT.contains(&key) => {}
            key if IGNORED.contains(&key) => {
                warnings.push(Problem::new(&setting.at, format!("parameter has no effect any more [{key}]")));
            }
            _ => return Err("unknown parameter name"),
        }
        Ok(())
    }
}

/// Keys whose values are text to whoever asks for them.
const TEXT: [&str; 19] = [
    "dumpdir",
    "ikeport",
    "klipsdebug",
    "listen",
    "logfile",
    "manualstart",
    "myid",
    "myvendorid",
    "ocspuri",
    "plutodebug",
    "plutoopts",
    "plutostderrlog",
    "postpluto",
    "prepluto",
    "secretsfile",
    "statsbin",
    "syslog",
    "virtual-private",
    "virtual_private",
];

/// Keys that steered what does not exist here.
const IGNORED: [&str; 15] = [
    "disable_port_floating",
    "force_busy",
    "force_keepalive",
    "interfaces_xfrm",
    "logappend",
    "logip",
    "logtime",
    "nocrsend",
    "nflog-all",
    "no_eroute_pass",
    "opportunistic",
    "packetdefault",
    "rp_filter",
    "rpfilter",
    "secctx_attr_value",
];

fn interfaces(value: &str) -> Result<Vec<Interface>, &'static str> {
    if value == "%none" {
        return Ok(Vec::new());
    }
    let mut all: Vec<Interface> = Vec::new();
    for word in value.split_whitespace() {
        let interface = match word.split_once('=') {
            None if word == "%defaultroute" => Interface::DefaultRoute,
            Some((name, physical)) if is_ours(name) && is_device(physical) => {
                Interface::Pair { name: name.to_owned(), physical: physical.to_owned() }
            }
            _ => return Err("interface not understood; write ipsecN=DEVICE, %defaultroute or %none"),
        };
        let ours = |interface: &Interface| match interface {
            Interface::DefaultRoute => "ipsec0".to_owned(),
            Interface::Pair { name, .. } => name.clone(),
        };
        if all.iter().any(|earlier| ours(earlier) == ours(&interface)) {
            return Err("the same ipsec interface twice");
        }
        all.push(interface);
    }
    Ok(all)
}

/// `ipsec` and a number without leading zeros.
fn is_ours(name: &str) -> bool {
    let number = name.strip_prefix("ipsec").unwrap_or("");
    let canonical = number.parse::<u16>().is_ok_and(|n| n.to_string() == number);
    canonical && is_device(name)
}

/// What Linux accepts as the name of a network device.
fn is_device(name: &str) -> bool {
    (1..16).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|c| c.is_ascii_graphic() && c != b'/' && c != b':')
}
