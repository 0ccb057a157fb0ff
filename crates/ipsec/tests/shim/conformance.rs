//! The table of pf_key(7P) (`crates/klips/tests/pfkey_cases`) once more, by `socket(PF_KEY, …)`, `read` and `write`.
//!
//! Its sockets have to be in a process that runs under the shim, so this test starts its own program a second time,
//! there. The daemon's socket itself is tried by `crates/ipsec/tests/pfkey`.

use crate::pfkey_cases::Transport;
use crate::pfkey_support::*;
use crate::setting::{host, under_run};
use crate::seven::{FENCE, Seven, Talk};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};

const PF_KEY: i32 = 15;
const PF_KEY_V2: i32 = 2;
/// SO_USELOOPBACK of net/pfkeyv2.h.
const SO_USELOOPBACK: i32 = 0x40;

/// Makes the test below do its work instead of skipping it.
const INSIDE: &str = "TULIPS_INSIDE_SHIM";

struct Socket {
    file: File,
    fences: std::cell::Cell<u32>,
}

#[expect(unsafe_code, reason = "the calls of C are what is tried here; rustix would go past the shim")]
impl Socket {
    fn open() -> Self {
        // SAFETY: numbers only; the descriptor is nobody else's.
        let file = unsafe {
            let fd = libc::socket(PF_KEY, libc::SOCK_RAW | libc::SOCK_CLOEXEC, PF_KEY_V2);
            assert!(fd >= 0, "socket: {}", std::io::Error::last_os_error());
            File::from_raw_fd(fd)
        };
        Self { file, fences: std::cell::Cell::new(0) }
    }

    fn loopback(&self, on: bool) {
        let (value, len) = (i32::from(on), size_of::<i32>() as u32);
        let at = (&raw const value).cast();
        // SAFETY: the value has as many octets as the call says.
        let done =
            unsafe { libc::setsockopt(self.file.as_raw_fd(), libc::SOL_SOCKET, SO_USELOOPBACK, at, len) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Talk for Socket {
    fn send(&self, octets: &[u8]) {
        assert_eq!((&self.file).write(octets).expect("write"), octets.len());
    }

    fn receive(&self) -> Heard {
        let mut buffer = vec![0; 1 << 16];
        let length = (&self.file).read(&mut buffer).expect("read");
        buffer.truncate(length);
        Heard::new(buffer)
    }

    /// It asks by a GET that names nothing, which is answered to the sender alone.
    fn until_fence(&self) -> Vec<Heard> {
        self.fences.set(self.fences.get() + 1);
        let own = FENCE | (self.file.as_raw_fd() as u32) << 12 | self.fences.get();
        self.send(&msg(GET, ESP).seq(own).done());
        let mut all = Vec::new();
        loop {
            let heard = self.receive();
            match heard.seq {
                seq if seq == own => return all,
                // A promiscuous one hears those of the others, too.
                seq if seq & FENCE == FENCE => {}
                _ => all.push(heard),
            }
        }
    }

    fn deafen(&self, deaf: bool) {
        self.loopback(!deaf);
    }
}

/// One socket of every kind, in a process under the shim.
#[derive(Default)]
struct Program(Seven<Socket>);

impl Transport for Program {
    fn begin(&mut self, aged: bool) {
        self.0.begin(aged, Socket::open);
    }

    fn send(&mut self, from: char, octets: &[u8]) {
        self.0.send(from, octets);
    }

    fn hear(&mut self) -> Vec<(char, Vec<Heard>)> {
        self.0.hear()
    }
}

#[test]
fn the_page_holds_through_the_shim() {
    if std::env::var_os(INSIDE).is_some() {
        crate::pfkey_cases::run(&mut Program::default());
        println!("the table was run");
        return;
    }
    let Some(host) = host() else { return };
    let added = host.namespace.run(|| {
        let mut netlink = ipsec::host::netlink::Netlink::open()?;
        let link = netlink.link("eth7")?.expect("made with the host").index;
        for net in [format!("{LOCAL}/24"), format!("{LOCAL6}/64")] {
            netlink.add_address_and_route(link, net.parse().expect("net"))?;
        }
        std::io::Result::Ok(())
    });
    added.and_then(|added| added).expect("addresses");
    let name = "conformance::the_page_holds_through_the_shim";
    let program = std::env::current_exe().expect("this program");
    let mut command = under_run(&host, &program, &["--exact", name, "--nocapture"]);
    command.env(INSIDE, "1");
    let output = host.namespace.run(|| command.output()).expect("namespace").expect("ipsec run");
    let said = crate::host::Said::from(output);
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    assert!(said.out.contains("the table was run"), "{}", said.out);
    assert_eq!(host.ipsec(&["setup", "stop"]).code, 0);
}
