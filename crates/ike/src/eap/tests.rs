//! Both sides, with nothing between them but a test.

use super::mschap::Mschap;
use super::packet::{FAILURE, IDENTITY, MSCHAPV2, NAK, Packet, REQUEST, RESPONSE, SUCCESS};
use super::*;
use crate::connection::{Connection, Secrets};
use crate::credential::{EapProof, LocalEap, RemoteEap};
use crate::exchange::init::nobody;
use crate::message::IdBody;
use crate::sa::Answers;

fn client_of(secret: EapSecret) -> Client {
    let local = LocalEap { name: secret.user.clone(), proof: EapProof::Password };
    let secrets = Secrets { eap: vec![secret], ..Secrets::default() };
    Client::new(&local, &nobody(), &secrets, Peer { id: &Id::user("gateway"), alone: false, at: None })
        .unwrap()
}

/// What the client makes of a packet. Passwords take no jobs.
fn hears(client: &mut Client, packet: &[u8]) -> Step<Secret> {
    client.take(packet, [2; 16], &mut Answers::default()).unwrap()
}

fn begun() -> (Server, Vec<u8>) {
    Server::begin(5, &RemoteEap::Password)
}

/// What the server makes of one.
fn asks(server: &mut Server, packet: &[u8], users: &[EapSecret]) -> Step<(Vec<u8>, Won)> {
    let secrets = Secrets { eap: users.to_vec(), ..Secrets::default() };
    let (connection, said): (Connection, IdBody) = (nobody(), Id::user("anybody").body());
    let around = Around { connection: &connection, secrets: &secrets, said: &said, at: None, fresh: [1; 16] };
    server.take(packet, around, &mut Answers::default()).unwrap()
}

fn secret(user: &str, password: &str) -> EapSecret {
    EapSecret { user: user.to_owned(), password: PasswordHash::of(password) }
}

/// Lets both speak to the end, and says what each came to.
fn talk(
    client: &mut Client,
    users: &[EapSecret],
    mut between: impl FnMut(&mut Vec<u8>),
) -> (Step<Secret>, Option<Result<Won, Why>>) {
    let (mut server, mut packet) = begun();
    let mut last = None;
    loop {
        between(&mut packet);
        match hears(client, &packet) {
            Step::Send(answer) => match asks(&mut server, &answer, users) {
                Step::Send(next) => packet = next,
                Step::Success((next, won)) => {
                    last = Some(Ok(won));
                    packet = next;
                }
                Step::Failure(Some(next), why) => {
                    last = Some(Err(why));
                    packet = next;
                }
                other => panic!("{other:?}"),
            },
            end => return (end, last),
        }
    }
}

#[test]
fn both_sides_get_one_msk_when_both_know_the_password() {
    let users = [secret("bob", "other"), secret("alice", "right")];
    for name in ["alice", r"OFFICE\alice"] {
        let (ours, theirs) = talk(&mut client_of(secret(name, "right")), &users, |_| {});
        let (Step::Success(one), Some(Ok(won))) = (ours, theirs) else { panic!("{name}") };
        assert!(one == won.msk && one.len() == 64 && won.id == Id::user("alice"));
    }
}

#[test]
fn a_wrong_password_an_unknown_user_and_an_empty_one_look_the_same() {
    let users = [secret("alice", "right")];
    for wrong in [secret("alice", "wrong"), secret("mallory", "right"), secret("mallory", ""), secret("", "")]
    {
        let (ours, theirs) = talk(&mut client_of(wrong), &users, |_| {});
        assert!(matches!(ours, Step::Failure(None, Why::PasswordRefused(_))), "{ours:?}");
        assert!(matches!(theirs, Some(Err(Why::BadPassword(_)))), "{theirs:?}");
    }
}

