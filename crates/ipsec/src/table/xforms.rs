//! Algorithms as `ipsec/xforms` listed them: integrity is type 14, encryption type 15, numbers are those of PF_KEY.

use super::Form;
use ipsec_core::algorithm::{AUTH, ENCRYPTION, Row};
use serde_json::json;

/// `SADB_EXT_SUPPORTED_AUTH` and `SADB_EXT_SUPPORTED_ENCRYPT`.
const TYPES: (u16, u16) = (14, 15);

pub(super) fn lines(form: Form) -> impl Iterator<Item = String> {
    let encryption = ENCRYPTION.iter().map(move |row| line(row, TYPES.1, form));
    encryption.chain(AUTH.iter().map(move |row| line(row, TYPES.0, form)))
}

/// There is no framework whose modules could be counted or have a version: what is here is built in.
fn line<A: Copy>(row: &Row<A>, kind: u16, form: Form) -> String {
    let Row { number, min_bits, max_bits, block, iv, full_icv, .. } = row;
    let name = row.name();
    let key = max_bits / 8;
    match form {
        Form::Json => json!({
            "type": kind, "id": number, "name": name, "blocksize": block, "ivlen": iv,
            "keyminbits": min_bits, "keymaxbits": max_bits, "rfc": row.rfc,
        })
        .to_string(),
        Form::Man | Form::Klips => {
            let common = format!(
                "VERSION=1 TYPE={kind} ID={number} NAME={name} REFCNT=1 STATE=00000000 BLOCKSIZE={block} IVLEN={iv} \
                 KEYMINBITS={min_bits} KEYMAXBITS={max_bits}"
            );
            if kind == TYPES.1 {
                format!("{common} IVLEN={iv} KEYLEN={key} CTXSIZE=0\n")
            } else {
                format!("{common} KEYLEN={key} CTXSIZE=0 AUTHLEN={full_icv}\n")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_has_one_line_of_words_with_values() {
        let all: Vec<String> = lines(Form::Klips).collect();
        assert_eq!(all.len(), AUTH.len() + ENCRYPTION.len());
        let cbc = all.iter().find(|line| line.contains(" NAME=aes-cbc ")).unwrap();
        assert_eq!(
            cbc,
            "VERSION=1 TYPE=15 ID=12 NAME=aes-cbc REFCNT=1 STATE=00000000 BLOCKSIZE=16 IVLEN=16 KEYMINBITS=128 \
             KEYMAXBITS=256 IVLEN=16 KEYLEN=32 CTXSIZE=0\n"
        );
        assert!(all.iter().all(|line| line.split_whitespace().all(|word| word.contains('='))));
    }
}
