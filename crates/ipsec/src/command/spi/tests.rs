use super::*;
use clap::Parser;
use ipsec_core::algorithm::{Auth, Encryption};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn plan(line: &str) -> Result<Plan, String> {
    let words = std::iter::once("spi").chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    cli.args.plan().map_err(|usage| usage.to_string())
}

fn added(line: &str) -> NewSa {
    match plan(line) {
        Ok(Plan::Add(sa)) => *sa,
        other => panic!("{line}: {other:?}"),
    }
}

/// A key of so many octets.
fn key(octets: usize) -> String {
    format!("0x{}", "5a".repeat(octets))
}

const ESP: &str = "--said esp0x1001@192.0.2.2";

#[test]
fn a_tunnel_with_everything() {
    let sa = added(&format!(
        "--esp aes-gcm16 {ESP} --src 192.0.2.1 --enckey {} --inner-src 10.1.0.0/16 --inner-dst %default --esn \
         --replay_window 2048 --life soft-bytes=1,hard-bytes=2 --natt nonesp --sport 4501 --dir out",
        key(20)
    ));
    assert_eq!((sa.id.to_string(), sa.src.to_string()), ("esp0x1001@192.0.2.2".into(), "192.0.2.1".into()));
    assert_eq!(sa.suite, Suite { encryption: Some(Encryption::AesGcm16), auth: None });
    assert_eq!((sa.encryption_key.len(), sa.auth_key.len()), (20, 0));
    assert_eq!(sa.inner, Some(("10.1.0.0/16".parse().unwrap(), "0.0.0.0/0".parse().unwrap())));
    assert_eq!((sa.tunnel, sa.esn, sa.window), (true, true, 2048));
    assert_eq!((sa.life.soft.bytes, sa.life.hard.bytes), (1, 2));
    assert_eq!((sa.encapsulation, sa.direction), (Some((4501, 4500)), Some(Direction::Out)));
    // What may end in a log has no key in it.
    assert!(!format!("{sa:?}").contains("5a"));
    let words = format!("spi {ESP} --esp aes-gcm16 --enckey {}", key(20));
    let cli = Cli::try_parse_from(words.split_whitespace()).unwrap();
    assert!(!format!("{:?}", cli.args).contains("5a"), "{:?}", cli.args);
}

#[test]
fn what_is_not_said_has_sane_values() {
    let sa = added(&format!("--esp aes-sha1 {ESP} --enckey {} --authkey {}", key(16), key(20)));
    assert_eq!((sa.src.to_string(), sa.tunnel, sa.esn, sa.window), ("0.0.0.0".into(), false, false, 0));
    assert_eq!((sa.inner, sa.encapsulation, sa.direction, sa.life), (None, None, None, Life::default()));
}

#[test]
fn algorithms_have_many_names() {
    let esp =
        |name: &str| algorithm::esp(name).map(|(suite, bits)| (suite.encryption.unwrap(), suite.auth, bits));
    for name in
        ["aes-sha1", "aes-sha1-96", "aes-cbc+hmac-sha1", "aes-cbc-hmac-sha1", "AES/SHA1", "aes_cbc-sha1"]
    {
        assert_eq!(esp(name), Some((Encryption::AesCbc, Some(Auth::HmacSha1), None)), "{name}");
    }
    assert_eq!(esp("aes128-sha1-96"), Some((Encryption::AesCbc, Some(Auth::HmacSha1), Some(128))));
    assert_eq!(esp("aes-cbc-256-sha256"), Some((Encryption::AesCbc, Some(Auth::HmacSha256), Some(256))));
    assert_eq!(esp("3des-md5-96"), Some((Encryption::TripleDesCbc, Some(Auth::HmacMd5), None)));
    assert_eq!(esp("null-sha2-512"), Some((Encryption::Null, Some(Auth::HmacSha512), None)));
    assert_eq!(esp("aes-gcm16"), Some((Encryption::AesGcm16, None, None)));
    assert_eq!(esp("aes-gcm16-256"), Some((Encryption::AesGcm16, None, Some(256))));
    assert_eq!(esp("chacha20-poly1305"), Some((Encryption::ChaCha20Poly1305, None, None)));
    assert_eq!(esp("null-aes-gmac"), Some((Encryption::NullAesGmac, None, None)));
    for name in [
        "",
        "-",
        "aes",
        "3des",
        "sha1",
        "aes-gcm16-sha1",
        "aes512-sha1",
        "null",
        "null-gmac",
        "aes-sha1-sha1",
    ] {
        assert_eq!(esp(name), None, "{name}");
    }
}

#[test]
fn every_algorithm_of_the_table_can_be_asked_for() {
    use ipsec_core::algorithm::{AUTH, ENCRYPTION};
    for cipher in &ENCRYPTION {
        for auth in &AUTH {
            if cipher.icv == 0 && auth.algorithm != Auth::AesGmac {
                let name = format!("{}-{}", cipher.name(), auth.name());
                let suite = Suite { encryption: Some(cipher.algorithm), auth: Some(auth.algorithm) };
                assert_eq!(algorithm::esp(&name), Some((suite, None)), "{name}");
            }
        }
        if cipher.icv != 0 {
            let suite = Suite { encryption: Some(cipher.algorithm), auth: None };
            assert_eq!(algorithm::esp(cipher.name()), Some((suite, None)));
        }
    }
    for auth in &AUTH {
        assert_eq!(algorithm::ah(auth.name()), Some(auth.algorithm));
    }
}

