//! The table's contents: what is let through, what is not, in the order in which it is asked.

use super::message::Batch;
use super::{MOST_EROUTES, Wanted};
use ipnet::IpNet;
use ipsec_core::Selector;
use netlink_bindings::nftables::{
    CmpOps, FibFlags, MetaKeys, ObjectType, PayloadBase, PushChainAttrs, PushDataAttrs, PushExprAttrs,
    PushExprListAttrs, PushObjAttrs, PushRuleAttrs, PushSetAttrs, PushSetelemListAttrs, PushTableAttrs,
    SetElemFlags, SetFlags, VerdictCode,
};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::push_header;
use std::net::IpAddr;

/// The counter of what was refused.
pub(super) const COUNTER: &str = "refused";
/// Where packets come in.
const ARRIVES: &str = "arrives";
/// Where they come whose answer would go into a device of ours.
const JUDGED: &str = "judged";
/// Where they end.
const REFUSED: &str = "refused";
/// Our devices' names.
const DEVICES: &str = "devices";
/// What lies closed beneath routes into them.
const CLOSED4: &str = "closed4";
const CLOSED6: &str = "closed6";

/// Before connection tracking: what is refused leaves no trace there ("raw").
const PRIORITY: i32 = -300;
/// What one set may hold in one message, whose attributes count octets in 16 bits.
const ELEMENTS: usize = 300;

/// The 4-octet registers; longer values take the next ones too.
const FIRST_REGISTER: u32 = 8;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const UDP: u8 = 17;
const ESP: u8 = 50;
const AH: u8 = 51;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;
/// What a fib look-up may be asked for; netlink-bindings 0.3 counts from 0, the kernel from 1.
const OIF: u32 = 1;
const OIFNAME: u32 = 2;
const ADDRTYPE: u32 = 3;
/// The type of addresses that are this host's (rtnetlink(7)).
const LOCAL: u32 = 2;

/// The numbers by which nft(8) knows types of keys when it prints a set.
mod known {
    pub(super) const IPV4: u32 = 7;
    pub(super) const IPV6: u32 = 8;
    pub(super) const PROTOCOL: u32 = 12;
    pub(super) const PORT: u32 = 13;
    pub(super) const NAME: u32 = 41;
    /// Types of a concatenation, six bits each.
    pub(super) const BITS: u32 = 6;
    /// Not a value but what becomes of the packet.
    pub(super) const VERDICT: u32 = 0xffff_ff00;
}

