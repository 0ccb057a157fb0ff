//! The language of setkey(8): statements that end in a semicolon, with comments from `#` to the end of a line.
//!
//! Words may be a key, so they are wiped, and no message about a word that is wrong shows one.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use pfkey::dialect::linux::{Policy, Request};
use pfkey::{FlowDirection, Level};
use std::net::ToSocketAddrs;
use zeroize::Zeroizing;

/// What is wrong, and on which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) line: usize,
    pub(super) why: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.why)
    }
}

/// One word. A quoted one keeps its blanks.
#[derive(Clone)]
struct Word {
    text: Zeroizing<String>,
    quoted: bool,
    line: usize,
}

/// `sadb_msg_satype`.
pub(super) const AH: u8 = 2;
pub(super) const ESP: u8 = 3;
pub(super) const IPCOMP: u8 = 9;

/// An SA to be added.
pub(super) struct Add {
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
    pub(super) satype: u8,
    pub(super) in_udp: bool,
    pub(super) spi: u32,
    pub(super) mode: u8,
    pub(super) reqid: u32,
    pub(super) replay: u8,
    /// Seconds and bytes.
    pub(super) hard: (u64, u64),
    pub(super) soft: (u64, u64),
    pub(super) encrypt: Option<(u8, Zeroizing<Vec<u8>>)>,
    pub(super) auth: Option<(u8, Zeroizing<Vec<u8>>)>,
}

/// One side of a policy's selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) address: SocketAddr,
    pub(super) prefix: u8,
}

/// A selector: two ranges and a protocol, 255 for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) src: Range,
    pub(super) dst: Range,
    pub(super) proto: u8,
}

/// One statement.
pub(super) enum Statement {
    Flush(u8),
    Dump(u8),
    SpdFlush,
    SpdDump,
    Add(Box<Add>),
    Get { src: IpAddr, dst: IpAddr, satype: u8, spi: u32 },
    Delete { src: IpAddr, dst: IpAddr, satype: u8, spi: u32 },
    DeleteAll { src: IpAddr, dst: IpAddr, satype: u8 },
    SpdAdd { selector: Selector, policy: Policy, update: bool },
    SpdDelete { selector: Selector, direction: FlowDirection },
}

/// `IPSEC_POLICY_*`.
pub(super) const DISCARD: u16 = 0;
pub(super) const NONE: u16 = 1;
pub(super) const IPSEC: u16 = 2;
/// `IPSEC_MODE_*`.
pub(super) const TRANSPORT: u8 = 1;
pub(super) const TUNNEL: u8 = 2;

/// Encryption algorithms by their words; the key's bits come after.
pub(super) const ENCRYPTION: &[(&str, u8)] = &[
    ("des-cbc", 2),
    ("3des-cbc", 3),
    ("cast128-cbc", 6),
    ("blowfish-cbc", 7),
    ("null", 11),
    ("simple", 11),
    ("aes-cbc", 12),
    ("rijndael-cbc", 12),
    ("aes-ctr", 13),
    ("aes-ccm-8", 14),
    ("aes-ccm-12", 15),
    ("aes-ccm-16", 16),
    ("aes-gcm-8", 18),
    ("aes-gcm-12", 19),
    ("aes-gcm-16", 20),
    ("camellia-cbc", 22),
    ("null-aes-gmac", 23),
    ("serpent-cbc", 252),
    ("twofish-cbc", 253),
];

/// Authentication algorithms by their words.
pub(super) const AUTH: &[(&str, u8)] = &[
    ("hmac-md5", 2),
    ("hmac-sha1", 3),
    ("hmac-sha256", 5),
    ("hmac-sha2-256", 5),
    ("hmac-sha384", 6),
    ("hmac-sha2-384", 6),
    ("hmac-sha512", 7),
    ("hmac-sha2-512", 7),
    ("hmac-ripemd160", 8),
    ("aes-xcbc-mac", 9),
    ("null", 251),
];

