//! The LeafOperationIntent of draft-kohbrok-mls-leaf-operation-intents.

use mls_rs::crypto::SignaturePublicKey;
use mls_rs::group::LeafNode;
use mls_rs::CipherSuiteProvider;
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

pub const SENDER_REMOVAL_ONLY: u8 = 1;
pub const REMOVE_ASSOCIATED_MEMBERS: u8 = 2;

#[derive(MlsSize, MlsEncode, MlsDecode)]
pub struct Tbs {
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    pub group_id: Vec<u8>,
    pub sender_index: u32,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    pub sender_leaf_ref: Vec<u8>,
    pub removal_mode: u8,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
pub struct Intent {
    pub tbs: Tbs,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    pub signature: Vec<u8>,
}

/// RefHashInput and SignContent of RFC 9420: a label and what it labels.
#[derive(MlsSize, MlsEncode)]
struct Labelled<'a> {
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    label: &'a [u8],
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    content: Vec<u8>,
}

impl Intent {
    /// Reads an intent that fills the body of a proposal.
    pub fn read(mut body: &[u8]) -> Result<Self, String> {
        let intent = Intent::mls_decode(&mut body).map_err(|e| e.to_string())?;
        if !body.is_empty() {
            return Err("bytes after the intent".into());
        }
        Ok(intent)
    }

    /// The checks of Section 2.3 of the draft.
    pub fn verify<P: CipherSuiteProvider>(
        &self,
        crypto: &P,
        group_id: &[u8],
        leaf: Option<&LeafNode>,
    ) -> Result<(), String> {
        let tbs = &self.tbs;
        if ![SENDER_REMOVAL_ONLY, REMOVE_ASSOCIATED_MEMBERS].contains(&tbs.removal_mode) {
            return Err(format!("removal mode {}", tbs.removal_mode));
        }
        if tbs.group_id != group_id {
            return Err("the intent is of another group".into());
        }
        let leaf = leaf.ok_or("the leaf of the intent is blank")?;
        let reference = crypto
            .hash(&labelled(b"MLS 1.0 LeafNode Reference", leaf)?)
            .map_err(|e| format!("{e:?}"))?;
        if reference != tbs.sender_leaf_ref {
            return Err("the leaf of the intent has changed".into());
        }
        let signed = labelled(b"MLS 1.0 LeafOperationIntentTBS", tbs)?;
        let key: &SignaturePublicKey = &leaf.signing_identity.signature_key;
        crypto
            .verify(key, &self.signature, &signed)
            .map_err(|e| format!("the signature of the intent: {e:?}"))
    }
}

fn labelled(label: &[u8], content: &impl MlsEncode) -> Result<Vec<u8>, String> {
    let content = content.mls_encode_to_vec().map_err(|e| e.to_string())?;
    let whole = Labelled { label, content };
    whole.mls_encode_to_vec().map_err(|e| e.to_string())
}
