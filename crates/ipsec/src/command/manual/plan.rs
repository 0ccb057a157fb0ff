//! From a `conn` section with keys to its SAs, its eroute and its route.

use crate::command::spi::{Direction, KeyText, Life, NewSa, algorithm, key};
use crate::conf::connection::{is_number, no_address};
use crate::conf::{Conn, Problem, Setting};
use core::net::IpAddr;
use ipnet::IpNet;
use ipsec_core::algorithm::Suite;
use ipsec_core::text;
use ipsec_core::{Protocol, SaId, Said, Selector, Spi};
use zeroize::Zeroizing;

/// What a connection is made of on this host.
#[derive(Debug)]
pub(super) struct Plan {
    /// Our address.
    pub(super) local: IpAddr,
    /// SAs to the peer, from the inside to the outside; none for `%pass` and the like.
    pub(super) out: Vec<NewSa>,
    /// SAs to us.
    pub(super) back: Vec<NewSa>,
    /// What goes through it.
    pub(super) selector: Selector,
    /// What becomes of that.
    pub(super) said: Said,
}

/// Which way, as the file says it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Towards {
    Left,
    Right,
}

struct Reader<'c> {
    conn: &'c Conn,
    errors: Vec<Problem>,
}

/// Reads a connection; everything wrong with it at once.
pub(super) fn plan(conn: &Conn, is_ours: &dyn Fn(IpAddr) -> bool) -> Result<Plan, Vec<Problem>> {
    let mut reader = Reader { conn, errors: Vec::new() };
    match reader.plan(is_ours) {
        Some(plan) if reader.errors.is_empty() => Ok(plan),
        _ if reader.errors.is_empty() => {
            Err(vec![Problem { at: conn.at.clone(), what: format!("not understood [{}]", conn.name) }])
        }
        _ => Err(reader.errors),
    }
}

impl<'c> Reader<'c> {
    fn wrong(&mut self, setting: &Setting, what: &str) {
        let what = format!("{what} [{}={}]", setting.key, setting.value);
        self.errors.push(Problem { at: setting.at.clone(), what });
    }

    /// A key is never shown.
    fn wrong_key(&mut self, setting: &Setting, what: &str) {
        self.errors.push(Problem { at: setting.at.clone(), what: format!("{what} [{}]", setting.key) });
    }

    fn missing(&mut self, what: &str) {
        self.errors.push(Problem { at: self.conn.at.clone(), what: format!("{what} [{}]", self.conn.name) });
    }

    fn plan(&mut self, is_ours: &dyn Fn(IpAddr) -> bool) -> Option<Plan> {
        let (left, right) = (self.address("left"), self.address("right"));
        let (left, right) = (left?, right?);
        if left.is_ipv4() != right.is_ipv4() {
            self.missing("left and right are of different families");
        }
        let towards = match (is_ours(left), is_ours(right)) {
            (true, false) => Towards::Right,
            (false, true) => Towards::Left,
            _ => {
                self.missing("one of left and right must be an address of this host, and one not");
                return None;
            }
        };
        let nets = (self.subnet("leftsubnet", left)?, self.subnet("rightsubnet", right)?);
        let (local, (ours, theirs)) = match towards {
            Towards::Right => (left, nets),
            Towards::Left => (right, (nets.1, nets.0)),
        };
        let kind = self.conn.setting("type");
        let (tunnel, said) = match kind.map_or("tunnel", |kind| kind.value.as_str()) {
            "tunnel" => (true, None),
            "transport" => (false, None),
            "passthrough" => (false, Some(Said::Pass)),
            "drop" => (false, Some(Said::Drop)),
            "reject" => (false, Some(Said::Reject)),
            _ => {
                self.wrong(kind?, "not a type: tunnel, transport, passthrough, drop or reject");
                return None;
            }
        };
        let hosts = (IpNet::from(ours.addr()), IpNet::from(theirs.addr()));
        if !tunnel && said.is_none() && (ours, theirs) != hosts {
            self.missing("transport mode is between two hosts: no leftsubnet= and rightsubnet=");
        }
        let selector = Selector::nets(ours, theirs);
        if let Some(said) = said {
            return Some(Plan { local, out: Vec::new(), back: Vec::new(), selector, said });
        }
        let inner = tunnel.then_some((ours, theirs));
        let ends = if towards == Towards::Right { (left, right) } else { (right, left) };
        let other = if towards == Towards::Right { Towards::Left } else { Towards::Right };
        let out = self.sas(ends, towards, Direction::Out, inner)?;
        let back = self.sas((ends.1, ends.0), other, Direction::In, inner.map(|(a, b)| (b, a)))?;
        let said = Said::Sa(out.first()?.id);
        Some(Plan { local, out, back, selector, said })
    }