/// Reads a whole file of statements. The first mistake ends it: what follows would be read in the wrong light.
pub(super) fn read(text: &str, numeric: bool) -> Result<Vec<(usize, Statement)>, Wrong> {
    let words = split(text)?;
    let mut statements = Vec::new();
    let mut rest = &words[..];
    while let Some(end) = rest.iter().position(|word| !word.quoted && *word.text == ";") {
        let (words, after) = rest.split_at(end);
        rest = after.get(1..).unwrap_or_default();
        if let Some(first) = words.first() {
            let line = first.line;
            let mut parser = Parser { words, at: 0, line, numeric };
            let statement = parser.statement().map_err(|why| Wrong { line: parser.line, why })?;
            parser.end().map_err(|why| Wrong { line: parser.line, why })?;
            statements.push((line, statement));
        }
    }
    match rest.first() {
        Some(word) => {
            Err(Wrong { line: word.line, why: "this statement has no semicolon at its end".into() })
        }
        None => Ok(statements),
    }
}

fn split(text: &str) -> Result<Vec<Word>, Wrong> {
    let mut words = Vec::new();
    let mut line = 1;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => line += 1,
            _ if c.is_whitespace() => {}
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            ';' => words.push(Word { text: Zeroizing::new(";".into()), quoted: false, line }),
            '"' => {
                let mut text = Zeroizing::new(String::with_capacity(256));
                let begin = line;
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\n') | None => {
                            return Err(Wrong { line: begin, why: "a quoted word without its end".into() });
                        }
                        Some(c) => text.push(c),
                    }
                }
                words.push(Word { text, quoted: true, line });
            }
            _ => {
                let mut text = Zeroizing::new(String::with_capacity(256));
                text.push(c);
                while let Some(c) = chars.next_if(|c| !c.is_whitespace() && !"#;\"".contains(*c)) {
                    text.push(c);
                }
                words.push(Word { text, quoted: false, line });
            }
        }
    }
    Ok(words)
}

struct Parser<'w> {
    words: &'w [Word],
    at: usize,
    line: usize,
    numeric: bool,
}