/// A step of a rule: the first that does not hold ends it.
#[derive(Clone, Debug)]
enum Step {
    Meta(MetaKeys, u32),
    Fib(u32, FibFlags, u32),
    Load {
        base: PayloadBase,
        offset: u32,
        length: u32,
        to: u32,
    },
    Mask(u32, Vec<u8>),
    Is(u32, Vec<u8>),
    IsNot(u32, Vec<u8>),
    In(u32, String),
    /// The set says what becomes of the packet.
    Judge(u32, String),
    Count,
    Accept,
    Drop,
    Goto(&'static str),
}

/// Makes a table without rules that has counted `refused` packets.
pub(super) fn make(batch: &mut Batch, name: &str, refused: u64) {
    Table { batch, name }.begin(refused);
}

/// Takes everything out of a table but its chains and its counter.
pub(super) fn empty(batch: &mut Batch, name: &str, old: &Wanted) {
    let table = name.as_bytes();
    for chain in [ARRIVES, JUDGED, REFUSED] {
        batch.message(libc::NFT_MSG_DELRULE, 0, |buf| {
            PushRuleAttrs::new(buf).push_table_bytes(table).push_chain_bytes(chain.as_bytes());
        });
    }
    let policy = (0..shapes(&old.policy).count()).map(policy_set);
    for set in [DEVICES, CLOSED4, CLOSED6].map(String::from).into_iter().chain(policy) {
        batch.message(libc::NFT_MSG_DELSET, 0, |buf| {
            PushSetAttrs::new(buf).push_table_bytes(table).push_name_bytes(set.as_bytes());
        });
    }
}

/// Writes the rules and sets of a table that has none.
pub(super) fn fill(batch: &mut Batch, name: &str, wanted: &Wanted) {
    let mut table = Table { batch, name };
    let names = wanted.devices.iter().map(|name| {
        let mut octets = name.as_bytes().to_vec();
        octets.resize(libc::IFNAMSIZ, 0);
        octets
    });
    table.set(DEVICES, 0, known::NAME, 16);
    table.elements(DEVICES, names.map(|key| (key, None, 0)));
    for (set, family, v4) in [(CLOSED4, known::IPV4, true), (CLOSED6, known::IPV6, false)] {
        table.set(set, SetFlags::Interval as u32, family, if v4 { 4 } else { 16 });
        let nets: Vec<IpNet> =
            wanted.closed.iter().copied().filter(|net| net.addr().is_ipv4() == v4).collect();
        table.elements(set, IpNet::aggregate(&nets).into_iter().flat_map(interval));
    }
    for rule in arrives() {
        table.rule(ARRIVES, &rule);
    }
    for rule in always(&wanted.ports) {
        table.rule(JUDGED, &rule);
    }
    table.policy(&wanted.policy);
    table.rule(JUDGED, &[Step::Goto(REFUSED)]);
    table.rule(REFUSED, &[Step::Count, Step::Drop]);
}

/// Only packets whose answer would be routed into a device of ours are looked at more closely.
fn arrives() -> Vec<Vec<Step>> {
    let r = FIRST_REGISTER;
    let closed = |family: u8, offset, length, set: &str| {
        vec![
            Step::Meta(MetaKeys::Nfproto, r),
            Step::Is(r, vec![family]),
            Step::Load { base: PayloadBase::NetworkHeader, offset, length, to: r },
            Step::In(r, set.into()),
            // Neither a route that drops nor a missing one leads out of anything. The type of an IPv4 route the kernel would
            // look up among the local ones alone.
            Step::Fib(OIF, FibFlags::Saddr, r),
            Step::Is(r, vec![0; 4]),
            Step::Goto(JUDGED),
        ]
    };
    vec![
        vec![Step::Meta(MetaKeys::Iifname, r), Step::In(r, DEVICES.into()), Step::Accept],
        vec![Step::Fib(OIFNAME, FibFlags::Saddr, r), Step::In(r, DEVICES.into()), Step::Goto(JUDGED)],
        closed(IPV4, 12, 4, CLOSED4),
        closed(IPV6, 8, 16, CLOSED6),
    ]
}

/// What passes whatever policy says: it is what tunnels are made of, for this host itself.
fn always(ports: &[u16]) -> Vec<Vec<Step>> {
    let r = FIRST_REGISTER;
    let network = |offset, length| Step::Load { base: PayloadBase::NetworkHeader, offset, length, to: r };
    let transport = |offset, length| Step::Load { base: PayloadBase::TransportHeader, offset, length, to: r };
    let family = |family: u8| [Step::Meta(MetaKeys::Nfproto, r), Step::Is(r, vec![family])];
    let protocol = |protocol: u8| {
        let local = [Step::Fib(ADDRTYPE, FibFlags::Daddr, r), Step::Is(r, LOCAL.to_ne_bytes().into())];
        local.into_iter().chain([Step::Meta(MetaKeys::L4Proto, r), Step::Is(r, vec![protocol])])
    };
    let rule = |parts: Vec<Vec<Step>>| parts.into_iter().flatten().chain([Step::Accept]).collect::<Vec<_>>();
    let is = |octets: &[u8]| Step::Is(r, octets.into());
    let mut rules = vec![rule(vec![protocol(ESP).collect()]), rule(vec![protocol(AH).collect()])];
    // The kernel takes AH in IPv6 for one more extension header and calls what lies behind it the protocol.
    let ah6 = vec![
        Step::Fib(ADDRTYPE, FibFlags::Daddr, r),
        Step::Is(r, LOCAL.to_ne_bytes().into()),
        network(6, 1),
        is(&[AH]),
    ];
    rules.push(rule(vec![family(IPV6).into(), ah6]));
    for port in ports {
        rules.push(rule(vec![protocol(UDP).collect(), vec![transport(2, 2), is(&port.to_be_bytes())]]));
    }
    // Later fragments show no ports. Without the first one, which does, they come to nothing.
    let later4 = vec![network(6, 2), Step::Mask(r, vec![0x1f, 0xff]), Step::IsNot(r, vec![0, 0])];
    let later6 = vec![network(6, 1), is(&[FRAGMENT]), network(42, 2), Step::Mask(r, vec![0xff, 0xf8])];
    rules.push(rule(vec![family(IPV4).into(), protocol(UDP).collect(), later4]));
    rules.push(rule(vec![
        family(IPV6).into(),
        protocol(UDP).collect(),
        later6,
        vec![Step::IsNot(r, vec![0, 0])],
    ]));
    // ICMP errors, type by type, about ESP and AH and about what left one of our ports: the path's MTU is learnt from them.
    let errors: [(u8, u8, &[u8], u32, u32); 2] =
        [(IPV4, ICMP, &[3, 11, 12], 17, 28), (IPV6, ICMPV6, &[1, 2, 3, 4], 14, 48)];
    for (version, icmp, types, next, sport) in errors {
        for &kind in types {
            let error = || {
                vec![
                    family(version).into(),
                    protocol(icmp).collect(),
                    vec![transport(0, 1), is(&[kind]), transport(next, 1)],
                ]
            };
            for protected in [ESP, AH] {
                let mut about = error();
                about.push(vec![is(&[protected])]);
                rules.push(rule(about));
            }
            for port in ports {
                let mut about = error();
                about.push(vec![is(&[UDP]), transport(sport, 2), is(&port.to_be_bytes())]);
                rules.push(rule(about));
            }
        }
    }
    // Neighbour and router discovery never come from beyond the link (RFC 4861 §6.1, §7.1).
    for kind in 133..=137 {
        let discovery =
            vec![Step::Meta(MetaKeys::L4Proto, r), is(&[ICMPV6]), network(7, 1), is(&[255]), transport(0, 1)];
        rules.push(rule(vec![family(IPV6).into(), discovery, vec![is(&[kind])]]));
    }
    rules
}

struct Table<'a> {
    batch: &'a mut Batch,
    name: &'a str,
}