#[test]
fn the_other_protocols() {
    let ah = added(&format!("--ah hmac-sha1-96 --said ah0x1001@192.0.2.2 --authkey {}", key(20)));
    assert_eq!(ah.suite, Suite { encryption: None, auth: Some(Auth::HmacSha1) });
    let tun = added("--ip4 --said tun0x1001@192.0.2.2 --src 192.0.2.1 --dst 192.0.2.2");
    assert!(tun.tunnel);
    let tun = added("--ip6 --said tun0x1001@2001:db8::2 --src 2001:db8::1");
    assert_eq!(tun.src.to_string(), "2001:db8::1");
    added("--comp deflate --said comp0x1001@192.0.2.2");
}

#[test]
fn deleting_clearing_listing() {
    assert!(
        matches!(plan(&format!("--del {ESP}")), Ok(Plan::Delete(id)) if id.to_string() == "esp0x1001@192.0.2.2")
    );
    assert!(matches!(plan("--clear"), Ok(Plan::Clear)));
    assert!(matches!(plan("--json"), Ok(Plan::List)));
}

#[test]
fn a_key_set_by_hand_has_a_window_only_if_asked_for() {
    let line = |more: &str| format!("--esp null-sha1 {ESP} --authkey {} {more}", key(20));
    assert_eq!(added(&line("")).window, 0);
    assert_eq!(added(&line("--esn")).window, 64);
    assert_eq!(added(&line("--replay-window 64")).window, 64);
}

#[test]
fn windows_are_wide_enough() {
    for (given, window) in [("0", 0), ("1", 32), ("32", 32), ("0x40", 64), ("4096", 4096)] {
        let line = format!("--esp null-sha1 {ESP} --authkey {} --replay-window {given}", key(20));
        assert_eq!(added(&line).window, window);
    }
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_done() {
    let (k16, k20, k24) = (key(16), key(20), key(24));
    for (line, why) in [
        (format!("--esp aes-gcm16 --enckey {k20}"), "which SA?"),
        ("--del".to_owned(), "which SA?"),
        ("--said esp0x1001@192.0.2.2".to_owned(), "what about it?"),
        ("--said %pass --del".to_owned(), "%pass is not an SA"),
        ("--said esp0x10@192.0.2.2 --del".to_owned(), "reserved SPI 0x10"),
        (format!("{ESP} --del --clear"), "cannot be used with"),
        (format!("{ESP} --esp aes-gcm16"), "aes-gcm16 needs --enckey"),
        (format!("{ESP} --esp aes-gcm16 --enckey {k16}"), "has 16 octets, aes-gcm16 takes 20, 28, 36"),
        (format!("{ESP} --esp aes-gcm16 --enckey {k20} --authkey {k20}"), "takes no --authkey"),
        (format!("{ESP} --esp null-sha1 --enckey {k16} --authkey {k20}"), "null takes no --enckey"),
        (format!("{ESP} --esp aes128-sha1 --enckey {k24} --authkey {k20}"), "not a key of 128 bits"),
        (format!("{ESP} --esp aes-sha1 --enckey {k16}"), "hmac-sha1 needs --authkey"),
        (format!("{ESP} --esp rot13 --enckey {k16}"), "--esp rot13"),
        (format!("{ESP} --ah sha1 --authkey {k20}"), "--ah does not make esp SAs"),
        (format!("{ESP} --esp aes-gcm16 --enckey {k20} --src 2001:db8::1"), "wrong family"),
        (format!("{ESP} --esp aes-gcm16 --enckey {k20} --dst 192.0.2.3"), "--dst must be"),
        (format!("{ESP} --esp aes-gcm16 --enckey {k20} --inner-src 10/8"), "--inner-dst"),
        (format!("{ESP} --esp aes-gcm16 --enckey {k20} --inner-src 10/8 --inner-dst ::/0"), "wrong family"),
        (
            format!("{ESP} --esp aes-gcm16 --enckey {k20} --inner-src 10/8:1 --inner-dst 10/8"),
            "without a port",
        ),
        (format!("{ESP} --esp aes-gcm16 --enckey {k20} --replay-window 4097"), "must be 0, or 32 to 4096"),
        (format!("{ESP} --esp aes-gcm16 --enckey {k20} --sport 4500"), "--natt"),
        (format!("{ESP} --esp aes-gcm16 --enckey {k20} --natt nonesp --dport 0"), "must be a port"),
        (format!("{ESP} --esp aes-gcm16 --enckey {k20} --natt nonike"), "nonike"),
        (format!("{ESP} --esp aes-gcm16 --enckey {k20} --life bytes=1"), "write soft-"),
        (format!("--said ah0x100@192.0.2.2 --ah sha1 --authkey {k20} --natt nonesp"), "--natt is for ESP"),
        ("--said tun0x100@192.0.2.2 --ip4".to_owned(), "needs --src"),
        ("--said tun0x100@192.0.2.2 --ip6 --src ::1".to_owned(), "no outer header of that family"),
        ("--said comp0x100@192.0.2.2 --comp lzs".to_owned(), "only deflate"),
    ] {
        let error = plan(&line).expect_err(&line);
        assert!(error.contains(why), "{line}: {error}");
        assert!(!error.contains("5a5a"), "the key is in the message: {error}");
    }
}
