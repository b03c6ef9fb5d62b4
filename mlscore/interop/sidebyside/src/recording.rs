//! The recording: JSON Lines, a GroupInfo and then commits.

use std::fs::File;
use std::io::{BufRead, BufReader};

use base64::{engine::general_purpose::STANDARD, Engine};
use serde::{Deserialize, Deserializer};

use crate::Result;

pub struct Recording {
    pub group_info: Vec<u8>,
    pub commits: Vec<Line>,
}

#[derive(Deserialize)]
pub struct Line {
    #[serde(rename = "mls_message", deserialize_with = "bytes")]
    pub message: Vec<u8>,
    #[serde(default)]
    pub signatures: Vec<Signature>,
}

/// An Ed25519 signature that the message needs verified.
#[derive(Deserialize)]
pub struct Signature {
    #[serde(deserialize_with = "bytes")]
    pub key: Vec<u8>,
    #[serde(deserialize_with = "bytes")]
    pub message: Vec<u8>,
    #[serde(deserialize_with = "bytes")]
    pub signature: Vec<u8>,
}

fn bytes<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Vec<u8>, D::Error> {
    let text = String::deserialize(d)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

pub fn read(path: &str) -> Result<Recording> {
    let mut lines = BufReader::new(File::open(path)?).lines();
    let mut next = move || -> Result<Option<Line>> {
        Ok(match lines.next() {
            Some(line) => Some(serde_json::from_str(&line?)?),
            None => None,
        })
    };
    let group_info = next()?.ok_or("an empty recording")?.message;
    let mut commits = Vec::new();
    while let Some(line) = next()? {
        commits.push(line);
    }
    Ok(Recording {
        group_info,
        commits,
    })
}
