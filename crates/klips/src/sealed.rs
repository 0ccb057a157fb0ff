//! What a batch of outbound packets became: runs, ready to send, in one buffer.

use crate::route::Route;

/// Packets in one run: what every kernel takes in one `UDP_SEGMENT` send.
pub(crate) const RUN_PACKETS: usize = 64;
/// Octets in one run: the longest UDP payload, over IPv6 with room to spare.
pub(crate) const RUN_OCTETS: usize = 65_000;

/// Packets of one route, `stride` octets apart; only the last may be shorter. One `UDP_SEGMENT` send.
#[derive(Clone, Copy, Debug)]
pub struct Run<'b> {
    /// Where they go.
    pub route: Route,
    /// The packets, back to back.
    pub octets: &'b [u8],
    /// Length of each but the last.
    pub stride: usize,
}

/// Where a run lies.
#[derive(Clone, Copy, Debug)]
struct Span {
    route: Route,
    start: usize,
    len: usize,
    stride: usize,
    /// Nothing may be added: its last packet is shorter, or must travel alone.
    closed: bool,
}

/// The runs of one batch. The buffer is allocated once.
#[derive(Debug)]
pub struct Sealed {
    buffer: Box<[u8]>,
    used: usize,
    spans: Vec<Span>,
}

impl Sealed {
    /// Room a superpacket may need; [`Sealed::has_room`] says whether that much is left. With the least MSS that TCP
    /// stacks go down to (48, options included) 64 KiB become some 1800 packets, each with headers, padding and ICV of its
    /// own. Devices are told to hand over fewer; pages that are never written are never there.
    pub const SUPERPACKET: usize = 512 * 1024;
    /// Segments that a device should hand over at once: one run, so one send.
    pub const SEGMENTS: u32 = RUN_PACKETS as u32;
    /// Runs in one batch.
    const RUNS: usize = 256;

    /// What must be left for one more packet: a superpacket, behind single packets that wait to be sealed together.
    const ROOM: usize = Self::SUPERPACKET + RUN_OCTETS;

    /// A buffer for at least one superpacket.
    pub fn new(capacity: usize) -> Self {
        let buffer = vec![0; capacity.max(Self::ROOM)].into();
        Self { buffer, used: 0, spans: Vec::with_capacity(Self::RUNS) }
    }

    /// Whether another packet may be handed to [`crate::Outbound::packet`] before the runs are sent and cleared.
    pub fn has_room(&self) -> bool {
        // One superpacket may fall into several runs.
        let runs = Self::SUPERPACKET / RUN_OCTETS + 3;
        self.buffer.len().saturating_sub(self.used) >= Self::ROOM
            && Self::RUNS.saturating_sub(self.spans.len()) >= runs
    }

