//! What drivers and passengers register with.

use masar_common::Text;
use serde::{Deserialize, Serialize};

/// A phone number as E.164 has it: `+` and 8 to 15 digits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct PhoneNumber(String);

impl PhoneNumber {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PhoneNumber {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.strip_prefix('+').unwrap_or_default();
        if (8..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self(text));
        }
        Err(format!("{text:?} is no phone number: + and 8 to 15 digits"))
    }
}

/// The body of `POST /drivers` and `POST /passengers`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Registration {
    pub(crate) phone_number: PhoneNumber,
    pub(crate) full_name: Option<Text<256>>,
}

impl Registration {
    pub(crate) fn full_name(&self) -> Option<&str> {
        self.full_name.as_ref().map(Text::as_str)
    }
}
