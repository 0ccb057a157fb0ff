//! Devices, debug flags, version and counters: ipsec_tncfg(5), ipsec_klipsdebug(5), ipsec_version(5).

use super::Form;
use crate::command::version;
use crate::host::interfaces::Status;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// One `ipsecN` device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name.
    #[serde(rename = "virtual")]
    pub name: String,
    /// What it is attached to.
    pub physical: Option<String>,
    /// MTU of the device.
    pub mtu: u32,
    /// The MTU packets must fit to leave unfragmented, 0 when detached.
    pub effective_mtu: u32,
    /// MTU of the physical interface, 0 when detached.
    pub physical_mtu: u32,
    /// What else is known about it, for `--json` alone.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl Device {
    /// What is attached, and the largest packet that is carried unfragmented and without the host being told that it is too big.
    pub fn new(status: Status, effective_mtu: u32) -> Self {
        let Status { name, physical, present, mtu, physical_mtu, .. } = status;
        let addresses: Vec<String> = status.addresses.iter().map(ToString::to_string).collect();
        let counters: serde_json::Map<_, _> =
            status.counters.into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect();
        let more = [
            ("present", json!(present)),
            ("physical_there", json!(status.physical_there)),
            ("device", json!({ "there": status.there, "up": status.up })),
            ("addresses", json!(addresses)),
            ("offloads", json!(status.offloads)),
            ("workers", json!(status.workers)),
            ("steering", json!({ "udp": status.steering[0].name(), "esp": status.steering[1].name() })),
            ("counters", json!(counters)),
        ];
        let more = more.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { name, physical: Some(physical), mtu, effective_mtu, physical_mtu, more }
    }
}

pub(super) fn line(device: &Device, form: Form) -> String {
    let Device { name, physical, mtu, effective_mtu, physical_mtu, .. } = device;
    match form {
        Form::Json => json!(device).to_string(),
        Form::Man | Form::Klips => {
            let physical = physical.as_deref().unwrap_or("NULL");
            let trouble = trouble(device);
            format!("{name} -> {physical} mtu={mtu}({effective_mtu}) -> {physical_mtu}{trouble}\n")
        }
    }
}

/// Why nothing can be carried, if that is so; the line is as it always was if all is well.
fn trouble(device: &Device) -> String {
    let is = |object: Option<&serde_json::Value>| object.and_then(serde_json::Value::as_bool).unwrap_or(true);
    let own = device.more.get("device");
    let of = |name: &str| own.and_then(|own| own.get(name));
    let mut trouble = String::new();
    let physical = device.physical.as_deref().unwrap_or("NULL");
    for (name, there, up) in [
        (physical, is(device.more.get("physical_there")), is(device.more.get("present"))),
        (&device.name, is(of("there")), is(of("up"))),
    ] {
        let state = match (there, up) {
            (true, true) => continue,
            (true, false) => "down",
            (false, _) => "gone",
        };
        trouble.push_str(&format!("  {name} is {state}"));
    }
    trouble
}

pub(super) fn version(form: Form) -> String {
    match form {
        Form::Json => version::object().to_string(),
        Form::Man | Form::Klips => version::file(),
    }
}

/// The kernel's counters are eight hexadecimal digits.
pub(super) fn count(count: u64, form: Form) -> String {
    match form {
        Form::Json => json!({ "count": count }).to_string(),
        Form::Man | Form::Klips => format!("{count:08x}\n"),
    }
}

pub(super) fn level(name: &str, level: u8, form: Form) -> String {
    match form {
        Form::Json => json!({ name: level }).to_string(),
        Form::Man | Form::Klips => format!("{level}\n"),
    }
}

pub(super) fn discard(&(name, count): &(&'static str, u64), form: Form) -> String {
    match form {
        Form::Json => json!({ "reason": name, "packets": count }).to_string(),
        Form::Man | Form::Klips => format!("{name} {count}\n"),
    }
}

/// The debug flags: a word of bits for each part of KLIPS, and `verbose`, which the table does not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Klipsdebug([u32; 9], bool);

/// One debug word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugRow {
    /// Its name.
    pub name: &'static str,
    /// Its bits.
    pub bits: u32,
}

impl DebugRow {
    pub(super) fn line(&self, form: Form) -> String {
        let Self { name, bits } = self;
        match form {
            Form::Json => json!({ "name": name, "bits": bits }).to_string(),
            Form::Man | Form::Klips => format!("debug_{name}={bits:08x}.\n"),
        }
    }
}