    /// The runs in the order they must be sent.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.spans.iter().filter_map(|span| {
            let octets = self.buffer.get(span.start..span.start.checked_add(span.len)?)?;
            Some(Run { route: span.route, octets, stride: span.stride })
        })
    }

    /// Octets of all runs.
    pub(crate) const fn used(&self) -> usize {
        self.used
    }

    /// Forgets all runs; keeps the buffer.
    pub fn clear(&mut self) {
        self.used = 0;
        self.spans.clear();
    }

    /// `len` octets of room, `skip` octets behind what is there; they count once they are [`Sealed::push`]ed.
    #[inline]
    pub(crate) fn room(&mut self, skip: usize, len: usize) -> Option<&mut [u8]> {
        if len > Self::SUPERPACKET {
            return None;
        }
        let start = self.used.checked_add(skip)?;
        self.buffer.get_mut(start..start.checked_add(len)?)
    }

    /// The first `len` octets of the room are packets of `route`, `stride` octets apart. They join the last run where
    /// they fit it; with `alone` every packet is a run of its own.
    pub(crate) fn push(&mut self, route: Route, len: usize, stride: usize, alone: bool) {
        let stride = stride.max(1);
        let limit =
            if alone { 1 } else { RUN_PACKETS.min(RUN_OCTETS.checked_div(stride).unwrap_or(1)).max(1) };
        let mut left = len;
        while left > 0 {
            let open = self.spans.last_mut().filter(|span| {
                // Packets of its size, or one that is shorter and ends it.
                let same = span.stride == stride || left <= stride.min(span.stride);
                !span.closed && !alone && span.route == route && same
            });
            let taken = match open {
                Some(span) => {
                    let whole = span.len.checked_div(span.stride).unwrap_or(0);
                    let packets = RUN_PACKETS.min(RUN_OCTETS.checked_div(span.stride).unwrap_or(1));
                    let room = packets.saturating_sub(whole).saturating_mul(span.stride);
                    let taken = left.min(room);
                    span.len = span.len.saturating_add(taken);
                    span.closed = taken == 0 || span.len.checked_rem(span.stride) != Some(0);
                    taken
                }
                None => {
                    let taken = left.min(limit.saturating_mul(stride));
                    let stride = stride.min(taken);
                    let short = taken.checked_rem(stride) != Some(0);
                    self.spans.push(Span {
                        route,
                        start: self.used,
                        len: taken,
                        stride,
                        closed: short || alone,
                    });
                    taken
                }
            };
            self.used = self.used.saturating_add(taken);
            left = left.saturating_sub(taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Route = Route::Back;
    const B: Route = Route::Clear(core::net::IpAddr::V4(core::net::Ipv4Addr::LOCALHOST));

    fn lengths(sealed: &Sealed) -> Vec<(usize, usize)> {
        sealed.runs().map(|run| (run.octets.len(), run.stride)).collect()
    }

    fn pushed(pushes: &[(Route, usize, usize, bool)]) -> Vec<(usize, usize)> {
        let mut sealed = Sealed::new(0);
        for &(route, len, stride, alone) in pushes {
            sealed.room(0, len).unwrap().fill(1);
            sealed.push(route, len, stride, alone);
        }
        let whole: usize = lengths(&sealed).iter().map(|(len, _)| len).sum();
        assert_eq!(whole, pushes.iter().map(|p| p.1).sum::<usize>());
        lengths(&sealed)
    }

    #[test]
    fn packets_of_one_route_and_size_become_one_run() {
        assert_eq!(pushed(&[(A, 100, 100, false), (A, 100, 100, false)]), [(200, 100)]);
        assert_eq!(pushed(&[(A, 300, 100, false), (A, 100, 100, false)]), [(400, 100)]);
    }

    #[test]
    fn a_shorter_packet_ends_its_run() {
        assert_eq!(pushed(&[(A, 250, 100, false), (A, 100, 100, false)]), [(250, 100), (100, 100)]);
        assert_eq!(
            pushed(&[(A, 100, 100, false), (A, 60, 60, false), (A, 60, 60, false)]),
            [(160, 100), (60, 60)]
        );
    }

    #[test]
    fn another_route_or_a_longer_packet_begins_a_run() {
        assert_eq!(pushed(&[(A, 100, 100, false), (B, 100, 100, false)]), [(100, 100), (100, 100)]);
        assert_eq!(pushed(&[(A, 100, 100, false), (A, 120, 120, false)]), [(100, 100), (120, 120)]);
        assert_eq!(pushed(&[(A, 100, 100, false), (A, 250, 120, false)]), [(100, 100), (250, 120)]);
        assert_eq!(pushed(&[(A, 100, 100, false), (A, 150, 80, false)]), [(100, 100), (150, 80)]);
    }

    #[test]
    fn runs_stay_within_what_one_send_takes() {
        assert_eq!(pushed(&[(A, 70 * 100, 100, false)]), [(6400, 100), (600, 100)]);
        assert_eq!(pushed(&[(A, 68_000, 1460, false)]), [(44 * 1460, 1460), (68_000 - 44 * 1460, 1460)]);
        assert_eq!(pushed(&[(A, 250, 100, true)]), [(100, 100), (100, 100), (50, 50)]);
    }
}
