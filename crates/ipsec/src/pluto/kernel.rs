//! What pluto needs of a data plane, and klips over PF_KEY as the one that does it.
//!
//! A pair of SAs is installed in an order in which no packet meets half of it: the inbound SA before the peer can know that
//! it may use it, the outbound one, and the policy last. It is removed the other way round.

use crate::command::eroute::message as eroute;
use crate::host::clock;
use crate::keyclient::{KeyClient, KeyError, LONGEST};
use crate::rundir::Rundir;
use ike::connection::{Mode, Pad};
use ike::event::{ChildUp, Keyed};
use ike::message::pairs::pairs;
use ipsec_core::{Protocol, SaId, Said, Selector, Spi};
use pfkey::client::Request;
use pfkey::{
    Address, Counters, Errno, ExtType, Fault, InnerPair, Lifetime, Message, MessageType, Sa, SaParams,
    SaType, SpiRange, Tfc, flags, state,
};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

/// Why the data plane did not do it.
#[derive(Debug)]
pub enum KernelError {
    /// It has gone: everything that was installed is gone with it.
    Gone,
    /// It said no.
    Refused(String),
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the data plane does not answer"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

/// What the data plane has to say by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A packet needs an SA.
    Acquire {
        /// Its source.
        src: IpAddr,
        /// Its destination.
        dst: IpAddr,
    },
    /// An SA reached a limit.
    Expire {
        /// Its SPI.
        spi: u32,
        /// It is gone; otherwise there is time to replace it.
        hard: bool,
    },
    /// An authentic packet of an inbound SA came from another address or port.
    Mapping {
        /// Its SPI.
        spi: u32,
        /// Where it came from.
        from: SocketAddr,
    },
}

/// What installed a pair and is needed to remove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The connection.
    pub connection: String,
    /// The inbound SPI, at our address.
    pub spi_in: u32,
    /// The outbound SPI, at the peer's.
    pub spi_out: u32,
    /// Our address.
    pub local: IpAddr,
    /// The peer's.
    pub remote: IpAddr,
    /// What is sent through it.
    pub flows: Vec<Selector>,
}

/// What one SA has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Octets of inner packets.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

/// What a pair of SAs has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Sent.
    pub out: Load,
    /// Received.
    pub r#in: Load,
}

/// A data plane.
pub trait Kernel {
    /// An SPI for what comes from `peer` to `local`.
    fn spi(&mut self, local: IpAddr, peer: IpAddr) -> Result<u32, KernelError>;
    /// Installs a pair, to which no policy leads yet. If any of it fails, nothing of it stays.
    fn install(&mut self, child: &ChildUp) -> Result<Installed, KernelError>;
    /// Has packets go through a pair from now on.
    fn send_through(&mut self, pair: &Installed) -> Result<(), KernelError>;
    /// What becomes of packets that a connection protects while no SA is there for them: `trap` asks for one, otherwise they
    /// are dropped.
    fn shut(&mut self, flows: &[Selector], trap: bool) -> Result<(), KernelError>;
    /// Removes the policy: packets are no longer ours.
    fn open(&mut self, flows: &[Selector]) -> Result<(), KernelError>;
    /// Has a pair go on between other addresses and ports, in UDP or not, with its numbers, its window and its policy.
    fn relocate(
        &mut self,
        pair: &Installed,
        to: (SocketAddr, SocketAddr),
        encapsulate: bool,
    ) -> Result<(), KernelError>;
    /// Removes a pair of SAs, and says what it has carried; `None` if one of them had gone before.
    fn remove(&mut self, pair: &Installed) -> Result<Option<Carried>, KernelError>;
    /// What it has said since last asked.
    fn notices(&mut self) -> Result<Vec<Notice>, KernelError>;
}

/// klips. One socket asks, another listens, so that nothing said meanwhile is lost.
#[derive(Debug)]
pub struct PfKey {
    asking: KeyClient,
    listening: KeyClient,
    buffer: Vec<u8>,
}

impl PfKey {
    /// Connects to the klips of a run directory, and registers.
    pub fn connect(rundir: &Rundir) -> Result<Self, KeyError> {
        let asking = KeyClient::connect(rundir)?;
        let mut listening = KeyClient::connect(rundir)?;
        if let Err(fault) = listening.ask(listening.request(MessageType::Register, SaType::Esp))? {
            return Err(KeyError::Io(std::io::Error::other(format!("REGISTER: {fault}"))));
        }
        Ok(Self { asking, listening, buffer: vec![0; LONGEST] })
    }