    /// The SAs of one direction, from the inside to the outside. ESP makes the tunnel if there is ESP, else AH does.
    fn sas(
        &mut self,
        (src, dst): (IpAddr, IpAddr),
        towards: Towards,
        direction: Direction,
        inner: Option<(IpNet, IpNet)>,
    ) -> Option<Vec<NewSa>> {
        let (esp, ah) = (self.conn.setting("esp"), self.conn.setting("ah"));
        if esp.is_none() && ah.is_none() {
            self.missing("without esp= and ah= there is nothing to do by hand");
            return None;
        }
        // The tunnel has the first number, as where it was an SA of its own.
        let mut place = u32::from(inner.is_some());
        let mut inner = inner;
        let mut all = Vec::new();
        for (setting, protocol) in [(esp, Protocol::Esp), (ah, Protocol::Ah)] {
            let Some(setting) = setting else { continue };
            let esp = protocol == Protocol::Esp;
            let suite = if esp {
                algorithm::esp(&setting.value).map(|(suite, _)| suite)
            } else {
                algorithm::ah(&setting.value).map(|auth| Suite { encryption: None, auth: Some(auth) })
            };
            let Some(suite) = suite else {
                self.wrong(setting, "no such algorithms");
                return None;
            };
            let (word, auth_key) = if esp { ("esp", "espauthkey") } else { ("ah", "ahkey") };
            let spi = self.spi(word, towards, place)?;
            let encryption = suite.encryption.map_or(vec![0], |e| e.row().keymat_lengths().collect());
            let auth = suite.auth.map_or(vec![0], |a| a.row().keymat_lengths().collect());
            let encryption_key =
                if esp { self.key("espenckey", towards, &encryption)? } else { Zeroizing::default() };
            let auth_key = self.key(auth_key, towards, &auth)?;
            let window = self.window(&format!("{word}replay_window"))?;
            all.push(NewSa {
                id: SaId { dst, protocol, spi },
                src,
                suite,
                encryption_key,
                auth_key,
                tunnel: inner.is_some(),
                inner: inner.take(),
                direction: Some(direction),
                window,
                esn: false,
                life: Life::default(),
                tfc: Default::default(),
                encapsulation: None,
            });
            place = place.saturating_add(1);
        }
        Some(all)
    }

    fn address(&mut self, key: &str) -> Option<IpAddr> {
        let Some(setting) = self.conn.setting(key) else {
            self.missing(&format!("{key}= is missing"));
            return None;
        };
        let address = setting.value.parse().ok();
        if address.is_none() {
            let why = if is_number(&setting.value) {
                &no_address(&setting.value)
            } else {
                "keys by hand need a numeric address"
            };
            self.wrong(setting, why);
        }
        address
    }

    fn subnet(&mut self, key: &str, host: IpAddr) -> Option<IpNet> {
        let Some(setting) = self.conn.setting(key) else { return Some(host.into()) };
        match text::subnet(&setting.value, None) {
            Ok((net, None)) => Some(net),
            _ => {
                self.wrong(setting, "not a subnet");
                None
            }
        }
    }

    /// `leftespspi=` and the like name one; `spi=` is everybody's; `spibase=` counts in twos, the leftward ones odd.
    fn spi(&mut self, word: &str, towards: Towards, place: u32) -> Option<Spi> {
        let side = if towards == Towards::Left { "left" } else { "right" };
        let own = self.conn.setting(&format!("{side}{word}spi")).or_else(|| self.conn.setting("spi"));
        let base = self.conn.setting("spibase");
        let Some(setting) = own.or(base) else {
            self.missing("spi= or spibase= is missing");
            return None;
        };
        let number = text::number(&setting.value).ok().and_then(|number| u32::try_from(number).ok());
        let spi = match (number, own) {
            (Some(number), Some(_)) => Some(number),
            (Some(number), None) if number & 0xf == 0 => {
                number.checked_add(place.saturating_mul(2))?.checked_add(u32::from(towards == Towards::Left))
            }
            _ => None,
        };
        let spi = spi.map(Spi).filter(|spi| !spi.is_reserved());
        if spi.is_none() {
            self.wrong(setting, "not an SPI of 0x100 or more (spibase= ends in 0)");
        }
        spi
    }

    /// A key for one direction, or for both.
    fn key(&mut self, name: &str, towards: Towards, lengths: &[usize]) -> Option<Zeroizing<Vec<u8>>> {
        let side = if towards == Towards::Left { "left" } else { "right" };
        let setting = self.conn.setting(&format!("{side}{name}")).or_else(|| self.conn.setting(name));
        let Some(setting) = setting else {
            if lengths == [0] {
                return Some(Zeroizing::default());
            }
            self.missing(&format!("{name}= is missing"));
            return None;
        };
        match key::value(&KeyText::from(setting.value.clone())) {
            Ok(octets) if lengths.contains(&octets.len()) => Some(octets),
            Ok(octets) => {
                let all: Vec<String> = lengths.iter().map(ToString::to_string).collect();
                let what = format!("a key of {} octets, where {} are needed", octets.len(), all.join(" or "));
                self.wrong_key(setting, &what);
                None
            }
            Err(why) => {
                self.wrong_key(setting, why);
                None
            }
        }
    }

    fn window(&mut self, key: &str) -> Option<u16> {
        let Some(setting) = self.conn.setting(key) else { return Some(0) };
        let window = setting.value.parse().ok().filter(|window| *window <= 4096);
        if window.is_none() {
            self.wrong(setting, "not a number of packets up to 4096");
        }
        window
    }
}

