//! EAP-TLS as it comes in: messages in pieces, whatever their flags and lengths say.

use ike::eap::fragments::{LONGEST, Line, PIECE, Taken};

/// Takes the octets as packets, each behind its length in two octets. One whose length has the highest bit is said by us first,
/// and its octets are how much.
pub fn run(data: &[u8]) {
    let mut line = Line::default();
    let mut rest = data;
    let (mut pieces, mut taken) = (0, 0);
    while let Some((length, more)) = rest.split_first_chunk::<2>() {
        let length = u16::from_be_bytes(*length);
        let (packet, more) = more.split_at(usize::from(length & 0x7fff).min(more.len()));
        rest = more;
        if length & 0x8000 != 0 {
            let message = packet.repeat(8);
            carries(&message);
            assert!(line.send(message).len() <= PIECE + 5);
            continue;
        }
        match line.take(packet) {
            // Other bits of the flags mean nothing.
            Ok(Taken::Start) => assert!(packet.len() == 1 && packet[0] & Line::start()[0] != 0),
            Ok(Taken::Message(message)) => {
                assert!(message.len() <= (taken + packet.len()).min(LONGEST), "more than came");
                (pieces, taken) = (0, 0);
            }
            Ok(Taken::Reply(reply)) => {
                assert!(reply.len() <= PIECE + 5);
                (pieces, taken) = (pieces + 1, taken + packet.len());
                assert!(pieces <= data.len(), "pieces that bring nothing");
            }
            // It is over then.
            Err(_) => return,
        }
    }
}

/// What is sent comes over, as it was.
fn carries(message: &[u8]) {
    let (mut here, mut there) = (Line::default(), Line::default());
    let mut packet = here.send(message.to_vec());
    loop {
        match there.take(&packet).expect("ours") {
            Taken::Message(whole) => return assert!(message == whole),
            Taken::Reply(heard) => match here.take(&heard).expect("ours") {
                Taken::Reply(next) => packet = next,
                other @ (Taken::Start | Taken::Message(_)) => panic!("{other:?}"),
            },
            Taken::Start => panic!("nobody began"),
        }
    }
}

/// One of each kind.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let packets = |all: &[&[u8]]| {
        let length = |packet: &[u8]| u16::try_from(packet.len()).expect("short").to_be_bytes();
        all.iter().flat_map(|packet| [&length(packet)[..], packet].concat()).collect::<Vec<u8>>()
    };
    let said = [&[0x80 | 1, 0x90][..], &[7; 0x190], &[0, 1, 0], &[0, 1, 0], &[0, 1, 0]].concat();
    [
        ("start", packets(&[&[0x20]])),
        ("whole", packets(&[&[0x20], &[0, 22, 3, 3, 0, 1, 1]])),
        ("counted", packets(&[&[0x80, 0, 0, 0, 2, 7, 8]])),
        ("pieces", packets(&[&[0xc0, 0, 0, 0, 5, 1, 2], &[0x40, 3, 4], &[0, 5], &[0, 6]])),
        ("said", said),
    ]
    .map(|(name, data)| (name.to_owned(), data))
    .to_vec()
}
