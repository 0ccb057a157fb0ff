//! A way out for sockets that are bound to an interface, beside the main table: a rule that holds for them alone, and a table
//! with the routes out of that interface.

use super::{Netlink, Route, family, route_message};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use std::io;
use std::net::IpAddr;

/// Before the main table (32766), and after whatever rules a host has of its own.
const PRIORITY: u32 = 32_760;
/// "See the attribute".
const RT_TABLE_UNSPEC: u8 = 0;

impl Netlink {
    /// Gives sockets bound to the interface `name` the route `way` beside the main table. `protocol` marks it, and the rule, as
    /// made by one instance.
    pub fn add_way(&mut self, name: &str, way: &Route, table: u32, protocol: u8) -> io::Result<()> {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewRoute(in_table(way, table, protocol)), flags)?;
        let rule = RouteNetlinkMessage::NewRule(rule(name, way.dst.addr(), table, protocol));
        match self.request(rule, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes the route away again; not an error if it is gone already.
    pub fn remove_way(&mut self, way: &Route, table: u32, protocol: u8) -> io::Result<()> {
        self.gone(RouteNetlinkMessage::DelRoute(in_table(way, table, protocol)))
    }

    /// Takes the rule of `family`'s family away, after all routes of its table.
    pub fn remove_way_rule(
        &mut self,
        name: &str,
        family: IpAddr,
        table: u32,
        protocol: u8,
    ) -> io::Result<()> {
        self.gone(RouteNetlinkMessage::DelRule(rule(name, family, table, protocol)))
    }

    /// The routes of one instance's ways, each with its table.
    pub fn ways(&mut self, protocol: u8) -> io::Result<Vec<(u32, Route)>> {
        let replies = self.request(RouteNetlinkMessage::GetRoute(RouteMessage::default()), NLM_F_DUMP)?;
        Ok(replies.into_iter().filter_map(|reply| way_of(reply, protocol)).collect())
    }

    /// Removes all ways of one instance.
    pub fn remove_ways(&mut self, protocol: u8) -> io::Result<()> {
        let replies = self.request(RouteNetlinkMessage::GetRule(RuleMessage::default()), NLM_F_DUMP)?;
        for reply in replies {
            let RouteNetlinkMessage::NewRule(rule) = reply else { continue };
            if rule.attributes.contains(&RuleAttribute::Protocol(RouteProtocol::Other(protocol))) {
                self.gone(RouteNetlinkMessage::DelRule(rule))?;
            }
        }
        for (table, way) in self.ways(protocol)? {
            self.gone(RouteNetlinkMessage::DelRoute(in_table(&way, table, protocol)))?;
        }
        Ok(())
    }

    fn gone(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        match self.request(message, NLM_F_ACK) {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Err(error),
            _ => Ok(()),
        }
    }
}

fn in_table(way: &Route, table: u32, protocol: u8) -> RouteMessage {
    let mut message = route_message(way);
    message.header.table = RT_TABLE_UNSPEC;
    message.header.protocol = RouteProtocol::Other(protocol);
    message.attributes.push(RouteAttribute::Table(table));
    message
}

fn rule(name: &str, of: IpAddr, table: u32, protocol: u8) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(of);
    message.header.action = RuleAction::ToTable;
    message.header.table = RT_TABLE_UNSPEC;
    message.attributes = vec![
        RuleAttribute::Oifname(name.into()),
        RuleAttribute::Table(table),
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::Protocol(RouteProtocol::Other(protocol)),
    ];
    message
}

fn way_of(reply: RouteNetlinkMessage, protocol: u8) -> Option<(u32, Route)> {
    let RouteNetlinkMessage::NewRoute(message) = reply else { return None };
    let ours = message.header.protocol == RouteProtocol::Other(protocol);
    if !ours || message.header.kind != RouteType::Unicast {
        return None;
    }
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    })?;
    Some((table, super::parts_of(&message)?))
}