impl<'w> Parser<'w> {
    fn next(&mut self, what: &str) -> Result<&'w Word, String> {
        let word = self.words.get(self.at).ok_or_else(|| format!("{what} is missing"))?;
        (self.at, self.line) = (self.at + 1, word.line);
        Ok(word)
    }

    fn peek(&self) -> Option<&'w str> {
        self.words.get(self.at).filter(|word| !word.quoted).map(|word| word.text.as_str())
    }

    fn taken(&mut self, words: &[&str]) -> Option<&'w str> {
        let word = self.peek().filter(|word| words.contains(word))?;
        self.at += 1;
        Some(word)
    }

    fn end(&mut self) -> Result<(), String> {
        match self.words.get(self.at) {
            None => Ok(()),
            Some(word) => {
                self.line = word.line;
                // A key that is too much is still a key.
                Err("there is more here than the statement has".into())
            }
        }
    }

    fn statement(&mut self) -> Result<Statement, String> {
        let word = self.next("a statement")?;
        match word.text.as_str() {
            "flush" => Ok(Statement::Flush(self.protocol_or_all()?)),
            "dump" => Ok(Statement::Dump(self.protocol_or_all()?)),
            "spdflush" => Ok(Statement::SpdFlush),
            "spddump" => Ok(Statement::SpdDump),
            "add" => self.add(),
            "get" => {
                let (src, dst, satype, spi) = self.named()?;
                Ok(Statement::Get { src, dst, satype, spi })
            }
            "delete" => {
                let (src, dst, satype, spi) = self.named()?;
                Ok(Statement::Delete { src, dst, satype, spi })
            }
            "deleteall" => {
                let (src, dst) = self.ends()?;
                let (satype, _) = self.protocol()?;
                Ok(Statement::DeleteAll { src: src.ip(), dst: dst.ip(), satype })
            }
            word @ ("spdadd" | "spdupdate") => {
                let selector = self.selector()?;
                Ok(Statement::SpdAdd { selector, policy: self.policy()?, update: word == "spdupdate" })
            }
            "spddelete" => {
                let selector = self.selector()?;
                let Some(_) = self.taken(&["-P"]) else {
                    return Err("-P and a direction are missing".into());
                };
                Ok(Statement::SpdDelete { selector, direction: self.direction()? })
            }
            // Behind a semicolon too many stands what belongs before it.
            other if word.quoted || !other.starts_with(|c: char| c.is_ascii_lowercase()) => {
                Err("a statement begins with its name".into())
            }
            other if other.bytes().all(|c| c.is_ascii_hexdigit()) => {
                Err("a statement begins with its name".into())
            }
            other => Err(format!(
                "{other}: no such statement; there are add, get, delete, deleteall, flush, dump, spdadd, spdupdate, spddelete, spdflush, spddump"
            )),
        }
    }

    fn protocol_or_all(&mut self) -> Result<u8, String> {
        if self.at >= self.words.len() { Ok(0) } else { self.protocol().map(|(satype, _)| satype) }
    }

    fn protocol(&mut self) -> Result<(u8, bool), String> {
        match self.next("the protocol")?.text.as_str() {
            "esp" => Ok((ESP, false)),
            "esp-udp" => Ok((ESP, true)),
            "ah" => Ok((AH, false)),
            "ipcomp" => Ok((IPCOMP, false)),
            old @ ("esp-old" | "ah-old" | "tcp") => Err(format!("{old}: not supported; use esp or ah")),
            other => Err(format!("{other}: no such protocol; there are esp, esp-udp, ah, ipcomp")),
        }
    }

    /// Flags before addresses: `-n`, `-4`, `-6` and them together.
    fn flags(&mut self) -> (bool, Option<bool>) {
        let (mut numeric, mut six) = (self.numeric, None);
        while let Some(word) = self.peek().and_then(|word| word.strip_prefix('-')) {
            if word.is_empty() || !word.chars().all(|c| "n46v".contains(c)) {
                break;
            }
            self.at += 1;
            numeric |= word.contains('n');
            six = if word.contains('6') {
                Some(true)
            } else if word.contains('4') {
                Some(false)
            } else {
                six
            };
        }
        (numeric, six)
    }

    fn ends(&mut self) -> Result<(SocketAddr, SocketAddr), String> {
        let (numeric, six) = self.flags();
        let src = self.next("the source address")?;
        let src = address(&src.text, numeric, six)?;
        let dst = self.next("the destination address")?;
        let dst = address(&dst.text, numeric, six.or(Some(src.is_ipv6())))?;
        Ok((src, dst))
    }

    fn named(&mut self) -> Result<(IpAddr, IpAddr, u8, u32), String> {
        let (src, dst) = self.ends()?;
        let (satype, _) = self.protocol()?;
        Ok((src.ip(), dst.ip(), satype, self.number("the SPI")?))
    }

    fn number<N: TryFrom<u64>>(&mut self, what: &str) -> Result<N, String> {
        let text = &self.next(what)?.text;
        let number = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        number
            .and_then(|n| N::try_from(n).ok())
            .ok_or_else(|| format!("{}: not a number for {what}", &**text))
    }

    fn add(&mut self) -> Result<Statement, String> {
        let (src, dst) = self.ends()?;
        let (satype, in_udp) = self.protocol()?;
        let spi = self.number("the SPI")?;
        let mut add = Add {
            src,
            dst,
            satype,
            in_udp,
            spi,
            mode: 0,
            reqid: 0,
            replay: 0,
            hard: (0, 0),
            soft: (0, 0),
            encrypt: None,
            auth: None,
        };
        while self.at < self.words.len() {
            let option = self.next("an option")?;
            if option.quoted {
                return Err("a key belongs after -E or -A and the name of an algorithm".into());
            }
            match option.text.as_str() {
                "-m" => {
                    add.mode = match self.next("the mode")?.text.as_str() {
                        "any" => 0,
                        "transport" => TRANSPORT,
                        "tunnel" => TUNNEL,
                        other => return Err(format!("{other}: the mode is any, transport or tunnel")),
                    }
                }
                // The page counts octets of a bitmap; Linux takes the number for packets, as we do.
                "-r" => add.replay = self.number("the replay window")?,
                "-u" => add.reqid = self.number("the policy's number")?,
                "-lh" => add.hard.0 = self.number("-lh")?,
                "-ls" => add.soft.0 = self.number("-ls")?,
                "-bh" => add.hard.1 = self.number("-bh")?,
                "-bs" => add.soft.1 = self.number("-bs")?,
                "-f" => {
                    let how = &self.next("the padding")?.text;
                    if !["zero-pad", "random-pad", "seq-pad", "nocyclic-seq"].contains(&how.as_str()) {
                        return Err(format!("{}: no such word after -f", &**how));
                    }
                    if how.as_str() != "seq-pad" && how.as_str() != "nocyclic-seq" {
                        return Err(format!("{}: padding is 1, 2, 3 and so on (RFC 4303 §2.4)", &**how));
                    }
                }
                "-E" => add.encrypt = Some(self.keyed("encryption", ENCRYPTION)?),
                "-A" => add.auth = Some(self.keyed("authentication", AUTH)?),
                "-C" => {
                    let _ = self.next("the compression algorithm")?;
                    self.taken(&["-R"]);
                    add.encrypt = Some((2, Zeroizing::default()));
                }
                option if option.starts_with('-') => {
                    return Err(format!("{option}: no such option; ipsec_setkey(8) lists them"));
                }
                // It may be a key that is too much.
                _ => return Err("there is a word here that no option takes".into()),
            }
        }
        match (satype, &add.encrypt, &add.auth) {
            (ESP, None, _) => Err("esp needs -E and an algorithm".into()),
            (AH, _, None) => Err("ah needs -A and an algorithm".into()),
            (AH, Some(_), _) => Err("ah encrypts nothing: -E belongs to esp".into()),
            _ => Ok(Statement::Add(Box::new(add))),
        }
    }

    fn keyed(&mut self, what: &str, table: &[(&str, u8)]) -> Result<(u8, Zeroizing<Vec<u8>>), String> {
        let name = &self.next(&format!("the {what} algorithm"))?.text;
        let number = table.iter().find(|(known, _)| *known == name.as_str()).map(|(_, number)| *number);
        let number = number.ok_or_else(|| {
            let known: Vec<&str> = table.iter().map(|(known, _)| *known).collect();
            // Where the name was forgotten, the key stands in its place.
            format!("no such {what} algorithm (what was read may be a key); there are {}", known.join(", "))
        })?;
        if name.as_str() == "null" || name.as_str() == "simple" {
            // A key may be there, and says nothing.
            if self.words.get(self.at).is_some_and(|word| word.quoted) {
                self.at += 1;
            }
            return Ok((number, Zeroizing::default()));
        }
        let word = self.next("the key")?;
        let octets = if word.quoted {
            Zeroizing::new(word.text.as_bytes().to_vec())
        } else {
            let hex = word.text.strip_prefix("0x").or(word.text.strip_prefix("0X"));
            let hex = hex.ok_or("a key is 0x and hexadecimal digits, or text in double quotes")?;
            hexadecimal(hex).ok_or("a key in hexadecimal has two digits for each octet")?
        };
        if octets.is_empty() {
            return Err("the key is empty".into());
        }
        Ok((number, octets))
    }

    fn selector(&mut self) -> Result<Selector, String> {
        let (numeric, six) = self.flags();
        if self.peek() == Some("tagged") {
            return Err("tagged: packets have no tags here".into());
        }
        let src = range(&self.next("the source range")?.text, numeric, six)?;
        let dst =
            range(&self.next("the destination range")?.text, numeric, six.or(Some(src.address.is_ipv6())))?;
        if src.address.is_ipv4() != dst.address.is_ipv4() {
            return Err("source and destination are of different families".into());
        }
        let word = &self.next("the upper-layer protocol")?.text;
        let (name, rest) =
            word.split_once(',').map_or((word.as_str(), None), |(name, rest)| (name, Some(rest)));
        if rest.is_some() {
            return Err(format!("{}: policies by ICMP type are not supported", &**word));
        }
        let proto = match name {
            "any" => 255,
            "icmp6" | "ipv6-icmp" | "icmpv6" => 58,
            "ip4" | "ipip" | "ipencap" => 4,
            "icmp" => 1,
            "tcp" => 6,
            "udp" => 17,
            "gre" => 47,
            "esp" => 50,
            "ah" => 51,
            "ospf" => 89,
            "sctp" => 132,
            other => other.parse().map_err(|_| format!("{other}: no such protocol; use its number"))?,
        };
        let ports = src.address.port() != 0 || dst.address.port() != 0;
        if proto == 255 && ports {
            return Err("a port needs a protocol that has ports".into());
        }
        Ok(Selector { src, dst, proto })
    }

    fn direction(&mut self) -> Result<FlowDirection, String> {
        match self.next("the direction")?.text.as_str() {
            "in" => Ok(FlowDirection::In),
            "out" => Ok(FlowDirection::Out),
            "fwd" => Ok(FlowDirection::Forward),
            other => Err(format!("{other}: the direction is in, out or fwd")),
        }
    }

    fn policy(&mut self) -> Result<Policy, String> {
        let Some(_) = self.taken(&["-P"]) else { return Err("-P and the policy are missing".into()) };
        let direction = self.direction()?;
        let priority = if self.taken(&["priority", "prio"]).is_some() { self.priority()? } else { 0 };
        let kind = match self.next("discard, none or ipsec")?.text.as_str() {
            "discard" => DISCARD,
            "none" => NONE,
            "ipsec" => IPSEC,
            other @ ("entrust" | "bypass") => {
                return Err(format!("{other}: for sockets only; a policy is discard, none or ipsec"));
            }
            other => return Err(format!("{other}: a policy is discard, none or ipsec")),
        };
        let mut requests = Vec::new();
        while kind == IPSEC && self.at < self.words.len() {
            let word = self.next("a request")?;
            requests.push(request(&word.text, self.numeric)?);
        }
        if kind == IPSEC && requests.is_empty() {
            return Err("ipsec needs a request, as esp/tunnel/192.0.2.1-192.0.2.2/require".into());
        }
        Ok(Policy { kind, direction: direction.number(), index: 0, priority, requests })
    }

    /// A number around the middle, or a word and what is added to it: the greater, the earlier.
    fn priority(&mut self) -> Result<u32, String> {
        const MIDDLE: i64 = 1 << 31;
        let word = self.next("the priority")?.text.as_str().to_owned();
        let base = match word.as_str() {
            "low" => Some(-(1_i64 << 30)),
            "def" => Some(0),
            "high" => Some(1_i64 << 30),
            _ => None,
        };
        let wrong = || format!("{word}: a priority is a number, or low, def or high and what is added");
        let offset = match base {
            None => word.parse::<i64>().map_err(|_| wrong())?,
            Some(base) => match self.taken(&["+", "-"]) {
                None => base,
                Some(sign) => {
                    let more: u32 = self.number("the priority")?;
                    if sign == "+" { base + i64::from(more) } else { base - i64::from(more) }
                }
            },
        };
        u32::try_from(MIDDLE - offset).map_err(|_| format!("{offset}: from -2147483647 to 2147483648"))
    }
}

