//! Connections: which keys they may have, and `also=`.

use super::read::Section;
use super::{Location, Problem, Setting};

/// A connection with everything that `also=`, `alsoflip=` and `conn %default` give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conn {
    /// Its name.
    pub name: String,
    /// Where it begins.
    pub at: Location,
    /// Its settings, each key once: its own first, then what it was given.
    pub settings: Vec<Setting>,
}

impl Conn {
    /// The value of a key, named in lower case.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.setting(key).map(|setting| setting.value.as_str())
    }

    /// The setting of a key, with its place for complaints.
    pub fn setting(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }
}

/// Gives each section what it asks for.
pub(super) fn resolve(defaults: &[Setting], sections: &[Section], errors: &mut Vec<Problem>) -> Vec<Conn> {
    for setting in defaults {
        if ["also", "alsoflip"].contains(&setting.key.as_str()) {
            errors.push(Problem::new(
                &setting.at,
                format!("%default section may not contain this [{}]", setting.key),
            ));
        }
    }
    for setting in sections.iter().flat_map(|section| &section.settings).chain(defaults) {
        if !is_known(&setting.key) {
            let hint = hint(&setting.key);
            errors.push(Problem::new(&setting.at, format!("unknown parameter name{hint} [{}]", setting.key)));
        }
    }
    let conns = sections.iter().map(|section| {
        let mut conn = Conn { name: section.name.clone(), at: section.at.clone(), settings: Vec::new() };
        pull(section, false, &mut vec![&section.name], sections, &mut conn.settings, errors);
        give(&mut conn.settings, defaults.iter().cloned());
        conn
    });
    conns.collect()
}

/// Adds a section's settings, then those of the sections it names, to what the connection has not got yet.
fn pull<'s>(
    section: &'s Section,
    flip: bool,
    path: &mut Vec<&'s str>,
    sections: &'s [Section],
    into: &mut Vec<Setting>,
    errors: &mut Vec<Problem>,
) {
    let own = section.settings.iter().filter(|setting| !["also", "alsoflip"].contains(&setting.key.as_str()));
    give(into, own.map(|setting| if flip { flipped(setting) } else { setting.clone() }));
    for setting in &section.settings {
        let flip = match setting.key.as_str() {
            "also" => flip,
            "alsoflip" => !flip,
            _ => continue,
        };
        let complain = |what: &str| Problem::new(&setting.at, format!("{what} [{}]", setting.value));
        if path.contains(&setting.value.as_str()) {
            errors.push(complain("section is requested by itself"));
            continue;
        }
        match sections.iter().find(|section| section.name == setting.value) {
            None => errors.push(complain("did not find conn section")),
            Some(other) => {
                path.push(&other.name);
                pull(other, flip, path, sections, into, errors);
                path.pop();
            }
        }
    }
}

fn give(into: &mut Vec<Setting>, settings: impl Iterator<Item = Setting>) {
    for setting in settings {
        if !into.iter().any(|has| has.key == setting.key) {
            into.push(setting);
        }
    }
}

/// Left for right and right for left.
fn flipped(setting: &Setting) -> Setting {
    let key = match (setting.key.strip_prefix("left"), setting.key.strip_prefix("right")) {
        (Some(rest), _) => format!("right{rest}"),
        (_, Some(rest)) => format!("left{rest}"),
        _ => setting.key.clone(),
    };
    Setting { key, ..setting.clone() }
}

/// Every key that a connection may have; those of one side as keys of the left one.
pub fn keys() -> impl Iterator<Item = String> {
    let sides = SIDE_KEYS.iter().map(|rest| format!("left{rest}"));
    KEYS.iter().map(|key| (*key).to_owned()).chain(sides)
}

fn is_known(key: &str) -> bool {
    match key.strip_prefix("left").or_else(|| key.strip_prefix("right")) {
        Some(rest) => SIDE_KEYS.contains(&rest),
        None => KEYS.contains(&key),
    }
}

/// Keys of other times and other programs, and what says the same here.
const OBSOLETE: [(&str, &str); 12] = [
    ("lifetime", "salifetime="),
    ("margintime", "rekeymargin="),
    ("ikelifetime-seconds", "ikelifetime="),
    ("keyexchangemode", "keyexchange=ikev2"),
    ("natikeport", "leftikeport= and rightikeport="),
    ("nat_keepalive", "nat-keepalive="),
    ("closeaction", "dpdaction="),
    ("ikedscp", "nothing: it is chosen here"),
    ("leftfirewall", "leftupdown="),
    ("leftsourceips", "leftsourceip="),
    ("opportunistic", "nothing: opportunistic encryption is not done"),
    ("rekey_margin", "rekeymargin="),
];

