//! mls-rs: `ExternalGroup` with AWS-LC.

use mls_rs::crypto::SignaturePublicKey;
use mls_rs::external_client::builder::MlsConfig;
use mls_rs::external_client::{ExternalClient, ExternalGroup, ExternalReceivedMessage};
use mls_rs::identity::basic::BasicIdentityProvider;
use mls_rs::{CipherSuite, CipherSuiteProvider, CryptoProvider, MlsMessage};
use mls_rs_crypto_awslc::AwsLcCryptoProvider;

use crate::recording::Signature;
use crate::{hex, Engine, Result, State};

struct MlsRs<C: MlsConfig, P> {
    client: ExternalClient<C>,
    group: Option<ExternalGroup<C>>,
    provider: P,
}

pub fn new() -> Result<impl Engine> {
    let crypto = AwsLcCryptoProvider::new();
    let provider = crypto
        .cipher_suite_provider(CipherSuite::CURVE25519_AES128)
        .ok_or("no provider of cipher suite 1")?;
    let client = ExternalClient::builder()
        .crypto_provider(crypto)
        .identity_provider(BasicIdentityProvider::new())
        .build();
    Ok(MlsRs {
        client,
        group: None,
        provider,
    })
}

impl<C: MlsConfig, P: CipherSuiteProvider> Engine for MlsRs<C, P> {
    fn clear(&mut self) {
        self.group = None;
    }

    fn load(&mut self, group_info: &[u8]) -> Result<()> {
        let message = MlsMessage::from_bytes(group_info)?;
        self.group = Some(self.client.observe_group(message, None, None)?);
        Ok(())
    }

    fn follow(&mut self, commit: &[u8]) -> Result<()> {
        let group = self.group.as_mut().ok_or("no group")?;
        match group.process_incoming_message(MlsMessage::from_bytes(commit)?)? {
            ExternalReceivedMessage::Commit(_) => Ok(()),
            other => Err(format!("{other:?} instead of a commit").into()),
        }
    }

    fn verify(&self, s: &Signature) -> Result<()> {
        let key = SignaturePublicKey::from(s.key.clone());
        self.provider
            .verify(&key, &s.signature, &s.message)
            .map_err(|e| format!("{e:?}").into())
    }

    fn state(&self) -> Result<State> {
        let context = self.group.as_ref().ok_or("no group")?.group_context();
        Ok(State {
            epoch: context.epoch,
            tree_hash: hex(&context.tree_hash),
            confirmed_transcript_hash: hex(&context.confirmed_transcript_hash),
        })
    }
}