    /// Readable when there are notices.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.listening.as_fd()
    }

    fn request(&self, kind: MessageType) -> Request {
        self.asking.request(kind, SaType::Esp)
    }

    fn ask<R>(
        &mut self,
        what: &str,
        request: Request,
        read: impl FnOnce(&Message<'_>) -> R,
    ) -> Result<Result<R, Fault>, KernelError> {
        self.asking.ask_for(request, read).map_err(|error| {
            tracing::warn!("{what}: {error}");
            KernelError::Gone
        })
    }

    fn demand(&mut self, what: &str, request: Request) -> Result<(), KernelError> {
        let said = self.ask(what, request, |_| ())?;
        said.map_err(|fault| KernelError::Refused(format!("{what}: {fault}")))
    }

    /// Makes the eroute, or changes the one that is there: a packet meets the old or the new.
    fn lead(&mut self, flow: &Selector, said: &Said) -> Result<(), KernelError> {
        for kind in [MessageType::ReplaceFlow, MessageType::AddFlow] {
            let mut request = self.asking.request(kind, eroute::satype_of(said));
            eroute::flow(&mut request, flow, said);
            match self.ask("eroute", request, |_| ())? {
                Ok(()) => return Ok(()),
                Err(fault)
                    if kind == MessageType::ReplaceFlow
                        && [Errno::ENOENT, Errno::ESRCH].contains(&fault.errno) => {}
                Err(fault) => return Err(KernelError::Refused(format!("eroute {flow:?}: {fault}"))),
            }
        }
        Ok(())
    }

    fn delete(&mut self, spi: u32, dst: IpAddr) -> Result<Option<Load>, KernelError> {
        let mut request = self.request(MessageType::Delete);
        request.sa(&Sa { spi, ..Sa::default() });
        request.address(ExtType::AddressDst, &Address::host(dst));
        request.counters(&Counters::default());
        let read = |message: &Message<'_>| {
            let (bytes, packets) = (message.current?.bytes, message.counters?.packets);
            Some(Load { bytes, packets })
        };
        match self.ask("DELETE", request, read)? {
            Ok(load) => Ok(load),
            Err(fault) if fault.errno == Errno::ESRCH => Ok(None),
            Err(fault) => Err(KernelError::Refused(format!("DELETE: {fault}"))),
        }
    }

    fn sa(&mut self, child: &ChildUp, inbound: bool, flows: &[Selector]) -> Result<(), KernelError> {
        let Keyed { spi, encryption, integrity } = if inbound { &child.inbound } else { &child.outbound };
        let mut request = self.request(if inbound { MessageType::Update } else { MessageType::Add });
        let mut word = if inbound { flags::INBOUND } else { flags::OUTBOUND };
        if child.encapsulate {
            word |= flags::NATT_LOC | flags::NATT_REM;
        }
        if child.mode == Mode::Tunnel {
            word |= flags::TUNNEL;
        }
        let window = child.connection.child.replay_window;
        if window == 0 {
            word |= flags::NOREPLAY;
        }
        request.sa(&Sa {
            spi: *spi,
            replay: u8::try_from(window).unwrap_or(u8::MAX),
            state: state::MATURE,
            auth: child.suite.auth.map_or(0, |auth| auth.row().number),
            encrypt: child.suite.encryption.map_or(0, |cipher| cipher.row().number),
            flags: word,
        });
        // Whatever becomes of us, the keys end.
        let life = Lifetime { addtime: child.life.as_secs(), ..Lifetime::default() };
        request.lifetime(ExtType::LifetimeHard, &life);
        for (kind, key) in [(ExtType::KeyEncrypt, encryption), (ExtType::KeyAuth, integrity)] {
            if !key.is_empty() {
                let bits = u16::try_from(key.len().saturating_mul(8)).unwrap_or(u16::MAX);
                request.key(kind, bits, 0, key);
            }
        }
        let (local, remote) = (child.local.ip(), child.remote.ip());
        let (src, dst) = if inbound { (remote, local) } else { (local, remote) };
        // From sender to receiver.
        let way = |flow: &Selector| if inbound { flow.reversed() } else { *flow };
        // What an SA in transport mode may carry is between its own ends, and their addresses say the protocol and the ports.
        let carried = flows.first().filter(|_| child.mode == Mode::Transport).map(way);
        let end = |address: IpAddr, port: fn(&Selector) -> u16| {
            let upper = carried.as_ref().map_or((0, 0), |flow| (flow.proto, port(flow)));
            Address { proto: upper.0, prefix: 0, socket: Some(SocketAddr::new(address, upper.1)) }
        };
        request.address(ExtType::AddressDst, &end(dst, |flow| flow.dport));
        if child.encapsulate {
            // In tunnel mode the address may be left open, and those of IPv6 have to be (pf_key(7P)).
            let known = child.mode == Mode::Transport && remote.is_ipv4();
            let address = if known { remote } else { Ipv4Addr::UNSPECIFIED.into() };
            let rem = SocketAddr::new(address, child.remote.port());
            request.address(ExtType::AddressNattRem, &Address { socket: Some(rem), ..port(0) });
            request.address(ExtType::AddressNattLoc, &port(child.local.port()));
        }
        request.address(ExtType::AddressSrc, &end(src, |flow| flow.sport));
        if child.mode == Mode::Tunnel {
            let pairs: Vec<InnerPair> = flows.iter().map(|flow| inner_pair(&way(flow))).collect();
            if let Some((first, more)) = pairs.split_first() {
                let InnerPair { proto, src, src_prefix, dst, dst_prefix } = *first;
                let side = |socket, prefix| Address { proto, prefix, socket: Some(socket) };
                request.address(ExtType::AddressInnerSrc, &side(src, src_prefix));
                request.address(ExtType::AddressInnerDst, &side(dst, dst_prefix));
                if !more.is_empty() {
                    request.selectors(more);
                }
            }
        }
        let hosts = child.mode == Mode::Transport && child.encapsulate;
        if child.esn || hosts || window > u32::from(u8::MAX) {
            request.sa_params(&SaParams { window, esn: child.esn });
        }
        if let Some(pad) = child.pad.filter(|_| !inbound) {
            let pad = match pad {
                Pad::To(octets) => u32::from(octets),
                Pad::Path => Tfc::MTU,
            };
            request.tfc(&Tfc { pad, dummies: 0 });
        }
        self.demand(if inbound { "UPDATE" } else { "ADD" }, request)
    }
}

