//! `ipsec metrics`: numbers for Prometheus, printed once or served.
//!
//! The server speaks as much HTTP/1.1 as a scrape needs. It listens where only this host reaches it: what connections there are
//! and with whom is nobody else's business, and there is no password.

use super::{Failure, finish};
use crate::host::clock;
use crate::print;
use crate::rundir::{Rundir, confs};
use crate::watch::{Snapshot, metrics};
use ipsec_core::Time;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// What `ipsec metrics` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ipsec metrics                          print them once
  ipsec metrics --listen 127.0.0.1:9871  serve them to a Prometheus on this host
  ipsec metrics --listen /run/ipsec.sock serve them on a Unix socket

Exit codes: 0 done, 1 failed (the reason is on stderr), 2 usage.")]
pub struct Args {
    /// Serve instead: a loopback address and port, or the path of a Unix socket
    #[arg(long, value_name = "ADDRESS:PORT|PATH")]
    listen: Option<String>,
}

/// Scrapes at a time.
const CLIENTS: usize = 8;
/// How long one may take to ask and to read, altogether: whoever is slower gives its place to the next.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest request that is read.
const LONGEST: u64 = 8192;

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let outcome = match args.listen.as_deref() {
        None => collect().and_then(|text| Ok(print::text(text)?)),
        Some(at) => serve(at),
    };
    finish("metrics", outcome)
}

fn collect() -> Result<String, Failure> {
    metrics::text(&Snapshot::take(&Rundir::from_env(), &confs())).map_err(Failure::new)
}

fn serve(at: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(format_args!("{at}: {error}"));
    if at.starts_with('/') {
        let path = PathBuf::from(at);
        let listener = socket(&path).map_err(failed)?;
        let accept = || listener.accept().map(|(stream, _)| stream);
        return forever(accept, |stream: &UnixStream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))
        });
    }
    let address: SocketAddr = at.parse().map_err(|_| {
        Failure::new(format_args!("{at}: write 127.0.0.1:9871, [::1]:9871 or the path of a Unix socket"))
    })?;
    if !address.ip().is_loopback() {
        return Err(Failure::new(format_args!(
            "{at} is no loopback address: connections and peers would be told to everybody; let a proxy with a password ask 127.0.0.1"
        )));
    }
    let listener = TcpListener::bind(address).map_err(failed)?;
    let accept = || listener.accept().map(|(stream, _)| stream);
    forever(accept, |stream: &TcpStream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))
    })
}

/// Listens on a path: one left by an earlier server is taken over, anything else stays. Only our own user may connect.
fn socket(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(at) if at.file_type().is_socket() => {
            if UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server is there"));
            }
            fs::remove_file(path)?;
        }
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Err(_) => {}
    }
    // The mode is right from the first moment.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers one client after another, a few at a time.
fn forever<S: Read + Write + Send + 'static>(
    accept: impl Fn() -> io::Result<S>,
    limit: impl Fn(&S) -> io::Result<()>,
) -> Result<(), Failure> {
    let slots = Arc::new(());
    loop {
        let Ok(stream) = accept() else {
            // Out of descriptors, most likely: give them time to come back.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        if Arc::strong_count(&slots) > CLIENTS || limit(&stream).is_err() {
            continue;
        }
        let slot = Arc::clone(&slots);
        let _ = thread::Builder::new().name("scrape".into()).spawn(move || {
            let _ = answer(Hurried { stream, until: clock::now().after(PATIENCE) });
            drop(slot);
        });
    }
}

/// A stream that is over at some moment. The time limit of a socket begins anew with every octet, and a client that sends one
/// now and then would keep its place for hours.
struct Hurried<S> {
    stream: S,
    until: Time,
}

impl<S> Hurried<S> {
    fn hurry(&mut self) -> io::Result<&mut S> {
        if clock::now() < self.until { Ok(&mut self.stream) } else { Err(io::ErrorKind::TimedOut.into()) }
    }
}

impl<S: Read> Read for Hurried<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.hurry()?.read(into)
    }
}

