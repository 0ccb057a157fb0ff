//! `pluto.ctl`: one JSON object per line, each request with its id.
//!
//! ```text
//! → {"id":1,"do":"up","name":"west-east"}
//! ← {"id":1,"say":"IKE_SA_INIT to 198.51.100.7 …"}         progress, as often as there is some
//! ← {"id":1,"ok":null}                                      or {"id":1,"error":"…"}
//! ```

mod client;

pub use client::{Client, Unanswered};

use crate::daemon::mailbox::Waker;
use crate::peer::Trust;
use rustix::fs::{Mode, chmod};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// Clients at a time.
const CLIENTS: usize = 64;
/// The longest request.
const LONGEST: u64 = 1 << 16;
/// How long a client may leave a line unread.
const PATIENCE: Duration = Duration::from_secs(30);

/// What pluto can be asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// Load a connection from ipsec.conf, or load it anew.
    Add {
        /// Its section.
        name: String,
    },
    /// Take a connection down and forget it.
    Delete {
        /// Its section.
        name: String,
    },
    /// Negotiate, and say how it goes.
    Up {
        /// Its section.
        name: String,
        /// Answer once it has begun.
        #[serde(default)]
        asynchronous: bool,
    },
    /// Take a connection down; its policy stays.
    Down {
        /// Its section.
        name: String,
    },
    /// Have packets for it begin it.
    Route {
        /// Its section.
        name: String,
    },
    /// Remove policy and routes.
    Unroute {
        /// Its section.
        name: String,
    },
    /// Negotiate successors now.
    Rekey {
        /// Its section.
        name: String,
        /// Of the IKE SA; otherwise of the Child SAs.
        #[serde(default)]
        ike: bool,
    },
    /// Read ipsec.secrets again, and make what is loaded what ipsec.conf says; connections that have not changed are not touched.
    Reload {
        /// Only say what would be done with connections; secrets stay as they are.
        #[serde(default)]
        dry_run: bool,
    },
    /// What was loaded, with what names and addresses have become; pluto asks it of itself.
    #[serde(skip)]
    Again,
    /// Look at the addresses of this host again.
    Listen,
    /// Read ipsec.secrets again.
    RereadSecrets,
    /// Say how everything is.
    Status,
    /// Say everything that is said of connections, as it happens.
    Watch,
    /// Say that it is there.
    Ping,
    /// End.
    Stop {
        /// Tell no peer and remove nothing: the next pluto takes over what is up.
        #[serde(default)]
        leave: bool,
    },
}

/// A request, and where its answers go.
#[derive(Debug)]
pub struct Asked {
    /// The request.
    pub request: Request,
    /// Each answer is an object with `say`, or with `ok` or `error` as the last.
    pub reply: Sender<Value>,
    /// What the names that it is about stand for, once they have been looked up.
    pub found: Option<BTreeMap<String, Option<IpAddr>>>,
}

/// Where requests are handed in.
#[derive(Clone, Debug)]
pub struct Desk {
    sender: Sender<Asked>,
    waker: Waker,
}

impl Desk {
    /// Hands one in; false if nobody takes them any more.
    pub fn ask(&self, asked: Asked) -> bool {
        let taken = self.sender.send(asked).is_ok();
        self.waker.wake();
        taken
    }
}

/// The main loop's end.
#[derive(Debug)]
pub struct Inbox {
    receiver: Receiver<Asked>,
    desk: Desk,
    /// Readable when there are requests.
    pub waker: Waker,
}

impl Inbox {
    /// The next request.
    pub fn next(&self) -> Option<Asked> {
        self.receiver.try_recv().ok()
    }

    /// Where requests of our own are handed in.
    pub fn desk(&self) -> Desk {
        self.desk.clone()
    }
}

/// Listens at `path`, which must not exist, and serves until the process ends.
pub fn spawn(path: &Path) -> io::Result<Inbox> {
    let listener = UnixListener::bind(path)?;
    chmod(path, Mode::from_raw_mode(0o600))?;
    let (sender, receiver) = channel();
    let waker = Waker::new()?;
    let desk = Desk { sender, waker: waker.clone() };
    let ours = desk.clone();
    thread::Builder::new().name("ctl".into()).spawn(move || accept(&listener, &desk))?;
    Ok(Inbox { receiver, desk: ours, waker })
}

fn accept(listener: &UnixListener, desk: &Desk) {
    let slots = Arc::new(());
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else {
            // Out of descriptors, most likely: give them time to come back.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        let refusal = if !Trust::default().look(&stream).is_ok_and(|peer| peer.trusted) {
            Some("this needs root")
        } else if Arc::strong_count(&slots) > CLIENTS {
            Some("too many clients")
        } else {
            None
        };
        if let Some(why) = refusal {
            let _ = send(&mut stream, &json!({ "id": null, "error": why }));
            continue;
        }
        let (slot, desk) = (Arc::clone(&slots), desk.clone());
        let served = thread::Builder::new().name("ctl-client".into()).spawn(move || {
            let _ = serve(stream, &desk);
            drop(slot);
        });
        if let Err(error) = served {
            tracing::warn!("pluto.ctl: no thread for a client: {error}");
        }
    }
}

fn send(stream: &mut impl Write, value: &Value) -> io::Result<()> {
    let mut line = value.to_string();
    line.push('\n');
    stream.write_all(line.as_bytes())
}

#[derive(Deserialize)]
struct Envelope {
    id: u64,
    #[serde(flatten)]
    request: Request,
}

fn serve(stream: UnixStream, desk: &Desk) -> io::Result<()> {
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
            return send(&mut out, &json!({ "id": null, "error": "a request is one line" }));
        }
        let Envelope { id, request } = match serde_json::from_slice(&line) {
            Ok(envelope) => envelope,
            Err(error) => {
                send(&mut out, &json!({ "id": null, "error": format!("not a request: {error}") }))?;
                continue;
            }
        };
        let (reply, answers) = channel();
        if !desk.ask(Asked { request, reply, found: None }) {
            return Ok(());
        }
        let mut ended = false;
        for mut answer in answers {
            ended = answer.get("say").is_none();
            answer["id"] = json!(id);
            send(&mut out, &answer)?;
            if ended {
                break;
            }
        }
        if !ended {
            send(&mut out, &json!({ "id": id, "error": "pluto is stopping" }))?;
        }
    }
}