type List<'a> = PushExprListAttrs<PushRuleAttrs<&'a mut Vec<u8>>>;

impl Table<'_> {
    fn begin(&mut self, refused: u64) {
        let name = self.name.as_bytes();
        self.batch.message(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, |buf| {
            PushTableAttrs::new(buf).push_name_bytes(name);
        });
        self.batch.message(libc::NFT_MSG_NEWOBJ, libc::NLM_F_CREATE, |buf| {
            let object = PushObjAttrs::new(buf).push_table_bytes(name).push_name_bytes(COUNTER.as_bytes());
            object
                .push_type(ObjectType::Counter as u32)
                .nested_data_counter()
                .push_bytes(0)
                .push_packets(refused);
        });
        for chain in [REFUSED, JUDGED, ARRIVES] {
            self.batch.message(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, |buf| {
                let push = PushChainAttrs::new(buf).push_table_bytes(name).push_name_bytes(chain.as_bytes());
                if chain == ARRIVES {
                    let hook = push.push_type(c"filter").nested_hook();
                    hook.push_num(libc::NF_INET_PRE_ROUTING.unsigned_abs()).push_priority(PRIORITY);
                }
            });
        }
    }

    fn set(&mut self, set: &str, flags: u32, key: u32, length: u32) {
        let name = self.name.as_bytes();
        self.batch.message(libc::NFT_MSG_NEWSET, libc::NLM_F_CREATE, |buf| {
            let push = PushSetAttrs::new(buf).push_table_bytes(name).push_name_bytes(set.as_bytes());
            // An id is asked for; names are what refers to it.
            let push = push.push_flags(flags).push_key_type(key).push_key_len(length).push_id(1);
            if key == known::NAME {
                // That names are in the host's order nft(8) wants to be told before it prints them.
                push.push_userdata(&[0, 4, 1, 0, 0, 0]);
            } else if flags & SetFlags::Map as u32 != 0 {
                push.push_data_type(known::VERDICT).push_data_len(16);
            }
        });
    }

    /// Keys, what becomes of the packet, flags.
    fn elements(&mut self, set: &str, elements: impl IntoIterator<Item = (Vec<u8>, Option<bool>, u32)>) {
        let name = self.name.as_bytes();
        let all: Vec<_> = elements.into_iter().collect();
        for some in all.chunks(ELEMENTS) {
            self.batch.message(libc::NFT_MSG_NEWSETELEM, libc::NLM_F_CREATE, |buf| {
                let push =
                    PushSetelemListAttrs::new(buf).push_table_bytes(name).push_set_bytes(set.as_bytes());
                let mut list = push.nested_elements();
                for (key, passes, flags) in some {
                    let mut element = list.nested_elem().nested_key().push_value(key).end_nested();
                    if let Some(passes) = passes {
                        let verdict = element.nested_data();
                        let verdict = if *passes {
                            verdict.nested_verdict().push_code(VerdictCode::Accept as u32).end_nested()
                        } else {
                            goto(verdict, REFUSED)
                        };
                        element = verdict.end_nested();
                    }
                    if *flags != 0 {
                        element = element.push_flags(&flags.to_be_bytes());
                    }
                    list = element.end_nested();
                }
            });
        }
    }

    /// For each shape of eroute one rule, in match order: the first that has the packet's answer decides.
    fn policy(&mut self, policy: &[(Selector, bool)]) {
        for (number, eroutes) in shapes(policy).enumerate() {
            let Some((first, _)) = eroutes.first() else { continue };
            let (shape, set) = (Shape::of(first), policy_set(number));
            self.set(&set, SetFlags::Map as u32, shape.key_type(), shape.key_length());
            self.elements(&set, eroutes.iter().map(|(selector, passes)| (key(selector), Some(*passes), 0)));
            self.rule(JUDGED, &shape.rule(set));
        }
    }

    fn rule(&mut self, chain: &str, steps: &[Step]) {
        let name = self.name.as_bytes();
        self.batch.message(libc::NFT_MSG_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, |buf| {
            let rule = PushRuleAttrs::new(buf).push_table_bytes(name).push_chain_bytes(chain.as_bytes());
            steps.iter().fold(rule.nested_expressions(), |list, step| step.push(list));
        });
    }
}