/// What was probably meant by a key that does not exist.
fn hint(key: &str) -> String {
    if let Some((_, instead)) = OBSOLETE.iter().find(|(old, _)| *old == key) {
        return format!(", write {instead}");
    }
    let sides = SIDE_KEYS.iter().flat_map(|rest| [format!("left{rest}"), format!("right{rest}")]);
    let known = KEYS.iter().map(|key| (*key).to_owned()).chain(sides);
    let nearest = known.map(|known| (distance(key, &known), known)).min();
    // Two slips in a long word, one in a short one.
    let most = if key.len() > 5 { 2 } else { 1 };
    match nearest {
        Some((slips, known)) if slips <= most => format!(", do you mean {known}=?"),
        _ => String::new(),
    }
}

/// How many letters must be added, taken out, changed or swapped with their neighbour.
fn distance(one: &str, two: &str) -> usize {
    let (one, two) = (one.as_bytes(), two.as_bytes());
    let mut rows: Vec<Vec<usize>> = vec![(0..=two.len()).collect()];
    let cell = |rows: &[Vec<usize>], i: usize, j: usize| {
        rows.get(i).and_then(|row| row.get(j)).copied().unwrap_or(usize::MAX / 2)
    };
    for (i, a) in (1..).zip(one) {
        rows.push(vec![i]);
        for (j, b) in (1..).zip(two) {
            let change = cell(&rows, i - 1, j - 1) + usize::from(a != b);
            let mut best = change.min(cell(&rows, i - 1, j) + 1).min(cell(&rows, i, j - 1) + 1);
            if i > 1 && j > 1 && one.get(i - 2) == Some(b) && two.get(j - 2) == Some(a) {
                best = best.min(cell(&rows, i - 2, j - 2) + 1);
            }
            if let Some(row) = rows.get_mut(i) {
                row.push(best);
            }
        }
    }
    cell(&rows, one.len(), two.len())
}

/// What may follow `left` and `right`.
const SIDE_KEYS: [&str; 34] = [
    "",
    "addresspool",
    "ahkey",
    "ahspi",
    "auth",
    "authby",
    "ca",
    "cert",
    "ckaid",
    "espauthkey",
    "espenckey",
    "espspi",
    "firewall",
    "id",
    "ikeport",
    "modecfgclient",
    "modecfgserver",
    "nexthop",
    "policylabel",
    "protoport",
    "pubkey",
    "rsasigkey",
    "rsasigkey2",
    "sendcert",
    "sourceip",
    "subnet",
    "subnets",
    "subnetwithin",
    "updown",
    "usercert",
    "username",
    "vti",
    "xauthclient",
    "xauthserver",
];

/// The keys of a connection that are not about one side.
const KEYS: [&str; 85] = [
    "accept-redirect-to",
    "aggressive",
    "aggrmode",
    "ah",
    "ahkey",
    "ahreplay_window",
    "also",
    "alsoflip",
    "auth",
    "authby",
    "auto",
    "childless",
    "compress",
    "connaddrfamily",
    "connalias",
    "dpdaction",
    "dpddelay",
    "dpdtimeout",
    "eap_identity",
    "ecn",
    "encapsulation",
    "esn",
    "esp",
    "espauthkey",
    "espenckey",
    "espreplay_window",
    "failureshunt",
    "forceencaps",
    "fragmentation",
    "hostaddrfamily",
    "ike",
    "ike_frag",
    "ikelifetime",
    "ikev2",
    "initial-contact",
    "initial_contact",
    "ipsec-interface",
    "ipsec-max-bytes",
    "ipsec-max-packets",
    "keyexchange",
    "keyingtries",
    "keylife",
    "labeled_ipsec",
    "loopback",
    "manual",
    "mark",
    "metric",
    "mobike",
    "modecfgdns",
    "modecfgdomains",
    "modecfgpull",
    "mtu",
    "narrowing",
    "nat-keepalive",
    "negotiationshunt",
    "nopmtudisc",
    "overlapip",
    "pfs",
    "pfsgroup",
    "phase2",
    "phase2alg",
    "policy_label",
    "ppk",
    "ppk-ids",
    "pq",
    "priority",
    "reauth",
    "rekey",
    "rekeyfuzz",
    "rekeymargin",
    "remote_peer_type",
    "replay-window",
    "replay_window",
    "reqid",
    "retransmit-interval",
    "retransmit-timeout",
    "salifetime",
    "sareftrack",
    "sha2-truncbug",
    "sha2_truncbug",
    "spi",
    "spibase",
    "tfc",
    "type",
    "xauthby",
];
