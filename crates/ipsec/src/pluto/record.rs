//! `pluto --record DIR`: everything that IKE says and hears, with all keys, for somebody to find out what went wrong.
//!
//! Three files that nobody else may read: `ike.tape`, which [`ike::tape::replay`] plays into the engine again; `ike.pcap`,
//! the datagrams as they went over the wire; and `ikev2_decryption_table`, which Wireshark opens them with. Whoever has them
//! can read what was said and, as the children's keys come from it, what went through the tunnels.

use ike::tape::{Entry, Keys, Tape};
use ipsec_core::algorithm::{Auth, Encryption};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The port on which IKE goes behind four zero octets (RFC 3948 §2.2).
const NAT_PORT: u16 = 4500;
/// Raw IP, IPv4 or IPv6 (LINKTYPE_RAW).
const LINK_TYPE: u32 = 101;

/// The files.
#[derive(Debug)]
pub(super) struct Recorder {
    dir: PathBuf,
    tape: File,
    pcap: File,
    keys: File,
    failed: Failed,
}

/// Why nothing is written any more, once that is so: the first error was the last word.
pub(super) type Failed = Arc<OnceLock<String>>;

impl Recorder {
    /// Begins a record in a directory of its own; one that is there already is not written over.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        if !dir.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let create = |name: &str| {
            let path = dir.join(name);
            let made = File::options().write(true).create_new(true).mode(0o600).open(&path);
            made.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        };
        let mut pcap = create("ike.pcap")?;
        let mut head = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 0x0004_0000, LINK_TYPE] {
            head.extend(word.to_le_bytes());
        }
        pcap.write_all(&head)?;
        let (tape, keys) = (create("ike.tape")?, create("ikev2_decryption_table")?);
        Ok(Self { dir: dir.to_owned(), tape, pcap, keys, failed: Failed::default() })
    }

    /// Where it will say why it has stopped.
    pub(super) fn failed(&self) -> Failed {
        self.failed.clone()
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let now = wall_clock();
        self.tape.write_all(format!("{entry}\n").as_bytes())?;
        match entry {
            Entry::Datagram(_, local, remote, octets) => {
                self.pcap.write_all(&packet(now, *remote, *local, octets))
            }
            Entry::Transmit(local, remote, octets) => {
                self.pcap.write_all(&packet(now, *local, *remote, octets))
            }
            Entry::Keys(keys) => self.keys.write_all(line(keys).as_bytes()),
            Entry::Draw(_)
            | Entry::Answer(..)
            | Entry::Again(..)
            | Entry::Timeout(_)
            | Entry::Command(..) => Ok(()),
        }
    }
}

impl Tape for Recorder {
    fn take(&mut self, entry: &Entry) {
        if self.failed.get().is_none()
            && let Err(error) = self.write(entry)
        {
            let why = format!("{}: {error}", self.dir.display());
            tracing::error!("{why}: recording has stopped, everything else goes on");
            let _ = self.failed.set(why);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "packets of a capture carry the time of day")]
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A packet of the capture: IP and UDP as they were, but for what only the kernel knows.
fn packet(now: Duration, from: SocketAddr, to: SocketAddr, octets: &[u8]) -> Vec<u8> {
    let keepalive = octets == [0xff];
    let marker: &[u8] =
        if from.port().max(to.port()) >= NAT_PORT && !keepalive && is_nat(from, to) { &[0; 4] } else { &[] };
    let payload = [marker, octets].concat();
    let udp_len = u16::try_from(payload.len().saturating_add(8)).unwrap_or(u16::MAX);
    let mut ip = Vec::new();
    match (from.ip(), to.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let total = udp_len.saturating_add(20).to_be_bytes();
            ip.extend([0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 17, 0, 0]);
            ip.extend(src.octets());
            ip.extend(dst.octets());
            let sum = checksum(&ip).to_be_bytes();
            ip.splice(10..12, sum);
        }
        (src, dst) => {
            let six = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            let len = udp_len.to_be_bytes();
            ip.extend([0x60, 0, 0, 0, len[0], len[1], 17, 64]);
            ip.extend(six(src).octets());
            ip.extend(six(dst).octets());
        }
    }
    ip.extend(from.port().to_be_bytes());
    ip.extend(to.port().to_be_bytes());
    ip.extend(udp_len.to_be_bytes());
    // No checksum (RFC 768), for none was computed here.
    ip.extend([0, 0]);
    ip.extend(payload);
    let len = u32::try_from(ip.len()).unwrap_or(u32::MAX);
    let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    let mut record = Vec::new();
    for word in [seconds, now.subsec_micros(), len, len] {
        record.extend(word.to_le_bytes());
    }
    record.extend(ip);
    record
}