impl<S: Write> Write for Hurried<S> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.hurry()?.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hurry()?.flush()
    }
}

/// Reads one request and answers it.
fn answer(mut stream: impl Read + Write) -> io::Result<()> {
    let line = request(&mut stream)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (status, kind, body) = match (method, path.split('?').next().unwrap_or("")) {
        ("GET" | "HEAD", "/metrics" | "/") => match collect() {
            Ok(text) => ("200 OK", metrics::CONTENT_TYPE, text),
            Err(why) => ("500 Internal Server Error", "text/plain", format!("{why}\n")),
        },
        ("GET" | "HEAD", _) => ("404 Not Found", "text/plain", "the metrics are at /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "text/plain", "only GET\n".to_owned()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    if method != "HEAD" {
        stream.write_all(body.as_bytes())?;
    }
    stream.flush()
}

/// The first line of a request; the rest of its head is read and of no interest.
fn request(stream: &mut impl Read) -> io::Result<String> {
    let mut reader = BufReader::new(stream.take(LONGEST));
    let mut first = String::new();
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            // Too long, or it ended in the middle.
            return Err(io::ErrorKind::InvalidData.into());
        }
        if line.trim_end().is_empty() {
            return Ok(first.trim_end().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    struct Wire {
        asked: Cursor<Vec<u8>>,
        said: Vec<u8>,
    }

    impl Read for Wire {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.asked.read(into)
        }
    }

    impl Write for Wire {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.said.write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn ask(text: &str) -> io::Result<String> {
        let mut wire = Wire { asked: Cursor::new(text.as_bytes().to_vec()), said: Vec::new() };
        answer(&mut wire)?;
        Ok(String::from_utf8(wire.said).unwrap())
    }

    #[test]
    fn a_scrape_is_answered_and_nothing_else() {
        let said = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("# EOF\n"), "{said}");
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert!(ask("HEAD /metrics HTTP/1.1\r\n\r\n").unwrap().ends_with("\r\n\r\n"));
        assert!(ask("GET /etc/passwd HTTP/1.1\r\n\r\n").unwrap().starts_with("HTTP/1.1 404"));
        assert!(ask("POST /metrics HTTP/1.1\r\n\r\n").unwrap().starts_with("HTTP/1.1 405"));
    }

    #[test]
    fn a_request_without_end_is_dropped() {
        assert!(ask("GET /metrics HTTP/1.1\r\n").is_err());
        assert!(ask(&format!("GET /metrics HTTP/1.1\r\n{}", "x: y\r\n".repeat(5000))).is_err());
        assert!(ask(&"G".repeat(100_000)).is_err());
        assert!(ask("").is_err());
    }

    /// A client that sends an octet whenever it is about to be given up.
    #[test]
    fn who_dawdles_loses_its_place() {
        let dawdle = |patience: Duration| {
            let text = b"GET /metrics HTTP/1.1\r\n\r\n".to_vec();
            let mut wire = Slow(Wire { asked: Cursor::new(text), said: Vec::new() });
            let done = answer(Hurried { stream: &mut wire, until: clock::now().after(patience) });
            (done.map_err(|error| error.kind()), wire.0.said.len())
        };
        assert_eq!(dawdle(Duration::from_millis(50)), (Err(io::ErrorKind::TimedOut), 0));
        let (done, said) = dawdle(Duration::from_secs(600));
        assert!(done.is_ok() && said > 100, "{done:?} {said}");
    }

    struct Slow(Wire);

    impl Read for &mut Slow {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            thread::sleep(Duration::from_millis(10));
            let one = into.len().min(1);
            self.0.read(&mut into[..one])
        }
    }

    impl Write for &mut Slow {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn it_listens_only_where_this_host_alone_reaches_it() {
        for outside in ["0.0.0.0:9871", "192.0.2.1:9871", "[::]:9871", "nonsense", "127.0.0.1"] {
            assert!(serve(outside).is_err(), "{outside}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(socket(&file).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        let path = dir.path().join("sock");
        let first = socket(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(socket(&path).is_err(), "somebody listens");
        drop(first);
        socket(&path).unwrap();
    }
}
