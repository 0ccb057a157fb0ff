//! The table of devices: what is attached, and what fits through it with the SAs there are.

use super::Daemon;
use crate::host::clock;
use crate::host::interfaces::Status;
use crate::table::Device;
use klips::{Direction, Mode, SaRow};
use std::collections::HashMap;

impl Daemon {
    /// All devices.
    pub(super) fn devices(&self) -> Vec<Device> {
        // What an SA puts around a packet depends on its kind alone: of a hundred thousand alike one is asked.
        let mut kinds = HashMap::new();
        let now = clock::now();
        for sa in self.control.sas().filter(|sa| sa.in_use && sa.direction != Direction::Inbound) {
            let alone = sa.group.as_ref().map_or(0, |_| sa.id.spi.0);
            let outer = (sa.id.protocol, sa.id.dst.is_ipv4(), sa.encapsulation.is_some());
            let path = sa.path_mtu.filter(|(_, until)| now < *until).map(|(mtu, _)| mtu);
            kinds
                .entry((sa.encryption, sa.auth, sa.mode == Mode::Tunnel, outer, sa.src, alone, path))
                .or_insert((sa, path));
        }
        let all = self.interfaces.list().into_iter();
        all.map(|status| {
            let effective = self.effective_mtu(&status, kinds.values());
            Device::new(status, effective)
        })
        .collect()
    }

    /// The largest packet that passes whichever of the SAs carries it that leave by this device.
    fn effective_mtu<'a>(&self, status: &Status, sas: impl Iterator<Item = &'a (SaRow, Option<u16>)>) -> u32 {
        let mtu = usize::try_from(status.physical_mtu).unwrap_or(usize::MAX);
        let own = |(sa, _): &&(SaRow, Option<u16>)| status.addresses.iter().any(|net| net.addr() == sa.src);
        let inside = |(sa, path): &(SaRow, Option<u16>)| {
            let mtu = path.map_or(mtu, |path| mtu.min(path.into()));
            self.plane.largest_inside(&sa.id, mtu)
        };
        // Policy may have packets go through SAs of which none says so itself.
        let link = |src| status.addresses.iter().any(|net| net.addr() == src).then_some(mtu);
        let several = self.control.largest_inside_several(link, clock::now());
        let inside = sas.filter(own).filter_map(inside).chain(several).min();
        inside
            .and_then(|inside| u32::try_from(inside).ok())
            .map_or(status.mtu, |inside| inside.min(status.mtu))
    }
}