/// One of the two ends is klips' port, where IKE stands behind the marker.
fn is_nat(from: SocketAddr, to: SocketAddr) -> bool {
    from.port() == NAT_PORT || to.port() == NAT_PORT
}

fn checksum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0)
}

/// A line of Wireshark's table.
fn line(keys: &Keys) -> String {
    let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    let (i, r) = keys.spis;
    let [ei, er] = &keys.encryption;
    let [ai, ar] = &keys.integrity;
    format!(
        "{:016x},{:016x},{},{},\"{}\",{},{},\"{}\"\n",
        i.0,
        r.0,
        hex(ei),
        hex(er),
        cipher(keys.cipher),
        hex(ai),
        hex(ar),
        mac(keys.mac)
    )
}

/// As Wireshark calls it; what it does not know it cannot open.
fn cipher(cipher: Option<(Encryption, u16)>) -> String {
    let Some((cipher, bits)) = cipher else { return "NULL [RFC2410]".to_owned() };
    let aead = |name: &str, octets: u8| format!("AES-{name}-{bits} with {octets} octet ICV [RFC5282]");
    match cipher {
        Encryption::TripleDesCbc => "3DES [RFC2451]".to_owned(),
        Encryption::AesCbc => format!("AES-CBC-{bits} [RFC3602]"),
        Encryption::AesCtr => format!("AES-CTR-{bits} [RFC5930]"),
        Encryption::AesGcm8 => aead("GCM", 8),
        Encryption::AesGcm12 => aead("GCM", 12),
        Encryption::AesGcm16 => aead("GCM", 16),
        Encryption::AesCcm8 => aead("CCM", 8),
        Encryption::AesCcm12 => aead("CCM", 12),
        Encryption::AesCcm16 => aead("CCM", 16),
        Encryption::ChaCha20Poly1305 => "ChaCha20-Poly1305 [RFC7634]".to_owned(),
        Encryption::Null | Encryption::NullAesGmac => "NULL [RFC2410]".to_owned(),
    }
}

const fn mac(mac: Option<Auth>) -> &'static str {
    match mac {
        None | Some(Auth::AesGmac) => "NONE [RFC4306]",
        Some(Auth::HmacSha1) => "HMAC_SHA1_96 [RFC2404]",
        Some(Auth::HmacSha256) => "HMAC_SHA2_256_128 [RFC4868]",
        Some(Auth::HmacSha384) => "HMAC_SHA2_384_192 [RFC4868]",
        Some(Auth::HmacSha512) => "HMAC_SHA2_512_256 [RFC4868]",
        Some(Auth::HmacMd5) => "HMAC_MD5_96 [RFC2403]",
        Some(Auth::AesXcbc) => "AES_XCBC_96 [RFC3566]",
        Some(Auth::AesCmac) => "AES_CMAC_96 [RFC4494]",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_headers_that_hold_and_the_marker_where_it_belongs() {
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        let plain =
            packet(Duration::from_micros(1_000_002), end("192.0.2.1:500"), end("192.0.2.2:500"), b"ike");
        assert_eq!(&plain[..16], [1, 0, 0, 0, 2, 0, 0, 0, 31, 0, 0, 0, 31, 0, 0, 0]);
        assert_eq!(checksum(&plain[16..36]), 0);
        assert_eq!(&plain[44..], b"ike");
        let nat = packet(Duration::ZERO, end("192.0.2.1:4500"), end("192.0.2.2:31000"), b"ike");
        assert_eq!(&nat[44..], b"\0\0\0\0ike");
        let six = packet(Duration::ZERO, end("[2001:db8::1]:500"), end("[2001:db8::2]:500"), b"ike");
        assert_eq!((six[16], &six[64..]), (0x60, &b"ike"[..]));
    }

    #[test]
    fn a_record_is_for_its_owner_and_never_written_over() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("record");
        let mut recorder = Recorder::new(&at).unwrap();
        recorder.take(&Entry::Draw(ipsec_core::Secret::from(&[1, 2][..])));
        for name in ["ike.tape", "ike.pcap", "ikev2_decryption_table"] {
            assert_eq!(fs::metadata(at.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_to_string(at.join("ike.tape")).unwrap(), "draw .0102\n");
        assert!(Recorder::new(&at).unwrap_err().to_string().contains("ike.pcap"));
    }

    #[test]
    fn a_full_disk_ends_the_record_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::new(&dir.path().join("record")).unwrap();
        recorder.tape = File::options().write(true).open("/dev/full").unwrap();
        let entry = Entry::Draw(ipsec_core::Secret::from(&[1, 2][..]));
        recorder.take(&entry);
        assert!(recorder.failed().get().is_some_and(|why| why.contains("No space left on device")));
        recorder.take(&entry);
    }
}
