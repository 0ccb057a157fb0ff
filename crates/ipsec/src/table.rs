//! The tables of KLIPS as text: the form of the manual pages, the form the kernel printed, and JSON.
//!
//! A [`Snapshot`] is copied from the data plane at one moment; what prints it needs nothing else and holds nobody up.
//! The manual pages ipsec_eroute(5) and ipsec_pf_key(5) describe forms that the kernels of their time no longer printed:
//! both are written, and [`eroute::Line`] reads both.

mod device;
pub mod eroute;
mod keysock;
mod sa;
pub mod sighting;
mod xforms;

pub use device::{DebugRow, Device, Klipsdebug};

use ipsec_core::{SaId, Time};
use klips::{Eroute, SaRow, SocketRow};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// Policy.
    Eroute,
    /// Security associations.
    Spi,
    /// Which SAs are applied together.
    Spigrp,
    /// Devices and what they are attached to.
    Tncfg,
    /// Debug flags.
    Klipsdebug,
    /// Which version.
    Version,
    /// PF_KEY sockets.
    PfKey,
    /// What they are registered for.
    PfKeyRegistered,
    /// Algorithms.
    PfKeySupported,
    /// Why packets were refused, and how many.
    Discards,
    /// Packets that met a `%trap`.
    TrapCount,
    /// Packets that met a `%trap` and somebody was asked for.
    TrapSendcount,
    /// Algorithms, as the kernel's framework listed them.
    Xforms,
    /// How well ESP in UDP is supported.
    Natt,
    /// Whether ciphers are the business of other hardware.
    Ocf,
}

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// As the manual pages have it.
    Man,
    /// As the kernel printed it.
    Klips,
    /// One JSON object per row.
    Json,
}

/// One table at one moment.
#[derive(Debug)]
pub enum Snapshot {
    /// Policy.
    Eroute(Vec<Arc<Eroute>>),
    /// Security associations, and the second at which ages are counted.
    Spi(Vec<SaRow>, Time),
    /// Each SA, and the SAs it is applied together with.
    Spigrp(Vec<(SaId, Option<Arc<[SaId]>>)>),
    /// Devices.
    Tncfg(Vec<Device>),
    /// Debug flags.
    Klipsdebug(Klipsdebug),
    /// Nothing to copy.
    Version,
    /// PF_KEY sockets.
    PfKey(Vec<SocketRow>),
    /// What they are registered for.
    PfKeyRegistered(Vec<SocketRow>),
    /// Nothing to copy.
    PfKeySupported,
    /// Counters by name.
    Discards(Vec<(&'static str, u64)>),
    /// One number.
    Count(u64),
    /// Nothing to copy.
    Xforms,
    /// What the data plane can do, in the kernel's numbers.
    Level(&'static str, u8),
}

impl Snapshot {
    /// The rows as lines with their line ends, headings included; each JSON row is an object without one.
    pub fn lines(&self, form: Form) -> Box<dyn Iterator<Item = String> + '_> {
        match self {
            Self::Eroute(rows) => Box::new(rows.iter().map(move |row| eroute::line(row, form))),
            Self::Spi(rows, now) => Box::new(rows.iter().map(move |row| sa::line(row, *now, form))),
            Self::Spigrp(rows) => {
                Box::new(rows.iter().filter_map(move |(id, group)| sa::group(id, group.as_deref(), form)))
            }
            Self::Tncfg(rows) => Box::new(rows.iter().map(move |row| device::line(row, form))),
            Self::Klipsdebug(flags) => Box::new(flags.rows().map(move |row| row.line(form))),
            Self::Version => Box::new(core::iter::once(device::version(form))),
            Self::PfKey(rows) => keysock::sockets(rows, form),
            Self::PfKeyRegistered(rows) => keysock::registered(rows, form),
            Self::PfKeySupported => keysock::supported(form),
            Self::Count(count) => Box::new(core::iter::once(device::count(*count, form))),
            Self::Level(name, level) => Box::new(core::iter::once(device::level(name, *level, form))),
            Self::Xforms => Box::new(xforms::lines(form)),
            Self::Discards(rows) => Box::new(rows.iter().map(move |row| device::discard(row, form))),
        }
    }

    /// The whole table as text.
    pub fn text(&self, form: Form) -> String {
        self.lines(form).collect()
    }
}

/// Writes an identity or a name so that it stays one word: blanks, parentheses, backslashes and controls in octal.
fn word(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() || matches!(c, '(' | ')' | '\\') {
            let mut octets = [0; 4];
            for octet in c.encode_utf8(&mut octets).bytes() {
                out.push_str(&format!("\\{octet:03o}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}