/// What makes an SA, for people: keys are left out.
pub(super) fn options(sa: &NewSa) -> String {
    let mut words = match (sa.suite.encryption, sa.suite.auth) {
        (Some(encryption), Some(auth)) => format!("--esp {encryption}+{auth} --enckey KEY --authkey KEY"),
        (Some(encryption), None) => format!("--esp {encryption} --enckey KEY"),
        (None, Some(auth)) => format!("--ah {auth} --authkey KEY"),
        (None, None) => String::new(),
    };
    if let Some((src, dst)) = sa.inner {
        words.push_str(&format!(" --inner-src {src} --inner-dst {dst}"));
    }
    words.push_str(&format!(" --replay-window {}", sa.window));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::Conf;

    const FILE: &str = "\
conn west-east
\tleft=192.0.2.1
\tleftsubnet=10.1.0.0/16
\tright=192.0.2.2
\trightsubnet=10.2.0.0/16
\tspibase=0x300
\tesp=3des-md5-96
\tespenckey=0x4043434545464649494a4a4c4c4f4f515152525454575758
\tespauthkey=0x87658765876587658765876587658765
\tah=hmac-sha1-96
\tahkey=0x8765876587658765876587658765876587658765
";

    fn planned(text: &str, ours: &str) -> Result<Plan, Vec<String>> {
        let conf = Conf::parse("ipsec.conf", text).unwrap();
        let ours: IpAddr = ours.parse().unwrap();
        plan(&conf.conns[0], &|address| address == ours)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn both_ends_read_the_same_file_and_agree() {
        let west = planned(FILE, "192.0.2.1").unwrap();
        let east = planned(FILE, "192.0.2.2").unwrap();
        let names = |sas: &[NewSa]| sas.iter().map(|sa| sa.id.to_string()).collect::<Vec<_>>();
        // The tunnel is the first, ESP the second, AH the third; rightward even, leftward odd.
        assert_eq!(names(&west.out), ["esp0x302@192.0.2.2", "ah0x304@192.0.2.2"]);
        assert_eq!(names(&west.back), ["esp0x303@192.0.2.1", "ah0x305@192.0.2.1"]);
        assert_eq!((names(&west.out), names(&west.back)), (names(&east.back), names(&east.out)));
        assert_eq!(west.selector, east.selector.reversed());
        assert_eq!(west.said.to_string(), "esp0x302@192.0.2.2");
        assert!(west.out[0].tunnel && !west.out[1].tunnel);
        assert_eq!(west.out[0].inner, Some(("10.1.0.0/16".parse().unwrap(), "10.2.0.0/16".parse().unwrap())));
        assert_eq!(west.out[0].encryption_key, east.back[0].encryption_key);
        assert_eq!(west.out[0].encryption_key.len(), 24);
        assert_eq!((west.out[0].window, west.out[1].auth_key.len()), (0, 20));
    }

    #[test]
    fn each_direction_may_have_its_own_number_and_key() {
        let text = FILE
            .replace("\tspibase=0x300\n", "\tspi=0x400\n\tleftespspi=0x777\n")
            .replace("\tah=", "\tleftespauthkey=0x11111111111111111111111111111111\n\tah=");
        let west = planned(&text, "192.0.2.1").unwrap();
        assert_eq!((west.out[0].id.spi, west.back[0].id.spi), (Spi(0x400), Spi(0x777)));
        assert_ne!(west.out[0].auth_key, west.back[0].auth_key);
    }

    #[test]
    fn what_is_not_to_be_protected_needs_no_keys() {
        let text = "conn clear\n\tleft=192.0.2.1\n\tright=192.0.2.9\n\ttype=passthrough\n";
        let plan = planned(text, "192.0.2.1").unwrap();
        assert_eq!((plan.out.len(), plan.said), (0, Said::Pass));
    }

    #[test]
    fn everything_wrong_is_said_with_its_line_and_no_key_is_shown() {
        let secret = "0xdeadbeefdeadbeef";
        for (from, to, why) in [
            ("left=192.0.2.1", "left=%any", "ipsec.conf:2: keys by hand need a numeric address [left=%any]"),
            ("spibase=0x300", "spibase=0x301", "ends in 0"),
            ("spibase=0x300", "spibase=0x10", "0x100 or more"),
            ("esp=3des-md5-96", "esp=rot13", "no such algorithms [esp=rot13]"),
            (
                "espauthkey=0x87658765876587658765876587658765",
                &format!("espauthkey={secret}"),
                "a key of 8 octets",
            ),
            ("\tahkey=0x8765876587658765876587658765876587658765\n", "", "ahkey= is missing"),
            ("\tleftsubnet=", "\ttype=transport\n\tleftsubnet=", "between two hosts"),
        ] {
            let told = planned(&FILE.replace(from, to), "192.0.2.1").unwrap_err();
            assert!(told.iter().any(|line| line.contains(why)), "{told:?}");
            assert!(!told.iter().any(|line| line.contains("deadbeef")), "{told:?}");
        }
        assert!(planned(FILE, "192.0.2.77").unwrap_err()[0].contains("an address of this host"));
    }
}