impl Klipsdebug {
    /// The words in the order of the table.
    pub const WORDS: [&'static str; 9] =
        ["tunnel", "xform", "eroute", "spi", "radij", "esp", "ah", "rcv", "pfkey"];

    /// Sets or clears what `flag` names: a word, `tunnel-xmit` (one bit of `tunnel`), `all` or `none`. False if it
    /// names nothing. `verbose` is set by its name alone, and cleared with all others.
    #[must_use]
    pub fn change(&mut self, flag: &str, set: bool) -> bool {
        if flag == "verbose" || flag == "all" && !set {
            self.1 = set;
        }
        let (word, bits) = match flag {
            "verbose" => return true,
            "all" => (None, u32::MAX),
            "none" => return self.change("all", false),
            "tunnel-xmit" => (Some("tunnel"), 0x10),
            // Words of older and newer kernels, about code that is one with the eroutes or with ESP here.
            "netlink" => (Some("pfkey"), u32::MAX),
            "ipcomp" => (Some("esp"), u32::MAX),
            word => (Some(word), u32::MAX),
        };
        let mut found = false;
        for (name, value) in Self::WORDS.iter().zip(&mut self.0) {
            if word.is_none_or(|word| word == *name) {
                *value = if set { *value | bits } else { *value & !bits };
                found = true;
            }
        }
        found
    }

    /// Makes the bits of a word what X_DEBUG of KLIPS says; those of code that is one with another's are added to its own.
    pub fn put(&mut self, words: &[(&str, u32)]) {
        *self = Self::default();
        self.1 = words.iter().any(|(name, bits)| *name == "verbose" && *bits != 0);
        for (name, bits) in words {
            let name = match *name {
                "netlink" => "pfkey",
                "ipcomp" => "esp",
                name => name,
            };
            if let Some((_, value)) = Self::WORDS.iter().zip(&mut self.0).find(|(word, _)| **word == name) {
                *value |= bits;
            }
        }
    }

    /// Says whether anything of a word is set.
    pub fn is_set(&self, word: &str) -> bool {
        self.rows().any(|row| row.name == word && row.bits != 0)
    }

    /// Whether no line is too many.
    pub const fn is_verbose(&self) -> bool {
        self.1
    }

    /// The words and their bits.
    pub fn rows(&self) -> impl Iterator<Item = DebugRow> + use<> {
        Self::WORDS.into_iter().zip(self.0).map(|(name, bits)| DebugRow { name, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_reads_as_in_the_logs_of_klips() {
        let device = Device {
            name: "ipsec0".into(),
            physical: Some("eth1".into()),
            mtu: 16260,
            effective_mtu: 1500,
            physical_mtu: 1500,
            more: serde_json::Map::default(),
        };
        assert_eq!(line(&device, Form::Man), "ipsec0 -> eth1 mtu=16260(1500) -> 1500\n");
        let gone = serde_json::Map::from_iter([
            ("physical_there".to_owned(), json!(false)),
            ("present".to_owned(), json!(false)),
            ("device".to_owned(), json!({ "there": true, "up": false })),
        ]);
        let troubled = Device { more: gone, ..device.clone() };
        let said = "ipsec0 -> eth1 mtu=16260(1500) -> 1500  eth1 is gone  ipsec0 is down\n";
        assert_eq!(line(&troubled, Form::Klips), said);
        let detached = Device { physical: None, mtu: 0, effective_mtu: 0, physical_mtu: 0, ..device };
        assert_eq!(line(&detached, Form::Klips), "ipsec0 -> NULL mtu=0(0) -> 0\n");
    }

    #[test]
    fn debug_flags_change_as_the_page_shows() {
        let mut flags = Klipsdebug::default();
        assert!(flags.change("tunnel-xmit", true) && flags.change("pfkey", true));
        let text: String = flags.rows().map(|row| row.line(Form::Man)).collect();
        assert!(text.starts_with("debug_tunnel=00000010.\ndebug_xform=00000000.\n"), "{text}");
        assert!(text.ends_with("debug_rcv=00000000.\ndebug_pfkey=ffffffff.\n"), "{text}");
        assert!(!flags.change("nonsense", true));
        flags.put(&[("tunnel", 0x10), ("netlink", 1), ("pfkey", 2), ("verbose", 1)]);
        let set: Vec<_> = flags.rows().filter(|row| row.bits != 0).map(|row| (row.name, row.bits)).collect();
        assert_eq!(set, [("tunnel", 0x10), ("pfkey", 3)]);
        assert!(flags.change("none", true));
        assert_eq!(flags, Klipsdebug::default());
    }

    #[test]
    fn the_last_word_of_the_version_file_is_the_version() {
        assert_eq!(version(Form::Man).split_whitespace().last(), Some(version::VERSION));
    }
}
