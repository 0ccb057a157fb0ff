use super::*;
use crate::ctl::{Client, CtlError};
use crate::daemon::mailbox::{Inbox, mailbox};
use crate::rundir::Rundir;
use crate::table::Table;
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::Value;
use std::net::Shutdown;

struct Server {
    rundir: Rundir,
    _dir: tempfile::TempDir,
}

/// Answers like a daemon would: discards of a given length, `null` for the rest.
fn daemon(inbox: &Inbox, rows: usize) {
    loop {
        let Ok(_) = poll(&mut [PollFd::new(&inbox.waker, PollFlags::IN)], None) else { return };
        inbox.waker.clear();
        while let Some(mail) = inbox.next() {
            let answer = match mail.ask {
                Ask::Table(_) => Answer::Table(Snapshot::Discards(vec![("malformed", 7); rows])),
                Ask::Do(Request::Clear) => Answer::Refused(Refusal::with("EBUSY", "not now")),
                Ask::Do(Request::Stop { .. }) => return,
                Ask::Do(other) => Answer::Done(json!({ "got": format!("{other:?}") })),
            };
            let _ = mail.reply.send(answer);
        }
    }
}

fn server(rows: usize) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let rundir = Rundir::new(dir.path());
    let (mailbox, inbox) = mailbox().unwrap();
    let trust = Trust { group: Some(rustix::process::getegid().as_raw()) };
    spawn(&rundir.klips_ctl(), trust, mailbox).unwrap();
    thread::spawn(move || daemon(&inbox, rows));
    Server { rundir, _dir: dir }
}

impl Server {
    fn raw(&self) -> UnixStream {
        UnixStream::connect(self.rundir.klips_ctl()).unwrap()
    }

    /// Sends octets, ends, and returns every line that came back.
    fn talk(&self, octets: &[u8]) -> Vec<Value> {
        let mut stream = self.raw();
        // The server may close on us while we still write: that is an answer, too.
        let _ = stream.write_all(octets);
        let _ = stream.shutdown(Shutdown::Write);
        let mut lines = BufReader::new(stream).lines();
        let mut all = Vec::new();
        while let Some(Ok(line)) = lines.next() {
            all.push(serde_json::from_str(&line).unwrap());
        }
        all
    }
}

#[test]
fn requests_on_one_connection_are_answered_in_order_with_their_ids() {
    let server = server(1);
    let lines = server.talk(b"{\"id\":7,\"do\":\"status\"}\n{\"id\":8,\"do\":\"clear\"}\n");
    assert_eq!(lines[0], json!({ "id": 7, "ok": { "got": "Status" } }));
    assert_eq!(lines[1], json!({ "id": 8, "error": "not now", "errno": "EBUSY" }));
    assert_eq!(lines.len(), 2);
}

#[test]
fn what_is_not_a_request_is_refused_and_the_next_one_is_served() {
    let server = server(1);
    for wrong in [
        "nonsense",
        "{}",
        "[]",
        "null",
        "{\"id\":1}",
        "{\"id\":1,\"do\":\"fly\"}",
        "{\"id\":1,\"do\":\"attach\"}",
        "{\"id\":-1,\"do\":\"status\"}",
        "{\"id\":1,\"do\":\"table\",\"table\":\"x\",\"form\":\"man\"}",
        "{\"id\":1,\"do\":\"explain\",\"src\":\"10.0.0.256\",\"dst\":\"::1\"}",
        "",
        "\u{0}\u{1}",
    ] {
        let lines = server.talk(format!("{wrong}\n{{\"id\":2,\"do\":\"status\"}}\n").as_bytes());
        assert_eq!(lines.len(), 2, "{wrong}: {lines:?}");
        assert_eq!(lines[0]["errno"], "EINVAL", "{wrong}");
        assert_eq!(lines[1]["id"], 2, "{wrong}");
    }
}

#[test]
fn a_line_without_end_is_refused_and_the_client_sent_away() {
    let server = server(1);
    let lines = server.talk(&vec![b'['; 200_000]);
    // Closing with octets unread resets the connection and may take the answer with it.
    assert!(lines.len() <= 1);
    assert!(lines.iter().all(|line| line["errno"] == "EMSGSIZE"));
    let lines = server.talk(b"{\"id\":1,\"do\":\"status\"}");
    assert_eq!(lines[0]["errno"], "EMSGSIZE");
    assert_eq!(server.talk(b"{\"id\":1,\"do\":\"status\"}\n").len(), 1);
}

#[test]
fn octets_that_are_no_text_and_deep_nesting_do_no_harm() {
    let server = server(1);
    for n in 0..50_u8 {
        let junk: Vec<u8> = (0..200_u16).map(|i| (i as u8).wrapping_mul(n).wrapping_add(n)).collect();
        server.talk(&junk);
    }
    let mut deep = vec![b'['; 60_000];
    deep.push(b'\n');
    assert_eq!(server.talk(&deep)[0]["errno"], "EINVAL");
    assert_eq!(server.talk(b"{\"id\":1,\"do\":\"status\"}\n").len(), 1);
}

#[test]
fn a_long_table_comes_in_pieces_and_whole() {
    let server = server(50_000);
    let mut client = Client::connect(&server.rundir).unwrap();
    let (mut text, mut pieces) = (String::new(), 0);
    client
        .table(Table::Discards, Form::Man, |piece| {
            pieces += 1;
            text.push_str(piece);
            Ok(())
        })
        .unwrap();
    assert!(pieces > 5);
    assert_eq!(text, "malformed 7\n".repeat(50_000));
    let mut rows = 0;
    client
        .table(Table::Discards, Form::Json, |row| {
            assert_eq!(serde_json::from_str::<Value>(row).unwrap()["packets"], 7);
            rows += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(rows, 50_000);
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up() {
    let server = server(500_000);
    let mut lazy = server.raw();
    lazy.write_all(b"{\"id\":1,\"do\":\"table\",\"table\":\"discards\",\"form\":\"man\"}\n").unwrap();
    let mut client = Client::connect(&server.rundir).unwrap();
    assert!(client.call(Request::Status).is_ok());
    drop(lazy);
    assert!(client.call(Request::Status).is_ok());
}

#[test]
fn more_clients_than_there_is_room_for_are_sent_away_and_room_comes_back() {
    let server = server(1);
    let mut idle: Vec<Client> = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect(&server.rundir).unwrap();
        client.call(Request::Status).unwrap();
        idle.push(client);
    }
    let mut late = Client::connect(&server.rundir).unwrap();
    let Err(error) = late.call(Request::Status) else { panic!("client {} was served", CLIENTS + 1) };
    assert!(matches!(&error, CtlError::Refused(_) | CtlError::Io(_)), "{error}");
    idle.clear();
    while Client::connect(&server.rundir).unwrap().call(Request::Status).is_err() {
        thread::yield_now();
    }
}

#[test]
fn nobody_there_is_said_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let Err(error) = Client::connect(&Rundir::new(dir.path())) else { panic!() };
    assert!(error.to_string().contains("ipsec setup start"), "{error}");
}

#[test]
fn a_stop_is_acknowledged_before_it_happens() {
    let server = server(1);
    let mut client = Client::connect(&server.rundir).unwrap();
    assert_eq!(client.call(Request::Stop { leave: false }).unwrap(), Value::Null);
}
