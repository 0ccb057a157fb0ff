//! The native PF_KEY messages about eroutes.

use crate::command::ask;
use core::net::{IpAddr, SocketAddr};
use ipnet::IpNet;
use ipsec_core::{Said, Selector};
use pfkey::{Address, ExtType, Flow, FlowAction, SaType, Writer};

/// The SA type of a message about an eroute that does this.
pub(crate) const fn satype_of(said: &Said) -> SaType {
    match said {
        Said::Sa(id) => ask::satype(id.protocol),
        Said::Pass
        | Said::Drop
        | Said::Reject
        | Said::Hold
        | Said::Trap
        | Said::TrapSubnet
        | Said::Passthrough4
        | Said::Passthrough6 => SaType::Unspec,
    }
}

/// Writes what an eroute matches and what it does.
pub(crate) fn flow(writer: &mut Writer, of: &Selector, said: &Said) {
    let action = match said {
        Said::Sa(id) => {
            ask::name(writer, id);
            FlowAction::Protect
        }
        Said::Pass | Said::Passthrough4 | Said::Passthrough6 => FlowAction::Pass,
        Said::Drop => FlowAction::Drop,
        Said::Reject => FlowAction::Reject,
        Said::Hold => FlowAction::Hold,
        Said::Trap => FlowAction::Trap,
        Said::TrapSubnet => FlowAction::TrapSubnet,
    };
    selector(writer, of);
    writer.flow(&Flow { action, packets: 0, last_use: 0 });
}

/// Writes what an eroute matches.
pub(crate) fn selector(writer: &mut Writer, of: &Selector) {
    let Selector { src, dst, proto, sport, dport } = *of;
    let side = |net: IpNet, port: u16| {
        let ip: IpAddr = net.network();
        Address { proto, prefix: net.prefix_len(), socket: Some(SocketAddr::new(ip, port)) }
    };
    writer.address(ExtType::AddressInnerSrc, &side(src, sport));
    writer.address(ExtType::AddressInnerDst, &side(dst, dport));
}

#[cfg(test)]
mod tests {
    use super::*;
    use pfkey::client::Client;
    use pfkey::{Message, MessageType};

    const SELECTOR: &str = "10.1.0.0/16";

    fn selector_of(dport: u16) -> Selector {
        let net = |text: &str| text.parse().unwrap();
        Selector { src: net(SELECTOR), dst: net("10.2.0.0/24"), proto: 6, sport: 1024, dport }
    }

    fn record(kind: MessageType, said: &Said, dport: u16) -> Vec<u8> {
        let mut client = Client::new(7);
        let mut request = client.request(kind, satype_of(said));
        flow(&mut request, &selector_of(dport), said);
        client.finish(request).unwrap().1
    }

    #[test]
    fn an_eroute_to_an_sa_is_said_in_full() {
        let said: Said = "esp0x1001@192.0.2.2".parse().unwrap();
        let record = record(MessageType::AddFlow, &said, 25);
        let message = Message::parse(&record).unwrap();
        pfkey::rules::rule(MessageType::AddFlow).unwrap().complete(&message).unwrap();
        assert_eq!(message.base.satype(), Some(SaType::Esp));
        assert_eq!((message.sa.unwrap().spi, message.dst.unwrap().ip()), (0x1001, "192.0.2.2".parse().ok()));
        let (src, dst) = (message.inner_src.unwrap(), message.inner_dst.unwrap());
        assert_eq!((src.ip(), src.prefix, src.proto, src.port()), ("10.1.0.0".parse().ok(), 16, 6, 1024));
        assert_eq!((dst.ip(), dst.prefix, dst.proto, dst.port()), ("10.2.0.0".parse().ok(), 24, 6, 25));
        assert_eq!(message.flow.unwrap().action, FlowAction::Protect);
    }

    #[test]
    fn every_word_has_its_action() {
        for (word, action) in [
            ("%pass", FlowAction::Pass),
            ("%passthrough", FlowAction::Pass),
            ("%drop", FlowAction::Drop),
            ("%reject", FlowAction::Reject),
            ("%trap", FlowAction::Trap),
            ("%trapsubnet", FlowAction::TrapSubnet),
            ("%hold", FlowAction::Hold),
        ] {
            let said: Said = word.parse().unwrap();
            let record = record(MessageType::ReplaceFlow, &said, 0);
            let message = Message::parse(&record).unwrap();
            assert_eq!(
                (message.flow.unwrap().action, message.sa, message.dst),
                (action, None, None),
                "{word}"
            );
        }
    }
}
