use super::*;
use std::collections::VecDeque;

/// How many answers `many` gets.
const MANY: usize = 2_000;

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
                let times = if octets.starts_with(b"many") { MANY } else { 1 };
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
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Server {
    fn new(trust: Trust) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pf_key.sock");
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC).unwrap());
        let sockets = KeySockets::bind([(Dialect::Native, path.clone())], epoll, trust).unwrap();
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
        self.turn_at(Time::ZERO);
    }

    fn turn_at(&mut self, now: Time) {
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
                self.sockets.event(&mut self.service, number, flags, now, |_, _| {});
                self.sockets.deliver(&mut self.service, now);
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
    // So long that one turn of them is more than a socket takes.
    many.resize(10_000, 0);
    say(&slow, &many);
    server.turn();
    say(&quick, b"hello");
    server.turn();
    assert_eq!(hear(&quick), [b"hello"]);
    let mut heard = hear(&slow).len();
    assert!(heard < MANY, "the socket itself took everything: the test proves nothing");
    loop {
        server.turn();
        match hear(&slow).len() {
            0 => break,
            more => heard += more,
        }
    }
    assert_eq!(heard, MANY);
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

/// Connects from a thread that is another user with these groups. `None` where the test is not root and cannot.
fn client_as(server: &Server, user: u32, groups: &[u32]) -> Option<OwnedFd> {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_res_uid};
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be somebody else");
        return None;
    }
    let dir = server.path.parent().unwrap();
    rustix::fs::chmod(dir, rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
    std::thread::scope(|scope| {
        let connect = || {
            // System calls, not those of libc: they change this thread alone.
            let groups: Vec<Gid> = groups.iter().map(|&group| Gid::from_raw(group)).collect();
            let user_id = Uid::from_raw(user);
            set_thread_groups(&groups)
                .and_then(|()| set_thread_gid(Gid::from_raw(user)))
                .and_then(|()| set_thread_res_uid(user_id, user_id, user_id))
                .inspect_err(|error| eprintln!("skipped: {error}"))
                .ok()?;
            Some(server.client())
        };
        scope.spawn(connect).join().unwrap()
    })
}

#[test]
fn a_stranger_is_told_eperm_and_is_gone() {
    let mut server = Server::new(Trust::default());
    let Some(stranger) = client_as(&server, 65534, &[]) else { return };
    server.turn();
    assert_eq!(hear(&stranger), [refusal(std::process::id(), Errno::PERM)]);
    assert!(net::send(&stranger, b"hello", SendFlags::NOSIGNAL).is_err(), "the connection is still there");
    server.turn();
    assert!(server.sockets.is_empty() && server.service.queues.is_empty() && server.service.seen.is_empty());
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<parking_lot::Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn strangers_who_come_again_and_again_do_not_fill_the_log() {
    let mut server = Server::new(Trust::default());
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    for _ in 0..200 {
        let Some(stranger) = client_as(&server, 65534, &[]) else { return };
        server.turn();
        assert_eq!(hear(&stranger).len(), 1);
    }
    let later = Time::ZERO.after(QUIET);
    let Some(_stranger) = client_as(&server, 65534, &[]) else { return };
    server.turn_at(later);
    let said = String::from_utf8(log.0.lock().clone()).unwrap();
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("may not use it; 199 refusals before it were not logged"), "{said}");
}

/// What lies unread when a socket closes makes the other side's next read say ECONNRESET, which says nothing.
#[test]
fn a_stranger_who_has_written_already_is_told_eperm_all_the_same() {
    let mut server = Server::new(Trust::default());
    let Some(stranger) = client_as(&server, 65534, &[]) else { return };
    for text in [b"hello".as_slice(), b"", b"once more"] {
        say(&stranger, text);
    }
    server.turn();
    let mut buffer = [0; 64];
    let (length, _) = net::recv(&stranger, &mut buffer[..], RecvFlags::DONTWAIT).unwrap();
    assert_eq!(buffer[..length], refusal(std::process::id(), Errno::PERM));
    assert_eq!(net::recv(&stranger, &mut buffer[..], RecvFlags::DONTWAIT).map(|(length, _)| length), Ok(0));
    assert!(server.service.seen.is_empty());
}

#[test]
fn a_record_of_no_octets_is_nothing_at_all() {
    let mut server = Server::mine();
    let a = server.client();
    say(&a, b"");
    server.turn();
    say(&a, b"");
    say(&a, b"hello");
    say(&a, b"");
    server.turn();
    assert_eq!(hear(&a), [b"hello"]);
    assert_eq!(server.service.seen.len(), 1);
    // What comes behind one is heard even if it is the last word, and then a client that is gone is gone.
    say(&a, b"");
    say(&a, b"goodbye");
    say(&a, b"");
    drop(a);
    server.turn();
    assert_eq!(server.service.seen.last().map(|(_, text)| text.as_slice()), Some(&b"goodbye"[..]));
    assert!(server.sockets.is_empty() && server.service.queues.is_empty());
}

