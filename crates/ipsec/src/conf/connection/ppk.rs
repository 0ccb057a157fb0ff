//! `ppk=` and `ppk-ids=`: whether a post-quantum preshared key is mixed in (RFC 8784), and which.

use super::Plan;
use ike::ppk::{PpkNeed, PpkPolicy};

impl Plan<'_> {
    pub(super) fn ppk(&mut self) -> PpkPolicy {
        let need = match self.conn.setting("ppk") {
            None => PpkNeed::Never,
            Some(setting) => match setting.value.to_ascii_lowercase().as_str() {
                "no" | "never" => PpkNeed::Never,
                "propose" | "yes" | "permit" => PpkNeed::Propose,
                "insist" | "always" | "require" => PpkNeed::Insist,
                _ => {
                    self.refuse(setting, "value must be no, propose or insist");
                    PpkNeed::Never
                }
            },
        };
        let Some(setting) = self.conn.setting("ppk-ids") else { return PpkPolicy { need, ids: Vec::new() } };
        let words = setting.value.split([',', ' ', '\t']).filter(|word| !word.is_empty());
        let ids: Vec<Vec<u8>> = words.map(|word| word.as_bytes().to_vec()).collect();
        if ids.is_empty() {
            self.refuse(setting, "name one or more keys of ipsec.secrets, with commas between");
        }
        if need == PpkNeed::Never {
            self.refuse(setting, "keys are named that are not used: ppk=propose or ppk=insist");
        }
        PpkPolicy { need, ids }
    }
}