fn hexadecimal(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let mut octets = Zeroizing::new(Vec::with_capacity(text.len() / 2));
    for at in (0..text.len()).step_by(2) {
        octets.push(u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?);
    }
    Some(octets)
}

/// `address`, `address[port]`: the port is a number, `any`, or a name.
fn address(text: &str, numeric: bool, six: Option<bool>) -> Result<SocketAddr, String> {
    let (host, port) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((host, "any")) => (host, 0),
        Some((host, port)) => {
            let named = crate::command::service_port;
            let number = port.parse().ok().or_else(|| named(port, 6)).or_else(|| named(port, 17));
            (host, number.ok_or_else(|| format!("{port}: no such port"))?)
        }
        None => (text, 0),
    };
    let fits = |ip: &IpAddr| six.is_none_or(|six| ip.is_ipv6() == six);
    let ip = match host.parse::<IpAddr>() {
        Ok(ip) => Some(ip),
        Err(_) if numeric => return Err(format!("{host}: not an address, and -n looks no names up")),
        Err(_) => {
            let all = (host, 0).to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
            all.map(|socket| socket.ip()).find(fits)
        }
    };
    let ip = ip.filter(fits).ok_or_else(|| format!("{host}: no address of that family"))?;
    Ok(SocketAddr::new(ip, port))
}