#[test]
fn a_server_that_does_not_know_the_password_is_not_believed() {
    // It calls it a success at once, or after our answer, or with a proof of its own making.
    let success = Packet { code: SUCCESS, id: 5, kind: 0, data: Vec::new() }.emit();
    let mut client = client_of(secret("alice", "right"));
    assert!(matches!(hears(&mut client, &success), Step::Failure(..)));
    let request = |inner: Mschap| Packet { code: REQUEST, id: 6, kind: MSCHAPV2, data: inner.emit() }.emit();
    let challenge = Mschap::Challenge { id: 6, challenge: [1; 16], name: "sly".to_owned() };
    let challenged = || {
        let mut client = client_of(secret("alice", "right"));
        assert!(matches!(hears(&mut client, &request(challenge.clone())), Step::Send(_)));
        client
    };
    assert!(matches!(hears(&mut challenged(), &success), Step::Failure(..)));
    for text in [String::new(), "S=".to_owned(), format!("S={}", "0".repeat(40)), "M=welcome".to_owned()] {
        let said = Mschap::Success { id: 6, text };
        assert!(matches!(hears(&mut challenged(), &request(said)), Step::Failure(..)));
    }
    // Nor is it answered twice: two answers to challenges of its choice would be worth more than one.
    assert!(matches!(hears(&mut challenged(), &request(challenge.clone())), Step::Failure(..)));
    // A packet between that is changed in any bit comes to nothing or changes nothing.
    let users = [secret("alice", "right")];
    for bit in 0..400 {
        let mut n = 0;
        let (ours, _) = talk(&mut client_of(secret("alice", "right")), &users, |packet| {
            n += 1;
            if let (3, Some(octet)) = (n, packet.get_mut(bit / 8)) {
                *octet ^= 1 << (bit % 8);
            }
        });
        assert!(matches!(ours, Step::Success(..) | Step::Failure(..)));
    }
}

#[test]
fn a_user_cannot_skip_the_challenge() {
    let users = [secret("alice", "right")];
    let respond =
        |id: u8, inner: &Mschap| Packet { code: RESPONSE, id, kind: MSCHAPV2, data: inner.emit() }.emit();
    let seen = Mschap::SuccessSeen;
    let (mut server, _) = begun();
    assert!(matches!(asks(&mut server, &respond(5, &seen), &users), Step::Failure(..)));
    let (mut server, _) = begun();
    let identity = Packet { code: RESPONSE, id: 5, kind: IDENTITY, data: b"alice".to_vec() }.emit();
    assert!(matches!(asks(&mut server, &identity, &users), Step::Send(_)));
    assert!(matches!(asks(&mut server, &respond(6, &seen), &users), Step::Failure(..)));
    // Told that it was wrong, it says that it was right.
    let (mut server, _) = begun();
    asks(&mut server, &identity, &users);
    let wrong = Mschap::Response { id: 6, challenge: [2; 16], response: [0; 24], name: "alice".to_owned() };
    assert!(matches!(asks(&mut server, &respond(6, &wrong), &users), Step::Send(_)));
    assert!(matches!(asks(&mut server, &respond(7, &seen), &users), Step::Failure(..)));
    // An answer to another question is none.
    let (mut server, _) = begun();
    let stale = Packet { code: RESPONSE, id: 4, kind: IDENTITY, data: b"alice".to_vec() }.emit();
    assert!(matches!(asks(&mut server, &stale, &users), Step::Failure(..)));
}

#[test]
fn who_wants_another_method_is_told_which_there_is() {
    // Asked for a method it has not, a client names its own, and says in the end what both wanted.
    let mut client = client_of(secret("alice", "right"));
    let request = Packet { code: REQUEST, id: 6, kind: 13, data: vec![0x20] }.emit();
    let Step::Send(answer) = hears(&mut client, &request) else { panic!() };
    assert_eq!(Packet::parse(&answer), Some(Packet { code: RESPONSE, id: 6, kind: NAK, data: vec![26] }));
    let failure = Packet { code: FAILURE, id: 6, kind: 0, data: Vec::new() }.emit();
    let Step::Failure(None, why) = hears(&mut client, &failure) else { panic!() };
    assert!(
        why.to_string().contains("asks for EAP-TLS, and the connection here is for EAP-MSCHAPv2"),
        "{why}"
    );
    // A server says so as well.
    let (mut server, _) = begun();
    let identity = Packet { code: RESPONSE, id: 5, kind: IDENTITY, data: b"alice".to_vec() }.emit();
    assert!(matches!(asks(&mut server, &identity, &[]), Step::Send(_)));
    let nak = Packet { code: RESPONSE, id: 6, kind: NAK, data: vec![13, 21, 77] }.emit();
    let Step::Failure(Some(_), why) = asks(&mut server, &nak, &[]) else { panic!() };
    assert!(why.to_string().contains("asks for EAP-TLS, EAP-TTLS, EAP method 77"), "{why}");
}
