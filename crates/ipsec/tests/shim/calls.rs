//! Every call of a C library that a PF_KEY socket may meet, from `calls.c`.

use crate::setting::{compile, has, host, run};
use crate::skipped::skipped;

/// Compilers, and what they are told. The second makes `read`, `recv` and `recvfrom` into `__read_chk` and so on.
const BUILDS: [(&str, &[&str]); 4] = [
    ("cc", &["-O1"]),
    ("cc", &["-O2", "-D_FORTIFY_SOURCE=2"]),
    ("clang", &["-O1"]),
    // 32-bit offsets have their own names for fcntl; 64-bit ones are the default here.
    ("cc", &["-O1", "-D_FILE_OFFSET_BITS=64"]),
];

#[test]
fn every_call_does_what_it_does_on_a_kernels_socket() {
    for (compiler, words) in BUILDS {
        if !has(compiler) {
            skipped(&format!("calls of a PF_KEY socket built by {compiler}: no such compiler"));
            continue;
        }
        let Some(host) = host() else { return };
        let program = compile(&host, compiler, words, "calls.c");
        let names = run(&host, &program, &[]).out;
        assert!(names.lines().count() > 20, "{names}");
        let tried = |name: &&str| {
            let said = run(&host, &program, &[name]);
            (said.code != 0 || !said.out.is_empty()).then(|| format!("{name}: {said:?}"))
        };
        let wrong: Vec<String> = names.lines().collect::<Vec<_>>().iter().filter_map(tried).collect();
        assert!(wrong.is_empty(), "{compiler} {words:?}\n{}", wrong.join("\n"));
    }
}