fn port(port: u16) -> Address {
    Address { proto: 17, prefix: 0, socket: Some(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)) }
}

/// A pair of nets in PF_KEY.
fn inner_pair(flow: &Selector) -> InnerPair {
    InnerPair {
        proto: flow.proto,
        src: SocketAddr::new(flow.src.network(), flow.sport),
        src_prefix: flow.src.prefix_len(),
        dst: SocketAddr::new(flow.dst.network(), flow.dport),
        dst_prefix: flow.dst.prefix_len(),
    }
}

impl Kernel for PfKey {
    fn spi(&mut self, local: IpAddr, peer: IpAddr) -> Result<u32, KernelError> {
        let mut request = self.request(MessageType::GetSpi);
        request.address(ExtType::AddressSrc, &Address::host(peer));
        request.address(ExtType::AddressDst, &Address::host(local));
        request.spi_range(&SpiRange { min: 0x100, max: u32::MAX });
        match self.ask("GETSPI", request, |message| message.sa.map(|sa| sa.spi))? {
            Ok(Some(spi)) => Ok(spi),
            Ok(None) => Err(KernelError::Refused("GETSPI: no SPI in the answer".to_owned())),
            Err(fault) => Err(KernelError::Refused(format!("GETSPI: {fault}"))),
        }
    }

