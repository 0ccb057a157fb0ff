//! `ipsec setup restart --pluto`: another key daemon, while the tunnels stay up.
//!
//! For an upgrade, or a pluto that is to begin anew. The old one tells no peer and removes nothing; what it installed goes on
//! carrying packets in klips until its successor has taken its place.

use super::{End, Turn, Voice, is_root, start, stop, supervise};
use crate::log::Priority;
use crate::pluto::ctl::{Client, Request};
use crate::process::Process;
use crate::rundir::Rundir;
use rustix::process::Signal;
use std::io;
use std::path::Path;

pub(super) fn run(rundir: &Rundir, file: Option<&Path>) -> End {
    let voice = Voice::new(Priority::DEFAULT);
    if !is_root(&voice) {
        return End::NotRoot;
    }
    let wanted = match start::read(file, &voice) {
        Ok(wanted) => wanted,
        Err(end) => {
            voice.say("...nothing was stopped: what runs goes on");
            return end;
        }
    };
    let voice = wanted.voice();
    let Some(_turn) = Turn::take(rundir, &voice) else { return End::Failed };
    if !wanted.pluto {
        voice.say("ipsec.conf says pluto=no: there is no pluto to restart");
        return End::Failed;
    }
    if stop::who(rundir).is_none() {
        voice.say("klips does not run: `ipsec setup start' starts both");
        return End::Failed;
    }
    if let Some(pluto) = stop::who_pluto(rundir)
        && let Err(error) = leave(rundir, pluto)
    {
        voice.say(&format!("pluto (pid {}) cannot be ended: {error}", pluto.pid));
        return End::Failed;
    }
    if let Err(why) = start::key_daemon(&wanted, &voice) {
        voice.say(&why.why);
        return End::Failed;
    }
    if let Err(error) = supervise::renew(rundir) {
        voice.say(&format!("the supervisor: {error}"));
    }
    voice.log("...pluto restarted");
    End::Done
}

/// Ends pluto so that what it installed stays.
fn leave(rundir: &Rundir, pluto: Process) -> io::Result<()> {
    let asked = Client::connect(rundir).ok().and_then(|client| client.within(stop::FIRST).ok());
    if let Some(mut client) = asked {
        let _ = client.call(&Request::Stop { leave: true }, |_| Ok(()));
        if pluto.wait(stop::PATIENCE)? {
            return Ok(());
        }
    }
    // It does not hear, and dead it removes nothing either.
    pluto.signal(Signal::KILL)?;
    if pluto.gone(stop::PATIENCE)? { Ok(()) } else { Err(io::Error::other("it cannot be killed")) }
}
