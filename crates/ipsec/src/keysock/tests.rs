use super::*;
use std::collections::VecDeque;
use std::time::Duration;

/// Answers every record with itself, and with `all` tells everybody.
#[derive(Default)]
struct Echo {
    next: u64,
    queues: BTreeMap<SocketId, VecDeque<Vec<u8>>>,
    ready: Vec<SocketId>,
    seen: Vec<(SocketId, Vec<u8>)>,
}

impl Service for Echo {
    fn connect(&mut self, _pid: u32, _now: Time) -> SocketId {
        self.next += 1;
        self.queues.insert(SocketId(self.next), VecDeque::new());
        SocketId(self.next)
    }
    fn disconnect(&mut self, socket: SocketId) {
        self.queues.remove(&socket);
    }
    fn request(&mut self, from: SocketId, octets: &[u8], _now: Time) {
        self.seen.push((from, octets.to_vec()));
        let everybody = octets.starts_with(b"all");
        for (&socket, queue) in &mut self.queues {
            if everybody || socket == from {
                let times = if octets.starts_with(b"many") { 10_000 } else { 1 };
                queue.extend(std::iter::repeat_n(octets.to_vec(), times));
                self.ready.push(socket);
            }
        }
    }
    fn notice(&mut self, to: SocketId, _now: Time) -> Option<Vec<u8>> {
        self.queues.get_mut(&to)?.pop_front()
    }
    fn take_ready(&mut self) -> Vec<SocketId> {
        std::mem::take(&mut self.ready)
    }
}

struct Server {
    sockets: KeySockets,
    service: Echo,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

impl Server {
    fn new(trust: Trust) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pf_key.sock");
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC).unwrap());
        let sockets = KeySockets::bind(&path, epoll, trust).unwrap();
        Self { sockets, service: Echo::default(), path, _dir: dir }
    }

    /// One that trusts whoever runs the test.
    fn mine() -> Self {
        Self::new(Trust { group: Some(rustix::process::getegid().as_raw()) })
    }

    fn client(&self) -> OwnedFd {
        let fd =
            net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        net::connect(&fd, &SocketAddrUnix::new(&self.path).unwrap()).unwrap();
        fd
    }

    /// Handles events until there are none.
    fn turn(&mut self) {
        loop {
            let mut events = Vec::with_capacity(16);
            let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            epoll::wait(&self.sockets.epoll, rustix::buffer::spare_capacity(&mut events), Some(&zero))
                .unwrap();
            if events.is_empty() {
                return;
            }
            for event in events {
                let (number, flags) = (event.data.u64(), event.flags);
                self.sockets.event(&mut self.service, number, flags, Time::ZERO, |_, _| {});
                self.sockets.deliver(&mut self.service, Time::ZERO);
            }
        }
    }
}

fn say(fd: &OwnedFd, text: &[u8]) {
    net::send(fd, text, SendFlags::NOSIGNAL).unwrap();
}

/// What a client can read right now.
fn hear(fd: &OwnedFd) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while let Ok((length, _)) = net::recv(fd, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
        if length == 0 {
            break;
        }
        all.push(buffer[..length].to_vec());
    }
    all
}

#[test]
fn each_client_gets_its_own_answer_and_all_get_what_is_for_all() {
    let mut server = Server::mine();
    let (a, b) = (server.client(), server.client());
    say(&a, b"one");
    say(&b, b"two");
    server.turn();
    assert_eq!(hear(&a), [b"one"]);
    assert_eq!(hear(&b), [b"two"]);
    say(&a, b"all");
    server.turn();
    assert_eq!((hear(&a), hear(&b)), (vec![b"all".to_vec()], vec![b"all".to_vec()]));
}