/// `address`, `address/bits`, `address[port]`, `address/bits[port]`.
fn range(text: &str, numeric: bool, six: Option<bool>) -> Result<Range, String> {
    let (before, port) = match text.find('[') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let (host, bits) = before.split_once('/').map_or((before, None), |(host, bits)| (host, Some(bits)));
    let address = address(&format!("{host}{port}"), numeric, six)?;
    let longest = if address.is_ipv6() { 128 } else { 32 };
    let prefix = match bits {
        None => longest,
        Some(bits) => bits
            .parse()
            .ok()
            .filter(|bits| *bits <= longest)
            .ok_or_else(|| format!("{bits}: the prefix length is from 0 to {longest}"))?,
    };
    Ok(Range { address, prefix })
}

/// `protocol/mode/src-dst/level`.
fn request(text: &str, numeric: bool) -> Result<Request, String> {
    let mut parts = text.split('/');
    let mut part = |what: &str| parts.next().ok_or_else(|| format!("{text}: {what} is missing"));
    let protocol = match part("the protocol")? {
        "esp" => 50,
        "ah" => 51,
        "ipcomp" => 108,
        other => return Err(format!("{other}: no such protocol; there are esp, ah, ipcomp")),
    };
    let mode = match part("the mode")? {
        "transport" => TRANSPORT,
        "tunnel" => TUNNEL,
        other => return Err(format!("{other}: the mode is transport or tunnel")),
    };
    let ends = part("source and destination, or nothing between two slashes,")?;
    let ends = match ends.split_once('-') {
        Some((src, dst)) => {
            let src = address(src, numeric, None)?.ip();
            Some((src, address(dst, numeric, Some(src.is_ipv6()))?.ip()))
        }
        None if ends.is_empty() => None,
        None => return Err(format!("{ends}: a source and a destination with - between them")),
    };
    if mode == TUNNEL && ends.is_none() {
        return Err(format!("{text}: a tunnel has two ends, as esp/tunnel/192.0.2.1-192.0.2.2/require"));
    }
    let level = parts.next().unwrap_or("default");
    let (level, reqid) = match level.split_once(':').map_or((level, None), |(word, id)| (word, Some(id))) {
        ("default", None) => (None, 0),
        ("use", None) => (Some(Level::Use), 0),
        ("require", None) => (Some(Level::Require), 0),
        ("unique", None) => (Some(Level::Unique), 0),
        ("unique", Some(id)) => {
            let id = id.parse().ok().filter(|id| (1..=0x3fff).contains(id));
            (Some(Level::Unique), id.ok_or("the number after unique: is from 1 to 16383")?)
        }
        _ => return Err(format!("{level}: the level is default, use, require, unique or unique:NUMBER")),
    };
    match parts.next() {
        None => Ok(Request { protocol, mode, level, reqid, ends }),
        Some(_) => Err(format!("{text}: more than protocol/mode/src-dst/level")),
    }
}