#[test]
fn a_client_that_has_said_its_last_word_still_hears_all_it_asked_for() {
    let mut server = Server::mine();
    let (a, b) = (server.client(), server.client());
    let mut many = b"many".to_vec();
    many.resize(10_000, 0);
    say(&a, &many);
    net::shutdown(&a, net::Shutdown::Write).unwrap();
    let mut heard = 0;
    loop {
        server.turn();
        match hear(&a).len() {
            0 => break,
            more => heard += more,
        }
    }
    assert_eq!(heard, MANY);
    // And what everybody hears; nothing of this makes the daemon turn without end.
    say(&b, b"all");
    server.turn();
    assert_eq!(hear(&a), [b"all"]);
    drop(a);
    server.turn();
    assert_eq!(server.sockets.len(), 1);
}

#[test]
fn what_a_client_has_not_read_is_counted_until_it_reads() {
    let mut server = Server::mine();
    let (a, b) = (server.client(), server.client());
    server.turn();
    let sockets: Vec<SocketId> = server.service.queues.keys().copied().collect();
    let unread = |server: &Server| sockets.iter().map(|id| server.sockets.unread(*id)).collect::<Vec<_>>();
    assert_eq!(unread(&server), [0, 0]);
    say(&a, &[7; 1000]);
    server.turn();
    assert!(unread(&server)[0] >= 1000 && unread(&server)[1] == 0, "{:?}", unread(&server));
    // More than the kernel takes.
    say(&b, &[b"many".as_slice(), &[0; 10_000]].concat());
    server.turn();
    assert!(unread(&server)[1] > 100_000, "{:?}", unread(&server));
    assert_eq!(hear(&a).len(), 1);
    assert_eq!(unread(&server)[0], 0);
}

/// Whoever asks must not wait for what can never come.
#[test]
fn in_the_place_of_an_answer_that_no_socket_takes_comes_its_header() {
    let mut server = Server::mine();
    let a = server.client();
    server.turn();
    let header = pfkey::Base::request(pfkey::MessageType::Get, pfkey::SaType::Esp, 77, 99).octets().to_vec();
    let long = [header, vec![1; 1 << 20]].concat();
    let socket = *server.service.queues.keys().next().unwrap();
    for text in [long, b"next".to_vec()] {
        server.service.queues.get_mut(&socket).unwrap().push_back(text);
    }
    server.service.ready.push(socket);
    server.sockets.deliver(&mut server.service, Time::ZERO);
    let all = hear(&a);
    assert_eq!(all.len(), 2);
    let base = pfkey::Base::parse(all[0].first_chunk().unwrap());
    assert_eq!(
        (base.number, base.errno, base.words, base.seq, base.pid),
        (5, pfkey::Errno::EMSGSIZE, 2, 77, 99)
    );
    assert_eq!(all[1], b"next");
}

#[test]
fn a_member_of_the_group_is_served_and_others_are_not() {
    let mut server = Server::new(Trust { group: Some(4711) });
    let Some(member) = client_as(&server, 65534, &[100, 4711]) else { return };
    let Some(stranger) = client_as(&server, 65534, &[100]) else { return };
    let Some(primary) = client_as(&server, 4711, &[]) else { return };
    let root = server.client();
    server.turn();
    for client in [&member, &primary, &root] {
        say(client, b"hello");
        server.turn();
        assert_eq!(hear(client), [b"hello"]);
    }
    assert_eq!(hear(&stranger), [refusal(std::process::id(), Errno::PERM)]);
}

#[test]
fn there_is_an_end_to_sockets_and_room_comes_back() {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    if files.is_some_and(|most| most < 3 * CLIENTS as u64) {
        eprintln!("skipped: both ends of {CLIENTS} sockets do not fit this process");
        return;
    }
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: files, maximum: files },
    )
    .unwrap();
    let mut server = Server::mine();
    let mut clients: Vec<OwnedFd> = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(server.client());
        server.turn();
    }
    assert_eq!(server.sockets.len(), CLIENTS);
    let late = server.client();
    server.turn();
    assert_eq!(hear(&late), [refusal(std::process::id(), Errno::NFILE)]);
    clients.pop();
    server.turn();
    let next = server.client();
    say(&next, b"hello");
    server.turn();
    assert_eq!(hear(&next), [b"hello"]);
}

#[test]
fn the_refusal_is_a_base_header() {
    let header = refusal(0x0102_0304, Errno::PERM);
    assert_eq!(header[..4], [2, 0, 1, 0], "version, type, errno, SA type");
    assert_eq!(header[4..8], [2_u16.to_ne_bytes(), [0, 0]].concat(), "two words of eight octets");
    assert_eq!(header[12..], 0x0102_0304_u32.to_ne_bytes());
}

#[test]
fn a_reply_leaves_before_the_next_request_is_read() {
    let mut server = Server::mine();
    let a = server.client();
    server.turn();
    say(&a, b"first");
    say(&a, b"second");
    let mut had = Vec::new();
    let number = KeySockets::FIRST + 1;
    let Server { sockets, service, .. } = &mut server;
    sockets.event(service, number, EventFlags::IN, Time::ZERO, |_, record| {
        had.push((record.to_vec(), hear(&a)));
    });
    assert_eq!(had[0], (b"first".to_vec(), vec![]));
    assert_eq!(had[1], (b"second".to_vec(), vec![b"first".to_vec()]));
}