    fn install(&mut self, child: &ChildUp) -> Result<Installed, KernelError> {
        let flows = pairs(&child.local_selectors, &child.remote_selectors)
            .map_err(|unfit| KernelError::Refused(unfit.to_string()))?;
        if child.mode == Mode::Transport && flows.len() > 1 {
            let why = "transport mode is between two hosts, and the selectors are several: use type=tunnel";
            return Err(KernelError::Refused(why.to_owned()));
        }
        let installed = Installed {
            connection: child.connection.name.clone(),
            spi_in: child.inbound.spi,
            spi_out: child.outbound.spi,
            local: child.local.ip(),
            remote: child.remote.ip(),
            flows,
        };
        let flows = &installed.flows;
        let done = self.sa(child, true, flows).and_then(|()| self.sa(child, false, flows));
        if let Err(error) = done {
            let _ = self.remove(&installed);
            return Err(error);
        }
        Ok(installed)
    }

    fn send_through(&mut self, pair: &Installed) -> Result<(), KernelError> {
        let said = Said::Sa(SaId { dst: pair.remote, protocol: Protocol::Esp, spi: Spi(pair.spi_out) });
        pair.flows.iter().try_for_each(|flow| self.lead(flow, &said))
    }

    fn shut(&mut self, flows: &[Selector], trap: bool) -> Result<(), KernelError> {
        let said = if trap { Said::Trap } else { Said::Drop };
        flows.iter().try_for_each(|flow| self.lead(flow, &said))
    }

    fn open(&mut self, flows: &[Selector]) -> Result<(), KernelError> {
        for flow in flows {
            let mut request = self.asking.request(MessageType::DelFlow, SaType::Unspec);
            eroute::selector(&mut request, flow);
            self.ask("eroute", request, |_| ())?.ok();
        }
        Ok(())
    }

    fn relocate(
        &mut self,
        pair: &Installed,
        (local, remote): (SocketAddr, SocketAddr),
        encapsulate: bool,
    ) -> Result<(), KernelError> {
        let end = |end: SocketAddr| Address {
            proto: if encapsulate { 17 } else { 0 },
            prefix: 0,
            socket: Some(if encapsulate { end } else { SocketAddr::new(end.ip(), 0) }),
        };
        // What comes in first: the peer may be sending there already.
        for (spi, old, new) in [
            (pair.spi_in, (pair.remote, pair.local), (remote, local)),
            (pair.spi_out, (pair.local, pair.remote), (local, remote)),
        ] {
            let mut request = self.request(MessageType::MoveSa);
            let flags = if encapsulate { flags::NATT_LOC | flags::NATT_REM } else { 0 };
            request.sa(&Sa { spi, flags, ..Sa::default() });
            request.address(ExtType::AddressSrc, &Address::host(old.0));
            request.address(ExtType::AddressDst, &Address::host(old.1));
            request.address(ExtType::NewSrc, &end(new.0));
            request.address(ExtType::NewDst, &end(new.1));
            self.demand("MOVESA", request)?;
        }
        Ok(())
    }

    fn remove(&mut self, pair: &Installed) -> Result<Option<Carried>, KernelError> {
        let out = self.delete(pair.spi_out, pair.remote);
        let r#in = self.delete(pair.spi_in, pair.local)?;
        Ok(out?.zip(r#in).map(|(out, r#in)| Carried { out, r#in }))
    }

    fn notices(&mut self) -> Result<Vec<Notice>, KernelError> {
        let mut all = Vec::new();
        loop {
            let len = match self.listening.hear(&mut self.buffer, Some(clock::now())) {
                Ok(len) => len,
                Err(KeyError::Silence) => return Ok(all),
                Err(_) if !all.is_empty() => return Ok(all),
                Err(_) => return Err(KernelError::Gone),
            };
            let record = self.buffer.get(..len).unwrap_or_default();
            all.extend(Message::parse_answer(record).ok().as_ref().and_then(notice));
        }
    }
}

fn notice(message: &Message<'_>) -> Option<Notice> {
    let kind = message.base.kind()?;
    if kind == MessageType::Acquire && message.base.errno == Errno(0) {
        let (src, dst) = (message.inner_src.or(message.src)?, message.inner_dst.or(message.dst)?);
        return Some(Notice::Acquire { src: src.ip()?, dst: dst.ip()? });
    }
    if kind == MessageType::NewMapping {
        let from = message.new_src.and_then(|new| new.socket)?;
        return Some(Notice::Mapping { spi: message.sa?.spi, from });
    }
    let expire = kind == MessageType::Expire;
    message.sa.filter(|_| expire).map(|sa| Notice::Expire { spi: sa.spi, hard: message.hard.is_some() })
}