#[test]
fn records_stay_records() {
    let mut server = Server::mine();
    let a = server.client();
    for n in 1..=200_u16 {
        say(&a, &n.to_be_bytes());
        server.turn();
    }
    let heard: Vec<u16> = hear(&a).iter().map(|m| u16::from_be_bytes([m[0], m[1]])).collect();
    assert_eq!(heard, (1..=200).collect::<Vec<_>>());
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up_and_loses_nothing() {
    let mut server = Server::mine();
    let (slow, quick) = (server.client(), server.client());
    let mut many = b"many".to_vec();
    many.resize(1000, 0);
    say(&slow, &many);
    server.turn();
    say(&quick, b"hello");
    server.turn();
    assert_eq!(hear(&quick), [b"hello"]);
    let mut heard = hear(&slow).len();
    assert!(heard < 10_000, "the socket itself took everything: the test proves nothing");
    loop {
        server.turn();
        match hear(&slow).len() {
            0 => break,
            more => heard += more,
        }
    }
    assert_eq!(heard, 10_000);
}

#[test]
fn a_client_that_goes_is_forgotten_even_with_messages_waiting() {
    let mut server = Server::mine();
    let (a, b) = (server.client(), server.client());
    say(&a, &[b"many".as_slice(), &[0; 1000]].concat());
    server.turn();
    assert_eq!(server.sockets.len(), 2);
    drop(a);
    server.turn();
    assert_eq!(server.sockets.len(), 1);
    assert_eq!(server.service.queues.len(), 1);
    say(&b, b"still here");
    server.turn();
    assert_eq!(hear(&b), [b"still here"]);
}

#[test]
fn a_record_too_long_for_any_message_is_cut_not_split() {
    let mut server = Server::mine();
    let a = server.client();
    sockopt::set_socket_send_buffer_size_force(&a, 4 << 20).ok();
    if net::send(&a, &vec![7; LONGEST + 500], SendFlags::NOSIGNAL).is_err() {
        // The kernel's own limit is lower here; then no such record can arrive either.
        return;
    }
    server.turn();
    assert_eq!(server.service.seen.len(), 1);
    assert_eq!(server.service.seen[0].1.len(), LONGEST + 1);
}

#[test]
fn a_stranger_is_told_eperm_and_is_gone() {
    // Nobody is in this group, and the test may run as root: then the credentials must be those of somebody else.
    if rustix::process::geteuid().is_root() {
        let (peer, pid) = (Trust { group: None }, std::process::id());
        assert!(peer.look(std::os::unix::net::UnixStream::pair().unwrap().0).unwrap().trusted);
        assert_eq!(refusal(pid)[..8], [2, 0, 1, 0, 2, 0, 0, 0].map(|x: u8| x));
        let Some(heard) = as_nobody() else { return };
        assert_eq!(heard, refusal_of(&heard));
        return;
    }
    let mut server = Server::new(Trust { group: Some(u32::MAX - 1) });
    let a = server.client();
    server.turn();
    let heard = hear(&a);
    assert_eq!(heard, [refusal(std::process::id())]);
    assert!(server.sockets.is_empty());
    assert!(server.service.queues.is_empty());
}

/// Connects as user 65534 through a child process and says what it heard; `None` where python3 is missing.
fn as_nobody() -> Option<Vec<u8>> {
    let mut server = Server::new(Trust { group: Some(u32::MAX - 1) });
    for dir in server.path.ancestors().skip(1).take(1) {
        rustix::fs::chmod(dir, rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
    }
    let script = format!(
        "import os,socket,sys\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n\
         s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET); s.connect({:?})\n\
         sys.stdout.buffer.write(s.recv(99)); sys.stdout.buffer.write(s.recv(99))",
        server.path
    );
    let mut child = std::process::Command::new("python3")
        .args(["-c", &script])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .ok()?;
    while child.try_wait().unwrap().is_none() {
        server.turn();
        std::thread::sleep(Duration::from_millis(5));
    }
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    assert!(server.sockets.is_empty());
    Some(out.stdout)
}

fn refusal_of(heard: &[u8]) -> Vec<u8> {
    let pid = heard[12..16].try_into().unwrap();
    refusal(u32::from_ne_bytes(pid)).to_vec()
}
