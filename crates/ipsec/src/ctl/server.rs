//! The answering side of `klips.ctl`: a thread per client, each asking the control thread one question at a time.
//!
//! Control hands over a snapshot; it is written out here, piece by piece, as fast as the client reads. A client that does not
//! read, or writes nonsense, costs one thread until it is sent away.

use super::{Envelope, Refusal, Request};
use crate::daemon::mailbox::{Answer, Ask, Mailbox};
use crate::peer::Trust;
use crate::table::{Form, Snapshot};
use rustix::fs::{Mode, chmod};
use serde_json::json;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Clients at a time.
const CLIENTS: usize = 64;
/// The longest request: a batch of eroutes, written out.
const LONGEST: u64 = 16 << 20;
/// Octets of a table per line.
const PIECE: usize = 1 << 15;
/// How long a client may leave a line unread.
const PATIENCE: Duration = Duration::from_secs(30);

/// Listens at `path`, which must not exist, and serves until the process ends.
pub fn spawn(path: &Path, trust: Trust, mailbox: Mailbox) -> io::Result<()> {
    let listener = UnixListener::bind(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    // Root alone: everything here changes or shows what root alone may.
    chmod(path, Mode::from_raw_mode(0o600))?;
    thread::Builder::new().name("ctl".into()).spawn(move || accept(&listener, trust, &mailbox))?;
    Ok(())
}

fn accept(listener: &UnixListener, trust: Trust, mailbox: &Mailbox) {
    let slots = Arc::new(());
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else {
            // Out of descriptors, most likely: give them time to come back.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        if !trust.look(&stream).is_ok_and(|peer| peer.trusted) {
            let _ = say(&mut stream, None, &Refusal::with("EPERM", "this needs root"));
            continue;
        }
        if Arc::strong_count(&slots) > CLIENTS {
            let _ = say(&mut stream, None, &Refusal::with("EAGAIN", "too many clients"));
            continue;
        }
        let (slot, mailbox) = (Arc::clone(&slots), mailbox.clone());
        let served = thread::Builder::new().name("ctl-client".into()).spawn(move || {
            let _ = serve(stream, &mailbox);
            drop(slot);
        });
        if let Err(error) = served {
            tracing::warn!("klips.ctl: no thread for a client: {error}");
        }
    }
}

fn say(stream: &mut impl Write, id: Option<u64>, refusal: &Refusal) -> io::Result<()> {
    let mut line = json!({ "id": id, "error": refusal.error });
    if let Some(errno) = &refusal.errno {
        line["errno"] = json!(errno);
    }
    send(stream, line.to_string())
}

/// One line in one write: formatting straight into a socket is a system call for each fragment.
fn send(stream: &mut dyn Write, mut line: String) -> io::Result<()> {
    line.push('\n');
    stream.write_all(line.as_bytes())
}

/// Serves one client until it goes, or says something that cannot be the beginning of anything.
fn serve(stream: UnixStream, mailbox: &Mailbox) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut out = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        (&mut reader).take(LONGEST).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            return say(
                &mut out,
                None,
                &Refusal::with("EMSGSIZE", format!("a request is one line of at most {LONGEST} octets")),
            );
        }
        // The id is found even where the rest is not understood, so that the client knows which request it was.
        let id = serde_json::from_slice::<serde_json::Value>(&line).ok().and_then(|v| v.get("id")?.as_u64());
        match serde_json::from_slice::<Envelope>(&line) {
            Ok(envelope) => answer(&mut out, envelope, mailbox)?,
            Err(error) => say(&mut out, id, &Refusal::with("EINVAL", format!("not a request: {error}")))?,
        }
    }
}

fn answer(out: &mut impl Write, Envelope { id, request }: Envelope, mailbox: &Mailbox) -> io::Result<()> {
    let ok = |out: &mut dyn Write, value: &serde_json::Value| {
        send(out, json!({ "id": id, "ok": value }).to_string())
    };
    if matches!(request, Request::Stop { .. }) {
        // Said before it is done: there is nobody to say it afterwards.
        ok(out, &serde_json::Value::Null)?;
        mailbox.ask(Ask::Do(request));
        return Ok(());
    }
    let (ask, form) = if let Request::Table { table, form } = request {
        (Ask::Table(table), form)
    } else {
        (Ask::Do(request), Form::Json)
    };
    match mailbox.ask(ask) {
        Answer::Table(snapshot) => {
            pieces(out, id, &snapshot, form)?;
            ok(out, &serde_json::Value::Null)
        }
        Answer::Done(value) => ok(out, &value),
        Answer::Refused(refusal) => say(out, Some(id), &refusal),
    }
}

fn pieces(out: &mut impl Write, id: u64, snapshot: &Snapshot, form: Form) -> io::Result<()> {
    let mut piece = String::new();
    let mut flush = |piece: &mut String| {
        if piece.is_empty() {
            return Ok(());
        }
        let done = match form {
            Form::Json => send(out, format!("{{\"id\":{id},\"rows\":[{piece}]}}")),
            Form::Man | Form::Klips => send(out, json!({ "id": id, "part": piece }).to_string()),
        };
        piece.clear();
        done
    };
    for line in snapshot.lines(form) {
        if form == Form::Json && !piece.is_empty() {
            piece.push(',');
        }
        piece.push_str(&line);
        if piece.len() >= PIECE {
            flush(&mut piece)?;
        }
    }
    flush(&mut piece)
}

#[cfg(test)]
mod tests;