/// The eroutes of one shape after the other, where they are not too many.
fn shapes(policy: &[(Selector, bool)]) -> impl Iterator<Item = &[(Selector, bool)]> {
    let few = if policy.len() <= MOST_EROUTES { policy } else { &[] };
    few.chunk_by(|(a, _), (b, _)| Shape::of(a) == Shape::of(b))
}

fn policy_set(number: usize) -> String {
    format!("policy{number}")
}

/// What an eroute looks at in the answer of a packet, which in the packet itself is the other way round.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    v4: bool,
    src: u8,
    dst: u8,
    proto: bool,
    sport: bool,
    dport: bool,
}

impl Shape {
    fn of(s: &Selector) -> Self {
        Self {
            v4: s.src.addr().is_ipv4(),
            src: s.src.prefix_len(),
            dst: s.dst.prefix_len(),
            proto: s.proto != 0,
            sport: s.sport != 0,
            dport: s.dport != 0,
        }
    }

    /// The parts of the key: nft's number of the type, and its length.
    fn parts(self) -> impl Iterator<Item = (u32, u32)> {
        let address = if self.v4 { (known::IPV4, 4) } else { (known::IPV6, 16) };
        let optional = [
            (self.proto, (known::PROTOCOL, 4)),
            (self.dport, (known::PORT, 4)),
            (self.sport, (known::PORT, 4)),
        ];
        [address, address].into_iter().chain(optional.into_iter().filter_map(|(is, part)| is.then_some(part)))
    }

    fn key_type(self) -> u32 {
        self.parts().fold(0, |all, (kind, _)| all << known::BITS | kind)
    }

    fn key_length(self) -> u32 {
        self.parts().map(|(_, length)| length).sum()
    }

    fn rule(self, set: String) -> Vec<Step> {
        let (family, offsets, length) = if self.v4 { (IPV4, [12, 16], 4) } else { (IPV6, [8, 24], 16) };
        let mut steps =
            vec![Step::Meta(MetaKeys::Nfproto, FIRST_REGISTER), Step::Is(FIRST_REGISTER, vec![family])];
        let mut to = FIRST_REGISTER;
        for (offset, bits) in offsets.into_iter().zip([self.dst, self.src]) {
            steps.push(Step::Load { base: PayloadBase::NetworkHeader, offset, length, to });
            steps.push(Step::Mask(to, mask(bits, length)));
            to += length / 4;
        }
        if self.proto {
            steps.push(Step::Meta(MetaKeys::L4Proto, to));
            to += 1;
        }
        for (is, offset) in [(self.dport, 0), (self.sport, 2)] {
            if is {
                steps.push(Step::Load { base: PayloadBase::TransportHeader, offset, length: 2, to });
                to += 1;
            }
        }
        steps.push(Step::Judge(FIRST_REGISTER, set));
        steps
    }
}

