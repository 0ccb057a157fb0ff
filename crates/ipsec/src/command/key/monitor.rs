//! Every PF_KEY message as it happens, until Ctrl-C.

use super::session::{Session, Stopped, header};
use super::{build, print};
use crate::command::Failure;
use crate::ctl;
use crate::daemon::mailbox::Waker;
use crate::keyclient::{KeyClient, LONGEST};
use crate::pluto;
use crate::rundir::Rundir;
use crate::table::{Form, Table};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use pfkey::{Base, Errno, MessageType, SaType};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno as OsErrno;
use serde_json::Value;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;
use zeroize::Zeroizing;

/// SIGINT and SIGTERM as something to wait for; as they were when this goes.
struct Signals {
    set: SigSet,
    fd: SignalFd,
}

impl Signals {
    fn catch() -> Result<Self, Failure> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            set.add(signal);
        }
        let fd = set
            .thread_block()
            .and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK));
        let fd = fd.map_err(|error| Failure::new(format_args!("signals: {error}")))?;
        Ok(Self { set, fd })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // One that came is taken off, or it would end us now.
        let _ = self.fd.read_signal();
        let _ = self.set.thread_unblock();
    }
}

/// Shows what comes; actively: what is meant for others, too.
pub(super) fn watch(session: &mut Session, active: bool) -> Result<(), Stopped> {
    let signals = Signals::catch()?;
    let rundir = Rundir::from_env();
    let mut client = KeyClient::connect(&rundir).map_err(Failure::new)?;
    if active {
        listen_to_everything(&mut client)?;
    }
    let how = if active { "actively" } else { "passively" };
    if session.style.json {
        crate::print::complain(format_args!("Monitoring {how}."));
    } else {
        session.show(format!("Monitoring {how}.\n"))?;
    }
    let said = ike_events(rundir.clone()).map_err(Failure::new)?;
    let heard = listen(session, &client, &signals, &said);
    // While the socket is still open: its counter goes with it.
    let lost = lost(&rundir);
    heard?;
    match lost {
        Some(0) | None => Ok(()),
        Some(lost) if session.style.json => session.show(format!("{{\"lost\":{lost}}}\n")),
        Some(lost) => {
            session.show(format!("{lost} messages were lost: they came faster than they were read.\n"))
        }
    }
}

/// What pluto says of connections, from a thread that waits for it and looks for another pluto when it has ended.
struct Events {
    receiver: Receiver<Value>,
    waker: Waker,
}

/// Between two looks for a pluto.
const SEARCH: Duration = Duration::from_secs(1);
/// Events that wait to be shown; who says more meanwhile waits.
const WAITING: usize = 1024;

fn ike_events(rundir: Rundir) -> std::io::Result<Events> {
    let (sender, receiver) = sync_channel(WAITING);
    let waker = Waker::new()?;
    let wake = waker.clone();
    thread::Builder::new().name("ike-events".into()).spawn(move || {
        loop {
            if let Ok(client) = pluto::ctl::Client::connect(&rundir) {
                let tell = |event: &Value| {
                    let sent = sender.send(event.clone()).is_ok();
                    wake.wake();
                    sent
                };
                let _ = client.watch(tell);
            }
            thread::sleep(SEARCH);
        }
    })?;
    Ok(Events { receiver, waker })
}

/// One event, as a line.
fn event(event: &Value, json: bool) -> String {
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = event.get("negotiation").and_then(Value::as_u64).unwrap_or(0);
    if json {
        return format!("{}\n", serde_json::json!({ "ike": event }));
    }
    format!("\nIKE \"{}\" #{number}: {}\n", text("connection"), text("text"))
}

fn listen(
    session: &mut Session,
    client: &KeyClient,
    signals: &Signals,
    said: &Events,
) -> Result<(), Stopped> {
    // A copy of somebody's message may have keys in it.
    let mut buffer = Zeroizing::new(vec![0; LONGEST]);
    loop {
        let (socket, fd) = (client.as_fd(), signals.fd.as_fd());
        let mut ready = [
            PollFd::new(&fd, PollFlags::IN),
            PollFd::new(&socket, PollFlags::IN),
            PollFd::new(&said.waker, PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(OsErrno::INTR) => continue,
            Err(errno) => return Err(Failure::new(errno).into()),
        }
        let [signal, message, any] = ready.map(|fd| !fd.revents().is_empty());
        if signal {
            return Ok(());
        }
        if any {
            said.waker.clear();
            while let Ok(one) = said.receiver.try_recv() {
                session.show(event(&one, session.style.json))?;
            }
        }
        if message {
            let len = client.hear(&mut buffer, None).map_err(Failure::new)?;
            let record = buffer.get(..len).unwrap_or_default();
            if !session.style.json {
                let now = print::date(jiff::Timestamp::now().as_second().unsigned_abs(), &session.zone());
                session.show(format!("\nRead {len} bytes.\nTimestamp: {now}\n"))?;
            }
            session.message(record, false)?;
        }
    }
}

/// PROMISC (RFC 2367 §3.1.11): the SA type field says on.
fn listen_to_everything(client: &mut KeyClient) -> Result<(), Failure> {
    let seq = client.next_seq();
    let off = Base::request(MessageType::Promisc, SaType::Unspec, seq, std::process::id());
    let request = build::request(&Base { satype_number: 1, ..off }, |_| {}).map_err(Failure::new)?;
    let base = {
        let mut buffer = Zeroizing::new(vec![0; LONGEST]);
        let len = client.exchange(&request, &mut buffer).map_err(Failure::new)?;
        header(buffer.get(..len).unwrap_or_default())?
    };
    match base.errno {
        Errno(0) => Ok(()),
        _ => Err(Failure::new(format_args!("klips refused it: {}", print::refusal(&base)))),
    }
}

/// How many messages for this process klips could not queue; `None` if it cannot be asked.
fn lost(rundir: &Rundir) -> Option<u64> {
    let mut lost = 0_u64;
    let mut client = ctl::Client::connect(rundir).ok()?;
    let rows = client.table(Table::PfKey, Form::Json, |row| {
        let row: Value = serde_json::from_str(row).unwrap_or_default();
        let number = |field: &str| row.get(field).and_then(Value::as_u64);
        if number("pid") == Some(std::process::id().into()) {
            lost = lost.saturating_add(number("dropped").unwrap_or(0));
        }
        Ok(())
    });
    rows.ok().map(|()| lost)
}
