//! `klips.ctl`: one JSON object per line, each request with its id.
//!
//! ```text
//! → {"id":1,"do":"table","table":"eroute","form":"man"}
//! ← {"id":1,"part":"1867       172.31.252.0/24:0  -> …\n"}      as often as needed; "rows":[…] with form json
//! ← {"id":1,"ok":null}
//! → {"id":2,"do":"attach","virtual":"ipsec0","physical":"eth7"}
//! ← {"id":2,"error":"no interface eth7: `ip link` lists them","errno":"ENXIO"}
//! ```

mod client;
pub mod server;

pub use client::{Client, CtlError};

use crate::table::{Form, Table};
use core::fmt;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// The longest line either side accepts.
pub const LONGEST: usize = 1 << 20;

/// What the daemon can be asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// Send a table.
    Table {
        /// Which.
        table: Table,
        /// How.
        form: Form,
    },
    /// Say how the daemon is.
    Status,
    /// Attach a virtual device to a physical one.
    Attach {
        /// `ipsecN`, made if it is not there.
        r#virtual: String,
        /// An interface of the host, or `%defaultroute`.
        physical: String,
        /// Its addresses, as `address/bits`; those of the physical interface where it is not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        addresses: Option<Vec<String>>,
    },
    /// Detach a virtual device and remove it.
    Detach {
        /// `ipsecN`.
        r#virtual: String,
    },
    /// Detach all.
    Clear,
    /// Change settings; what is not named stays.
    Configure(Settings),
    /// Change debug flags.
    Debug {
        /// Flags to set.
        #[serde(default)]
        set: Vec<String>,
        /// Flags to clear, before.
        #[serde(default)]
        clear: Vec<String>,
    },
    /// Say which eroute decides about a packet, and why.
    Explain {
        /// Its source.
        src: IpAddr,
        /// Its destination.
        dst: IpAddr,
        /// Its transport protocol.
        #[serde(default)]
        proto: u8,
        /// Its source port.
        #[serde(default)]
        sport: u16,
        /// Its destination port.
        #[serde(default)]
        dport: u16,
    },
    /// Say what became of packets of a flow, either way, since last asked; from the first time on they are watched.
    Watch {
        /// Chosen by who asks, and the same each time.
        watcher: u64,
        /// One end.
        src: IpAddr,
        /// The other.
        dst: IpAddr,
        /// The transport protocol; 0 for any.
        #[serde(default)]
        proto: u8,
        /// Source port; 0 for any.
        #[serde(default)]
        sport: u16,
        /// Destination port; 0 for any.
        #[serde(default)]
        dport: u16,
    },
    /// Change the policy: all of it, or nothing.
    Eroutes {
        /// In this order.
        changes: Vec<Change>,
    },
    /// End, and leave nothing behind.
    Stop {
        /// Only the devices, closed, for the daemon that follows.
        #[serde(default)]
        leave: bool,
    },
}

/// What is done with one eroute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Do {
    /// It is added; there must be none with its selector.
    Add,
    /// It is added, or takes the place of the one with its selector.
    Replace,
    /// The one with its selector is deleted.
    Delete,
}

/// One change of policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What is done.
    pub what: Do,
    /// The eroute as a row of the table; of one that is deleted only what it matches counts.
    pub row: String,
    /// Where it stands, for complaints.
    pub line: u64,
}

/// What `config setup` says about the data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// `hidetos`: the outer DSCP is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidetos: Option<bool>,
    /// `fragicmp`: tell the sender when a packet is too big.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragicmp: Option<bool>,
    /// `copydf`: the outer packet must not be fragmented where the inner must not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copydf: Option<bool>,
    /// `overridemtu`: MTU of the devices; 0 for that of the physical one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overridemtu: Option<u32>,
}

/// A request and the number its replies carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The client's number.
    pub id: u64,
    /// The request.
    #[serde(flatten)]
    pub request: Request,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// One line for people: the value and the remedy.
    pub error: String,
    /// The name of an errno, where one says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
}

impl Refusal {
    /// With words alone.
    pub fn new(error: impl fmt::Display) -> Self {
        Self { error: error.to_string(), errno: None }
    }

    /// With the name of an errno.
    pub fn with(errno: &str, error: impl fmt::Display) -> Self {
        Self { error: error.to_string(), errno: Some(errno.to_owned()) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}