/// What the registers hold of a packet whose answer the selector matches.
fn key(s: &Selector) -> Vec<u8> {
    let mut key = octets(s.dst.network());
    key.extend(octets(s.src.network()));
    if s.proto != 0 {
        key.extend([s.proto, 0, 0, 0]);
    }
    for port in [s.dport, s.sport].into_iter().filter(|port| *port != 0) {
        key.extend(port.to_be_bytes());
        key.extend([0, 0]);
    }
    key
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

fn mask(bits: u8, length: u32) -> Vec<u8> {
    let word = u128::MAX.checked_shl(128_u32.saturating_sub(bits.into())).unwrap_or(0);
    let length = usize::try_from(length).unwrap_or(0);
    word.to_be_bytes().into_iter().take(length).collect()
}

/// Where an interval begins, and where what follows it does.
fn interval(net: IpNet) -> impl Iterator<Item = (Vec<u8>, Option<bool>, u32)> {
    let after = match net.broadcast() {
        IpAddr::V4(last) => u32::from(last).checked_add(1).map(|next| next.to_be_bytes().to_vec()),
        IpAddr::V6(last) => u128::from(last).checked_add(1).map(|next| next.to_be_bytes().to_vec()),
    };
    let end = after.map(|key| (key, None, SetElemFlags::IntervalEnd as u32));
    [(octets(net.network()), None, 0)].into_iter().chain(end)
}

fn goto<P: Pusher>(data: PushDataAttrs<P>, chain: &str) -> PushDataAttrs<P> {
    let verdict = data.nested_verdict().push_code(VerdictCode::Goto as u32);
    verdict.push_chain_bytes(chain.as_bytes()).end_nested()
}

impl Step {
    fn push<'a>(&self, list: List<'a>) -> List<'a> {
        let element: PushExprAttrs<List<'a>> = list.nested_elem();
        match self {
            Self::Meta(key, to) => {
                element.nested_data_meta().push_key(*key as u32).push_dreg(*to).end_nested().end_nested()
            }
            Self::Fib(result, of, to) => {
                let fib = element.nested_data_fib().push_result(*result).push_flags(*of as u32);
                fib.push_dreg(*to).end_nested().end_nested()
            }
            Self::Load { base, offset, length, to } => {
                let load = element.nested_data_payload().push_base(*base as u32).push_offset(*offset);
                load.push_len(*length).push_dreg(*to).end_nested().end_nested()
            }
            Self::Mask(register, mask) => {
                let length = u32::try_from(mask.len()).unwrap_or(0);
                let both =
                    element.nested_data_bitwise().push_sreg(*register).push_dreg(*register).push_len(length);
                let both = both.nested_mask().push_value(mask).end_nested();
                both.nested_xor().push_value(&vec![0; mask.len()]).end_nested().end_nested().end_nested()
            }
            Self::Is(register, value) => compare(element, CmpOps::Eq, *register, value),
            Self::IsNot(register, value) => compare(element, CmpOps::Neq, *register, value),
            Self::In(register, set) => lookup(element, set, *register, false),
            Self::Judge(register, set) => lookup(element, set, *register, true),
            Self::Count => {
                let counter = element.nested_data_objref().push_imm_type(ObjectType::Counter as u32);
                counter.push_imm_name_bytes(COUNTER.as_bytes()).end_nested().end_nested()
            }
            Self::Accept => verdict(element, VerdictCode::Accept),
            Self::Drop => verdict(element, VerdictCode::Drop),
            Self::Goto(chain) => {
                let data = element.nested_data_immediate().push_dreg(0).nested_data();
                goto(data, chain).end_nested().end_nested().end_nested()
            }
        }
    }
}

fn lookup<'a>(element: PushExprAttrs<List<'a>>, set: &str, register: u32, judges: bool) -> List<'a> {
    let mut lookup = element.nested_data_lookup().push_set_bytes(set.as_bytes());
    // The registers are attributes 2 and 3 to the kernel, not 3 and 4 as netlink-bindings 0.3 has them. Register 0 is the verdict.
    for (attribute, register) in [(2, Some(register)), (3, judges.then_some(0))] {
        if let Some(register) = register {
            let octets = lookup.as_vec_mut();
            push_header(octets, attribute, 4);
            octets.extend(register.to_be_bytes());
        }
    }
    lookup.end_nested().end_nested()
}

fn compare<'a>(element: PushExprAttrs<List<'a>>, how: CmpOps, register: u32, value: &[u8]) -> List<'a> {
    let compare = element.nested_data_cmp().push_sreg(register).push_op(how as u32);
    compare.nested_data().push_value(value).end_nested().end_nested().end_nested()
}

fn verdict<'a>(element: PushExprAttrs<List<'a>>, code: VerdictCode) -> List<'a> {
    let data = element.nested_data_immediate().push_dreg(0).nested_data();
    let data = data.nested_verdict().push_code(code as u32).end_nested();
    data.end_nested().end_nested().end_nested()
}
